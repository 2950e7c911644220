package credstore

import (
	"bytes"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/chacha20poly1305"
)

// The encrypted file is JSON, so that a person sees what it is and which
// parameters it was made with. Every item is sealed by itself with
// XChaCha20-Poly1305 under a fresh random nonce; the version and the item's Key
// are bound to it, so that items cannot be swapped between keys.

const (
	fileFormat  = "enlist credentials"
	fileVersion = 1
	maxFile     = 16 << 20
)

// Where the file's key comes from.
const (
	fromPassphrase = "argon2id"
	fromKeyFile    = "key file"
)

// Bounds of what a file may ask for. They keep a file that somebody else wrote
// from exhausting the machine.
const (
	maxArgonTime    = 16
	maxArgonMemory  = 256 << 10 // KiB
	maxArgonThreads = 16
	minSalt         = 16
	maxSalt         = 64
)

var errNewerFile = errors.New("the file was written by a newer Enlist")

// sealed is the encrypted file.
type sealed struct {
	Format  string       `json:"format"`
	Version int          `json:"version"`
	Key     derivation   `json:"key"`
	Check   box          `json:"check"` // seals nothing; opens only with the right key
	Items   []sealedItem `json:"items"`
}

// derivation says how the file's key is derived.
type derivation struct {
	From    string `json:"from"`
	Salt    []byte `json:"salt"`
	Time    uint32 `json:"time,omitzero"`
	Memory  uint32 `json:"memory_kib,omitzero"`
	Threads uint8  `json:"threads,omitzero"`
}

type sealedItem struct {
	ID string `json:"id"`
	box
}

// box is a nonce and what was sealed under it.
type box struct {
	Nonce []byte `json:"nonce"`
	Data  []byte `json:"data"`
}

// parse reads an encrypted file. It decrypts nothing; what it returns is within
// the bounds above.
func parse(data []byte) (sealed, error) {
	var f sealed
	if len(data) > maxFile {
		return sealed{}, fmt.Errorf("more than %d bytes", maxFile)
	}
	d := json.NewDecoder(bytes.NewReader(data))
	if err := d.Decode(&f); err != nil {
		if newer := refuseNewer(data); newer != nil {
			return sealed{}, newer
		}
		return sealed{}, fmt.Errorf("not an encrypted credential file: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return sealed{}, errors.New("something follows the end of the file")
	}
	if f.Format != fileFormat || f.Version < 1 {
		return sealed{}, errors.New("not an encrypted credential file")
	}
	if f.Version > fileVersion {
		return sealed{}, fmt.Errorf("version %d: %w", f.Version, errNewerFile)
	}
	if err := f.Key.check(); err != nil {
		return sealed{}, err
	}
	if err := f.Check.check(); err != nil {
		return sealed{}, fmt.Errorf("key check: %w", err)
	}
	seen := make(map[string]bool, len(f.Items))
	for i, item := range f.Items {
		if err := item.check(); err != nil {
			return sealed{}, fmt.Errorf("item %d: %w", i, err)
		}
		if item.ID == "" || seen[item.ID] {
			return sealed{}, fmt.Errorf("item %d: its id is missing or that of another one", i)
		}
		seen[item.ID] = true
	}
	return f, nil
}

// refuseNewer looks at the version and at nothing else: in one to come all the
// rest may be of another shape.
func refuseNewer(data []byte) error {
	var head struct {
		Format  string `json:"format"`
		Version int    `json:"version"`
	}
	if json.Unmarshal(data, &head) == nil && head.Format == fileFormat && head.Version > fileVersion {
		return fmt.Errorf("version %d: %w", head.Version, errNewerFile)
	}
	return nil
}

func (b box) check() error {
	if len(b.Nonce) != chacha20poly1305.NonceSizeX {
		return fmt.Errorf("a nonce of %d bytes, want %d", len(b.Nonce), chacha20poly1305.NonceSizeX)
	}
	if n := len(b.Data); n < chacha20poly1305.Overhead || n > maxEnvelope+chacha20poly1305.Overhead {
		return fmt.Errorf("%d bytes of data", n)
	}
	return nil
}

func (d derivation) check() error {
	if n := len(d.Salt); n < minSalt || n > maxSalt {
		return fmt.Errorf("a salt of %d bytes", n)
	}
	argon := d.Time != 0 || d.Memory != 0 || d.Threads != 0
	switch d.From {
	case fromKeyFile:
		if argon {
			return errors.New("a key file needs no parameters")
		}
	case fromPassphrase:
		if d.Time < 1 || d.Time > maxArgonTime || d.Threads < 1 || d.Threads > maxArgonThreads ||
			d.Memory < 8*uint32(d.Threads) || d.Memory > maxArgonMemory {
			return fmt.Errorf("argon2id with time %d, memory %d KiB, %d threads is out of bounds", d.Time, d.Memory, d.Threads)
		}
	default:
		return fmt.Errorf("a key from %q is not known", d.From)
	}
	return nil
}

// derive returns the file's key from a passphrase or the content of a key file.
func (d derivation) derive(secret Secret) ([]byte, error) {
	if d.From == fromPassphrase {
		return argon2.IDKey([]byte(secret.Reveal()), d.Salt, d.Time, d.Memory, d.Threads, chacha20poly1305.KeySize), nil
	}
	return hkdf.Key(sha256.New, []byte(secret.Reveal()), d.Salt, fileFormat, chacha20poly1305.KeySize)
}

// marshal returns the file as parse reads it.
func (f sealed) marshal() ([]byte, error) {
	data, err := json.MarshalIndent(f, "", "  ")
	return append(data, '\n'), err
}

// errAltered: an item does not open with the key that opened the file.
var errAltered = errors.New("an item was altered")

// seal seals plain for a purpose; open needs the same one.
func seal(key, plain, purpose []byte) (box, error) {
	aead, err := chacha20poly1305.NewX(key)
	if err != nil {
		return box{}, err
	}
	nonce := make([]byte, aead.NonceSize())
	if _, err := rand.Read(nonce); err != nil {
		return box{}, err
	}
	return box{Nonce: nonce, Data: aead.Seal(nil, nonce, plain, purpose)}, nil
}

// credential returns what is in an item.
func (i sealedItem) credential(key []byte) (Credential, error) {
	data, err := i.open(key, forItem(i.ID))
	if err != nil {
		return Credential{}, errAltered
	}
	c, err := decodeAny(data)
	if err == nil && id(c.Key) != i.ID {
		err = errOtherKey
	}
	return c, err
}

// open returns what seal sealed with the same key for the same purpose.
func (b box) open(key, purpose []byte) ([]byte, error) {
	aead, err := chacha20poly1305.NewX(key)
	if err != nil {
		return nil, err
	}
	return aead.Open(nil, b.Nonce, b.Data, purpose)
}

// forItem is the purpose of the item with an id, which is a hash of its Key: so
// the Key is bound, and yet the file can be listed.
func forItem(id string) []byte {
	return fmt.Appendf(nil, "%s %d item %s", fileFormat, fileVersion, id)
}

// forCheck is the purpose of the key check: it binds how the key is derived.
func (d derivation) forCheck() []byte {
	return fmt.Appendf(nil, "%s %d check %s %x %d %d %d", fileFormat, fileVersion, d.From, d.Salt, d.Time, d.Memory, d.Threads)
}
