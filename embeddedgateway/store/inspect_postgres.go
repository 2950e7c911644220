package store

import (
	"context"
	"errors"
	"net"
	"strconv"

	"github.com/jackc/pgx/v5/stdlib"
)

// InspectPostgres looks at a database of PostgreSQL, and whether it could be used
// from here, and changes nothing. An error does not hold the password.
func InspectPostgres(ctx context.Context, url string) (Inspection, error) {
	seen := Inspection{Knows: newest()}
	cfg, _, err := parsePostgres(url)
	if err != nil {
		return seen, err
	}
	db := &postgresDB{name: net.JoinHostPort(cfg.Host, strconv.Itoa(int(cfg.Port))) + "/" + cfg.Database}
	ctx, cancel := context.WithTimeout(ctx, 2*connectTime)
	defer cancel()
	pool := stdlib.OpenDB(*cfg)
	defer func() { _ = pool.Close() }() // it only reads
	var mayCreate bool
	err = pool.QueryRowContext(ctx, `SELECT to_regclass('goose_db_version') IS NOT NULL,
		coalesce(has_schema_privilege(current_schema(), 'CREATE'), false)`).Scan(&seen.Exists, &mayCreate)
	if err == nil && seen.Exists {
		err = pool.QueryRowContext(ctx, "SELECT max(version_id) FROM goose_db_version").Scan(&seen.Version)
	}
	if err != nil {
		return seen, db.explain(err)
	}
	if seen.Version > seen.Knows {
		return seen, db.explain(seen.newer())
	}
	if seen.Version < seen.Knows && !mayCreate {
		return seen, db.explain(errors.New("tables are to be made, and the user of the URL may not; " +
			"as an administrator: GRANT CREATE, USAGE ON SCHEMA public TO that user, or make it the owner of the database"))
	}
	return seen, nil
}
