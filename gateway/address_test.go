package gateway_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/enlist-mcp/enlist/gateway"
)

func TestOnlyPublicAddressesAreDialled(t *testing.T) {
	const (
		public  = ""
		private = "private"
	)
	for addr, want := range map[string]string{
		"1.1.1.1": public, "9.255.255.255": public, "11.0.0.0": public, "172.15.255.255": public, "172.32.0.0": public,
		"192.167.255.255": public, "192.169.0.0": public, "100.63.255.255": public, "100.128.0.0": public, "198.17.255.255": public,
		"198.20.0.0": public, "223.255.255.255": public, "2606:4700::1111": public, "2a00:1450:4001::1": public, "::ffff:8.8.8.8": public,
		"64:ff9b::8.8.8.8": public,

		"10.0.0.0": private, "10.255.255.255": private, "172.16.0.0": private, "172.31.255.255": private, "192.168.0.1": private,
		"fc00::1": private, "fdff:ffff::1": private, "::ffff:10.0.0.1": private, "64:ff9b::10.0.0.1": private, "64:ff9b::192.168.1.1": private,
		"127.0.0.1": "this machine", "127.255.255.254": "this machine", "::1": "this machine", "::ffff:127.0.0.1": "this machine",
		"64:ff9b::127.0.0.1": "this machine", "100.64.0.0": "shared", "100.127.255.255": "shared",
		"169.254.0.1": "link-local", "169.254.255.255": "link-local", "fe80::1": "link-local", "febf::1": "link-local",
		"fe80::1%eth0": "one link", "::1%lo": "one link", "2606:4700::1111%eth0": "one link",
		"169.254.169.254": "metadata", "::ffff:169.254.169.254": "metadata", "64:ff9b::169.254.169.254": "metadata",
		"fd00:ec2::254": "metadata", "fd00:ec2::23": "metadata", "fd20:ce::254": "metadata", "100.100.100.200": "metadata",
		"192.0.0.192": "metadata", "168.63.129.16": "metadata",
		"0.0.0.0": "no service", "0.1.2.3": "no service", "::": "no service", "192.0.0.1": "no service", "240.0.0.1": "no service",
		"255.255.255.255": "no service", "::10.0.0.1": "no service", "::8.8.8.8": "no service", "100::1": "no service",
		"64:ff9b:1::8.8.8.8": "no service", "4000::1": "no service",
		"224.0.0.1": "multicast", "239.255.255.255": "multicast", "ff02::1": "multicast", "ff0e::1": "multicast",
		"192.0.2.1": "documentation", "198.18.0.1": "documentation", "198.19.255.255": "documentation", "198.51.100.1": "documentation",
		"203.0.113.1": "documentation", "2001:db8::1": "documentation", "3fff::1": "documentation",
		"192.88.99.1": "tunnel", "2001::1": "tunnel", "2001:0:4136:e378:8000:63bf:3fff:fdd2": "tunnel", "2002:0a00:0001::1": "tunnel",
		"2002:808:808::1": "tunnel", "fec0::1": "site-local",
	} {
		got := gateway.Judge("service.example", netip.MustParseAddr(addr), false)
		if want == public {
			if got != nil {
				t.Errorf("%s: got %v, want that it passes", addr, got)
			}
			continue
		}
		if got == nil || !strings.Contains(got.Kind, want) || !strings.HasPrefix(got.Error(), "service.example leads to ") {
			t.Errorf("%s: got %v, want that it is refused as %q", addr, got, want)
		}
	}
}

func TestWhatAPersonHasSetMayBePrivate(t *testing.T) {
	for addr, want := range map[string]bool{
		"10.1.2.3": true, "172.20.0.1": true, "192.168.1.1": true, "100.64.1.1": true, "fd12:3456::1": true, "127.0.0.1": true,
		"::1": true, "8.8.8.8": true,
		"169.254.169.254": false, "169.254.1.1": false, "fe80::1": false, "fd00:ec2::254": false, "fd20:ce::254": false,
		"100.100.100.200": false, "192.0.0.192": false, "168.63.129.16": false, "0.0.0.0": false, "::": false, "224.0.0.1": false,
		"240.0.0.1": false, "198.18.0.1": false, "2002:0a00:0001::1": false, "fec0::1": false, "fd12::1%eth0": false,
	} {
		if got := gateway.Judge("service.example", netip.MustParseAddr(addr), true); (got == nil) != want {
			t.Errorf("%s: got %v, want that it passes: %v", addr, got, want)
		}
	}
}

