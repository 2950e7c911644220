package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/gofrs/flock"

	"github.com/enlist-mcp/enlist/gateway/wire"
	"github.com/enlist-mcp/enlist/server"
)

const (
	// tokensFile is where in the data folder the tokens with names are, as hashes.
	tokensFile, tokensLock = "mcp-tokens.json", "mcp-tokens.lock" //nolint:gosec // G101: names of files
	tokensVersion          = 1
	// maxTokens is how many there may be.
	maxTokens = 100
	// defaultToken is the name of the token in defaultTokenFile, which is kept as
	// it is, for the clients of this machine.
	defaultToken, defaultTokenFile = "default", "mcp-token"
)

// tokenName is what a token may be called.
var tokenName = wire.NewPattern(`^[a-z0-9][a-z0-9._-]{0,39}$`)

// accessToken is a bearer token of enlist mcp --http, as it is kept.
//
// The hash is a fast one: a token is 256 random bits, which nobody can go
// through, whatever a try costs. A slow hash is for what people make up, and
// here would let anybody keep the server busy with wrong tokens.
type accessToken struct {
	Name    string     `json:"name"`
	Hash    string     `json:"sha256"`
	Created time.Time  `json:"created_at"`
	Expires *time.Time `json:"expires_at,omitempty"` // nil: never
}

func (t accessToken) good(now time.Time) bool { return t.Expires == nil || now.Before(*t.Expires) }

// principal is whom the token stands for. A part of its hash tells it apart from
// a later token of the same name.
func (t accessToken) principal() server.Principal {
	return server.Principal{Name: t.Name, ID: t.Hash[:16]}
}

// tokens are the bearer tokens in a data folder, which several processes share:
// what one of them changes holds for all at once.
type tokens struct {
	home string
	now  func() time.Time
	log  *slog.Logger

	mu   sync.Mutex
	read [2][]byte // what the files held
	all  []accessToken
	said string // the last error that was logged
}

func (p *program) tokens() (*tokens, error) {
	home, err := p.home()
	if err != nil {
		return nil, err
	}
	return &tokens{home: home, now: p.now, log: p.logger()}, nil
}

func (t *tokens) path(name string) string { return filepath.Join(t.home, name) }

// load returns the tokens that there are, the default one first. The files are
// read each time, which costs less than the request that asks; whatever a change
// of them looked like from outside, it counts.
func (t *tokens) load() ([]accessToken, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var read [2][]byte
	for i, name := range []string{defaultTokenFile, tokensFile} {
		anew := "the next start makes a new one"
		if name == tokensFile {
			anew = "make the tokens anew with 'enlist token add'"
		}
		data, err := readPrivate(t.path(name), anew)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		read[i] = data
	}
	if t.all != nil && bytes.Equal(read[0], t.read[0]) && bytes.Equal(read[1], t.read[1]) {
		return t.all, nil
	}
	all := []accessToken{}
	if read[0] != nil {
		kept, err := t.defaultToken(read[0])
		if err != nil {
			return nil, err
		}
		all = append(all, kept)
	}
	named, err := t.parse(read[1])
	if err != nil {
		return nil, err
	}
	t.read, t.all = read, append(all, named...)
	return t.all, nil
}

func (t *tokens) defaultToken(text []byte) (accessToken, error) {
	path := t.path(defaultTokenFile)
	token := bytes.TrimSpace(text)
	if len(token) < minToken {
		return accessToken{}, fmt.Errorf("%s holds fewer than %d characters: delete it, and the next start makes a new one", path, minToken)
	}
	info, err := os.Stat(path)
	if err != nil {
		return accessToken{}, err
	}
	return accessToken{Name: defaultToken, Hash: hashOf(string(token)), Created: info.ModTime().UTC()}, nil
}

