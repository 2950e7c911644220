package credstore_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/credstore/credstoretest"
)

func encPath(o credstore.Options) string { return filepath.Join(o.Home, "credentials.enc") }

func TestFileIsOpenedByItsPassphraseOnly(t *testing.T) {
	o := options(t, credstore.ModeFile)
	o.Passphrase = passphrase("right")
	c := credstoretest.Lona("my-agent")
	put(t, openOn(t, o, credstore.QuickSystem()), c)
	before := read(t, encPath(o))
	tests := map[string]struct {
		passphrase func() (credstore.Secret, error)
		remedy     string
	}{
		"another one":     {passphrase("wrong"), "passphrase that the file was made with"},
		"an empty one":    {passphrase(""), "set ENLIST_PASSPHRASE"},
		"none that comes": {func() (credstore.Secret, error) { return credstore.Secret{}, fs.ErrNotExist }, "set ENLIST_PASSPHRASE"},
		"a key file":      {nil, "set ENLIST_PASSPHRASE"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			o := o
			o.Passphrase = test.passphrase
			s := openOn(t, o, credstore.QuickSystem())
			next := c
			next.Secret = credstore.NewSecret("next s3cr3t")
			_, err := s.Get(t.Context(), c.Key)
			for _, err := range []error{err, s.Put(t.Context(), next), s.Put(t.Context(), credstoretest.Lona("other")), s.Delete(t.Context(), c.Key)} {
				wantRemedy(t, err, credstore.ErrUnavailable)
				if err != nil && !strings.Contains(err.Error(), test.remedy) {
					t.Errorf("got %v, want %q in it", err, test.remedy)
				}
			}
			if !bytes.Equal(read(t, encPath(o)), before) {
				t.Error("the file was changed")
			}
		})
	}
	s := openOn(t, o, credstore.QuickSystem())
	wantGet(t, s, c)
	wantListed(t, s, "my-agent")
}

func TestFileOfAKeyFileRefusesAPassphrase(t *testing.T) {
	o := options(t, credstore.ModeFile)
	c := credstoretest.Lona("my-agent")
	put(t, openOn(t, o, credstore.QuickSystem()), c)
	o.Passphrase = passphrase("new")
	_, err := openOn(t, o, credstore.QuickSystem()).Get(t.Context(), c.Key)
	wantRemedy(t, err, credstore.ErrUnavailable)
	if !strings.Contains(err.Error(), "unset ENLIST_PASSPHRASE") {
		t.Errorf("got %v", err)
	}
}

func TestKeyFileThatIsRefused(t *testing.T) {
	o := options(t, credstore.ModeFile)
	c := credstoretest.Lona("my-agent")
	put(t, openOn(t, o, credstore.QuickSystem()), c)
	path := filepath.Join(o.ConfigDir, "credentials.key")
	good := string(read(t, path))
	other := "enlist-key-1:" + base64.RawURLEncoding.EncodeToString(make([]byte, 32)) + "\n"
	tests := map[string]struct {
		spoil  func(t *testing.T)
		kind   error
		remedy string
	}{
		"because others can read it": {func(t *testing.T) {
			if runtime.GOOS == "windows" {
				t.Skip("Windows has no such mode")
			}
			write(t, path, good, 0o640)
		}, credstore.ErrUnavailable, "chmod 600 " + path},
		"because it is gone":      {func(t *testing.T) { remove(t, path) }, credstore.ErrUnavailable, "put the key file back"},
		"because it is another":   {func(t *testing.T) { write(t, path, other, 0o600) }, credstore.ErrUnavailable, "put back the key file"},
		"because it is cut short": {func(t *testing.T) { write(t, path, good[:30], 0o600) }, credstore.ErrDamaged, "put the key file back"},
		"because it is empty":     {func(t *testing.T) { write(t, path, "", 0o600) }, credstore.ErrDamaged, "put the key file back"},
		"because it is a folder": {func(t *testing.T) {
			remove(t, path)
			if err := os.Mkdir(path, 0o700); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = os.Remove(path) })
		}, credstore.ErrUnavailable, "put the key file back"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Cleanup(func() { write(t, path, good, 0o600) })
			test.spoil(t)
			s := openOn(t, o, credstore.QuickSystem())
			_, err := s.Get(t.Context(), c.Key)
			for _, err := range []error{err, s.Put(t.Context(), c)} {
				wantRemedy(t, err, test.kind)
				if err != nil && !strings.Contains(err.Error(), test.remedy) {
					t.Errorf("got %v, want %q in it", err, test.remedy)
				}
				if err != nil && strings.Contains(err.Error(), strings.TrimSpace(good)[13:]) {
					t.Errorf("the error holds the key: %v", err)
				}
			}
		})
	}
	wantGet(t, openOn(t, o, credstore.QuickSystem()), c)
}

