package store

import (
	"fmt"
	"sync"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// maxRecent is how many rows of a kind a [recent] keeps at most: of credentials
// some 30 MiB.
const maxRecent = 1 << 16

// recent keeps rows that were read from SQLite as long as they are what SQLite
// would answer. It is exact, for any number of processes: what it has is good for
// one state of the database, which is known by the header of the write-ahead
// log's index ([walHeader]), and every read begins with a look at that, as
// SQLite's own reads do. So what was committed before a read began, by this
// process, another one or somebody with a shell, is never missed.
//
// A commit of another process ends all that is kept. One of our own writer ends
// those rows only that it changed or deleted, as SQLite's hook tells of them,
// whatever statement did it. Nothing is kept of a row that is not there.
type recent struct {
	index *walIndex // nil: nothing is kept
	max   int       // rows of each kind

	mu      sync.RWMutex
	state   walHeader // of which the rows are
	writing bool      // our writer has a transaction
	over    bool      // the index is not there any more

	byHash  rows[keyHash, Credential]
	byKeyID rows[keyName, Credential]
	byName  rows[agentName, Agent]
	sealed  rows[sealedKey, sealedList] // that of all kinds goes when anything sealed changes
}

// What a row is asked for by.
type (
	keyHash struct {
		protocol string
		hash     [32]byte
	}
	keyName struct {
		agent       int64
		kind, keyID string
	}
	agentName  struct{ protocol, name string }
	ticketHash struct {
		protocol, kind string
		hash           [32]byte
	}
)

// rows are rows of one kind, in two halves: when the newer one is full the older
// one goes.
type rows[K comparable, V any] struct{ newer, older half[K, V] }

type half[K comparable, V any] struct {
	of   map[K]V
	keys map[int64]K // by the row's id
}

func (r *rows[K, V]) get(key K) (V, bool) {
	v, ok := r.newer.of[key]
	if !ok {
		v, ok = r.older.of[key]
	}
	return v, ok
}

func (r *rows[K, V]) put(max int, key K, id int64, v V) {
	if r.newer.of == nil || len(r.newer.of) >= max/2 {
		r.newer, r.older = half[K, V]{map[K]V{}, map[int64]K{}}, r.newer
	}
	r.newer.of[key], r.newer.keys[id] = v, key
}

func (r *rows[K, V]) change(id int64, how func(*V)) {
	for _, h := range []half[K, V]{r.newer, r.older} {
		if key, ok := h.keys[id]; ok {
			v := h.of[key]
			how(&v)
			h.of[key] = v
		}
	}
}

func (r *rows[K, V]) drop(id int64) {
	for _, h := range []half[K, V]{r.newer, r.older} {
		if key, ok := h.keys[id]; ok {
			delete(h.of, key)
			delete(h.keys, id)
		}
	}
}

// remembered returns the row of a key, by read where it is not kept. Several get
// the same row, and copy what they could change of it. id is the row's.
func remembered[K comparable, V any](r *recent, in *rows[K, V], key K, id func(V) int64, read func() (V, error)) (V, error) {
	if r.index == nil {
		return read()
	}
	r.mu.RLock()
	now := r.look()
	v, ok := in.get(key)
	ok = ok && now == r.state
	known := now == r.state || r.writing
	r.mu.RUnlock()
	if ok {
		return v, nil
	}
	if !known {
		r.adopt()
	}
	r.mu.RLock()
	now = r.look()
	r.mu.RUnlock()
	v, err := read()
	if err != nil {
		return v, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	// What was read is of this state or of a later one. The commit that led to a
	// later one either changes the row, and comes here to say so or ends all that
	// is kept; or it does not.
	if now == r.state && !r.over {
		in.put(r.max, key, id(v), v)
	}
	return v, nil
}

// adopt begins again with the database as somebody else has left it.
func (r *recent) adopt() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.over || r.writing {
		return
	}
	if now := r.index.stable(); now != r.state {
		r.begin(now)
	}
}

// look is the header as it is now, and no header when the index is gone: somebody
// may ask while the store is closed. The mutex is held.
func (r *recent) look() walHeader {
	if r.over {
		return walHeader{}
	}
	return r.index.header()
}

// end is to be called before the index goes.
func (r *recent) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.over = true
	r.begin(walHeader{})
}

// begin forgets everything.
func (r *recent) begin(state walHeader) {
	r.state = state
	r.byHash, r.byKeyID, r.byName = rows[keyHash, Credential]{}, rows[keyName, Credential]{}, rows[agentName, Agent]{}
	r.sealed = rows[sealedKey, sealedList]{}
}

// begun is to be called when our writer has begun a transaction: nobody else
// commits until it ends.
func (r *recent) begun() {
	if r.index == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if now := r.index.stable(); now != r.state {
		r.begin(now)
	}
	r.writing = true
}

// ended is to be called when the transaction is over, before anybody is told so.
// alone reports whether nobody else has committed since it began; nil: that is
// not known.
func (r *recent) ended(c *changes, alone func() bool) {
	if r.index == nil {
		return
	}
	now := r.index.stable() // before alone looks
	known := alone != nil && alone()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.writing = false
	if !known {
		r.begin(now)
		return
	}
	r.state = now
	for id, at := range c.touched {
		used := func(k *Credential) { k.LastUsedAt = at }
		r.byHash.change(id, used)
		r.byKeyID.change(id, used)
	}
	for _, id := range c.credentials {
		r.byHash.drop(id)
		r.byKeyID.drop(id)
	}
	for _, id := range c.agents {
		r.byName.drop(id)
	}
	if c.sealed {
		r.sealed = rows[sealedKey, sealedList]{}
	}
}

// changes are the rows of credentials and agents that a transaction has changed
// or deleted, also if it was undone.
type changes struct {
	credentials, agents []int64
	sealed              bool // also where one is new: lists are kept of them

	// Credentials of which nothing changed but when they were used last, which it
	// does once a second.
	touched map[int64]time.Time
	touches time.Time // what the statement that runs now writes there; zero: it is another one
}

// touching runs a statement that changes nothing but when a credential was used
// last.
func (c *changes) touching(at time.Time, run func() error) error {
	c.touches = at
	defer func() { c.touches = time.Time{} }()
	return run()
}

// undone says that some of what was done was undone.
func (c *changes) undone() {
	for id := range c.touched {
		c.credentials = append(c.credentials, id)
	}
	clear(c.touched)
}

// watch makes a connection tell c of what it changes.
func (c *changes) watch(conn any) error {
	hooks, ok := conn.(sqlite.HookRegisterer)
	if !ok {
		return fmt.Errorf("store: a connection is %T", conn)
	}
	hooks.RegisterPreUpdateHook(c.note)
	return nil
}

// note is SQLite's hook before a row is inserted, changed or deleted.
func (c *changes) note(d sqlite.SQLitePreUpdateData) {
	switch {
	case d.TableName == "sealed":
		c.sealed = true
	case d.Op == sqlite3.SQLITE_INSERT: // nothing is kept of a row that is not there
	case d.TableName == "credentials" && !c.touches.IsZero():
		c.touched[d.OldRowID] = c.touches
	case d.TableName == "credentials":
		c.credentials = append(c.credentials, d.OldRowID)
	case d.TableName == "agents":
		c.agents = append(c.agents, d.OldRowID)
	}
}

func (c *changes) reset() {
	c.credentials, c.agents, c.sealed = c.credentials[:0], c.agents[:0], false
	clear(c.touched)
}
