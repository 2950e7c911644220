package store

import (
	"context"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5/pgconn"
)

// slots is how many reads of a [shared] are under way at once.
const slots = 1

// shared answers everybody who asks for a row at about the same time by one
// statement: a round trip to a server costs much more than a row. It is no
// cache. Who asks while a statement is under way waits for the next one, so that
// what anybody gets was read after they asked: what was revoked before is never
// found.
type shared[K comparable, V any] struct {
	read func(ctx context.Context, keys []K) (map[K]V, error)

	mu   sync.Mutex
	next *batch[K, V] // who waits for the next statement; nil: nobody
	busy int          // statements under way
}

type batch[K comparable, V any] struct {
	ctx   context.Context //nolint:containedctx // of who came first, without its end: for its values
	keys  map[K]struct{}
	done  chan struct{}
	found map[K]V
	err   error
}

// get returns the row of a key, or [ErrNotFound].
func (s *shared[K, V]) get(ctx context.Context, key K) (v V, err error) {
	b := s.join(ctx, key)
	select {
	case <-b.done:
	case <-ctx.Done():
		return v, ctx.Err()
	}
	if b.err != nil {
		return v, b.err
	}
	v, ok := b.found[key]
	if !ok {
		return v, ErrNotFound
	}
	return v, nil
}

// join puts a key into the next statement, and begins that if there is a slot.
func (s *shared[K, V]) join(ctx context.Context, key K) *batch[K, V] {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.next
	if b == nil {
		b = &batch[K, V]{ctx: context.WithoutCancel(ctx), keys: map[K]struct{}{}, done: make(chan struct{})}
		s.next = b
	}
	b.keys[key] = struct{}{}
	if s.busy < slots {
		s.busy++
		s.next = nil
		go s.run(b)
	}
	return b
}

// run reads for one batch after the other, until nobody waits.
func (s *shared[K, V]) run(b *batch[K, V]) {
	for b != nil {
		keys := make([]K, 0, len(b.keys))
		for key := range b.keys {
			keys = append(keys, key)
		}
		b.found, b.err = s.read(b.ctx, keys)
		close(b.done)
		// Those who are ready to ask, do so first: the next statement is for twice as
		// many of them.
		runtime.Gosched()
		s.mu.Lock()
		b, s.next = s.next, nil
		if b == nil {
			s.busy--
		}
		s.mu.Unlock()
	}
}

// share makes the reads that requests share.
func (db *postgresDB) share() {
	db.versions = &shared[struct{}, version]{read: db.readVersion}
	db.credentials = &shared[keyHash, dated[Credential]]{read: func(ctx context.Context, keys []keyHash) (map[keyHash]dated[Credential], error) {
		return readMany(ctx, db, keys, keyColumns, `FROM credentials WHERE protocol = $1 AND hash = ANY($2)`,
			func(k keyHash) ([]string, []byte) { return []string{k.protocol}, k.hash[:] },
			func(c Credential) keyHash { return keyHash{c.Protocol, c.Hash} }, (*Credential).dest)
	}}
	db.agents = &shared[agentName, dated[Agent]]{read: func(ctx context.Context, keys []agentName) (map[agentName]dated[Agent], error) {
		return readMany(ctx, db, keys, agentColumns, `FROM agents WHERE protocol = $1 AND name = ANY($2)`,
			func(k agentName) ([]string, string) { return []string{k.protocol}, k.name },
			func(a Agent) agentName { return agentName{a.Protocol, a.Name} }, (*Agent).dest)
	}}
	db.tickets = &shared[ticketHash, dated[Ticket]]{read: func(ctx context.Context, keys []ticketHash) (map[ticketHash]dated[Ticket], error) {
		return readMany(ctx, db, keys, ticketColumns, `FROM tickets WHERE protocol = $1 AND kind = $2 AND hash = ANY($3)`,
			func(k ticketHash) ([]string, []byte) { return []string{k.protocol, k.kind}, k.hash[:] },
			func(t Ticket) ticketHash { return ticketHash{t.Protocol, t.Kind, t.Hash} }, (*Ticket).dest)
	}}
}

// sharedCredential is [Store.Credential]. Several get the same row, and each a
// copy of what they could change of it; so it is with the others.
func (s *Store) sharedCredential(ctx context.Context, protocol string, hash [32]byte) (Credential, error) {
	if err := s.readable(ctx, []any{protocol}); err != nil {
		return Credential{}, err
	}
	db := s.shared
	c, err := stillKept(ctx, db, &db.kept.byHash, keyHash{protocol, hash}, credentialID, db.credentials)
	c.Scopes = slices.Clone(c.Scopes)
	return c, s.readError(err)
}

// sharedAgent is [Store.Agent].
func (s *Store) sharedAgent(ctx context.Context, protocol, name string) (Agent, error) {
	if err := s.readable(ctx, []any{protocol, name}); err != nil {
		return Agent{}, err
	}
	db := s.shared
	a, err := stillKept(ctx, db, &db.kept.byName, agentName{protocol, name}, agentID, db.agents)
	a.Attrs = maps.Clone(a.Attrs)
	return a, s.readError(err)
}

// sharedTicket is [Store.Ticket].
func (s *Store) sharedTicket(ctx context.Context, protocol, kind string, hash [32]byte) (Ticket, error) {
	if err := s.readable(ctx, []any{protocol, kind}); err != nil {
		return Ticket{}, err
	}
	d, err := s.shared.tickets.get(ctx, ticketHash{protocol, kind, hash})
	t := d.row
	t.Data = maps.Clone(t.Data)
	return t, s.readError(err)
}

// group are the keys of one statement: they have all but the last argument in
// common.
type group[P any] struct {
	args [][]byte
	last []P
}

// readMany reads the rows of many keys, by a statement whose last argument is a
// list. split takes a key apart; what belongs together is read together.
func readMany[K comparable, P ~string | ~[]byte, V any](ctx context.Context, db *postgresDB, keys []K, columns, from string,
	split func(K) ([]string, P), key func(V) K, dest func(*V) []any,
) (map[K]dated[V], error) {
	groups := map[string]*group[P]{}
	for _, k := range keys {
		args, last := split(k)
		name := strings.Join(args, "\x00")
		g := groups[name]
		if g == nil {
			g = &group[P]{}
			for _, a := range args {
				g.args = append(g.args, []byte(a))
			}
			groups[name] = g
		}
		g.last = append(g.last, last)
	}
	q := statement{
		counting: "SELECT " + readState + ", " + columns + " " + from,
		plain:    "SELECT " + noState + ", " + columns + " " + from,
	}
	found := make(map[K]dated[V], len(keys))
	for _, g := range groups {
		db.rowReads.Add(1)
		err := db.fetch(ctx, q, append(g.args, arrayOf(g.last)), func(conn uint64, fields []pgconn.FieldDescription, row [][]byte) error {
			v, err := values(fields, row)
			if err != nil {
				return err
			}
			d := dated[V]{at: version{conn: conn}}
			if err := assignAll(append(d.at.dest(), dest(&d.row)...), v); err != nil {
				return err
			}
			found[key(d.row)] = d
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return found, nil
}