func TestKeyFileServesSeveralHomes(t *testing.T) {
	one := options(t, credstore.ModeFile)
	two := one
	two.Home = filepath.Join(t.TempDir(), "two")
	c := credstoretest.Lona("my-agent")
	put(t, openOn(t, one, credstore.QuickSystem()), c)
	put(t, openOn(t, two, credstore.QuickSystem()), c)
	wantGet(t, openOn(t, one, credstore.QuickSystem()), c)
	wantPrivate(t, one.Home)
	wantPrivate(t, one.ConfigDir)
}

func TestRealCostOfAPassphrase(t *testing.T) {
	o := options(t, credstore.ModeFile)
	o.Passphrase = passphrase("correct horse battery staple")
	s, err := credstore.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	c := credstoretest.Lona("my-agent")
	put(t, s, c)
	wantGet(t, s, c)
	f, err := credstore.Parse(read(t, encPath(o)))
	if err != nil {
		t.Fatal(err)
	}
	if got := f.Key; got.From != "argon2id" || got.Time < 3 || got.Memory < 64<<10 || got.Threads < 4 {
		t.Errorf("got %+v, want no less than RFC 9106 asks for", got)
	}
}

func TestNothingOnDiskHoldsTheSecret(t *testing.T) {
	o := options(t, credstore.ModeFile)
	c := credstoretest.Lona("my-agent")
	s := openOn(t, o, credstore.QuickSystem())
	put(t, s, c)
	put(t, s, c)
	secret := c.Secret.Reveal()
	forms := []string{"s3cr3t", hex.EncodeToString([]byte("s3cr3t"))}
	for i := range 3 {
		forms = append(forms, base64.StdEncoding.EncodeToString([]byte(secret[i:]))[:24])
	}
	for _, dir := range []string{o.Home, o.ConfigDir} {
		err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() {
				return err
			}
			content := string(read(t, path))
			for _, form := range forms {
				if strings.Contains(content, form) {
					t.Errorf("%s holds %s", path, form)
				}
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
}

func TestEveryWriteHasANonceOfItsOwn(t *testing.T) {
	o := options(t, credstore.ModeFile)
	s := openOn(t, o, credstore.QuickSystem())
	seen := make(map[string]bool)
	for range 8 {
		put(t, s, credstoretest.Lona("my-agent"))
		f, err := credstore.Parse(read(t, encPath(o)))
		if err != nil {
			t.Fatal(err)
		}
		if nonce := string(f.Items[0].Nonce); seen[nonce] {
			t.Fatal("a nonce was used twice")
		} else {
			seen[nonce] = true
		}
	}
}

func TestItemsCannotBeSwapped(t *testing.T) {
	o := options(t, credstore.ModeFile)
	s := openOn(t, o, credstore.QuickSystem())
	a, b := credstoretest.Lona("a"), credstoretest.Lona("b")
	put(t, s, a)
	put(t, s, b)
	f, err := credstore.Parse(read(t, encPath(o)))
	if err != nil {
		t.Fatal(err)
	}
	f.Items[0].ID, f.Items[1].ID = f.Items[1].ID, f.Items[0].ID
	data, err := f.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	write(t, encPath(o), string(data), 0o600)
	for _, c := range []credstore.Credential{a, b} {
		_, err := s.Get(t.Context(), c.Key)
		wantRemedy(t, err, credstore.ErrDamaged)
		if err != nil && !strings.Contains(err.Error(), "altered") {
			t.Errorf("got %v, want it to be noticed before it is decrypted", err)
		}
	}
}

// Whatever happens to the file, a Get gives the secret or an error.
func TestFileDamagedAnywhereGivesNoOtherSecret(t *testing.T) {
	o := options(t, credstore.ModeFile)
	c := credstoretest.Lona("my-agent")
	put(t, openOn(t, o, credstore.QuickSystem()), c)
	good := read(t, encPath(o))
	s := openOn(t, o, credstore.QuickSystem())
	get := func(data []byte) error {
		write(t, encPath(o), string(data), 0o600)
		got, err := s.Get(t.Context(), c.Key)
		if err == nil && got.Secret.Reveal() != c.Secret.Reveal() {
			t.Fatal("got another secret")
		}
		return err
	}
	for i := 0; i < len(good); i += 3 {
		err := get(bytes.Join([][]byte{good[:i], {good[i] ^ 1}, good[i+1:]}, nil))
		if err != nil && !errors.Is(err, credstore.ErrDamaged) && !errors.Is(err, credstore.ErrUnavailable) && !errors.Is(err, credstore.ErrNotFound) {
			t.Errorf("byte %d: got %v", i, err)
		}
	}
	for i := range len(good) - 1 {
		if _, err := credstore.Parse(good[:i]); err == nil {
			t.Errorf("cut at %d: got no error", i)
		}
	}
	err := get(good[:100])
	wantRemedy(t, err, credstore.ErrDamaged)
	wantRemedy(t, s.Put(t.Context(), c), credstore.ErrDamaged)
	wantFile(t, encPath(o), string(good[:100])) // nobody writes over what may be saved
	if err := get(good); err != nil {
		t.Error(err)
	}
}

func TestHostileFileIsRefused(t *testing.T) {
	o := options(t, credstore.ModeFile)
	o.Passphrase = passphrase("passphrase")
	put(t, openOn(t, o, credstore.QuickSystem()), credstoretest.Lona("my-agent"))
	tests := map[string]func(f, key map[string]any){
		"with too much memory":     func(_, key map[string]any) { key["memory_kib"] = 1 << 31 },
		"with too much time":       func(_, key map[string]any) { key["time"] = 1 << 31 },
		"with too many threads":    func(_, key map[string]any) { key["threads"] = 255 },
		"with no threads":          func(_, key map[string]any) { key["threads"] = 0 },
		"with a negative time":     func(_, key map[string]any) { key["time"] = -1 },
		"with too large a salt":    func(_, key map[string]any) { key["salt"] = make([]byte, 1<<20) },
		"without a salt":           func(_, key map[string]any) { delete(key, "salt") },
		"with an unknown key":      func(_, key map[string]any) { key["from"] = "rot13" },
		"with a key file's cost":   func(_, key map[string]any) { key["from"] = "key file" },
		"of another format":        func(f, _ map[string]any) { f["format"] = "other" },
		"of a later version":       func(f, _ map[string]any) { f["version"] = 2 },
		"of no version":            func(f, _ map[string]any) { delete(f, "version") },
		"with a short nonce":       func(f, _ map[string]any) { item(f)["nonce"] = make([]byte, 12) },
		"with an item too small":   func(f, _ map[string]any) { item(f)["data"] = make([]byte, 15) },
		"with an item too large":   func(f, _ map[string]any) { item(f)["data"] = make([]byte, 2000) },
		"with an item of no name":  func(f, _ map[string]any) { item(f)["id"] = "" },
		"with two items of a name": func(f, _ map[string]any) { f["items"] = []any{item(f), item(f)} },
		"without a key check":      func(f, _ map[string]any) { delete(f, "check") },
	}
	good := read(t, encPath(o))
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			var f map[string]any
			if err := json.Unmarshal(good, &f); err != nil {
				t.Fatal(err)
			}
			change(f, f["key"].(map[string]any))
			data, err := json.Marshal(f)
			if err != nil {
				t.Fatal(err)
			}
			write(t, encPath(o), string(data), 0o600)
			_, err = openOn(t, o, credstore.QuickSystem()).Get(t.Context(), credstoretest.Lona("my-agent").Key)
			wantRemedy(t, err, credstore.ErrDamaged)
		})
	}
	t.Run("with something behind it", func(t *testing.T) {
		if _, err := credstore.Parse(append(bytes.Clone(good), "{}"...)); err == nil {
			t.Error("got no error")
		}
	})
	t.Run("without end", func(t *testing.T) {
		if _, err := credstore.Parse(bytes.Repeat([]byte(" "), 17<<20)); err == nil {
			t.Error("got no error")
		}
	})
}

