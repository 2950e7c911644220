package credstore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"filippo.io/age"
	"filippo.io/age/armor"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/credstore/credstoretest"
)

const archivePassphrase = "correct horse battery staple"

// memoryOf returns a store in memory with some credentials.
func memoryOf(t testing.TB, all ...credstore.Credential) credstore.Store {
	t.Helper()
	s := credstore.NewMemory(now)
	for _, c := range all {
		put(t, s, c)
	}
	return s
}

// archiveOf returns an archive of everything in a store.
func archiveOf(t testing.TB, s credstore.Store) []byte {
	t.Helper()
	var b bytes.Buffer
	if _, err := credstore.WriteArchiveQuick(t.Context(), s, &b, credstore.NewSecret(archivePassphrase), nil); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func readArchive(t testing.TB, s credstore.Store, data []byte, replace bool) ([]credstore.Imported, error) {
	t.Helper()
	return credstore.ReadArchive(t.Context(), s, bytes.NewReader(data), credstore.NewSecret(archivePassphrase), replace)
}

// outcomes are what came of credentials, as "agent outcome".
func outcomes(all []credstore.Imported) string {
	texts := []string{}
	for _, i := range all {
		texts = append(texts, i.Key.Agent+" "+string(i.Outcome))
	}
	return strings.Join(texts, ", ")
}

func TestArchiveCarriesEverything(t *testing.T) {
	odd := credstoretest.Lona("агент \"<é>\"")
	odd.Label, odd.KeyID, odd.State = "work", "clé", credstore.StatePending
	odd.Secret = credstore.NewSecret("пароль \x00\n s3cr3t <&>")
	odd.ExpiresAt = time.Time{}
	odd.Attrs = map[string]string{"": "\u2028", "b": "c"}
	wallet := credstore.Credential{Info: credstore.Info{Key: credstore.Key{Protocol: "lumina", Agent: "main", Kind: credstore.KindWallet}, State: credstore.StateRevoked}}
	from := memoryOf(t, credstoretest.Lona("a"), odd, wallet)
	var b bytes.Buffer
	n, err := credstore.WriteArchiveQuick(t.Context(), from, &b, credstore.NewSecret(archivePassphrase), nil)
	if err != nil || n != 3 {
		t.Fatalf("got %d, %v", n, err)
	}
	if text := b.String(); !strings.HasPrefix(text, "-----BEGIN AGE ENCRYPTED FILE-----\n") || strings.Contains(text, "lona") {
		t.Errorf("got %q", text)
	}
	o := options(t, credstore.ModeFile)
	to := openOn(t, o, credstore.QuickSystem())
	for _, want := range []string{"a added, агент \"<é>\" added, main added", "a same, агент \"<é>\" same, main same"} {
		got, err := readArchive(t, to, b.Bytes(), false)
		if err != nil || outcomes(got) != want {
			t.Errorf("got %q, %v, want %q", outcomes(got), err, want)
		}
	}
	for _, k := range []credstore.Key{credstoretest.Lona("a").Key, odd.Key, wallet.Key} {
		want, err := from.Get(t.Context(), k)
		got, errGot := to.Get(t.Context(), k)
		if errors.Join(err, errGot) != nil || fmt.Sprint(got.Info) != fmt.Sprint(want.Info) || got.Secret.Reveal() != want.Secret.Reveal() {
			t.Errorf("got %v, %v, want %v", got, errGot, want)
		}
	}
}

// The other tests pay less: under the race detector it takes most of a minute.
func TestRealCostOfAnArchivesPassphrase(t *testing.T) {
	if credstore.WorkFactor < 18 || credstore.MaxWorkFactor < credstore.WorkFactor || credstore.MaxWorkFactor > 20 {
		t.Errorf("got %d, and %d at most, want no less than age has, and no more than 1 GiB", credstore.WorkFactor, credstore.MaxWorkFactor)
	}
}

func TestArchiveOpensWithAge(t *testing.T) {
	data := archiveOf(t, memoryOf(t, credstoretest.Lona("a")))
	by, err := age.NewScryptIdentity(archivePassphrase)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := age.Decrypt(armor.NewReader(bytes.NewReader(data)), by)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(plain)
	want := `{"format":"enlist archive","version":1,"credentials":[{"v":1,"protocol":"lona","origin":"https://gateway.lona.agency","agent":"a",`
	if err != nil || !strings.HasPrefix(string(got), want) {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
}

func TestArchiveOfSomeCredentials(t *testing.T) {
	s := memoryOf(t, credstoretest.Lona("a"), credstoretest.Lona("b"), credstoretest.Lona("c"))
	b, c := credstoretest.Lona("b").Key, credstoretest.Lona("c").Key
	for name, test := range map[string]struct {
		keys []credstore.Key
		want string
		err  error
	}{
		"that are named": {[]credstore.Key{c, b}, "b added, c added", nil},
		"named twice":    {[]credstore.Key{b, b}, "b added", nil},
		"none":           {[]credstore.Key{}, "", nil},
		"not there":      {[]credstore.Key{b, credstoretest.Lona("x").Key}, "", credstore.ErrNotFound},
	} {
		t.Run(name, func(t *testing.T) {
			var w bytes.Buffer
			keys := slices.Clone(test.keys)
			n, err := credstore.WriteArchiveQuick(t.Context(), s, &w, credstore.NewSecret(archivePassphrase), test.keys)
			wantError(t, err, test.err)
			if !slices.Equal(keys, test.keys) {
				t.Errorf("the keys are now %v", test.keys)
			}
			if err != nil {
				if w.Len() != 0 || n != 0 {
					t.Errorf("got %d, %d bytes, want nothing", n, w.Len())
				}
				return
			}
			got, err := readArchive(t, credstore.NewMemory(now), w.Bytes(), false)
			if err != nil || outcomes(got) != test.want {
				t.Errorf("got %q, %v, want %q", outcomes(got), err, test.want)
			}
		})
	}
}

func TestArchiveOfAllLeavesOutWhatIsLost(t *testing.T) {
	o, on, _, _ := indexed(t)
	ringOf(on).edit("b", "")
	s := openOn(t, o, on)
	data := archiveOf(t, s)
	got, err := readArchive(t, s, data, false)
	if err != nil || outcomes(got) != "a same, c same" {
		t.Errorf("got %q, %v", outcomes(got), err)
	}
	t.Run("and brings back what is lost elsewhere", func(t *testing.T) {
		ringOf(on).edit("c", "")
		got, err := readArchive(t, s, data, false)
		if err != nil || outcomes(got) != "a same, c added" {
			t.Errorf("got %q, %v", outcomes(got), err)
		}
		wantGet(t, s, credstoretest.Lona("c"))
	})
	t.Run("and nothing at all where one cannot be read", func(t *testing.T) {
		ringOf(on).edit("a", "{")
		var w bytes.Buffer
		_, err := credstore.WriteArchiveQuick(t.Context(), s, &w, credstore.NewSecret(archivePassphrase), nil)
		wantRemedy(t, err, credstore.ErrDamaged)
		if w.Len() != 0 {
			t.Errorf("wrote %d bytes", w.Len())
		}
	})
}

func TestImportNeverReplacesUnlessTold(t *testing.T) {
	here, there := credstoretest.Lona("a"), credstoretest.Lona("a")
	there.Secret = credstore.NewSecret("other s3cr3t")
	later := here
	later.State = credstore.StateRevoked
	for name, test := range map[string]struct {
		there credstore.Credential
		keep  string
	}{
		"a different secret": {there, "a kept, b added"},
		"a different state":  {later, "a kept, b added"},
		"the same":           {here, "a same, b added"},
	} {
		t.Run(name, func(t *testing.T) {
			data := archiveOf(t, memoryOf(t, test.there, credstoretest.Lona("b")))
			s := memoryOf(t, here)
			got, err := readArchive(t, s, data, false)
			if err != nil || outcomes(got) != test.keep {
				t.Errorf("got %q, %v, want %q", outcomes(got), err, test.keep)
			}
			wantGet(t, s, here)
			got, err = readArchive(t, s, data, true)
			want := strings.NewReplacer("kept", "replaced", "added", "same").Replace(test.keep)
			if err != nil || outcomes(got) != want {
				t.Errorf("got %q, %v, want %q", outcomes(got), err, want)
			}
			wantGet(t, s, test.there)
		})
	}
}

func TestImportReplacesWhatIsDamagedOnlyIfTold(t *testing.T) {
	o, on, _, _ := indexed(t)
	s := openOn(t, o, on)
	data := archiveOf(t, memoryOf(t, credstoretest.Lona("a"), credstoretest.Lona("b")))
	ringOf(on).edit("b", "{")
	_, err := readArchive(t, s, data, false)
	wantRemedy(t, err, credstore.ErrDamaged)
	got, err := readArchive(t, s, data, true)
	if err != nil || outcomes(got) != "a same, b replaced" {
		t.Errorf("got %q, %v", outcomes(got), err)
	}
	ringOf(on).edit("b", `{"v":2}`)
	_, err = readArchive(t, s, data, true)
	wantRemedy(t, err, credstore.ErrDamaged)
	if err != nil && !strings.Contains(err.Error(), "update Enlist") {
		t.Errorf("got %v", err)
	}
}

// untouched fails the test when anything is asked of the store.
type untouched struct{ credstore.Store }

func TestArchiveThatIsRefusedBeforeAnythingIsStored(t *testing.T) {
	good := archiveOf(t, memoryOf(t, credstoretest.Lona("a"), credstoretest.Lona("b")))
	text := func(text string) []byte {
		var b bytes.Buffer
		if err := credstore.SealArchive(&b, archivePassphrase, text); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	const lona = `{"v":1,"protocol":"lona","origin":"","agent":"a","kind":"token","state":"active","created":"2026-01-07T14:00:00Z","secret":"s3cr3t"}`
	of := func(items string) []byte {
		return text(`{"format":"enlist archive","version":1,"credentials":[` + items + `]}`)
	}
	tests := map[string]struct {
		data   []byte
		remedy string
	}{
		"empty":                       {nil, "whole file"},
		"another file":                {[]byte("s3cr3t\n"), "whole file"},
		"with something behind it":    {append(bytes.Clone(good), "s3cr3t"...), "whole file"},
		"without end":                 {bytes.Repeat([]byte("\n"), 16<<20+1), "whole file"},
		"of something else":           {text("s3cr3t"), "whole file"},
		"of another format":           {text(`{"format":"other","version":1,"credentials":[]}`), "whole file"},
		"of a newer version":          {text(`{"format":"enlist archive","version":2,"s3cr3t":1}`), "update Enlist"},
		"of no version":               {text(`{"format":"enlist archive","credentials":[]}`), "whole file"},
		"with more than it should":    {text(`{"format":"enlist archive","version":1,"credentials":[],"s3cr3t":1}`), "whole file"},
		"with a name twice":           {text(`{"format":"enlist archive","version":1,"version":1,"credentials":[]}`), "whole file"},
		"with something behind":       {text(`{"format":"enlist archive","version":1,"credentials":[]}{}`), "whole file"},
		"with a newer envelope":       {of(strings.Replace(lona, `"v":1`, `"v":2`, 1)), "update Enlist"},
		"with an envelope of none":    {of(`{}`), "whole file"},
		"with an unknown field":       {of(strings.Replace(lona, `"v":1`, `"v":1,"x":1`, 1)), "whole file"},
		"with a credential twice":     {of(lona + "," + lona), "whole file"},
		"with a state of none":        {of(strings.Replace(lona, "active", "expired", 1)), "whole file"},
		"with a name of none":         {of(strings.Replace(lona, `"agent":"a"`, `"agent":""`, 1)), "whole file"},
		"with too large a secret":     {of(strings.Replace(lona, "s3cr3t", strings.Repeat("s3cr3t", 300), 1)), "whole file"},
		"without a time of creation":  {of(strings.Replace(lona, `"created":"2026-01-07T14:00:00Z",`, "", 1)), "whole file"},
		"that asks for too much work": {costing(t, 21), "whole file"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := readArchive(t, untouched{}, test.data, true)
			wantRemedy(t, err, credstore.ErrDamaged)
			if len(got) != 0 || err != nil && !strings.Contains(err.Error(), test.remedy) {
				t.Errorf("got %v, %v, want %q", got, err, test.remedy)
			}
		})
	}
	t.Run("with another passphrase", func(t *testing.T) {
		for p, want := range map[string]error{"": credstore.ErrUnavailable, "wrong": credstore.ErrPassphrase} {
			_, err := credstore.ReadArchive(t.Context(), untouched{}, bytes.NewReader(good), credstore.NewSecret(p), true)
			wantRemedy(t, err, want)
			if err != nil && !strings.Contains(err.Error(), "passphrase") {
				t.Errorf("got %v", err)
			}
		}
	})
	t.Run("of nobody's passphrase", func(t *testing.T) {
		_, err := readArchive(t, untouched{}, costing(t, 2), true)
		wantRemedy(t, err, credstore.ErrPassphrase)
	})
	t.Run("cut anywhere", func(t *testing.T) {
		whole := len(strings.TrimRight(string(good), "\n"))
		for n := range whole {
			if _, err := readArchive(t, untouched{}, good[:n], true); !errors.Is(err, credstore.ErrDamaged) {
				t.Errorf("cut at %d: got %v", n, err)
			}
		}
	})
	t.Run("altered anywhere", func(t *testing.T) {
		for n := 0; n < len(good)-1; n += 3 {
			data := bytes.Clone(good)
			data[n] ^= 1
			if _, err := readArchive(t, untouched{}, data, true); err == nil {
				t.Errorf("altered at %d: got no error", n)
			}
		}
	})
	t.Run("that cannot be read", func(t *testing.T) {
		_, err := credstore.ReadArchive(t.Context(), untouched{}, io.MultiReader(bytes.NewReader(good[:100]), broken{}), credstore.NewSecret(archivePassphrase), true)
		wantRemedy(t, err, credstore.ErrUnavailable)
	})
}

// costing returns an age file that no passphrase opens, and that asks for
// 2^cost of scrypt to find out.
func costing(t *testing.T, cost int) []byte {
	t.Helper()
	var b bytes.Buffer
	w := armor.NewWriter(&b)
	zeros := strings.Repeat("A", 43)
	_, err := fmt.Fprintf(w, "age-encryption.org/v1\n-> scrypt AAAAAAAAAAAAAAAAAAAAAA %d\n%s\n--- %s\n%032d", cost, zeros, zeros, 0)
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// broken is a disk or a pipe that fails.
type broken struct{}

func (broken) Read([]byte) (int, error)  { return 0, io.ErrUnexpectedEOF }
func (broken) Write([]byte) (int, error) { return 0, io.ErrShortWrite }

func TestArchiveWithoutAPassphraseOrAPlaceIsNotWritten(t *testing.T) {
	s := memoryOf(t, credstoretest.Lona("a"))
	var w bytes.Buffer
	_, err := credstore.WriteArchive(t.Context(), s, &w, credstore.Secret{}, nil)
	wantRemedy(t, err, credstore.ErrUnavailable)
	if w.Len() != 0 {
		t.Errorf("wrote %d bytes", w.Len())
	}
	n, err := credstore.WriteArchiveQuick(t.Context(), s, broken{}, credstore.NewSecret(archivePassphrase), nil)
	wantRemedy(t, err, credstore.ErrUnavailable)
	if n != 0 {
		t.Errorf("got %d", n)
	}
}

// full takes some puts and no more, and counts who holds a lock.
type full struct {
	credstore.Store
	left int

	mu     sync.Mutex
	locked map[credstore.Key]bool
}

func (f *full) Put(ctx context.Context, c credstore.Credential) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.locked[c.Key] {
		return errors.New("put without its lock")
	}
	if f.left == 0 {
		return &credstore.Error{Op: "write", Place: "test", Kind: credstore.ErrUnavailable, Remedy: "free some space"}
	}
	f.left--
	return f.Store.Put(ctx, c)
}

func (f *full) Lock(ctx context.Context, k credstore.Key) (func(), error) {
	unlock, err := f.Store.Lock(ctx, k)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.locked[k] = err == nil
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.locked, k)
		unlock()
	}, err
}

