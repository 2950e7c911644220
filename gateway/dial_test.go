package gateway_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/gateway"
)

func TestNamesUnderLocalhostAreThisMachine(t *testing.T) {
	s := newService(t)
	port := s.URL[strings.LastIndex(s.URL, ":"):]
	for _, host := range []string{"localhost", "enlist.localhost", "no.such.name.LOCALHOST"} {
		f := newFixture(t, setup{env: map[string]string{"LONA_GATEWAY_URL": "http://" + host + port}})
		if r := f.register(t, "my-agent"); r.Origin != "http://"+strings.ToLower(host)+port {
			t.Errorf("got the origin %q", r.Origin)
		}
	}
}

func TestTheTransportUsesNoProxy(t *testing.T) {
	if gateway.NewTransport(nil).Proxy != nil {
		t.Error("got a proxy, want none")
	}
}

func TestTheTransportDialsAsItIsTold(t *testing.T) {
	s := newService(t)
	f := newFixture(t, setup{
		env: map[string]string{"LONA_GATEWAY_URL": "http://enlist.localhost"},
		transport: gateway.NewTransport(func(ctx context.Context, network, addr string) (net.Conn, error) {
			if addr != "enlist.localhost:80" {
				t.Errorf("dialled %s", addr)
			}
			return new(net.Dialer).DialContext(ctx, network, strings.TrimPrefix(s.URL, "http://"))
		}),
	})

	if got, want := f.Lifecycle.Handle(f.register(t, "my-agent").Key), "lona/my-agent"; got != want {
		t.Errorf("got the handle %q, want %q", got, want)
	}
}

func TestSleepEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := gateway.Sleep(ctx, time.Hour); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want that the context has ended", err)
	}
	if err := gateway.Sleep(t.Context(), time.Nanosecond); err != nil {
		t.Errorf("got %v, want none", err)
	}
}

