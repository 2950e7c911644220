package credstore_test

import (
	"testing"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/credstore/credstoretest"
)

// What another process wrote is seen also after a call was cancelled in the
// middle, which has the database opened anew: a new connection counts the
// changes of others from the beginning.
func TestACancelledListHidesNothing(t *testing.T) {
	o := options(t, credstore.ModeFile)
	on := credstore.QuickSystem()
	other := openOn(t, o, on)
	put(t, other, credstoretest.Lona("a"))
	s := openOn(t, o, on)
	for _, agent := range []string{"b", "c", "d", "e"} {
		if _, err := s.List(t.Context(), ""); err != nil {
			t.Fatal(err)
		}
		credstore.Reconnect(s)
		put(t, other, credstoretest.Lona(agent))
		infos, err := s.List(t.Context(), "")
		found := false
		for _, i := range infos {
			found = found || i.Agent == agent
		}
		if err != nil || !found {
			t.Errorf("got %v (%v), want %s among them", infos, err, agent)
		}
	}
}
