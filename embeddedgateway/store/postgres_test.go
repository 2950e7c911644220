package store_test

import (
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/embeddedgateway/store"
	"github.com/enlist-mcp/enlist/embeddedgateway/store/pgtest"
	"github.com/enlist-mcp/enlist/embeddedgateway/store/storetest"
)

// openURL opens a store on PostgreSQL and closes it with the test.
func openURL(t testing.TB, url string, now func() time.Time) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), store.Options{URL: url, Now: now})
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return s
}

func TestPostgreSQL(t *testing.T) {
	storetest.Run(t, func(t *testing.T, now func() time.Time) *store.Store {
		return openURL(t, pgtest.URL(t), now)
	})
}