func TestImportThatFailsHalfWayIsFinishedByTheNext(t *testing.T) {
	data := archiveOf(t, memoryOf(t, credstoretest.Lona("a"), credstoretest.Lona("b"), credstoretest.Lona("c")))
	s := &full{Store: credstore.NewMemory(now), locked: make(map[credstore.Key]bool), left: 1}
	got, err := readArchive(t, s, data, false)
	wantRemedy(t, err, credstore.ErrUnavailable)
	if outcomes(got) != "a added" || len(s.locked) != 0 {
		t.Errorf("got %q, %v, want what was done, and no lock held", outcomes(got), s.locked)
	}
	s.left = 2
	got, err = readArchive(t, s, data, false)
	if err != nil || outcomes(got) != "a same, b added, c added" {
		t.Errorf("got %q, %v", outcomes(got), err)
	}
}

func TestImportWaitsForWhoRenews(t *testing.T) {
	here, renewed := credstoretest.Lona("a"), credstoretest.Lona("a")
	renewed.Secret = credstore.NewSecret("renewed")
	s := memoryOf(t, here)
	data := archiveOf(t, memoryOf(t, here))
	unlock, err := s.Lock(t.Context(), here.Key)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		got, err := readArchive(t, s, data, false)
		if err != nil || outcomes(got) != "a kept" {
			t.Errorf("got %q, %v, want what was renewed to be kept", outcomes(got), err)
		}
	})
	put(t, s, renewed)
	unlock()
	wg.Wait()
	wantGet(t, s, renewed)
}

// The file is as the first version wrote it.
func TestArchiveOfTheFirstVersionIsRead(t *testing.T) {
	data, err := os.ReadFile(filepath.Join("testdata", "archive-1.age"))
	if err != nil {
		t.Fatal(err)
	}
	s := credstore.NewMemory(now)
	got, err := readArchive(t, s, data, false)
	if err != nil || outcomes(got) != "scout added, main added" {
		t.Fatalf("got %q, %v", outcomes(got), err)
	}
	c, err := s.Get(t.Context(), got[0].Key)
	if err != nil || c.Secret.Reveal() != "made up for a test" || c.KeyID != "key of scout" || c.Label != "work" ||
		c.Attrs["user_id"] != "scout" || !c.ExpiresAt.Equal(time.Date(2026, 2, 6, 14, 0, 0, 123e6, time.UTC)) {
		t.Errorf("got %+v, %v", c, err)
	}
	c, err = s.Get(t.Context(), got[1].Key)
	if err != nil || c.Secret.Reveal() != "made up, too" || c.State != credstore.StatePending || c.Kind != credstore.KindWallet {
		t.Errorf("got %+v, %v", c, err)
	}
}
