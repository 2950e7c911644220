package server_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	mcpserver "github.com/mark3labs/mcp-go/server"

	"github.com/enlist-mcp/enlist/server"
)

// keeping is a store of events, by the names that a test gives them.
type keeping struct {
	t     *testing.T
	store mcpserver.EventStore
	ids   map[string]string
}

func (k keeping) keep(session, stream, name string, size int) {
	k.t.Helper()
	message, err := json.Marshal(name + strings.Repeat(".", size))
	if err != nil {
		k.t.Fatal(err)
	}
	id, err := k.store.StoreEvent(k.t.Context(), session, stream, message)
	if err != nil || id == "" || strings.ContainsAny(id, "\r\n") {
		k.t.Fatalf("%s: got the id %q (%v)", name, id, err)
	}
	for other, known := range k.ids {
		if known == id {
			k.t.Fatalf("%s and %s have one id, %s", name, other, id)
		}
	}
	k.ids[name] = id
}

// after returns the names of what came after an event, or that it is not known.
func (k keeping) after(session, name string) string {
	k.t.Helper()
	var got []string
	_, err := k.store.ReplayEventsAfter(k.t.Context(), session, k.ids[name], func(id string, message json.RawMessage) error {
		var text string
		if err := json.Unmarshal(message, &text); err != nil {
			return err
		}
		text = strings.TrimRight(text, ".")
		if k.ids[text] != id {
			return fmt.Errorf("%s has the id %s", text, id)
		}
		got = append(got, text)
		return nil
	})
	if errors.Is(err, mcpserver.ErrUnknownEventID) {
		return "unknown"
	}
	if err != nil {
		k.t.Fatal(err)
	}
	return strings.Join(got, " ")
}

func TestEventsAreKeptWithinBounds(t *testing.T) {
	dead := ""
	k := keeping{t, server.NewEvents(3000, 6000, func(session string) bool { return session != dead }), map[string]string{}}
	want := func(session, name, want string) {
		t.Helper()
		if got := k.after(session, name); got != want {
			t.Errorf("after %s of %s: got %q, want %q", name, session, got, want)
		}
	}
	k.keep("s1", "x", "a", 100)
	k.keep("s1", "y", "b", 100)
	k.keep("s1", "x", "c", 100)
	want("s1", "a", "c")
	want("s1", "c", "")
	want("s1", "b", "")
	want("s2", "a", "unknown") // somebody else's

	// The oldest goes first; what is left still tells whether anything is missing.
	k.keep("s1", "x", "d", 1500)
	k.keep("s1", "x", "e", 500) // a and b go
	want("s1", "a", "c d e")
	want("s1", "b", "unknown")
	k.keep("s1", "x", "f", 100) // c goes
	want("s1", "a", "unknown")
	want("s1", "c", "d e f")

	// One that is longer than all that is kept goes out and is not kept.
	k.keep("s1", "x", "long", 4000)
	want("s1", "f", "unknown")
	want("s1", "long", "unknown")
	k.keep("s1", "x", "g", 100)
	want("s1", "g", "")

	// All sessions together have a bound, too.
	k.keep("s2", "x", "h", 2000)
	k.keep("s3", "x", "i", 2000)
	want("s1", "g", "")
	k.keep("s4", "x", "j", 2000)
	want("s1", "g", "unknown")
	want("s2", "h", "unknown")
	want("s3", "i", "")

	// What has ended leaves nothing, nor does what comes after it.
	if err := k.store.PurgeSession(t.Context(), "s3"); err != nil {
		t.Fatal(err)
	}
	want("s3", "i", "unknown")
	dead = "s3"
	k.keep("s3", "x", "k", 10)
	want("s3", "k", "unknown")

	for _, id := range []string{"", "1", "1-", "-1", "x-y", "1--1", "99999-1", "1-99999"} {
		k.ids["made up"] = id
		want("s4", "made up", "unknown")
	}
}
