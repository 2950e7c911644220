package embeddedgateway_test

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest"
)

// BenchmarkAuthenticated compares a request with a credential of each kind to
// one to a handler that does nothing but compare a key: what the gateway, its
// database and a signature cost. All go over HTTP and 32 connections.
// times_bare is how many bare requests one to the gateway is worth.
func BenchmarkAuthenticated(b *testing.B) {
	gw := gatewaytest.New(b, gatewaytest.Env(map[string]string{
		"AGENT_REGISTRATION_SECRET": partnerSecret, "AGENTDOOR_RATE_LIMIT": "200/1s",
	}))
	lona := token(b, gw, "my-agent")
	door := doorRegister(b, gw, pair("bench"))
	flux := fluxNew(b, gw, "")

	want := sha256.Sum256([]byte(lona))
	bare := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got := sha256.Sum256([]byte(r.Header.Get("X-Api-Key")))
		if subtle.ConstantTimeCompare(got[:], want[:]) != 1 {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"data":[]}`)
	}))
	defer bare.Close()
	// Not the one that records secrets. Time passes, or the limit of the agent
	// would be used up.
	clock := gw.Clock
	served := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		clock.Advance(10 * time.Millisecond)
		gw.Embedded().Handler().ServeHTTP(w, r)
	}))
	defer served.Close()

	var perBare float64
	b.Run("bare", func(b *testing.B) {
		perBare = perRequest(b, bare.URL+strategiesPath, header{"X-Api-Key": lona})
	})
	for _, tt := range []struct {
		name, path string
		header     header
	}{
		{"lona", strategiesPath, header{"X-Api-Key": lona, "X-User-Id": "my-agent"}},
		{"agentdoor key", "/whoami", bearer(door.key)},
		{"agentdoor jwt", "/whoami", bearer(door.token)},
		{"fluxra jwt", flux.path(), bearer(flux.jwt)},
	} {
		b.Run(tt.name, func(b *testing.B) {
			per := perRequest(b, served.URL+tt.path, tt.header)
			if perBare > 0 {
				b.ReportMetric(per/perBare, "times_bare")
			}
		})
	}
}

// perRequest makes b.N requests and returns how many seconds each took.
func perRequest(b *testing.B, url string, h header) float64 {
	b.Helper()
	transport := &http.Transport{MaxIdleConnsPerHost: 64}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	get := func() error {
		req, err := http.NewRequest(http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		for name, value := range h {
			req.Header.Set(name, value)
		}
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			return err
		}
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("status %d", resp.StatusCode)
		}
		return nil
	}
	b.SetParallelism(16) // 32 connections on two cores
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := get(); err != nil {
				b.Error(err)
				return
			}
		}
	})
	return b.Elapsed().Seconds() / float64(b.N)
}
