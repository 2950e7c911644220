package store

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// changesTable counts the changes of rows of credentials and agents: those that
// make a row wrong that somebody keeps. Triggers count, so that nothing is missed
// whoever does it: a replica, a version that knows nothing of this, or somebody with
// psql. A change and its count become visible at once, being of one transaction.
const changesTable = "row_changes"

// changeShards is how many rows the table has at most: two that end credentials at
// the same time seldom wait for each other's.
const changeShards = 32

// countTriggers are the triggers of each of the two tables that count: one for rows
// that are changed, where that is of what is kept, one for rows that are deleted, one
// for all at once. The first two are for each row: what a subscription applies has no
// statements; and the first is for every column, as another trigger may change one
// that the statement does not name. The names have a number, which is another one
// where what they do is.
const (
	countChanged = "count_changed_1"
	countDeleted = "count_deleted_1"
	countEmptied = "count_emptied_1"
)

// triggersThere are the triggers that work, also for what a subscription applies.
const triggersThere = `FROM pg_catalog.pg_trigger WHERE tgenabled = 'A'
	AND tgrelid IN ('credentials'::regclass, 'agents'::regclass)
	AND tgname IN ('` + countChanged + `', '` + countDeleted + `', '` + countEmptied + `')`

// allTriggers is how many they are.
const allTriggers = "6"

// readCount is the count as a statement reads it. It only grows.
const readCount = `CAST(coalesce(sum(n), 0) AS BIGINT) FROM ` + changesTable

// readState is a [version] as a statement reads it: the count, and a number of the
// triggers that is another one after each change of them, 0 where one is missing or
// was switched off.
const readState = `(SELECT ` + readCount + `),
	(SELECT CASE count(*) WHEN ` + allTriggers + ` THEN CAST(sum(CAST(CAST(xmin AS TEXT) AS BIGINT)) AS BIGINT) ELSE 0 END ` + triggersThere + `)`

// noState is the state where nothing counts.
const noState = "CAST(0 AS BIGINT), CAST(0 AS BIGINT)"

// countLock is how long the statements that make the triggers wait for those who
// write, while nobody else begins to; countTries is how often they are tried.
const (
	countLock  = "1s"
	countTries = 5
)

// version is a state of the rows that are kept: what one connection said of it.
// Another connection may be to another server, whose count says nothing here.
type version struct {
	conn            uint64 // 0: nothing is to be kept
	count, triggers int64
}

// counts reports whether every change makes it another state.
func (v version) counts() bool { return v.conn != 0 && v.count != 0 && v.triggers != 0 }

// old reports whether v is an earlier state than w.
func (v version) old(w version) bool {
	return v.conn < w.conn || v.conn == w.conn && v.count < w.count
}

// dated is a row, and the state that it was read in: by one statement, in one
// snapshot.
type dated[V any] struct {
	row V
	at  version
}

// kept are rows of a server that were read before. Every read asks the server
// whether they are still what it has, by a statement that it shares with those who
// ask at about the same time and that begins after it; if anything was changed
// since, the row is read. So what was revoked before a read began is never found,
// as if the row itself were read each time, which costs a server several times as
// much.
type kept struct {
	mu     sync.RWMutex
	state  version
	byHash rows[keyHash, Credential]
	byName rows[agentName, Agent]
}

// stillKept returns the row of a key, by read where it is not kept or may be
// another one now.
func stillKept[K comparable, V any](ctx context.Context, db *postgresDB, in *rows[K, V], key K, id func(V) int64, read *shared[K, dated[V]]) (V, error) {
	k := &db.kept
	k.mu.RLock()
	v, ok := in.get(key)
	state := k.state
	k.mu.RUnlock()
	if ok {
		now, err := db.versions.get(ctx, struct{}{})
		if err != nil {
			return *new(V), err
		}
		if now == state {
			return v, nil
		}
	}
	d, err := read.get(ctx, key)
	if err != nil {
		return *new(V), err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case !d.at.counts():
		k.begin(version{})
	case d.at == k.state:
		in.put(maxRecent, key, id(d.row), d.row)
	case !d.at.old(k.state):
		k.begin(d.at)
		in.put(maxRecent, key, id(d.row), d.row)
	}
	return d.row, nil
}

// begin forgets everything.
func (k *kept) begin(state version) {
	k.state, k.byHash, k.byName = state, rows[keyHash, Credential]{}, rows[agentName, Agent]{}
}

// used notes when credentials were used last, which is no change that is counted: it
// does not decide about anything.
func (k *kept) used(touched map[int64]time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for id, at := range touched {
		k.byHash.change(id, func(c *Credential) {
			if at.After(c.LastUsedAt) {
				c.LastUsedAt = at
			}
		})
	}
}

// watched marks a connection whose server counts changes. What speaks the protocol
// and does not count is asked for the rows themselves, each time.
func (db *postgresDB) watched(ctx context.Context, conn *pgx.Conn) error {
	var count, triggers int64
	err := conn.QueryRow(ctx, "SELECT "+readState).Scan(&count, &triggers)
	if _, refused := errors.AsType[*pgconn.PgError](err); err != nil && (!refused || isLost(err)) {
		return err
	}
	if err != nil || count == 0 || triggers == 0 {
		db.log.WarnContext(ctx, "the server does not count changes, so that each request asks it for its rows", "error", err)
		return nil
	}
	conn.PgConn().CustomData()[changesTable] = db.conns.Add(1)
	return nil
}

// connOf returns the number of a connection whose server counts changes, or 0.
func connOf(conn *pgconn.PgConn) uint64 {
	n, _ := conn.CustomData()[changesTable].(uint64)
	return n
}