func item(f map[string]any) map[string]any { return f["items"].([]any)[0].(map[string]any) }

// Tests run as root, whom no permission stops: the faults are put in.
func TestFileFaultLeavesTheFormerCredential(t *testing.T) {
	for _, test := range []struct {
		step  string
		fault error
	}{
		{"create", syscall.EROFS},
		{"create", syscall.ENOSPC},
		{"write", syscall.ENOSPC},
		{"sync", syscall.EIO},
		{"close", syscall.ENOSPC},
		{"rename", syscall.EACCES},
		{"syncdir", syscall.EIO},
	} {
		t.Run(fmt.Sprint(test.fault, " at ", test.step), func(t *testing.T) {
			o := options(t, credstore.ModeFile)
			former, next := credstoretest.Lona("my-agent"), credstoretest.Lona("my-agent")
			next.Secret = credstore.NewSecret("next s3cr3t")
			put(t, openOn(t, o, credstore.QuickSystem()), former)
			before := read(t, encPath(o))
			faulty := openOn(t, o, credstore.QuickSystem().WithFiles(failing(test.step, test.fault)))
			wantRemedy(t, faulty.Put(t.Context(), next), credstore.ErrUnavailable)
			wantRemedy(t, faulty.Put(t.Context(), credstoretest.Lona("other")), credstore.ErrUnavailable)
			err := faulty.Delete(t.Context(), former.Key)
			wantRemedy(t, err, credstore.ErrUnavailable)
			wantError(t, err, test.fault)
			if !bytes.Equal(read(t, encPath(o)), before) {
				t.Error("the file was changed")
			}
			wantNoFile(t, encPath(o)+".new")
			for _, s := range []credstore.Store{faulty, openOn(t, o, credstore.QuickSystem())} {
				wantGet(t, s, former)
				wantListed(t, s, "my-agent")
			}
		})
	}
}

