package credstore_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/zalando/go-keyring"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/credstore/credstoretest"
)

func TestInspectSaysWhichBackendAndWhy(t *testing.T) {
	tests := map[string]struct {
		mode    string
		fault   error // of the keyring
		write   bool
		spoil   string // what the record says then
		backend string
		why     string
		refused string
	}{
		"nothing yet":             {mode: credstore.ModeAuto, why: "nothing was stored yet; the first write takes the keyring"},
		"nothing yet, as told":    {mode: credstore.ModeFile, why: "nothing was stored yet; ENLIST_STORE=file"},
		"the keyring by itself":   {mode: credstore.ModeAuto, write: true, backend: "keyring", why: "the first write chose it"},
		"the file for want of it": {mode: credstore.ModeAuto, fault: errLocked, write: true, backend: "file", why: "the first write chose it"},
		"the file as told":        {mode: credstore.ModeFile, write: true, backend: "file", why: "ENLIST_STORE=file was set"},
		"a damaged record":        {mode: credstore.ModeAuto, write: true, spoil: "kering\n", why: "it cannot be said", refused: "does not say where"},
		"a split store":           {mode: credstore.ModeFile, write: true, spoil: "keyring k3f9x2ab\n", backend: "keyring", why: "ENLIST_STORE=file was set", refused: "its credentials are in the keyring"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			o := options(t, credstore.ModeAuto)
			o.Mode = test.mode
			r := newFaultyRing()
			if test.fault != nil {
				r.fail(func(_, _, _ string) (bool, error) { return true, test.fault })
			}
			s := openOn(t, o, credstore.QuickSystem().WithRing(r))
			if test.write {
				put(t, s, credstoretest.Lona("my-agent"))
			}
			if test.spoil != "" {
				write(t, filepath.Join(o.Home, "store"), test.spoil, 0o600)
			}
			report := inspect(t, s)
			got := report.Choice
			if got.Asked != test.mode || got.Backend != test.backend || !strings.Contains(got.Why, test.why) || got.ChosenAt.IsZero() == test.write {
				t.Errorf("got %+v, want %+v", got, test)
			}
			if !strings.Contains(got.Fault.Text, test.refused) || (got.Fault.Remedy == "") != (test.refused == "") || (report.Unread.Text == "") != (test.refused == "") {
				t.Errorf("got %+v, %+v, want %q and a remedy", got.Fault, report.Unread, test.refused)
			}
			if len(r.items) != 0 && got.Namespace == "" && test.spoil == "" {
				t.Errorf("got %+v, want the namespace", got)
			}
			if !test.write {
				wantNoFile(t, o.Home) // it only looked
			}
		})
	}
}

func TestInspectAsksTheKeyring(t *testing.T) {
	released := make(chan struct{})
	defer close(released)
	say := func(err error) func(_, _, _ string) (bool, error) {
		return func(_, _, _ string) (bool, error) { return true, err }
	}
	tests := map[string]struct {
		fault func(call, service, user string) (bool, error)
		want  credstore.KeyringState
	}{
		"that works":            {nil, credstore.KeyringWorks},
		"that is locked":        {say(errLocked), credstore.KeyringLocked},
		"without a bus":         {say(errors.New("dial unix /run/user/0/bus: connect: no such file or directory")), credstore.KeyringMissing},
		"without a service":     {say(errors.New("The name org.freedesktop.secrets was not provided by any .service files")), credstore.KeyringMissing},
		"of an unknown system":  {say(keyring.ErrUnsupportedPlatform), credstore.KeyringMissing},
		"that hangs":            {func(_, _, _ string) (bool, error) { <-released; return true, nil }, credstore.KeyringSlow},
		"that refuses":          {say(errors.New("exit status 1")), credstore.KeyringRefuses},
		"that keeps nothing":    {func(call, _, _ string) (bool, error) { return call == "set", nil }, credstore.KeyringRefuses},
		"that answers nonsense": {func(_, _, _ string) (bool, error) { panic("s3cr3t") }, credstore.KeyringRefuses},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			o := options(t, credstore.ModeFile)
			r := newFaultyRing()
			r.fail(test.fault)
			s := openOn(t, o, credstore.QuickSystem().WithRing(r).WithFirst(hung))
			got := inspect(t, s).Keyring
			if got.State != test.want || (got.Remedy == "") != (test.want == credstore.KeyringWorks) || (got.Detail == "") != (test.want == credstore.KeyringWorks) {
				t.Errorf("got %+v, want %s", got, test.want)
			}
			if strings.Contains(got.Detail, "s3cr3t") || len(r.items) != 0 {
				t.Errorf("got %+v, %v, want nothing left", got, r.items)
			}
		})
	}
}

