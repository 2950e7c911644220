//go:build unix

package store_test

import (
	"errors"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/embeddedgateway/store"
)

// TestNobodyIsToldBeforeTheDiskHasIt holds the sync of the log up. A Tx that was
// committed does not return; one that passes does, and the writer goes on.
func TestNobodyIsToldBeforeTheDiskHasIt(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	begun, on := make(chan struct{}), make(chan struct{})
	var syncs atomic.Int64
	synced := s.Sync(func(sync func() error) error {
		syncs.Add(1)
		begun <- struct{}{}
		<-on
		return sync()
	})
	if !synced {
		t.Fatal("the log is not synced behind the writer")
	}
	var told atomic.Int64
	write := func(name string) <-chan error {
		done := make(chan error, 1)
		go func() {
			err := s.Tx(t.Context(), func(tx *store.Tx) error { return note(tx, name) })
			told.Add(1)
			done <- err
		}()
		return done
	}
	first := write("first")
	sync := func(waits <-chan error) {
		t.Helper()
		select {
		case <-begun:
		case err := <-waits:
			t.Fatalf("told %v without a sync", err)
		}
	}
	sync(first)
	ran := make(chan struct{})
	second := make(chan error, 1)
	go func() {
		second <- s.Tx(t.Context(), func(tx *store.Tx) error {
			close(ran)
			return note(tx, "second")
		})
		told.Add(1)
	}()
	<-ran
	for range 3 {
		if err := s.TxPassing(t.Context(), func(tx *store.Tx) error { return note(tx, "passing") }); err != nil {
			t.Fatal(err)
		}
	}
	if got := names(t, s); strings.Count(got, "passing") != 3 || !strings.Contains(got, "first") {
		t.Errorf("others see %q, want what was committed", got)
	}
	if n := told.Load(); n != 0 {
		t.Fatalf("%d were told before the disk had it", n)
	}
	on <- struct{}{}
	if err := <-first; err != nil {
		t.Fatal(err)
	}
	// The sync that was under way says nothing of what was committed meanwhile.
	sync(second)
	if n := told.Load(); n != 1 {
		t.Fatalf("%d were told by a sync that began before their commit", n-1)
	}
	on <- struct{}{}
	if err := <-second; err != nil {
		t.Fatal(err)
	}
	if n := syncs.Load(); n != 2 {
		t.Errorf("got %d syncs, want one each for those that wait for it", n)
	}
}

// TestNothingIsWrittenAfterTheDiskHasFailed: a second sync may succeed because the
// system has forgotten the first.
func TestNothingIsWrittenAfterTheDiskHasFailed(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "gateway.db")
	s := open(t, path, time.Now)
	fault := errors.New("the disk is on fire")
	var syncs atomic.Int64
	s.Sync(func(sync func() error) error {
		if syncs.Add(1) == 2 {
			return fault
		}
		return sync()
	})
	write := func(name string) error {
		return s.Tx(t.Context(), func(tx *store.Tx) error { return note(tx, name) })
	}
	if err := write("first"); err != nil {
		t.Fatal(err)
	}
	if err := write("second"); !errors.Is(err, fault) || !strings.Contains(err.Error(), "not known") {
		t.Errorf("got error %v, want that nobody knows", err)
	}
	for range 3 {
		if err := write("third"); !errors.Is(err, fault) {
			t.Errorf("got error %v, want that nothing is written", err)
		}
	}
	if err := s.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	s = open(t, path, time.Now)
	if got := names(t, s); !strings.Contains(got, "first") || strings.Contains(got, "third") {
		t.Errorf("events: got %q, want the first and no third", got)
	}
	if err := s.Tx(t.Context(), func(tx *store.Tx) error { return note(tx, "fourth") }); err != nil {
		t.Errorf("opened again: %v", err)
	}
}

// TestWhatPassesIsCommitted: it outlasts the store, is undone where it fails, and is
// on the disk when a Tx after it is.
func TestWhatPassesIsCommitted(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "gateway.db")
	s := open(t, path, time.Now)
	var syncs atomic.Int64
	s.Sync(func(sync func() error) error {
		syncs.Add(1)
		return sync()
	})
	fault := errors.New("a fault")
	if err := s.TxPassing(t.Context(), func(tx *store.Tx) error { return errors.Join(note(tx, "undone"), fault) }); !errors.Is(err, fault) {
		t.Errorf("got error %v, want that of the callback", err)
	}
	if err := s.TxPassing(t.Context(), func(tx *store.Tx) error { return note(tx, "passing") }); err != nil {
		t.Fatal(err)
	}
	if n := syncs.Load(); n != 0 {
		t.Errorf("got %d syncs for what passes, want none", n)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if got := names(t, open(t, path, time.Now)); got != "passing" {
		t.Errorf("events: got %q", got)
	}
}

// TestTheWriterDoesNotWaitForTheDatabasesSync: after pages of the log were moved the
// database is synced, and while that takes its time others write.
func TestTheWriterDoesNotWaitForTheDatabasesSync(t *testing.T) {
	t.Parallel()
	s := fresh(t)
	begun, on := make(chan struct{}), make(chan struct{})
	var once sync.Once
	s.SyncDatabase(func() error {
		once.Do(func() {
			close(begun)
			<-on
		})
		return nil
	})
	write := func(text string) {
		t.Helper()
		if err := s.Tx(t.Context(), func(tx *store.Tx) error { return note(tx, text) }); err != nil {
			t.Fatal(err)
		}
	}
	large := strings.Repeat("x", 4<<20)
	for moved, n := false, 0; !moved; n++ {
		if n == 100 {
			t.Fatal("400 MiB were written, and the database was not synced")
		}
		write(large)
		select {
		case <-begun:
			moved = true
		default:
		}
	}
	for range 3 {
		write("meanwhile")
	}
	close(on)
}
