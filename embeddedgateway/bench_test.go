package embeddedgateway_test

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest"
)

// BenchmarkStrategies compares a request with a token to one to a handler that
// does nothing but compare a key: what the gateway and its database cost. Both
// go over HTTP and 32 connections. times_bare is how many bare requests one to
// the gateway is worth.
func BenchmarkStrategies(b *testing.B) {
	gw := gatewaytest.New(b, partner())
	key := token(b, gw, "my-agent")
	want := sha256.Sum256([]byte(key))
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
	// Not the one that records secrets.
	served := httptest.NewServer(gw.Embedded().Handler())
	defer served.Close()

	var perBare float64
	b.Run("bare", func(b *testing.B) {
		perBare = perRequest(b, bare.URL, key)
	})
	b.Run("gateway", func(b *testing.B) {
		per := perRequest(b, served.URL, key)
		if perBare > 0 {
			b.ReportMetric(per/perBare, "times_bare")
		}
	})
}

// perRequest makes b.N requests and returns how many seconds each took.
func perRequest(b *testing.B, url, key string) float64 {
	b.Helper()
	transport := &http.Transport{MaxIdleConnsPerHost: 64}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	get := func() error {
		req, err := http.NewRequest(http.MethodGet, url+strategiesPath, nil)
		if err != nil {
			return err
		}
		req.Header.Set("X-Api-Key", key)
		req.Header.Set("X-User-Id", "my-agent")
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