func TestInspectMeasuresTheKeyringByItsClock(t *testing.T) {
	o := options(t, credstore.ModeFile)
	clock := now()
	o.Now = func() time.Time { clock = clock.Add(time.Second); return clock }
	s := openOn(t, o, credstore.QuickSystem().WithRing(newFaultyRing()))
	if got := inspect(t, s).Keyring.Took; got != time.Second {
		t.Errorf("got %s, want %s", got, time.Second)
	}
}

func TestWhatAKeyringNeedsOn(t *testing.T) {
	tests := []struct {
		system string
		cause  error
		want   string
	}{
		{"linux", errLocked, "gnome-keyring-daemon --unlock"},
		{"linux", errors.New("dial unix /run/user/0/bus: connect: no such file or directory"), "apt install gnome-keyring"},
		{"linux", errors.New("exit status 1"), "see whether the keyring works"},
		{"darwin", errors.New("exit status 36"), "security unlock-keychain"},
		{"windows", errors.New("the logon session does not exist"), "VaultSvc"},
		{"plan9", keyring.ErrUnsupportedPlatform, "ENLIST_STORE=file"},
	}
	for _, test := range tests {
		got := credstore.KeyringNeeds(test.system, credstore.StateOfKeyring(test.cause), test.cause)
		if !strings.Contains(got, test.want) {
			t.Errorf("%s, %v: got %q, want %q in it", test.system, test.cause, got, test.want)
		}
	}
}

// edit changes the item of an agent's credential in the keyring; "" removes it.
func (r *faultyRing) edit(agent, text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for name := range r.items {
		if isList(name[0]) || !strings.HasPrefix(name[1], "lona/"+agent+" ") {
			continue
		}
		r.items[name] = text
		if text == "" {
			delete(r.items, name)
		}
	}
}

func TestRepairPutsRight(t *testing.T) {
	const secret = `"secret":"s3cr3t"}`
	item := `{"v":1,"protocol":"lona","origin":"https://gateway.lona.agency","agent":"b","kind":"token","state":"active","created":"2026-01-07T14:00:00.123Z","key_id":"other",` + secret
	tests := map[string]struct {
		spoil  func(t *testing.T, o credstore.Options, r *faultyRing)
		kind   credstore.FlawKind
		left   bool   // only a person can
		listed string // the state of b afterwards
	}{
		"what only the vault knows": {func(t *testing.T, o credstore.Options, _ *faultyRing) {
			execute(t, o, "DELETE FROM credentials WHERE agent = 'b'")
		}, credstore.FlawUnlisted, false, "active"},
		"a secret that is gone": {func(_ *testing.T, _ credstore.Options, r *faultyRing) {
			r.edit("b", "")
		}, credstore.FlawGone, false, "lost"},
		"a secret that is gone and only the keyring's list knew of": {func(t *testing.T, o credstore.Options, r *faultyRing) {
			r.edit("b", "")
			execute(t, o, "DELETE FROM credentials WHERE agent = 'b'")
		}, credstore.FlawGone, false, "lost"},
		"what the index is wrong about": {func(_ *testing.T, _ credstore.Options, r *faultyRing) {
			r.edit("b", item)
		}, credstore.FlawOutdated, false, "active"},
		"what the keyring's list does not name": {func(t *testing.T, _ credstore.Options, r *faultyRing) {
			r.setList(t, "part 1", `{"v":1,"part":1,"parts":1,"keys":{"lona":{"https://gateway.lona.agency":{"token":["a","c"]}}}}`)
		}, credstore.FlawUnnamed, false, "active"},
		"a list that is gone": {func(t *testing.T, _ credstore.Options, r *faultyRing) {
			r.setList(t, "part 1", "")
		}, credstore.FlawList, false, "active"},
		"not what is somebody else's": {func(_ *testing.T, _ credstore.Options, r *faultyRing) {
			r.edit("b", "s3cr3t password of a person")
		}, credstore.FlawUnreadable, true, "active"},
		"not what is another's": {func(_ *testing.T, _ credstore.Options, r *faultyRing) {
			r.edit("b", strings.Replace(item, `"agent":"b"`, `"agent":"x"`, 1))
		}, credstore.FlawUnreadable, true, "active"},
		"not what is of a later time": {func(_ *testing.T, _ credstore.Options, r *faultyRing) {
			r.edit("b", strings.Replace(item, `"v":1`, `"v":2`, 1))
		}, credstore.FlawNewer, true, "active"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			o, on, _, _ := indexed(t)
			r := ringOf(on)
			test.spoil(t, o, r)
			s := openOn(t, o, on)
			before := r.credentials()
			found := inspect(t, s).Flaws
			if len(found) != 1 || found[0].Kind != test.kind || found[0].Repairable == test.left || found[0].Remedy == "" {
				t.Fatalf("got %+v, want %s", found, test.kind)
			}
			if test.kind != credstore.FlawList && found[0].Key != credstoretest.Lona("b").Key {
				t.Errorf("got %v, want b", found[0].Key)
			}
			done, err := s.(credstore.Inspector).Repair(t.Context())
			if err != nil || len(done.Done)+len(done.Left) != 1 || (len(done.Left) == 1) != test.left {
				t.Errorf("repair: got %+v, %v", done, err)
			}
			if got := inspect(t, s).Flaws; (len(got) != 0) != test.left {
				t.Errorf("after the repair: got %+v", got)
			}
			if fmt.Sprint(r.credentials()) != fmt.Sprint(before) {
				t.Error("a secret was changed")
			}
			if text := fmt.Sprint(found, done); strings.Contains(text, "s3cr3t") {
				t.Errorf("the report holds a secret: %s", text)
			}
			infos, err := s.List(t.Context(), "")
			if err != nil || len(infos) != 3 || string(infos[1].State) != test.listed {
				t.Errorf("got %v, %v, want b %s", infos, err, test.listed)
			}
		})
	}
}