func TestLoopbackIsReachedByItsNameOnly(t *testing.T) {
	for host, want := range map[string]bool{
		"localhost": true, "enlist.localhost": true, "127.0.0.1": true, "127.1.2.3": true, "::1": true, "::ffff:127.0.0.1": true,
		"localhost.example": false, "localhost.": false, "2130706433": false, "0x7f.1": false, "127.1": false, "0177.0.0.1": false, "::1%lo": false,
	} {
		if got := gateway.Judge(host, netip.MustParseAddr("127.0.0.1"), false); (got == nil) != want {
			t.Errorf("%s: got %v, want that it passes: %v", host, got, want)
		}
	}
}

// names is a resolver. Each name has the answers to one question after the
// other; the last one stays.
type names struct {
	mu      sync.Mutex
	answers map[string][][]string
	asked   int
}

func (n *names) resolver() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		ours, theirs := net.Pipe() // no packet connection: as over TCP, with lengths
		go n.serve(theirs)
		return ours, nil
	}}
}

func (n *names) serve(c net.Conn) {
	defer c.Close()
	for {
		var size [2]byte
		if _, err := io.ReadFull(c, size[:]); err != nil {
			return
		}
		question := make([]byte, binary.BigEndian.Uint16(size[:]))
		if _, err := io.ReadFull(c, question); err != nil {
			return
		}
		var m dnsmessage.Message
		if m.Unpack(question) != nil || len(m.Questions) != 1 {
			return
		}
		m.Response, m.RecursionAvailable, m.Additionals = true, true, nil
		m.Answers = n.answer(m.Questions[0])
		packed, err := m.Pack()
		if err != nil {
			return
		}
		binary.BigEndian.PutUint16(size[:], uint16(len(packed)))
		if _, err := c.Write(append(size[:], packed...)); err != nil {
			return
		}
	}
}

func (n *names) answer(q dnsmessage.Question) []dnsmessage.Resource {
	n.mu.Lock()
	defer n.mu.Unlock()
	name := strings.TrimSuffix(q.Name.String(), ".")
	all := n.answers[name]
	if q.Type != dnsmessage.TypeA || len(all) == 0 {
		return nil
	}
	n.asked++
	if len(all) > 1 {
		n.answers[name] = all[1:]
	}
	var out []dnsmessage.Resource
	for _, ip := range all[0] {
		out = append(out, dnsmessage.Resource{
			Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class},
			Body:   &dnsmessage.AResource{A: netip.MustParseAddr(ip).As4()},
		})
	}
	return out
}

// line is a network that notes the addresses to which a connection would have
// been made, and makes none.
type line struct {
	mu   sync.Mutex
	told []string
}

var errNoNetwork = errors.New("no network here")

func (l *line) connecting(to netip.AddrPort) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.told = append(l.told, to.Addr().String())
	return errNoNetwork
}

func TestAnAddressIsJudgedWhenItIsDialled(t *testing.T) {
	n := &names{answers: map[string][][]string{
		"rebound.example": {{"9.9.9.9"}, {"127.0.0.1"}},
		"mixed.example":   {{"10.0.0.1", "9.9.9.9"}},
		"inside.example":  {{"10.0.0.1", "192.168.0.1", "169.254.169.254"}},
	}}
	var l line
	transport := gateway.TransportWith(n.resolver(), l.connecting)

	// Whoever looks first sees a public address.
	first, err := n.resolver().LookupNetIP(t.Context(), "ip4", "rebound.example")
	if err != nil || len(first) != 1 || first[0].String() != "9.9.9.9" {
		t.Fatalf("got %v (%v), want the public address", first, err)
	}
	for host, want := range map[string]string{
		"rebound.example": "this machine", "inside.example": "a private address", "mixed.example": "a private address",
	} {
		_, err := transport.RoundTrip(getOf(t.Context(), t, "https://"+host+"/"))
		var e *gateway.AddressError
		if !errors.As(err, &e) || e.Host != host || !strings.Contains(e.Kind, want) {
			t.Errorf("%s: got %v, want that %s is refused", host, err, want)
		}
	}
	if got := fmt.Sprint(l.told); got != "[9.9.9.9]" {
		t.Errorf("connections to %s, want none but to the public address of the mixed name", got)
	}
}

