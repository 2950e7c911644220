package embeddedgateway_test

import (
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/embeddedgateway"
)

// BenchmarkProxy compares a request through the gateway to one through a bare
// httputil.ReverseProxy, which asks nobody who it is: both over HTTP, 32
// connections and the same transport. times_bare is how many bare requests one
// through the gateway is worth.
func BenchmarkProxy(b *testing.B) {
	api := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"data":[]}`)
	}
	gw, key := inFront(b, api, embeddedgateway.Front{
		AgentLimit: embeddedgateway.Rate{N: 100_000_000, Per: time.Hour}, KeyLimit: embeddedgateway.Rate{N: 100_000_000, Per: time.Minute},
	}, partner())
	lona := token(b, gw, "trader")
	served := httptest.NewServer(gw.Embedded().Handler()) // not the one that records secrets
	defer served.Close()

	upstream := httptest.NewServer(http.HandlerFunc(api))
	defer upstream.Close()
	u, err := url.Parse(upstream.URL)
	if err != nil {
		b.Fatal(err)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost, transport.DisableCompression = 1024, true
	bare := httptest.NewServer(&httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(u); r.SetXForwarded() },
		Transport: transport, ErrorLog: log.New(io.Discard, "", 0),
	})
	defer bare.Close()

	var perBare float64
	b.Run("bare", func(b *testing.B) { perBare = perRequest(b, bare.URL+"/reports", bearer(key)) })
	for _, tt := range []struct {
		name   string
		header header
	}{
		{"lithtrix", bearer(key)},
		{"lona", header{"X-Api-Key": lona, "X-User-Id": "trader"}},
	} {
		b.Run(tt.name, func(b *testing.B) {
			per := perRequest(b, served.URL+"/reports", tt.header)
			if perBare > 0 {
				b.ReportMetric(per/perBare, "times_bare")
			}
		})
	}
}
