package embeddedgateway

import (
	"sync"

	"github.com/enlist-mcp/enlist/embeddedgateway/store"
)

const (
	recentTickets = 4096 // of each of two generations
	recentBytes   = 1024 // of what a ticket carries; what carries more is read again
)

// recent remembers the tickets that this process opened last: what they carry, which
// never changes, for whoever comes back with one at once. Whether a ticket can still
// be used is not in it: the database says that, when it is used.
type recent struct {
	mu         sync.Mutex
	young, old map[[32]byte]store.Ticket
}

func newRecent() *recent { return &recent{young: map[[32]byte]store.Ticket{}} }

// put remembers a ticket that is in the database.
func (r *recent) put(t store.Ticket) {
	size := len(t.Subject)
	for k, v := range t.Data {
		size += len(k) + len(v)
	}
	if size > recentBytes {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.young) >= recentTickets {
		r.young, r.old = map[[32]byte]store.Ticket{}, r.young
	}
	r.young[t.Hash] = t
}

// take returns a ticket and forgets it: whoever comes back again is not in a hurry.
func (r *recent) take(hash [32]byte) (store.Ticket, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, generation := range []map[[32]byte]store.Ticket{r.young, r.old} {
		if t, ok := generation[hash]; ok {
			delete(generation, hash)
			return t, true
		}
	}
	return store.Ticket{}, false
}
