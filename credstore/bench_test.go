package credstore_test

import (
	"fmt"
	"testing"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/credstore/credstoretest"
)

func BenchmarkFileGet(b *testing.B) {
	s := openOn(b, options(b, credstore.ModeFile), credstore.QuickSystem())
	fill(b, s)
	k := credstoretest.Lona("agent-5").Key
	for b.Loop() {
		if _, err := s.Get(b.Context(), k); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkFilePut(b *testing.B) {
	s := openOn(b, options(b, credstore.ModeFile), credstore.QuickSystem())
	fill(b, s)
	c := credstoretest.Lona("agent-5")
	for b.Loop() {
		put(b, s, c)
	}
}

func BenchmarkList(b *testing.B) {
	s := openOn(b, options(b, credstore.ModeFile), credstore.QuickSystem())
	fill(b, s)
	for b.Loop() {
		if _, err := s.List(b.Context(), "lona"); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkOpen is what the store adds to the start of a server that has one.
func BenchmarkOpen(b *testing.B) {
	o := options(b, credstore.ModeFile)
	fill(b, openOn(b, o, credstore.QuickSystem()))
	for b.Loop() {
		if _, err := credstore.Open(o); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkPassphrase is what the first use of a file with a passphrase costs.
func BenchmarkPassphrase(b *testing.B) {
	o := options(b, credstore.ModeFile)
	o.Passphrase = passphrase("correct horse battery staple")
	s, err := credstore.Open(o)
	if err != nil {
		b.Fatal(err)
	}
	c := credstoretest.Lona("my-agent")
	put(b, s, c)
	for b.Loop() {
		s, err := credstore.Open(o)
		if err != nil {
			b.Fatal(err)
		}
		wantGet(b, s, c)
	}
}

func BenchmarkLock(b *testing.B) {
	s := openOn(b, options(b, credstore.ModeFile), credstore.QuickSystem())
	k := credstoretest.Lona("my-agent").Key
	for b.Loop() {
		unlock, err := s.Lock(b.Context(), k)
		if err != nil {
			b.Fatal(err)
		}
		unlock()
	}
}

// BenchmarkLockBetweenStores passes a lock to and fro, as between processes.
func BenchmarkLockBetweenStores(b *testing.B) {
	o := options(b, credstore.ModeFile)
	k := credstoretest.Lona("my-agent").Key
	b.RunParallel(func(pb *testing.PB) {
		s := openOn(b, o, credstore.QuickSystem())
		for pb.Next() {
			unlock, err := s.Lock(b.Context(), k)
			if err != nil {
				b.Error(err)
				return
			}
			unlock()
		}
	})
}

// fill puts ten credentials.
func fill(b *testing.B, s credstore.Store) {
	b.Helper()
	for i := range 10 {
		put(b, s, credstoretest.Lona(fmt.Sprint("agent-", i)))
	}
}