func TestRepairSettlesWhatAKilledProcessLeft(t *testing.T) {
	o := options(t, credstore.ModeFile)
	cmd, say := another(t, "stop put after", o)
	wantSay(t, say, "stopped")
	s := openOn(t, o, credstore.QuickSystem())
	if got := inspect(t, s); !got.Busy || len(got.Flaws) != 0 {
		t.Errorf("got %+v, want that somebody is writing", got)
	}
	kill(t, cmd)
	got := inspect(t, s)
	if got.Busy || len(got.Flaws) != 1 || got.Flaws[0].Kind != credstore.FlawUnsettled {
		t.Errorf("got %+v, want a row that is not settled", got)
	}
	if _, err := s.(credstore.Inspector).Repair(t.Context()); err != nil {
		t.Error(err)
	}
	if got := inspect(t, s).Flaws; len(got) != 0 {
		t.Errorf("got %v", got)
	}
	wantListed(t, s, "my-agent")
}

func TestRepairMakesADamagedIndexAgain(t *testing.T) {
	for _, mode := range []string{credstore.ModeKeyring, credstore.ModeFile} {
		t.Run(mode, func(t *testing.T) {
			o := options(t, credstore.ModeAuto)
			o.Mode = mode
			r := newFaultyRing()
			on := credstore.QuickSystem().WithRing(r)
			s := openOn(t, o, on)
			put(t, s, credstoretest.Lona("a"))
			put(t, s, credstoretest.Lona("b"))
			if err := s.(io.Closer).Close(); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(o.Home, "index.db")
			for range 2 { // a second time in the same second, too
				write(t, path, "not a database", 0o600)
				got := inspect(t, s)
				if got.Index.State != credstore.IndexDamaged || got.Index.Fault.Remedy == "" || len(got.Flaws) != 0 {
					t.Errorf("got %+v, %v, want it damaged", got.Index, got.Flaws)
				}
				done, err := s.(credstore.Inspector).Repair(t.Context())
				if err != nil || !done.Rebuilt || len(done.Done) != 0 {
					t.Fatalf("got %+v, %v", done, err)
				}
				wantFile(t, done.Index, "not a database")
				if got := inspect(t, s); got.Index.State != credstore.IndexOK || got.Index.Rows != 2 || len(got.Flaws) != 0 {
					t.Errorf("got %+v, want it whole", got)
				}
				wantListed(t, s, "a", "b")
			}
			r.fail(func(_, _, _ string) (bool, error) { return true, errLocked })
			write(t, path, "not a database", 0o600)
			if mode == credstore.ModeFile {
				write(t, encPath(o), "{", 0o600)
			}
			if _, err := s.(credstore.Inspector).Repair(t.Context()); err == nil {
				t.Error("got no error of a vault that does not answer")
			}
			wantFile(t, path, "not a database") // nothing to put in its place
		})
	}
}

