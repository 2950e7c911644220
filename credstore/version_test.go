package credstore_test

import (
	"crypto/hkdf"
	"crypto/sha256"
	"database/sql"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/credstore/credstoretest"
)

// Two versions of the program may share a home. What a later one wrote this one
// refuses and leaves as it is; what the first one wrote it reads. So the homes
// in here are written literally, without the code that reads them.

func TestWhatANewerEnlistWroteIsRefusedAndLeftAsItIs(t *testing.T) {
	c, next := credstoretest.Lona("b"), credstoretest.Lona("b")
	next.Secret = credstore.NewSecret("next s3cr3t")
	refused := func(t *testing.T, err error) {
		t.Helper()
		wantRemedy(t, err, credstore.ErrDamaged)
		if err != nil && (!strings.Contains(err.Error(), "(update Enlist)") || !strings.Contains(err.Error(), "newer Enlist")) {
			t.Errorf("got %v, want that Enlist must be updated", err)
		}
	}
	repair := func(t *testing.T, s credstore.Store) error {
		t.Helper()
		_, err := s.(credstore.Inspector).Repair(t.Context())
		return err
	}
	t.Run("an index", func(t *testing.T) {
		o, on, path, good := indexed(t)
		newer := string(good[:60]) + "\x00\x00\x00\x02" + string(good[64:])
		write(t, path, newer, 0o600)
		s := openOn(t, o, on)
		_, err := s.List(t.Context(), "")
		refused(t, err)
		refused(t, s.Put(t.Context(), next))
		refused(t, s.Delete(t.Context(), c.Key))
		refused(t, repair(t, s))
		wantGet(t, s, c) // a read does not need it
		if got := inspect(t, s).Index; got.State != credstore.IndexNewer || got.Fault.Remedy != "update Enlist" {
			t.Errorf("got %+v", got)
		}
		wantFile(t, path, newer)
	})
	t.Run("an item of the keyring", func(t *testing.T) {
		o, on, path, _ := indexed(t)
		r := ringOf(on)
		r.edit("b", `{"v":2,"agent":["b"],"sealed":"s3cr3t"}`)
		items := fmt.Sprint(r.items)
		s := openOn(t, o, on)
		_, err := s.Get(t.Context(), c.Key)
		refused(t, err)
		refused(t, s.Put(t.Context(), next))
		refused(t, s.Delete(t.Context(), c.Key))
		wantListed(t, s, "a", "b", "c")
		remove(t, path)
		_, err = s.List(t.Context(), "")
		refused(t, err)
		wantGet(t, s, credstoretest.Lona("a"))
		if got := fmt.Sprint(r.items); got != items {
			t.Errorf("got %s, want %s", got, items)
		}
	})
	t.Run("the list of the keyring", func(t *testing.T) {
		o, on, path, _ := indexed(t)
		r := ringOf(on)
		const newer = `{"v":2,"part":1,"parts":1,"keys":["b"]}`
		r.setList(t, "part 1", newer)
		s := openOn(t, o, on)
		refused(t, s.Put(t.Context(), credstoretest.Lona("d")))
		wantListed(t, s, "a", "b", "c")
		_, err := s.Get(t.Context(), credstoretest.Lona("d").Key)
		wantError(t, err, credstore.ErrNotFound)
		put(t, s, next) // the set of keys stays the same
		wantGet(t, s, next)
		refused(t, repair(t, s))
		if err := s.Delete(t.Context(), c.Key); err != nil { // it may name what is not there
			t.Error(err)
		}
		wantListed(t, s, "a", "c")
		remove(t, path)
		_, err = s.List(t.Context(), "")
		refused(t, err)
		if got := r.list()["part 1"]; got != newer {
			t.Errorf("got %s, want %s", got, newer)
		}
	})
	t.Run("a file", func(t *testing.T) {
		o := options(t, credstore.ModeFile)
		s := openOn(t, o, credstore.QuickSystem())
		put(t, s, c)
		newer := strings.Replace(string(read(t, encPath(o))), `"version":1`, `"version":2`, 1)
		newer = strings.Replace(newer, `"version": 1`, `"version": 2`, 1)
		newer = strings.Replace(newer, `"items"`, `"items":{},"more"`, 1) // of another shape, too
		write(t, encPath(o), newer, 0o600)
		_, err := s.Get(t.Context(), c.Key)
		refused(t, err)
		refused(t, s.Put(t.Context(), next))
		refused(t, s.Put(t.Context(), credstoretest.Lona("d")))
		refused(t, s.Delete(t.Context(), c.Key))
		refused(t, repair(t, s))
		wantListed(t, s, "b")
		wantFile(t, encPath(o), newer)
	})
	t.Run("an item of a file", func(t *testing.T) {
		o := firstFileHome(t, 2)
		s := openOn(t, o, credstore.QuickSystem())
		before := string(read(t, encPath(o)))
		k := firstKey()
		over := next
		over.Key = k
		_, err := s.Get(t.Context(), k)
		refused(t, err)
		refused(t, s.Put(t.Context(), over))
		refused(t, s.Delete(t.Context(), k))
		wantFile(t, encPath(o), before)
	})
}

