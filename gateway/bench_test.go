package gateway_test

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/gateway"
)

// BenchmarkDo compares a request with a stored credential to the same request
// with net/http alone, over a connection that is kept, at a store of 20
// credentials: one of each in turn, so that whatever else the machine does hits
// both. It reports the medians, and by how much they differ.
func BenchmarkDo(b *testing.B) {
	for _, mode := range []string{credstore.ModeMemory, credstore.ModeFile} {
		for _, size := range []int{2 << 10, 200 << 10} {
			b.Run(fmt.Sprintf("%s/%dKiB", mode, size>>10), func(b *testing.B) {
				s := newBenchService(b, strings.Repeat("{\"id\": \"a-strategy\",\n \"name\": \"One\"}, ", size/38))
				c, err := gateway.New(gateway.Options{
					Store: benchStore(b, mode, s), Now: frozen, Home: b.TempDir(),
					Env: func(name string) string { return map[string]string{"LONA_GATEWAY_URL": s}[name] },
				})
				if err != nil {
					b.Fatal(err)
				}
				plain := &http.Client{Transport: gateway.NewTransport(nil)}
				var with, without []time.Duration
				b.ReportAllocs()
				for b.Loop() {
					began := time.Now()
					if r, err := c.Lifecycle.Do(b.Context(), lonaKey(s, "agent-7"), get("/x")); err != nil || r.Status != 200 {
						b.Fatal(r.Status, err)
					}
					between := time.Now()
					resp, err := plain.Get(s + "/x")
					if err != nil {
						b.Fatal(err)
					}
					if _, err := io.ReadAll(resp.Body); err != nil {
						b.Fatal(err)
					}
					_ = resp.Body.Close()
					with, without = append(with, between.Sub(began)), append(without, time.Since(between))
				}
				do, base := median(with), median(without)
				b.ReportMetric(do, "us-do")
				b.ReportMetric(base, "us-net/http")
				b.ReportMetric(do-base, "us-over")
				b.ReportMetric(do/base, "ratio")
			})
		}
	}
}

// median returns the median of times in microseconds.
func median(times []time.Duration) float64 {
	slices.Sort(times)
	return float64(times[len(times)/2].Nanoseconds()) / 1000
}

// benchStore returns a store of 20 credentials of the service at an origin.
func benchStore(b *testing.B, mode, origin string) credstore.Store {
	b.Helper()
	store, err := credstore.Open(credstore.Options{Mode: mode, Home: b.TempDir(), ConfigDir: b.TempDir(), Now: frozen})
	if err != nil {
		b.Fatal(err)
	}
	if c, ok := store.(io.Closer); ok {
		b.Cleanup(func() { _ = c.Close() })
	}
	for i := range 20 {
		agent := fmt.Sprintf("agent-%d", i)
		if err := store.Put(b.Context(), credstore.Credential{
			Info: credstore.Info{Key: lonaKey(origin, agent), State: credstore.StateActive}, Secret: credstore.NewSecret(token(agent, i)),
		}); err != nil {
			b.Fatal(err)
		}
	}
	return store
}

func BenchmarkScrub(b *testing.B) {
	c, err := gateway.New(gateway.Options{Store: benchStore(b, credstore.ModeMemory, lonaOrigin), Now: frozen})
	if err != nil {
		b.Fatal(err)
	}
	for name, text := range map[string]string{
		"2KiB":        strings.Repeat("{\"id\": \"a-strategy\",\n \"name\": \"One\"}, ", 54),
		"256KiB":      strings.Repeat("{\"id\": \"a-strategy\",\n \"name\": \"One\"}, ", 6898),
		"backslashes": strings.Repeat(`\`, 256<<10),
		"prefixes":    strings.Repeat("lona_partner_", 20_000),
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				if _, err := c.Scrubber.Scrub(b.Context(), text); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkAudit is what one event of a request costs beside it.
func BenchmarkAudit(b *testing.B) {
	f, err := tryFixture(setup{home: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	k := lonaKey("https://nowhere.invalid", "my-agent")
	for b.Loop() {
		if _, err := f.Lifecycle.Do(b.Context(), k, gateway.Request{Method: "GET", Path: "//"}); err == nil {
			b.Fatal("not refused")
		}
	}
}
