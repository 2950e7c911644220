package gateway_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// deaf is a service that closes the connection, or never answers.
type deaf struct {
	never atomic.Bool
	asked atomic.Int32
}

func (d *deaf) RoundTrip(r *http.Request) (*http.Response, error) {
	d.asked.Add(1)
	if !d.never.Load() {
		return nil, io.ErrUnexpectedEOF
	}
	<-r.Context().Done()
	return nil, r.Context().Err()
}

// A program that ends waits for what it heals as long as for anything else, and
// not for all of it in turn.
func TestTheEndIsNotKeptWaitingByHealing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		service := new(deaf)
		f := newFixture(t, setup{transport: service, home: t.TempDir(), env: map[string]string{
			"LONA_GATEWAY_URL": "http://127.0.0.1:9", "LONA_AGENT_REGISTRATION_SECRET": "5f2c1d0e9b8a7766554433221100ffee",
		}})
		defer f.Close()
		for n := range 5 {
			if _, err := f.Lona.Register(t.Context(), named(fmt.Sprintf("agent-%d", n))); err == nil {
				t.Fatal("the answer was not lost")
			}
		}
		if open, err := f.Unfinished(t.Context()); err != nil || len(open) != 5 {
			t.Fatalf("unfinished is %v (%v), want 5", open, err)
		}
		service.never.Store(true)
		service.asked.Store(0)
		ctx, end := context.WithCancel(t.Context())
		begun := time.Now()
		time.AfterFunc(time.Second, end)

		err := f.Lifecycle.Heal(ctx)

		if took := time.Since(begun); took != 5*time.Second || service.asked.Load() != 1 || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("it took %s and %d requests (%v), want a second and the grace of four, and one", took, service.asked.Load(), err)
		}
	})
}