// firstKey is the key of what is in a home of the first version.
func firstKey() credstore.Key {
	return credstore.Key{Protocol: "lona", Origin: "https://gateway.lona.agency", Agent: "scout", Kind: credstore.KindToken, Label: "work"}
}

// firstEnvelope is a credential as the first version wrote it.
func firstEnvelope(version int) string {
	return fmt.Sprintf(`{"v":%d,"protocol":"lona","origin":"https://gateway.lona.agency","agent":"scout","kind":"token","label":"work","state":"active",`+
		`"key_id":"key of scout","created":"2026-01-07T14:00:00.123Z","expires":"2026-02-06T14:00:00.123Z","attrs":{"user_id":"scout"},"secret":"made up for a test"}`, version)
}

// firstIndex writes an index as the first version did.
func firstIndex(t *testing.T, o credstore.Options) {
	t.Helper()
	db, err := sql.Open("sqlite", filepath.Join(o.Home, "index.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	const created, expires = 1767794400123, 1770386400123
	sum := sha256.Sum256([]byte(`[["lona","https://gateway.lona.agency","scout","token","work"],"settled","active","key of scout",` +
		`{"Int64":1767794400123,"Valid":true},{"Int64":1770386400123,"Valid":true},{"user_id":"scout"}]`))
	for _, statement := range []struct {
		text string
		args []any
	}{
		{text: "PRAGMA journal_mode = WAL"},
		{text: "CREATE TABLE credentials (\n\tprotocol TEXT NOT NULL,\n\torigin TEXT NOT NULL,\n\tagent TEXT NOT NULL,\n\tkind TEXT NOT NULL,\n" +
			"\tlabel TEXT NOT NULL,\n\tphase TEXT NOT NULL,\n\tstate TEXT NOT NULL,\n\tkey_id TEXT NOT NULL,\n\tcreated_at INTEGER,\n" +
			"\texpires_at INTEGER,\n\tattrs TEXT NOT NULL,\n\tsum BLOB NOT NULL,\n\tPRIMARY KEY (protocol, origin, agent, kind, label)\n) STRICT, WITHOUT ROWID"},
		{text: "PRAGMA user_version = 1"},
		{
			"INSERT INTO credentials VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
			[]any{
				"lona", "https://gateway.lona.agency", "scout", "token", "work", "settled", "active", "key of scout",
				created, expires, `{"user_id":"scout"}`, sum[:8],
			},
		},
	} {
		if _, err := db.ExecContext(t.Context(), statement.text, statement.args...); err != nil {
			t.Fatal(err)
		}
	}
}

// firstFileHome is a home with an encrypted file as the first version wrote it,
// with an envelope of a version.
func firstFileHome(t *testing.T, envelope int) credstore.Options {
	t.Helper()
	o := options(t, credstore.ModeAuto)
	secret := sha256.Sum256([]byte("the key in the key file"))
	write(t, filepath.Join(o.ConfigDir, "credentials.key"), "enlist-key-1:"+base64.RawURLEncoding.EncodeToString(secret[:])+"\n", 0o600)
	write(t, filepath.Join(o.Home, "store"), "file\n", 0o600)
	salt := []byte("sixteen bytes of")
	key, err := hkdf.Key(sha256.New, secret[:], salt, "enlist credentials", 32)
	if err != nil {
		t.Fatal(err)
	}
	aead, err := chacha20poly1305.NewX(key)
	if err != nil {
		t.Fatal(err)
	}
	box := func(nonce, text, purpose string) map[string]any {
		return map[string]any{"nonce": []byte(nonce), "data": aead.Seal(nil, []byte(nonce), []byte(text), []byte(purpose))}
	}
	sum := sha256.Sum256([]byte(`["lona","https://gateway.lona.agency","scout","token","work"]`))
	item := box("twenty-four bytes, item.", firstEnvelope(envelope), "enlist credentials 1 item "+hex.EncodeToString(sum[:]))
	item["id"] = hex.EncodeToString(sum[:])
	data, err := json.Marshal(map[string]any{
		"format": "enlist credentials", "version": 1,
		"key":   map[string]any{"from": "key file", "salt": salt},
		"check": box("twenty-four bytes, check", "", fmt.Sprintf("enlist credentials 1 check key file %x 0 0 0", salt)),
		"items": []any{item},
	})
	if err != nil {
		t.Fatal(err)
	}
	write(t, encPath(o), string(data), 0o600)
	firstIndex(t, o)
	return o
}

// What this version reads of the first one's, and goes on with.
func TestHomeOfTheFirstVersionIsRead(t *testing.T) {
	tests := map[string]func(t *testing.T) (credstore.Options, credstore.System){
		"in a file": func(t *testing.T) (credstore.Options, credstore.System) {
			return firstFileHome(t, 1), credstore.QuickSystem()
		},
		"in a keyring": func(t *testing.T) (credstore.Options, credstore.System) {
			o := options(t, credstore.ModeAuto)
			write(t, filepath.Join(o.Home, "store"), "keyring k3f9x2ab\n", 0o600)
			firstIndex(t, o)
			r := newFaultyRing()
			if err := r.Set("enlist [k3f9x2ab]: https://gateway.lona.agency", "lona/scout token (work)", firstEnvelope(1)); err != nil {
				t.Fatal(err)
			}
			return o, credstore.QuickSystem().WithRing(r)
		},
	}
	for name, home := range tests {
		t.Run(name, func(t *testing.T) {
			o, on := home(t)
			s := openOn(t, o, on)
			c, err := s.Get(t.Context(), firstKey())
			if err != nil || c.Secret.Reveal() != "made up for a test" {
				t.Fatalf("got %v, %v", c, err)
			}
			infos, err := s.List(t.Context(), "")
			if err != nil || len(infos) != 1 || !reflect.DeepEqual(infos[0], c.Info) || c.KeyID != "key of scout" || c.ExpiresAt.UnixMilli() != 1770386400123 {
				t.Errorf("got %+v, %v, want %+v", infos, err, c.Info)
			}
			for _, flaw := range inspect(t, s).Flaws {
				if flaw.Kind != credstore.FlawList { // there was none then
					t.Errorf("got %+v", flaw)
				}
			}
			if _, err := s.(credstore.Inspector).Repair(t.Context()); err != nil {
				t.Error(err)
			}
			put(t, s, credstoretest.Lona("a"))
			put(t, s, c)
			if flaws := inspect(t, s).Flaws; len(flaws) != 0 {
				t.Errorf("got %+v", flaws)
			}
			remove(t, filepath.Join(o.Home, "index.db"))
			wantListed(t, s, "a", "scout")
		})
	}
}

// What this version writes into an index the first one must take for its own:
// it compares the table and the version.
func TestIndexIsOneThatTheFirstVersionReads(t *testing.T) {
	o, _, path, _ := indexed(t)
	first := options(t, credstore.ModeAuto)
	write(t, filepath.Join(first.Home, "store"), "file\n", 0o600)
	firstIndex(t, first)
	schema := func(path string) (got string) {
		db, err := sql.Open("sqlite", path)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = db.Close() }()
		var version, tables int
		err = db.QueryRowContext(t.Context(), "SELECT sql, (SELECT count(*) FROM sqlite_schema), (SELECT user_version FROM pragma_user_version) FROM sqlite_schema").Scan(&got, &tables, &version)
		if err != nil || tables != 1 || version != 1 {
			t.Errorf("got %d tables of version %d, %v", tables, version, err)
		}
		return got
	}
	if got, want := schema(path), schema(filepath.Join(first.Home, "index.db")); got != want {
		t.Errorf("%s: got %s, want %s", o.Home, got, want)
	}
}