func TestErrorsReadWell(t *testing.T) {
	for want, err := range map[string]error{
		"request an invite at https://example.com: rate_limited (HTTP 429): slow down": &gateway.Error{
			Origin: "https://example.com", Op: "request an invite", Status: 429, Code: "rate_limited", Message: "slow down",
		},
		"register at https://example.com: timeout: no answer": &gateway.Error{
			Origin: "https://example.com", Op: "register", Code: gateway.CodeTimeout, Cause: errors.New("no answer"),
		},
		"lona has no call to revoke a credential. Forget it.": &gateway.UnsupportedError{Protocol: "lona", Op: "revoke", Instead: "Forget it."},
		"Not so.":                &gateway.RefusedError{Why: "Not so."},
		"Not so. Use x instead.": &gateway.RefusedError{Why: "Not so.", Tool: "x"},
		"No match.":              &gateway.ResolveError{Why: "No match."},
	} {
		if got := err.Error(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestAnAddressThatIsRefusedIsNeverAsked(t *testing.T) {
	n := &names{answers: map[string][][]string{"lona.example": {{"10.1.2.3"}}, "other.example": {{"10.1.2.3"}}, "meta.example": {{"169.254.169.254"}}}}
	var l line
	transport := gateway.TransportWith(n.resolver(), l.connecting)
	f := newFixture(t, setup{transport: transport, env: map[string]string{"LONA_GATEWAY_URL": "https://lona.example"}})
	f.put(t, credstore.Credential{Info: credstore.Info{Key: lonaKey("https://other.example", "my-agent")}, Secret: credstore.NewSecret(token("my-agent", 1))})

	// A person set the one, and nobody the other.
	_, err := f.Lona.Register(t.Context(), named("my-agent"))
	wantError(t, err, gateway.CodeUnreachable)
	tried := len(l.told)
	_, err = f.Lifecycle.Do(t.Context(), lonaKey("https://other.example", "my-agent"), gateway.Request{Method: "DELETE", Path: "/x"})

	e := wantError(t, err, gateway.CodeAddressRefused)
	var refused *gateway.AddressError
	if e.Sent || !errors.As(e, &refused) || refused.Host != "other.example" || !refused.Choosable || strings.Contains(e.Error(), "10.1.2.3") {
		t.Errorf("got %+v, want that nothing was sent, the host, and not its address", e)
	}
	if tried == 0 || len(l.told) != tried || l.told[0] != "10.1.2.3" {
		t.Errorf("connections to %v, want some to what the person set and none after", l.told)
	}

	f = newFixture(t, setup{transport: transport, env: map[string]string{"LONA_GATEWAY_URL": "https://meta.example"}})
	_, err = f.Lona.Register(t.Context(), named("my-agent"))
	if e := wantError(t, err, gateway.CodeAddressRefused); strings.Contains(e.Error(), "environment") {
		t.Errorf("got %v, want no advice to set what is refused however it is set", e)
	}
	if len(l.told) != tried {
		t.Errorf("connections to %v, want none to a metadata address", l.told[tried:])
	}
}

func TestNoConnectionIsMadeToAnAddressThatIsRefused(t *testing.T) {
	var connections atomic.Int32
	srv := httptest.NewUnstartedServer(reply(200, "{}"))
	srv.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			connections.Add(1)
		}
	}
	srv.StartTLS()
	t.Cleanup(srv.Close)
	trusts := srv.Client().Transport.(*http.Transport).TLSClientConfig
	port := srv.URL[strings.LastIndex(srv.URL, ":"):]
	n := &names{answers: map[string][][]string{
		"here.example": {{"127.0.0.1"}}, "example.com": {{"127.0.0.1"}}, // the latter is in the certificate
	}}
	transport := gateway.TransportWith(n.resolver(), nil)
	transport.TLSClientConfig = trusts.Clone()

	_, err := transport.RoundTrip(getOf(t.Context(), t, "https://here.example"+port))
	var refused *gateway.AddressError
	if !errors.As(err, &refused) || connections.Load() != 0 {
		t.Errorf("got %v and %d connections, want that it is refused and none", err, connections.Load())
	}

	// A person chose it on the command line.
	look := func(at string) (connecting int32, err error) {
		var count atomic.Int32
		transport := gateway.TransportWith(n.resolver(), func(netip.AddrPort) error {
			count.Add(1)
			return nil
		})
		transport.TLSClientConfig = trusts.Clone()
		c, err := gateway.New(gateway.Options{
			Store: credstore.NewMemory(frozen), Now: frozen, Transport: transport,
			Origins: map[string]string{"lona": "https://example.com" + port},
		})
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.Discover(t.Context(), at)
		return count.Load(), err
	}
	if n, err := look("https://example.com" + port); err != nil || n == 0 {
		t.Errorf("got %v and %d connections, want some", err, n)
	}
	for _, other := range []string{"https://example.com:1", "https://here.example" + port} {
		n, err := look(other)
		wantError(t, err, gateway.CodeAddressRefused)
		if n != 0 {
			t.Errorf("%s was reached by what was chosen for another port or host", other)
		}
	}
}

func TestAProxyOfTheEnvironmentIsNotUsed(t *testing.T) {
	proxy := newService(t)
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"} {
		t.Setenv(name, proxy.URL)
	}
	n := &names{answers: map[string][][]string{"lona.example": {{"9.9.9.9"}}}}
	var l line
	transport := gateway.TransportWith(n.resolver(), l.connecting)
	for _, url := range []string{"http://lona.example/", "https://lona.example/"} {
		if _, err := transport.RoundTrip(getOf(t.Context(), t, url)); !errors.Is(err, errNoNetwork) {
			t.Errorf("%s: got %v, want that the service itself is dialled", url, err)
		}
	}
	if got := proxy.seen(""); len(got) != 0 || !slices.Equal(l.told, []string{"9.9.9.9", "9.9.9.9"}) {
		t.Errorf("the proxy saw %v and the service %v", got, l.told)
	}
}
