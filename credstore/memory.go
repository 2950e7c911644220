package credstore

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"
)

// NewMemory returns a Store that ends with the process. It refuses what the
// others refuse.
func NewMemory(now func() time.Time) Store {
	return newMemory(now, slog.New(slog.DiscardHandler))
}

func newMemory(now func() time.Time, logger *slog.Logger) Store {
	return &memory{
		now: now, logger: logger, locks: newLocks(nil, ""),
		held: make(map[Key]Credential),
	}
}

type memory struct {
	now    func() time.Time
	logger *slog.Logger
	locks  *locks

	mu   sync.Mutex
	held map[Key]Credential
}

// Get implements [Store].
func (m *memory) Get(ctx context.Context, k Key) (Credential, error) {
	if err := ctx.Err(); err != nil {
		return Credential{}, m.fail("read", ErrUnavailable, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	c, ok := m.held[k]
	if !ok {
		return Credential{}, m.fail("read", ErrNotFound, nil)
	}
	c.Attrs = maps.Clone(c.Attrs)
	return c, nil
}

// Put implements [Store].
func (m *memory) Put(ctx context.Context, c Credential) error {
	if err := ctx.Err(); err != nil {
		return m.fail("write", ErrUnavailable, err)
	}
	c, _, err := prepare(c, m.now)
	if err != nil {
		return refused(ModeMemory, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.held[c.Key] = c
	return nil
}

// Delete implements [Store].
func (m *memory) Delete(ctx context.Context, k Key) error {
	if err := ctx.Err(); err != nil {
		return m.fail("delete", ErrUnavailable, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.held[k]; !ok {
		return m.fail("delete", ErrNotFound, nil)
	}
	delete(m.held, k)
	return nil
}

// List implements [Store].
func (m *memory) List(ctx context.Context, protocol string) ([]Info, error) {
	if err := ctx.Err(); err != nil {
		return nil, m.fail("list", ErrUnavailable, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	infos := []Info{}
	for _, c := range m.held {
		c.Attrs = maps.Clone(c.Attrs)
		infos = append(infos, c.Info)
	}
	return ordered(infos, protocol), nil
}

// Lock implements [Store].
func (m *memory) Lock(ctx context.Context, k Key) (func(), error) {
	return lockKey(ctx, m.locks, m.logger, k)
}

// Backend implements [Store].
func (m *memory) Backend(context.Context) (string, error) { return ModeMemory, nil }

func (m *memory) fail(op string, kind, cause error) error {
	e := &Error{Op: op, Place: ModeMemory, Kind: kind, Cause: cause}
	if cause != nil {
		e.Remedy = "try again"
	}
	return e
}

// ordered returns the infos of a protocol, or all for "", in the order of List.
func ordered(infos []Info, protocol string) []Info {
	infos = slices.DeleteFunc(infos, func(i Info) bool { return protocol != "" && i.Protocol != protocol })
	slices.SortFunc(infos, func(a, b Info) int { return compareKeys(a.Key, b.Key) })
	return infos
}