// parse reads the file with the named tokens, which may not be there.
func (t *tokens) parse(data []byte) ([]accessToken, error) {
	if data == nil {
		return nil, nil
	}
	var file struct {
		Version int           `json:"version"`
		Tokens  []accessToken `json:"tokens"`
	}
	err := json.Unmarshal(data, &file)
	if err == nil && file.Version > tokensVersion {
		return nil, fmt.Errorf("%s was written by a later version: update Enlist", t.path(tokensFile))
	}
	damaged := err != nil || file.Version != tokensVersion || len(file.Tokens) > maxTokens
	for _, token := range file.Tokens {
		hash, err := hex.DecodeString(token.Hash)
		damaged = damaged || err != nil || len(hash) != sha256.Size || checkTokenName(token.Name) != nil
	}
	if damaged {
		return nil, fmt.Errorf("%s is damaged: delete it, and make the tokens anew with 'enlist token add'", t.path(tokensFile))
	}
	return file.Tokens, nil
}

// readPrivate reads a file that nobody else can; anew says how another is made.
func readPrivate(path, anew string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s can be read by others (mode %04o): delete it, and %s; or, if nobody has seen it, chmod 600", path, info.Mode().Perm(), anew)
	}
	return os.ReadFile(path)
}

func hashOf(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}

// verify returns whose a token is. It compares with all of them, in constant time.
func (t *tokens) verify(presented string) (server.Principal, bool) {
	all, err := t.load()
	if err != nil {
		t.complain(err)
		return server.Principal{}, false
	}
	got := []byte(hashOf(presented))
	var found *accessToken
	for i := range all {
		if subtle.ConstantTimeCompare(got, []byte(all[i].Hash)) == 1 {
			found = &all[i]
		}
	}
	if found == nil || !found.good(t.now()) {
		return server.Principal{}, false
	}
	return found.principal(), true
}

// good reports whether the token of somebody who was let in is still good.
func (t *tokens) good(p server.Principal) bool {
	all, err := t.load()
	if err != nil {
		t.complain(err)
		return false
	}
	return slices.ContainsFunc(all, func(token accessToken) bool { return token.principal() == p && token.good(t.now()) })
}

// complain logs why nobody is let in, once.
func (t *tokens) complain(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.said != err.Error() {
		t.said = err.Error()
		t.log.Error("nobody is let in: the tokens cannot be read", "error", err)
	}
}

// newToken makes a token, and what is kept of it.
func newToken(name string, now time.Time) (string, accessToken) {
	token := "enlist_mcp_" + rand.Text() + rand.Text()
	return token, accessToken{Name: name, Hash: hashOf(token), Created: now.UTC().Truncate(time.Second)}
}

// change rewrites the named tokens; nobody else does meanwhile.
func (t *tokens) change(ctx context.Context, f func([]accessToken) ([]accessToken, error)) error {
	unlock, err := t.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	all, err := t.load()
	if err != nil {
		return err
	}
	named := slices.DeleteFunc(slices.Clone(all), func(token accessToken) bool { return token.Name == defaultToken })
	if named, err = f(named); err != nil {
		return err
	}
	data, err := json.MarshalIndent(struct {
		Version int           `json:"version"`
		Tokens  []accessToken `json:"tokens"`
	}{tokensVersion, named}, "", "  ")
	if err != nil {
		return err
	}
	return replacePrivate(t.path(tokensFile), append(data, '\n'))
}

func (t *tokens) lock(ctx context.Context) (unlock func(), err error) {
	if err := os.MkdirAll(t.home, 0o700); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	lock := flock.New(t.path(tokensLock), flock.SetPermissions(0o600))
	if _, err := lock.TryLockContext(ctx, 5*time.Millisecond); err != nil {
		return nil, fmt.Errorf("%s is held by another enlist process: try again (%w)", t.path(tokensLock), err)
	}
	return func() { _ = lock.Unlock() }, nil
}

// replacePrivate replaces a file as a whole, for good: a revocation must not be
// undone by the end of the machine.
func replacePrivate(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+"-*") // 0600
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }() // where it was not renamed
	_, err = f.Write(data)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	syncFolder(filepath.Dir(path))
	return nil
}

// syncFolder has a change of names in a folder outlive the machine, where the
// system can do that.
func syncFolder(path string) {
	if dir, err := os.Open(path); err == nil {
		_ = dir.Sync()
		_ = dir.Close()
	}
}