func TestRepairReportsWhatOnlyAPersonCanDo(t *testing.T) {
	o := options(t, credstore.ModeFile)
	s := openOn(t, o, credstore.QuickSystem())
	put(t, s, credstoretest.Lona("a"))
	put(t, s, credstoretest.Lona("b"))
	f, err := credstore.Parse(read(t, encPath(o)))
	if err != nil {
		t.Fatal(err)
	}
	f.Items[0].Data[0] ^= 1
	data, err := f.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	write(t, encPath(o), string(data), 0o600)
	if got := inspect(t, s).Flaws; len(got) != 1 || got[0].Kind != credstore.FlawUnreadable || got[0].Key.Agent != "a" {
		t.Errorf("got %+v, want the item of a", got)
	}
	remove(t, filepath.Join(o.Home, "index.db"))
	got, err := s.(credstore.Inspector).Repair(t.Context())
	if err != nil || !got.Rebuilt || len(got.Left) != 1 || got.Left[0].Kind != credstore.FlawUnreadable || got.Left[0].Key.Agent != "" {
		t.Errorf("got %+v, %v, want an item that says not whose it is", got, err)
	}
	wantListed(t, s, "b")
	wantGet(t, s, credstoretest.Lona("b"))
}

func TestInspectWithALockedKeyringStillSaysWhatTheIndexKnows(t *testing.T) {
	o, on, _, _ := indexed(t)
	ringOf(on).fail(func(_, _, _ string) (bool, error) { return true, errLocked })
	s := openOn(t, o, on)
	got := inspect(t, s)
	if got.Index.Rows != 3 || got.Keyring.State != credstore.KeyringLocked || got.Unread.Remedy == "" || len(got.Flaws) != 0 {
		t.Errorf("got %+v", got)
	}
	_, err := s.(credstore.Inspector).Repair(t.Context())
	wantRemedy(t, err, credstore.ErrUnavailable)
	wantListed(t, s, "a", "b", "c") // nobody took them for lost
	infos, err := s.List(t.Context(), "")
	if err != nil || infos[0].State != credstore.StateActive {
		t.Errorf("got %v, %v", infos, err)
	}
}

func TestRepairWithoutAHomeDoesNothing(t *testing.T) {
	for _, mode := range []string{credstore.ModeAuto, credstore.ModeKeyring, credstore.ModeFile} {
		o := options(t, credstore.ModeAuto)
		o.Mode = mode
		s := openOn(t, o, credstore.QuickSystem().WithRing(newFaultyRing()))
		if done, err := s.(credstore.Inspector).Repair(t.Context()); err != nil || done.Rebuilt || len(done.Done) != 0 {
			t.Errorf("%s: got %+v, %v", mode, done, err)
		}
		wantNoFile(t, o.Home)
	}
}

// A home without an index on a disk that is read-only.
func TestListOnAReadOnlyDiskAsksTheVault(t *testing.T) {
	for _, mode := range []string{credstore.ModeKeyring, credstore.ModeFile} {
		t.Run(mode, func(t *testing.T) {
			o := options(t, credstore.ModeAuto)
			o.Mode = mode
			r := newFaultyRing()
			on := credstore.QuickSystem().WithRing(r)
			put(t, openOn(t, o, on), credstoretest.Lona("a"))
			put(t, openOn(t, o, on), credstoretest.Lona("b"))
			remove(t, filepath.Join(o.Home, "index.db"))
			s := openOn(t, o, on.WithFiles(failing("create", syscall.EROFS)))
			for range 2 {
				wantListed(t, s, "a", "b")
				wantGet(t, s, credstoretest.Lona("b"))
			}
			wantRemedy(t, s.Put(t.Context(), credstoretest.Lona("c")), credstore.ErrUnavailable)
			if _, err := os.Stat(filepath.Join(o.Home, "index.db")); err == nil {
				t.Error("there is an index")
			}
			if mode == credstore.ModeKeyring {
				asked := 0
				r.fail(func(_, _, _ string) (bool, error) { asked++; return false, nil })
				wantGet(t, s, credstoretest.Lona("b"))
				if asked != 1 {
					t.Errorf("a read asked the keyring %d times, want once", asked)
				}
			}
		})
	}
}