// countOn makes the server count, unless it does. Who has migrated the tables may do
// so; what speaks the protocol and has no triggers does not.
func (db *postgresDB) countOn(ctx context.Context, conn *pgx.Conn) error {
	there := false
	if err := conn.QueryRow(ctx, "SELECT count(*) = "+allTriggers+" "+triggersThere).Scan(&there); err == nil && there {
		return nil
	}
	var schema string
	if err := conn.QueryRow(ctx, "SELECT current_schema()").Scan(&schema); err != nil {
		return err
	}
	var err error
	for range countTries {
		err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
			_, err := tx.Exec(ctx, countingIn(pgx.Identifier{schema}.Sanitize()))
			return err
		})
		if !isConflict(err) && !hasCode(err, "55P03") {
			break
		}
	}
	if _, refused := errors.AsType[*pgconn.PgError](err); refused && !isLost(err) {
		db.log.WarnContext(ctx, "the server cannot be made to count changes, so that each request asks it for its rows", "error", err)
		return nil
	}
	return err
}

// countingIn are the statements that make a server count. The function writes as its
// owner: who changes a row by hand needs no more rights than for that.
func countingIn(schema string) string {
	words := []string{
		"${SCHEMA}", schema, "${LOCK}", countLock, "${TABLE}", changesTable, "${SHARDS}", strconv.Itoa(changeShards),
		"${CHANGED}", countChanged, "${DELETED}", countDeleted, "${EMPTIED}", countEmptied,
	}
	q := `
		SET LOCAL lock_timeout = '${LOCK}';
		-- In the order in which every transaction comes to them.
		LOCK TABLE ${SCHEMA}.agents IN SHARE ROW EXCLUSIVE MODE;
		LOCK TABLE ${SCHEMA}.credentials IN SHARE ROW EXCLUSIVE MODE;
		CREATE TABLE IF NOT EXISTS ${SCHEMA}.${TABLE} (shard INTEGER PRIMARY KEY, n BIGINT NOT NULL) WITH (fillfactor = 10);
		CREATE OR REPLACE FUNCTION ${SCHEMA}.count_row_change() RETURNS trigger LANGUAGE plpgsql
			SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
			BEGIN
				-- A row that is made anew must not give a count that was there before.
				INSERT INTO ${SCHEMA}.${TABLE} AS c (shard, n)
					VALUES (pg_backend_pid() % ${SHARDS}, CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS BIGINT))
					ON CONFLICT (shard) DO UPDATE SET n = c.n + 1;
				RETURN NULL;
			END $$;
		INSERT INTO ${SCHEMA}.${TABLE} (shard, n)
			VALUES (0, CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS BIGINT)) ON CONFLICT (shard) DO NOTHING;
	`
	for _, of := range []struct{ table, columns string }{
		{"agents", agentColumns},
		{"credentials", strings.ReplaceAll(keyColumns, "last_used_at,", "")}, // which decides about nothing
	} {
		table, columns := of.table, of.columns
		names := strings.FieldsFunc(columns, func(r rune) bool { return r == ',' || unicode.IsSpace(r) })
		words = append(words, "${OLD "+table+"}", "(OLD."+strings.Join(names, ", OLD.")+")", "${NEW "+table+"}", "(NEW."+strings.Join(names, ", NEW.")+")")
		q += strings.ReplaceAll(`
		CREATE OR REPLACE TRIGGER ${CHANGED} AFTER UPDATE ON ${SCHEMA}.${ON}
			FOR EACH ROW WHEN (${OLD ${ON}} IS DISTINCT FROM ${NEW ${ON}}) EXECUTE FUNCTION ${SCHEMA}.count_row_change();
		CREATE OR REPLACE TRIGGER ${DELETED} AFTER DELETE ON ${SCHEMA}.${ON}
			FOR EACH ROW EXECUTE FUNCTION ${SCHEMA}.count_row_change();
		CREATE OR REPLACE TRIGGER ${EMPTIED} AFTER TRUNCATE ON ${SCHEMA}.${ON}
			FOR EACH STATEMENT EXECUTE FUNCTION ${SCHEMA}.count_row_change();
		ALTER TABLE ${SCHEMA}.${ON} ENABLE ALWAYS TRIGGER ${CHANGED}, ENABLE ALWAYS TRIGGER ${DELETED}, ENABLE ALWAYS TRIGGER ${EMPTIED};
		`, "${ON}", table)
	}
	return strings.NewReplacer(words...).Replace(q)
}

// lookEvery is how often a server that is asked much is asked about the triggers too,
// which takes as long as the count. Who switches them off, which takes the owner of
// the tables, is heard of so much later.
const lookEvery = 100 * time.Millisecond

// looked is what the server said of the triggers last.
type looked struct {
	at       time.Time
	conn     uint64
	triggers int64
}

// readVersion asks the server which state its rows are in. One asks at a time.
func (db *postgresDB) readVersion(ctx context.Context, _ []struct{}) (map[struct{}]version, error) {
	now := db.now()
	quick := db.looked.conn != 0 && now.Sub(db.looked.at).Abs() < lookEvery
	q := statement{counting: "SELECT " + readState, plain: "SELECT " + noState}
	if quick {
		q.counting = "SELECT " + readCount
	}
	var v version
	err := db.fetch(ctx, q, nil, func(conn uint64, fields []pgconn.FieldDescription, row [][]byte) error {
		said, err := values(fields, row)
		if err != nil {
			return err
		}
		v = version{conn: conn}
		return assignAll(v.dest()[:len(said)], said)
	})
	switch {
	case err != nil:
		return nil, err
	case !quick:
		db.looked = looked{now, v.conn, v.triggers}
	case v.conn == db.looked.conn:
		v.triggers = db.looked.triggers
	}
	return map[struct{}]version{{}: v}, nil
}

func (v *version) dest() []any { return []any{&v.count, &v.triggers} }
