package gateway_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/gateway"
)

// atOnce is how long a test waits for what should come at once.
const atOnce = 10 * time.Second

func TestProgressIsReportedAtEachTick(t *testing.T) {
	s := newService(t)
	f := at(t, s)
	k := f.register(t, "my-agent").Key
	next := make(chan struct{})
	s.on("/x", func(w http.ResponseWriter, _ *http.Request) {
		for range 2 {
			fmt.Fprint(w, strings.Repeat("a", 1000))
			_ = http.NewResponseController(w).Flush()
			<-next
		}
	})
	ticks, stopped := make(chan time.Time), false
	var told []string
	report := make(chan string)
	ctx := gateway.WithProgress(t.Context(), gateway.Progress{
		Tick:   func() (<-chan time.Time, func()) { return ticks, func() { stopped = true } },
		Report: func(n int, bytes int64) { report <- fmt.Sprint(n, " ", bytes) },
	})
	done := make(chan error)
	go func() {
		_, err := f.Lifecycle.Do(ctx, k, get("/x"))
		done <- err
	}()
	for _, want := range []string{" 1000", " 2000"} { // what is sent may come some ticks later
		for len(told) == 0 || !strings.HasSuffix(told[len(told)-1], want) {
			select {
			case ticks <- start:
				told = append(told, <-report)
			case <-time.After(atOnce):
				t.Fatalf("got %v, want %s bytes", told, want)
			}
		}
		next <- struct{}{}
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	for i, text := range told {
		if !strings.HasPrefix(text, fmt.Sprint(i+1, " ")) {
			t.Errorf("tick %d: got %q", i+1, text)
		}
	}
	select {
	case ticks <- start:
		t.Error("ticks are listened to after the answer")
	default:
	}
	if !stopped {
		t.Error("the clock was not stopped")
	}
}

// Whatever a service does or leaves, a request ends when whoever asked gives up.
func TestARequestEndsWhenItIsCancelled(t *testing.T) {
	for name, answer := range map[string]func(w http.ResponseWriter){
		"no answer":             func(http.ResponseWriter) {},
		"half a head":           nil,
		"a body that never is":  func(w http.ResponseWriter) { w.WriteHeader(200) },
		"a body that drips":     func(w http.ResponseWriter) { fmt.Fprint(w, "a") },
		"a long body that does": func(w http.ResponseWriter) { fmt.Fprint(w, strings.Repeat("words ", 100_000)) },
	} {
		t.Run(name, func(t *testing.T) {
			s := newService(t)
			f, k := homely(t, s, func(s *setup) { s.timeout, s.deadline = time.Hour, time.Hour })
			ctx, cancel := context.WithCancel(t.Context())
			s.on("/x", func(w http.ResponseWriter, r *http.Request) {
				if answer == nil {
					conn, buf, err := http.NewResponseController(w).Hijack()
					if err != nil {
						t.Error(err)
						return
					}
					defer conn.Close()
					fmt.Fprint(buf, "HTTP/1.1 200 OK\r\nX-")
					_ = buf.Flush()
					cancel()
					_, _ = conn.Read(make([]byte, 1)) // until the client hangs up
					return
				}
				answer(w)
				_ = http.NewResponseController(w).Flush()
				cancel()
				<-r.Context().Done()
			})
			done := make(chan error, 1)
			go func() {
				_, err := f.Lifecycle.Do(ctx, k, gateway.Request{Method: "POST", Path: "/x"})
				done <- err
			}()
			select {
			case err := <-done:
				if e := wantError(t, err, gateway.CodeCancelled); !e.Sent {
					t.Error("got Sent false, want true")
				}
			case <-time.After(atOnce):
				t.Fatal("the request goes on")
			}
			if len(f.kept(t)) != 0 {
				t.Errorf("got the files %v, want none", f.kept(t))
			}
		})
	}
}
