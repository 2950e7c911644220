package embeddedgateway_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"net/http/httptest"
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
