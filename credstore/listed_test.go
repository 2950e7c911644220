package credstore_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/credstore"
)

func TestListedLooksIntoTheIndexOnly(t *testing.T) {
	home := filepath.Join(t.TempDir(), "home")
	if got, err := credstore.Listed(t.Context(), home); err != nil || len(got) != 0 {
		t.Errorf("without a home: got %v, %v", got, err)
	}
	if _, err := os.Stat(home); !os.IsNotExist(err) {
		t.Errorf("the home: got %v, want none made", err)
	}
	s, err := credstore.Open(credstore.Options{Mode: credstore.ModeFile, Home: home, ConfigDir: t.TempDir(), Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	k := credstore.Key{Protocol: "lona", Origin: "https://lona.example", Agent: "my-agent", Kind: credstore.KindToken}
	err = s.Put(t.Context(), credstore.Credential{
		Secret: credstore.NewSecret("a-secret"), Info: credstore.Info{Key: k, State: credstore.StateActive, CreatedAt: time.Now()},
	})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := credstore.Listed(t.Context(), home); err != nil || len(got) != 1 || got[0].Key != k {
		t.Errorf("got %v, %v, want %v", got, err, k)
	}
	if c, ok := s.(interface{ Close() error }); ok {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	index := filepath.Join(home, "index.db")
	if err := os.WriteFile(index, []byte("no database, but long enough to be looked at"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := credstore.Listed(t.Context(), home); err == nil {
		t.Errorf("a damaged index: got %v", got)
	}
	if text, err := os.ReadFile(index); err != nil || string(text) != "no database, but long enough to be looked at" {
		t.Errorf("it was changed: %q, %v", text, err)
	}
}
