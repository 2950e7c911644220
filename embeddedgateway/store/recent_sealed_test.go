//go:build unix

package store_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/embeddedgateway/store"
)

// TestWhatIsSealedIsKeptAsItIs: a list is read once, and again when anybody has
// changed something sealed.
func TestWhatIsSealedIsKeptAsItIs(t *testing.T) {
	t.Parallel()
	k := newKept(t)
	seal := func(s *store.Store, name string, expires time.Time, end error) error {
		return s.Tx(t.Context(), func(tx *store.Tx) error {
			return errors.Join(tx.Seal(store.Sealed{Kind: "key", Name: name, Data: []byte{1}, ExpiresAt: expires}), end)
		})
	}
	names := func(s *store.Store, limit int) string {
		t.Helper()
		list, err := s.Sealed(t.Context(), "key", limit)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, v := range list {
			names = append(names, v.Name)
			if v.Data[0] != 1 {
				t.Errorf("%s has the data %v of another caller", v.Name, v.Data)
			}
			v.Data[0] = 2
		}
		return strings.Join(names, " ")
	}
	undone := errors.New("undone")
	for i, step := range []struct {
		do   func() error
		want string
	}{
		{func() error { return nil }, ""},
		{func() error { return seal(k.store, "a", time.Time{}, nil) }, "a"},
		{func() error { return seal(k.other, "b", time.Time{}, nil) }, "a b"},
		{func() error { _, err := k.shell.Exec(`UPDATE sealed SET name = 'c' WHERE name = 'a'`); return err }, "c b"},
		{func() error {
			if err := seal(k.store, "d", time.Time{}, undone); !errors.Is(err, undone) {
				return fmt.Errorf("got error %w", err)
			}
			return nil
		}, "c b"},
		{func() error {
			return k.store.Tx(t.Context(), func(tx *store.Tx) error { return tx.Outdate("key", "b", tx.Now().Add(-time.Second)) })
		}, "b"},
		{func() error {
			return k.store.Tx(t.Context(), func(tx *store.Tx) error {
				_, err := tx.Exec(`DELETE FROM sealed`)
				return err
			})
		}, ""},
	} {
		if err := step.do(); err != nil {
			t.Fatal(err)
		}
		for look := range 2 {
			for _, s := range []*store.Store{k.store, k.other} {
				if got := names(s, 10); got != step.want {
					t.Errorf("step %d, look %d: got %q, want %q", i, look, got, step.want)
				}
			}
		}
		if n := k.store.KeptSealed(); n != 1 {
			t.Errorf("step %d: %d lists are kept, want one", i, n)
		}
		if err := k.note(); err != nil {
			t.Fatal(err)
		}
		if n := k.store.KeptSealed(); n != 1 {
			t.Errorf("step %d: after a write to another table %d lists are kept, want one", i, n)
		}
	}
}

// TestWhatIsSealedExpiresWhileItIsKept: also where that makes room for another one
// in the list, and where a clock is set back.
func TestWhatIsSealedExpiresWhileItIsKept(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	s := open(t, t.TempDir()+"/gateway.db", func() time.Time { return now })
	err := s.Tx(t.Context(), func(tx *store.Tx) error {
		return errors.Join(
			tx.Seal(store.Sealed{Kind: "key", Name: "a", Data: []byte{}, ExpiresAt: now.Add(time.Hour)}),
			tx.Seal(store.Sealed{Kind: "key", Name: "b", Data: []byte{}}),
			tx.Seal(store.Sealed{Kind: "key", Name: "c", Data: []byte{}}))
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		later time.Duration
		want  [2]string
	}{{0, [2]string{"a b c", "a b"}}, {time.Hour, [2]string{"b c", "b c"}}, {-time.Minute, [2]string{"a b c", "a b"}}} {
		now = now.Add(step.later)
		for i, limit := range []int{4, 2} {
			for range 2 {
				list, err := s.Sealed(t.Context(), "key", limit)
				if err != nil {
					t.Fatal(err)
				}
				got := ""
				for _, v := range list {
					got += " " + v.Name
				}
				if strings.TrimSpace(got) != step.want[i] {
					t.Errorf("at %v, at most %d: got %q, want %q", now, limit, got, step.want[i])
				}
			}
		}
	}
}
