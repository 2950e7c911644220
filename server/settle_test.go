package server_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
)

// The mark that holds a result back never reaches a client, not even when nobody
// waits for it any more: the server is stopped while clients listen.
func TestAMarkNeverGoesOut(t *testing.T) {
	r := newRig(t, nowhere)
	url := r.serve()
	var streams []*http.Response
	for id := range 20 {
		streams = append(streams, r.modernPost(url, id, "subscriptions/listen", `"notifications":{"resourcesListChanged":true}`))
	}
	if err := r.Drain(context.Background()); err != nil {
		t.Fatal(err)
	}
	for _, resp := range streams {
		if text := r.body(resp); !strings.Contains(text, "notifications/subscriptions/acknowledged") || strings.Contains(text, "notifications/enlist") {
			t.Errorf("got %s, want the acknowledgement and no mark", text)
		}
	}
}
