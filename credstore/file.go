package credstore

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
)

const (
	credentialsFile = "credentials.enc"
	keyFile         = "credentials.key"
	keyFilePrefix   = "enlist-key-1:"
	keyFileBytes    = 32
)

// fileVault keeps envelopes in one encrypted file, which is replaced as a whole.
type fileVault struct {
	on         files
	path       string
	configDir  string
	passphrase func() (Secret, error) // nil: the key file
	cost       derivation             // how a new file derives its key from a passphrase

	mu  sync.Mutex
	key []byte // the key that was derived last
	of  []byte // what it was derived by
}

func (v *fileVault) place() string { return v.path }

func (v *fileVault) get(_ context.Context, k Key) ([]byte, error) {
	f, raw, err := v.read("read")
	if err != nil {
		return nil, err
	}
	item := f.find(id(k))
	if raw == nil || item == nil {
		return nil, errNoItem
	}
	key, err := v.unlock("read", f)
	if err != nil {
		return nil, err
	}
	data, err := item.open(key, forItem(item.ID))
	if err != nil {
		return nil, v.damaged("read", errAltered)
	}
	return data, nil
}

func (v *fileVault) put(ctx context.Context, k Key, data []byte) error {
	f, raw, err := v.read("write")
	if err != nil {
		return err
	}
	if raw == nil {
		if f, err = v.create(ctx); err != nil {
			return err
		}
	}
	key, err := v.unlock("write", f)
	if err != nil {
		return err
	}
	sealed, err := seal(key, data, forItem(id(k)))
	if err != nil {
		return v.unavailable("write", err)
	}
	if item := f.find(id(k)); item != nil {
		if former, err := item.open(key, forItem(item.ID)); err == nil && newer(former) {
			return damagedItem("write", v, errNewer)
		}
		item.box = sealed
	} else {
		f.Items = append(f.Items, sealedItem{ID: id(k), box: sealed})
	}
	return v.write("write", f, raw)
}

func (v *fileVault) remove(_ context.Context, k Key) error {
	f, raw, err := v.read("delete")
	if err != nil {
		return err
	}
	for i := range f.Items {
		if f.Items[i].ID == id(k) {
			// The right key is asked for, so that nobody without it, and
			// nobody by mistake, throws away what only the key can read.
			key, err := v.unlock("delete", f)
			if err != nil {
				return err
			}
			if former, err := f.Items[i].open(key, forItem(f.Items[i].ID)); err == nil && newer(former) {
				return damagedItem("delete", v, errNewer)
			}
			f.Items = append(f.Items[:i], f.Items[i+1:]...)
			return v.write("delete", f, raw)
		}
	}
	return errNoItem
}

// all implements lister. Items are named by hashes, so it decrypts them.
func (v *fileVault) all(context.Context) ([]Info, error) {
	f, _, err := v.read("list")
	if err != nil || len(f.Items) == 0 {
		return []Info{}, err
	}
	key, err := v.unlock("list", f)
	if err != nil {
		return nil, err
	}
	infos := make([]Info, 0, len(f.Items))
	for _, item := range f.Items {
		c, err := item.credential(key)
		if errors.Is(err, errNewer) {
			return nil, damagedItem("list", v, err)
		}
		if err != nil {
			return nil, v.damaged("list", err)
		}
		infos = append(infos, c.Info)
	}
	return infos, nil
}

// read returns the file and its bytes, which are nil when there is no file.
func (v *fileVault) read(op string) (sealed, []byte, error) {
	raw, err := readFile(v.path, maxFile)
	if errors.Is(err, fs.ErrNotExist) {
		return sealed{}, nil, nil
	}
	if err != nil {
		return sealed{}, nil, v.unavailable(op, err)
	}
	f, err := parse(raw)
	if errors.Is(err, errNewerFile) {
		return sealed{}, nil, &Error{Op: op, Place: v.path, Kind: ErrDamaged, Cause: err, Remedy: "update Enlist"}
	}
	if err != nil {
		return sealed{}, nil, v.damaged(op, err)
	}
	return f, raw, nil
}

