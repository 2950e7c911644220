package server_test

import (
	"context"
	"net/http"
	"testing"
)

// Clients that listen while the server is stopped are told that it ends. The mark
// that holds a result back never reaches one, not even when nobody waits for it
// any more.
func TestAStreamEndsWithItsResultAndNoMark(t *testing.T) {
	r := newRig(t, nowhere)
	url := r.serve()
	var streams []*http.Response
	for id := range 20 {
		streams = append(streams, r.modernPost(url, id, "subscriptions/listen", `"notifications":{"resourcesListChanged":true}`))
	}
	if err := r.Drain(context.Background()); err != nil {
		t.Fatal(err)
	}
	for id, resp := range streams {
		got := r.messages(resp)
		if len(got) != 2 || got[0].Method != "notifications/subscriptions/acknowledged" || got[1].ID != float64(id) || got[1].Error != nil {
			t.Errorf("stream %d: got %+v, want the acknowledgement and the result", id, got)
		}
	}
}