func getOf(ctx context.Context, t *testing.T, url string) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	return req
}

func TestHostsThatAreSpelledOtherwise(t *testing.T) {
	var l line
	n := &names{}
	transport := gateway.TransportWith(n.resolver(), l.connecting)
	for _, host := range []string{
		"10.0.0.1", "169.254.169.254", "[fd00:ec2::254]", "[::ffff:10.0.0.1]", "[::ffff:a9fe:a9fe]", "[fe80::1%25eth0]", "[::1%25lo]",
		"0.0.0.0", "[::]", "2130706433", "0x7f.1", "0x7f000001", "0177.0.0.1", "127.1", "017700000001", "3232235521", "①⓪.0.0.1",
	} {
		for _, scheme := range []string{"http", "https"} {
			resp, err := transport.RoundTrip(getOf(t.Context(), t, scheme+"://"+host+"/"))
			if err == nil {
				resp.Body.Close()
				t.Errorf("%s://%s: got an answer", scheme, host)
			}
			if errors.Is(err, errNoNetwork) {
				t.Errorf("%s://%s: a connection would have been made", scheme, host)
			}
		}
	}
	if len(l.told) != 0 {
		t.Errorf("connections to %v, want none", l.told)
	}

	// What a person has set is reached, and this machine by its address.
	for url, ctx := range map[string]context.Context{
		"https://10.0.0.1/": gateway.Chosen(t.Context()), "https://[fd12::1]/": gateway.Chosen(t.Context()), "http://127.0.0.1/": t.Context(),
	} {
		if _, err := transport.RoundTrip(getOf(ctx, t, url)); !errors.Is(err, errNoNetwork) {
			t.Errorf("%s: got %v, want that it passes", url, err)
		}
	}
	if _, err := transport.RoundTrip(getOf(gateway.Chosen(t.Context()), t, "http://169.254.169.254/")); errors.Is(err, errNoNetwork) {
		t.Error("a metadata address was let pass")
	}
}

// The address of a resolver is known within somebody's network only.
func TestTheResolverIsNotNamed(t *testing.T) {
	resolver := &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		return nil, &net.DNSError{Err: "no such host", Name: "a.example", Server: "10.9.8.7:53", IsNotFound: true}
	}}
	f := newFixture(t, setup{transport: gateway.TransportWith(resolver, nil)})
	_, err := f.Discover(t.Context(), "https://a.example")
	e := wantError(t, err, gateway.CodeUnreachable)
	if text := e.Error(); strings.Contains(text, ":53") || !strings.Contains(text, "lookup a.example") {
		t.Errorf("got %q", text)
	}
}

// Nor is the address of this machine, which the system's words have.
func TestThisMachineIsNotNamed(t *testing.T) {
	transport := gateway.NewTransport(func(context.Context, string, string) (net.Conn, error) {
		return nil, &net.OpError{
			Op: "read", Net: "tcp", Source: &net.TCPAddr{IP: net.IPv4(10, 9, 8, 7), Port: 5555},
			Addr: &net.TCPAddr{IP: net.IPv4(1, 1, 1, 1), Port: 443}, Err: syscall.ECONNRESET,
		}
	})
	f := newFixture(t, setup{transport: transport})
	_, err := f.Discover(t.Context(), "https://a.example")
	e := wantError(t, err, gateway.CodeUnreachable)
	if text := e.Error(); strings.Contains(text, "10.9.8.7") || !strings.Contains(text, "read: ") {
		t.Errorf("got %q", text)
	}
}