func (v *fileVault) write(op string, f sealed, former []byte) error {
	data, err := f.marshal()
	if err != nil {
		return v.unavailable(op, err)
	}
	if len(data) > maxFile {
		return &Error{
			Op: op, Place: v.path, Kind: ErrTooLarge,
			Cause:  fmt.Errorf("the file would have more than %d bytes", maxFile),
			Remedy: "forget credentials that are no longer used",
		}
	}
	if err := writeFile(v.on, v.path, data, former); err != nil {
		return v.unavailable(op, err)
	}
	return nil
}

// creatable returns an error when there is no file and none can be made. It
// writes nothing.
func (v *fileVault) creatable() error {
	if v.passphrase != nil || v.configDir != "" {
		return nil
	}
	if _, raw, err := v.read("write"); err != nil || raw != nil {
		return err
	}
	return v.noFolder("write")
}

// noFolder is the error of a key file without a folder. The current one is none:
// it is another one each time.
func (v *fileVault) noFolder(op string) error {
	return &Error{
		Op: op, Place: v.path, Kind: ErrUnavailable, Cause: errors.New("there is no folder for the key file"),
		Remedy: "set HOME or XDG_CONFIG_HOME (Windows: AppData), or ENLIST_PASSPHRASE",
	}
}

// create returns a new file without items. It is not on disk yet; a key file is.
func (v *fileVault) create(ctx context.Context) (sealed, error) {
	d := v.cost
	d.From = fromPassphrase
	if v.passphrase == nil {
		if err := v.makeKeyFile(ctx); err != nil {
			return sealed{}, err
		}
		d = derivation{From: fromKeyFile}
	}
	d.Salt = make([]byte, minSalt)
	if _, err := rand.Read(d.Salt); err != nil {
		return sealed{}, v.unavailable("write", err)
	}
	key, err := v.derive("write", d)
	if err != nil {
		return sealed{}, err
	}
	check, err := seal(key, nil, d.forCheck())
	if err != nil {
		return sealed{}, v.unavailable("write", err)
	}
	return sealed{Format: fileFormat, Version: fileVersion, Key: d, Check: check}, nil
}

// unlock returns the key of f. It is derived once a file, because with a
// passphrase that takes a tenth of a second on purpose.
func (v *fileVault) unlock(op string, f sealed) ([]byte, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.key != nil && bytes.Equal(v.of, f.Key.forCheck()) {
		return v.key, nil
	}
	key, err := v.derive(op, f.Key)
	if err != nil {
		return nil, err
	}
	if _, err := f.Check.open(key, f.Key.forCheck()); err != nil {
		remedy := "set ENLIST_PASSPHRASE to the passphrase that the file was made with"
		if f.Key.From == fromKeyFile {
			remedy = "put back the key file that the file was made with: " + v.keyPath()
		}
		return nil, &Error{
			Op: op, Place: v.path, Kind: ErrUnavailable,
			Cause: errors.New("it does not open with this key"), Remedy: remedy,
		}
	}
	v.key, v.of = key, f.Key.forCheck()
	return key, nil
}

// derive derives a key from whatever d says, if that is there.
func (v *fileVault) derive(op string, d derivation) ([]byte, error) {
	refuse := func(cause error, remedy string) error {
		return &Error{Op: op, Place: v.path, Kind: ErrUnavailable, Cause: cause, Remedy: remedy}
	}
	const set = "set ENLIST_PASSPHRASE or ENLIST_PASSPHRASE_FILE"
	switch {
	case d.From == fromPassphrase && v.passphrase == nil:
		return nil, refuse(errors.New("it is locked with a passphrase"), set)
	case d.From == fromKeyFile && v.passphrase != nil:
		return nil, refuse(errors.New("it was made with a key file, not with a passphrase"),
			"unset ENLIST_PASSPHRASE and ENLIST_PASSPHRASE_FILE")
	}
	read := v.readKeyFile
	if d.From == fromPassphrase {
		read = func() (Secret, error) {
			s, err := v.passphrase()
			if err == nil && s.IsZero() {
				err = errors.New("the passphrase is empty")
			}
			if err != nil {
				return Secret{}, refuse(err, set)
			}
			return s, nil
		}
	}
	secret, err := read()
	if err != nil {
		return nil, err
	}
	key, err := d.derive(secret)
	if err != nil {
		return nil, v.unavailable(op, err)
	}
	return key, nil
}

