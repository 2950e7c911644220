package gateway_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/gateway"
)

// BenchmarkDo compares a request with a stored credential to the same request
// with net/http alone, at a store of 20 credentials.
func BenchmarkDo(b *testing.B) {
	for _, size := range []int{2 << 10, 200 << 10} {
		body := strings.Repeat("{\"id\": \"a-strategy\",\n \"name\": \"One\"}, ", size/38)
		s := newBenchService(b, body)
		store := credstore.NewMemory(frozen)
		for i := range 20 {
			agent := fmt.Sprintf("agent-%d", i)
			if err := store.Put(b.Context(), credstore.Credential{
				Info: credstore.Info{Key: lonaKey(s, agent), State: credstore.StateActive}, Secret: credstore.NewSecret(token(agent, i)),
			}); err != nil {
				b.Fatal(err)
			}
		}
		c, err := gateway.New(gateway.Options{
			Store: store, Now: frozen, Env: func(name string) string { return map[string]string{"LONA_GATEWAY_URL": s}[name] },
		})
		if err != nil {
			b.Fatal(err)
		}
		b.Run(fmt.Sprintf("Do/%dKiB", size>>10), func(b *testing.B) {
			for b.Loop() {
				if r, err := c.Lifecycle.Do(b.Context(), lonaKey(s, "agent-7"), get("/x")); err != nil || r.Status != 200 {
					b.Fatal(r.Status, err)
				}
			}
		})
		b.Run(fmt.Sprintf("net-http/%dKiB", size>>10), func(b *testing.B) {
			client := &http.Client{Transport: gateway.NewTransport(nil)}
			for b.Loop() {
				resp, err := client.Get(s + "/x")
				if err != nil {
					b.Fatal(err)
				}
				if _, err := io.Copy(io.Discard, resp.Body); err != nil {
					b.Fatal(err)
				}
				_ = resp.Body.Close()
			}
		})
	}
}

func BenchmarkScrub(b *testing.B) {
	store := credstore.NewMemory(frozen)
	for i := range 20 {
		agent := fmt.Sprintf("agent-%d", i)
		if err := store.Put(b.Context(), credstore.Credential{
			Info: credstore.Info{Key: lonaKey(lonaOrigin, agent), State: credstore.StateActive}, Secret: credstore.NewSecret(token(agent, i)),
		}); err != nil {
			b.Fatal(err)
		}
	}
	c, err := gateway.New(gateway.Options{Store: store, Now: frozen})
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
