package server_test

import (
	"net/http"
	"sync"
	"testing"
)

// What a call tells comes on its own stream, in order, and before its result,
// whatever else of the session takes notifications at the same time: a stream
// that listens, and other calls.
func TestACallTellsOnItsOwnStream(t *testing.T) {
	const calls, told = 8, 30
	for _, version := range []string{"2025-03-26", legacy, "2025-11-25"} {
		t.Run(version, func(t *testing.T) {
			r := newRig(t, nowhere)
			r.progressTool(told)
			url := r.serve()
			session := r.sessionOf("", url, version)
			r.request(http.MethodGet, url+"/mcp", "", session)
			var wg sync.WaitGroup
			for call := range calls {
				resp := async(func() *http.Response {
					return r.request(http.MethodPost, url+"/mcp", message(100+call, "tools/call", `"name":"progress"`), session)
				})
				wg.Go(func() {
					got := r.messages(<-resp)
					for i, m := range got[:len(got)-1] {
						if m.Method != "notifications/progress" || m.Params["progress"] != float64(i) {
							t.Errorf("call %d, message %d: got %+v, want progress %d", call, i, m, i)
							return
						}
					}
					if last := got[len(got)-1]; len(got) != told+1 || last.ID != float64(100+call) {
						t.Errorf("call %d: got %d messages with %+v at the end, want %d and the result", call, len(got), last, told)
					}
				})
			}
			wg.Wait()
		})
	}
}