func (v *fileVault) keyPath() string { return filepath.Join(v.configDir, keyFile) }

// readKeyFile returns the key in the key file, which nobody else may be able to read.
func (v *fileVault) readKeyFile() (Secret, error) {
	if v.configDir == "" {
		return Secret{}, v.noFolder("read")
	}
	path := v.keyPath()
	refuse := func(cause error, remedy string) (Secret, error) {
		return Secret{}, &Error{Op: "read", Place: path, Kind: ErrUnavailable, Cause: cause, Remedy: remedy}
	}
	stat, err := os.Stat(path)
	if err != nil {
		return refuse(err, fmt.Sprintf("put the key file back; if it is lost, so are the credentials: move %s away and register again", v.path))
	}
	if !stat.Mode().IsRegular() || stat.Size() > 1<<10 {
		return refuse(errors.New("not a key file"), "put the key file back")
	}
	if mode := stat.Mode().Perm(); mode&0o077 != 0 && runtime.GOOS != "windows" {
		return refuse(fmt.Errorf("others can read the key (mode %04o)", mode), "chmod 600 "+path)
	}
	text, err := os.ReadFile(path) // it may be a link to where a person keeps such things
	if err != nil {
		return refuse(err, "make the file readable for you")
	}
	encoded, ok := strings.CutPrefix(strings.TrimSpace(string(text)), keyFilePrefix)
	key, err := base64.RawURLEncoding.DecodeString(encoded)
	if !ok || err != nil || len(key) != keyFileBytes {
		return Secret{}, &Error{
			Op: "read", Place: path, Kind: ErrDamaged,
			Cause: errors.New("not a key file"), Remedy: "put the key file back from a copy",
		}
	}
	return NewSecret(string(key)), nil
}

// makeKeyFile makes the key file unless there is one. The folder may serve
// several homes, so it has a lock of its own.
func (v *fileVault) makeKeyFile(ctx context.Context) error {
	if v.configDir == "" {
		return v.noFolder("write")
	}
	path := v.keyPath()
	fail := func(err error) error {
		return &Error{Op: "write", Place: path, Kind: ErrUnavailable, Cause: err, Remedy: diskRemedy(err, v.configDir)}
	}
	unlock, err := newLocks(v.on, v.configDir).acquire(ctx, keyFile, func() {})
	if err != nil {
		return fail(err)
	}
	defer unlock()
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	key := make([]byte, keyFileBytes)
	if _, err := rand.Read(key); err != nil {
		return fail(err)
	}
	text := keyFilePrefix + base64.RawURLEncoding.EncodeToString(key) + "\n"
	if err := writeFile(v.on, path, []byte(text), nil); err != nil {
		return fail(err)
	}
	return nil
}

func (v *fileVault) unavailable(op string, cause error) error {
	return &Error{Op: op, Place: v.path, Kind: ErrUnavailable, Cause: cause, Remedy: diskRemedy(cause, filepath.Dir(v.path))}
}

func (v *fileVault) damaged(op string, cause error) error {
	return &Error{
		Op: op, Place: v.path, Kind: ErrDamaged, Cause: cause,
		Remedy: fmt.Sprintf("put back a copy of %s, or move it away and register again", v.path),
	}
}

// diskRemedy says what to do about a folder that cannot be written to.
func diskRemedy(err error, dir string) string {
	switch {
	case errors.Is(err, syscall.ENOSPC):
		return "free some space on the disk of " + dir
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return "another enlist process is busy; try again"
	}
	return fmt.Sprintf("make %s readable and writable for you, and check its disk", dir)
}

// find returns the item with an id, or nil.
func (f *sealed) find(id string) *sealedItem {
	for i := range f.Items {
		if f.Items[i].ID == id {
			return &f.Items[i]
		}
	}
	return nil
}
