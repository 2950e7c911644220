package embeddedgateway_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/embeddedgateway"
)

// serving serves a gateway on a port until its context ends.
func serving(t *testing.T, change func(*embeddedgateway.Config)) (ln net.Listener, end context.CancelFunc, ended <-chan error) {
	t.Helper()
	cfg := config(t)
	change(&cfg)
	g, err := embeddedgateway.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.Close() })
	ln, err = net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- g.Serve(ctx, ln) }()
	return ln, cancel, served
}

func getStatus(t *testing.T, client *http.Client, url string) int {
	t.Helper()
	resp, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	return resp.StatusCode
}

func TestServeSaysThatItIsNotReadyBeforeItEnds(t *testing.T) {
	ln, end, ended := serving(t, func(c *embeddedgateway.Config) { c.Drain.Delay = time.Hour })
	url := "http://" + ln.Addr().String()
	fresh := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	if got := getStatus(t, fresh, url+"/readyz"); got != 200 {
		t.Fatalf("before: got %d", got)
	}
	end()
	for getStatus(t, fresh, url+"/readyz") != 503 {
	}
	// Who has not seen it yet is served.
	if got := getStatus(t, fresh, url+"/health"); got != 200 {
		t.Errorf("got %d", got)
	}
	if got := getStatus(t, fresh, url+"/healthz"); got != 200 {
		t.Errorf("the process is alive: got %d", got)
	}
	ln.Close() // nobody waits an hour here
	if err := <-ended; err == nil {
		t.Error("it went on without a listener")
	}
}

func TestServeEndsWhenItsDelayIsOver(t *testing.T) {
	ln, end, ended := serving(t, func(c *embeddedgateway.Config) {
		c.Drain = embeddedgateway.Drain{Delay: time.Millisecond, Timeout: time.Minute}
	})
	idle := &http.Client{Transport: &http.Transport{}} // its connection stays, and must not hold it up
	getStatus(t, idle, "http://"+ln.Addr().String()+"/healthz")
	end()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestServeHasClientsLeaveBeforeItEnds asks over a connection that stays, and is
// told to leave it with the first answer of the end: an answer that is under way
// when the connections are closed is none.
func TestServeHasClientsLeaveBeforeItEnds(t *testing.T) {
	sample := httptest.NewUnstartedServer(nil)
	sample.StartTLS()
	defer sample.Close()
	roots := x509.NewCertPool()
	roots.AddCert(sample.Certificate())
	for _, proto := range []string{"HTTP/1.1", "HTTP/2.0"} {
		ln, end, ended := serving(t, func(c *embeddedgateway.Config) {
			c.Drain.Delay = time.Hour
			c.TLS = &tls.Config{Certificates: sample.TLS.Certificates, MinVersion: tls.VersionTLS12}
		})
		url := "https://" + ln.Addr().String() + "/readyz"
		client := &http.Client{Transport: &http.Transport{
			ForceAttemptHTTP2: proto == "HTTP/2.0", TLSClientConfig: &tls.Config{RootCAs: roots},
		}}
		ask := func() (status int, reused bool) {
			trace := &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { reused = i.Reused }}
			req, err := http.NewRequestWithContext(httptrace.WithClientTrace(t.Context(), trace), http.MethodGet, url, nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.Proto != proto {
				t.Fatalf("got %v by %s, want %s", err, resp.Proto, proto)
			}
			return resp.StatusCode, reused
		}
		ask()
		if _, reused := ask(); !reused {
			t.Errorf("%s: before the end the connection does not stay", proto)
		}
		end()
		for status := 0; status != http.StatusServiceUnavailable; {
			status, _ = ask()
		}
		left := false
		for range 100 { // GOAWAY comes beside the answer
			if _, reused := ask(); !reused {
				left = true
				break
			}
		}
		if !left {
			t.Errorf("%s: the connection stays while the gateway ends", proto)
		}
		ln.Close() // nobody waits an hour here
		<-ended
	}
}

func TestServeSpeaksTLSAndHTTP2(t *testing.T) {
	sample := httptest.NewUnstartedServer(nil)
	sample.StartTLS()
	defer sample.Close()
	ln, end, ended := serving(t, func(c *embeddedgateway.Config) {
		c.TLS = &tls.Config{Certificates: sample.TLS.Certificates, MinVersion: tls.VersionTLS12}
	})
	roots := x509.NewCertPool()
	roots.AddCert(sample.Certificate())
	for _, c := range []struct {
		most  uint16
		http2 bool
		proto string
	}{{tls.VersionTLS13, true, "HTTP/2.0"}, {tls.VersionTLS12, false, "HTTP/1.1"}, {tls.VersionTLS11, false, ""}} {
		client := &http.Client{Transport: &http.Transport{
			ForceAttemptHTTP2: c.http2, TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS10, MaxVersion: c.most},
		}}
		resp, err := client.Get("https://" + ln.Addr().String() + "/readyz")
		if c.proto == "" {
			if err == nil {
				t.Errorf("TLS %x is spoken", c.most)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != 200 || resp.Proto != c.proto {
			t.Errorf("got %d by %s, want %s", resp.StatusCode, resp.Proto, c.proto)
		}
		client.CloseIdleConnections()
	}
	end()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestServeAnswersWhoHasJustConnected ends while a connection has been made, and
// what is asked on it is on its way.
func TestServeAnswersWhoHasJustConnected(t *testing.T) {
	ln, end, ended := serving(t, func(*embeddedgateway.Config) {})
	getStatus(t, &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}, "http://"+ln.Addr().String()+"/healthz")
	conn, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	other, err := net.Dial("tcp", ln.Addr().String()) // when this one is answered, conn has been accepted
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	ask := func(c net.Conn) int {
		if _, err := io.WriteString(c, "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	ask(other)
	end()
	for { // until it takes no more
		c, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			break
		}
		c.Close()
	}
	if got := ask(conn); got != http.StatusOK {
		t.Errorf("got %d", got)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
