package embeddedgateway

import (
	"context"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/enlist-mcp/enlist/embeddedgateway/store"
)

// serverKeyBytes is the size of a server key.
const serverKeyBytes = 32

// The record in the database that tells its server key from any other.
const (
	vaultKind = "server-key"
	vaultName = "check"
)

// vault encrypts what the gateway must be able to read again, and puts codes
// that are too short to be hashed under a key. All of it hangs on the server
// key, which is not in the database: a copy of the database alone tells nothing.
//
// Its randomness is the system's whatever a test injects: what it makes stays in
// the database, and a nonce must never come twice.
type vault struct {
	aead cipher.AEAD
	code []byte // the key of the codes
}

// unlock derives the keys of the vault, and makes sure that the server key is
// the one that the database was made with.
func (v *vault) unlock(ctx context.Context, cfg Config, path string, db *store.Store) error {
	marks, err := db.Sealed(ctx, vaultKind, 1)
	if err != nil {
		return fmt.Errorf("read the mark of the server key: %w", err)
	}
	key, err := serverKey(cfg, path, len(marks) == 0)
	if err != nil {
		return err
	}
	if err := v.derive(key); err != nil {
		return err
	}
	if len(marks) == 0 {
		if marks, err = v.mark(ctx, db); err != nil {
			return err
		}
	}
	if _, err := v.open(vaultKind, vaultName, marks[0].Data); err != nil {
		return errors.New("the server key is not the one that this database was made with: " +
			"set ENLIST_SERVER_KEY or ENLIST_SERVER_KEY_FILE to that one, or begin with another database")
	}
	return nil
}

// mark stores the record that a server key is known by. Of several processes
// that begin at once, the first one's stays.
func (v *vault) mark(ctx context.Context, db *store.Store) ([]store.Sealed, error) {
	data, err := v.seal(vaultKind, vaultName, []byte(vaultName))
	if err != nil {
		return nil, err
	}
	err = db.Tx(ctx, func(tx *store.Tx) error {
		return tx.Seal(store.Sealed{Kind: vaultKind, Name: vaultName, Data: data})
	})
	if err != nil && !errors.Is(err, store.ErrExists) {
		return nil, fmt.Errorf("store the mark of the server key: %w", err)
	}
	marks, err := db.Sealed(ctx, vaultKind, 1)
	if err == nil && len(marks) == 0 {
		err = store.ErrNotFound
	}
	return marks, err
}

// derive makes the keys of the vault from the server key.
func (v *vault) derive(key []byte) error {
	sealing, err := hkdf.Key(sha256.New, key, nil, "enlist gateway: sealed", chacha20poly1305.KeySize)
	if err != nil {
		return fmt.Errorf("derive a key: %w", err)
	}
	if v.code, err = hkdf.Key(sha256.New, key, nil, "enlist gateway: codes", sha256.Size); err != nil {
		return fmt.Errorf("derive a key: %w", err)
	}
	if v.aead, err = chacha20poly1305.NewX(sealing); err != nil {
		return fmt.Errorf("derive a key: %w", err)
	}
	return nil
}

// bound is what a sealed thing is bound to: it cannot be put in another's place.
func bound(kind, name string) []byte { return []byte(kind + "\x00" + name) }

// seal encrypts data, for a [store.Sealed] of that kind and name.
func (v *vault) seal(kind, name string, data []byte) ([]byte, error) {
	nonce := make([]byte, v.aead.NonceSize(), v.aead.NonceSize()+len(data)+v.aead.Overhead())
	if _, err := rand.Read(nonce); err != nil {
		return nil, fmt.Errorf("read random bytes: %w", err)
	}
	return v.aead.Seal(nonce, nonce, data, bound(kind, name)), nil
}

// open decrypts what seal made.
func (v *vault) open(kind, name string, sealed []byte) ([]byte, error) {
	n := v.aead.NonceSize()
	if len(sealed) < n {
		return nil, fmt.Errorf("what is sealed as %s %s is cut short", kind, name)
	}
	data, err := v.aead.Open(nil, sealed[:n], sealed[n:], bound(kind, name))
	if err != nil {
		return nil, fmt.Errorf("what is sealed as %s %s does not open with this server key", kind, name)
	}
	return data, nil
}

// mac is what is stored of a code that has too few digits for a plain hash. The
// parts are told apart: "a","bc" is another than "ab","c".
func (v *vault) mac(parts ...string) (sum [32]byte) {
	h := hmac.New(sha256.New, v.code)
	for _, part := range parts {
		_, _ = h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(part))))
		_, _ = io.WriteString(h, part)
	}
	copy(sum[:], h.Sum(nil))
	return sum
}

// serverKey returns the key that was given, or the one beside the database,
// which is made where the database is new.
func serverKey(cfg Config, database string, isNew bool) ([]byte, error) {
	if len(cfg.ServerKey) > 0 {
		if len(cfg.ServerKey) != serverKeyBytes {
			return nil, errors.New("the server key is not " + ServerKeyForm)
		}
		return cfg.ServerKey, nil
	}
	path := database + ".key"
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) && isNew {
		if err = makeServerKey(path); err == nil {
			text, err = os.ReadFile(path)
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("the server key of this database is gone: bring back %s from a backup, "+
			"or set ENLIST_SERVER_KEY or ENLIST_SERVER_KEY_FILE to it", path)
	}
	if err != nil {
		return nil, fmt.Errorf("the server key: %w", err)
	}
	if err := private(path); err != nil {
		return nil, err
	}
	key, err := ParseServerKey(string(text))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return key, nil
}

// private refuses a key that others of this machine may read. Windows has no
// such mode: there the folder's rights decide.
func private(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("the server key: %w", err)
	}
	if runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("the server key in %s may be read by others (mode %04o): chmod 600 %s",
			path, info.Mode().Perm(), path)
	}
	return nil
}

// makeServerKey writes a new key, readable by its owner only. Where another
// process was faster, that one's stays.
func makeServerKey(path string) error {
	key := make([]byte, serverKeyBytes)
	if _, err := rand.Read(key); err != nil {
		return fmt.Errorf("read random bytes: %w", err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".server-key-*") // 0600
	if err != nil {
		return fmt.Errorf("make the server key: %w", err)
	}
	defer func() { _ = os.Remove(f.Name()) }()
	_, err = f.WriteString(base64.StdEncoding.EncodeToString(key) + "\n")
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return fmt.Errorf("write the server key: %w", err)
	}
	// A link never replaces what is there, as a rename would.
	if err := os.Link(f.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("write the server key: %w", err)
	}
	return nil
}

// ServerKeyForm says what a server key looks like.
const ServerKeyForm = "32 random bytes in base64 or hex, such as `openssl rand -base64 32` prints"

// ParseServerKey reads a server key. An error does not repeat it.
func ParseServerKey(text string) ([]byte, error) {
	text = strings.TrimSpace(text)
	for _, decode := range []func(string) ([]byte, error){
		base64.StdEncoding.DecodeString, base64.RawStdEncoding.DecodeString,
		base64.URLEncoding.DecodeString, base64.RawURLEncoding.DecodeString, hex.DecodeString,
	} {
		if key, err := decode(text); err == nil && len(key) == serverKeyBytes {
			return key, nil
		}
	}
	return nil, errors.New("this is not a server key: want " + ServerKeyForm)
}
