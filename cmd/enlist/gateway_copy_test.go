package main

import (
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/enlist-mcp/enlist/embeddedgateway/store/pgtest"
)

// TestPostgresScripts runs the sessions in testdata/postgres, which find the URL
// of an empty database in POSTGRES_URL.
func TestPostgresScripts(t *testing.T) {
	t.Parallel()
	url := pgtest.URL(t)
	params := scripts("testdata/postgres")
	params.Setup = func(env *testscript.Env) error {
		env.Setenv("POSTGRES_URL", url)
		return setUp(env)
	}
	testscript.Run(t, params)
}