// The first put writes the record, the index, the key file and the file: the
// disk gets full at each of their steps in turn.
func TestFileFaultAtTheFirstPutLeavesNothing(t *testing.T) {
	for _, step := range []string{"mkdir", "create", "write", "sync", "close", "rename", "syncdir"} {
		t.Run("at "+step, func(t *testing.T) {
			t.Parallel()
			for nth := 0; ; nth++ {
				o := options(t, credstore.ModeFile)
				s := openOn(t, o, credstore.QuickSystem().WithFiles(fullAt(step, nth)))
				c := credstoretest.Lona("my-agent")
				err := s.Put(t.Context(), c)
				wantNoTemp(t, filepath.Dir(o.Home))
				if err == nil {
					if nth == 0 {
						t.Error("nothing failed")
					}
					wantGet(t, s, c)
					return
				}
				wantRemedy(t, err, credstore.ErrUnavailable)
				if !strings.Contains(err.Error(), "free some space") {
					t.Errorf("got %v", err)
				}
				wantNoFile(t, encPath(o))
				good := openOn(t, o, credstore.QuickSystem())
				_, err = good.Get(t.Context(), c.Key)
				wantError(t, err, credstore.ErrNotFound)
				wantListed(t, good)
				put(t, good, c)
				wantListed(t, s, "my-agent")
			}
		})
	}
}

func TestChoiceThatCannotBeRecordedIsNotMade(t *testing.T) {
	for _, step := range []string{"create", "write", "sync", "close", "rename", "syncdir"} {
		o := options(t, credstore.ModeAuto)
		system := credstore.QuickSystem().WithRing(newFaultyRing())
		s := openOn(t, o, system.WithFiles(failing(step, syscall.EROFS)))
		wantRemedy(t, s.Put(t.Context(), credstoretest.Lona("my-agent")), credstore.ErrUnavailable)
		wantBackend(t, openOn(t, o, system), credstore.ModeAuto)
	}
}

// failing fails at one step, whatever the file.
func failing(step string, err error) credstore.Files {
	return faultyFiles{fault: func(at, _ string) error {
		if at == step {
			return &fs.PathError{Op: step, Path: "path", Err: err}
		}
		return nil
	}}
}

// fullAt is a disk that is full from the nth time on that a step is taken.
func fullAt(step string, nth int) credstore.Files {
	var times atomic.Int32
	return faultyFiles{fault: func(at, _ string) error {
		if at == step && times.Add(1) > int32(nth) {
			return &fs.PathError{Op: step, Path: "path", Err: syscall.ENOSPC}
		}
		return nil
	}}
}

// wantNoTemp wants no file that was being written to be left.
func wantNoTemp(t *testing.T, dir string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if strings.Contains(path, ".new") {
			t.Errorf("%s is left", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func TestListOfAFileNeedsNoIndex(t *testing.T) {
	o := options(t, credstore.ModeFile)
	s := openOn(t, o, credstore.QuickSystem())
	put(t, s, credstoretest.Lona("b"))
	put(t, s, credstoretest.Lona("a"))
	remove(t, filepath.Join(o.Home, "index.db"))
	wantListed(t, s, "a", "b")
	put(t, s, credstoretest.Lona("c")) // makes the index again, of all
	wantListed(t, s, "a", "b", "c")
	wantListed(t, openOn(t, o, credstore.QuickSystem()), "a", "b", "c")
}

func FuzzFile(f *testing.F) {
	for _, set := range []func() (credstore.Secret, error){nil, passphrase("passphrase")} {
		o := options(f, credstore.ModeFile)
		o.Passphrase = set
		s := openOn(f, o, credstore.QuickSystem())
		put(f, s, credstoretest.Lona("a"))
		put(f, s, credstoretest.Lona("b"))
		data := read(f, encPath(o))
		f.Add(data)
		f.Add(data[:len(data)/2])
	}
	f.Add([]byte(`{"format":"enlist credentials","version":1}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		parsed, err := credstore.Parse(data)
		if err != nil {
			return
		}
		if parsed.Key.Memory <= 1<<10 { // not to spend the time on Argon2
			_ = parsed.Unseal(credstore.NewSecret("passphrase"))
		}
		again, err := parsed.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		reparsed, err := credstore.Parse(again)
		if err != nil {
			t.Fatalf("what was written cannot be read: %v", err)
		}
		if twice, err := reparsed.Marshal(); err != nil || !bytes.Equal(again, twice) {
			t.Errorf("got %s, %v, want %s", twice, err, again)
		}
	})
}

func read(t testing.TB, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
