package tools_test

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/godbus/dbus/v5"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest"
)

const (
	secretService = "org.freedesktop.secrets"
	servicePath   = dbus.ObjectPath("/org/freedesktop/secrets")
	loginKeyring  = dbus.ObjectPath("/org/freedesktop/secrets/collection/login")
	// loginPassword is what .ci/with-keyring makes the keyring with.
	loginPassword = "enlist"
	// ownKeyring says that this process has a Secret Service of its own: to lock
	// it disturbs nobody.
	ownKeyring = "ENLIST_TEST_OWN_KEYRING"
)

// TestAReaderWaitsForTheKeyring tells the story of a keyring that is locked, and
// of a person who unlocks it, with a real Secret Service. go test ./tools -update
// rewrites its transcripts under .ci/with-keyring only.
func TestAReaderWaitsForTheKeyring(t *testing.T) {
	if os.Getenv("ENLIST_TEST_KEYRING") != "1" {
		t.Skip("needs a Secret Service: run .ci/with-keyring go test ./tools")
	}
	if os.Getenv(ownKeyring) == "" {
		inAKeyringOfItsOwn(t)
		return
	}
	for protocol, of := range services() {
		t.Run(protocol, func(t *testing.T) {
			clock := gatewaytest.NewClock(opening())
			dir := t.TempDir()
			store, err := credstore.Open(credstore.Options{Mode: credstore.ModeKeyring, Home: filepath.Join(dir, "home"), ConfigDir: filepath.Join(dir, "config"), Now: clock.Now})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := store.(io.Closer).Close(); err != nil {
					t.Error(err)
				}
			})
			s := newStage(t, staging{protocol: protocol, store: store, clock: clock})
			ring := newRing(t)
			s.person.deeds = append(s.person.deeds, deed{"unlock the login keyring", func() { ring.unlock(t) }})
			t.Cleanup(func() { ring.unlock(t) }) // whatever became of the story
			s.tells(t, of, story{begins: func(_ *testing.T, s *stage, of service) {
				s.enrol(of)
				ring.lock(t)
			}})
			s.golden(protocol + "/keyring-locked")
		})
	}
}

// inAKeyringOfItsOwn runs this test again where the keyring is nobody else's.
func inAKeyringOfItsOwn(t *testing.T) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	arguments := []string{self, "-test.run", "^" + t.Name() + "$", "-test.v"}
	if *update {
		arguments = append(arguments, "-update")
	}
	cmd := exec.CommandContext(t.Context(), "../.ci/with-keyring", arguments...)
	cmd.Env = append(os.Environ(), ownKeyring+"=1")
	cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
	if err := cmd.Run(); err != nil {
		t.Errorf("under .ci/with-keyring: %v", err)
	}
}

// ring is the login keyring of a Secret Service.
type ring struct{ bus *dbus.Conn }

func newRing(t *testing.T) ring {
	t.Helper()
	bus, err := dbus.SessionBus()
	if err != nil {
		t.Fatal(err)
	}
	return ring{bus}
}

func (r ring) lock(t *testing.T) {
	t.Helper()
	err := r.bus.Object(secretService, servicePath).CallWithContext(t.Context(), "org.freedesktop.Secret.Service.Lock", 0, []dbus.ObjectPath{loginKeyring}).Err
	if err := errors.Join(err, r.is(true)); err != nil {
		t.Fatal(err)
	}
}

// unlock does what the window does that asks a person for the password.
func (r ring) unlock(t *testing.T) {
	t.Helper()
	service := r.bus.Object(secretService, servicePath)
	var output dbus.Variant
	var session dbus.ObjectPath
	if err := service.Call("org.freedesktop.Secret.Service.OpenSession", 0, "plain", dbus.MakeVariant("")).Store(&output, &session); err != nil {
		t.Fatal(err)
	}
	secret := struct {
		Session       dbus.ObjectPath
		Params, Value []byte
		ContentType   string
	}{session, nil, []byte(loginPassword), "text/plain"}
	err := service.Call("org.gnome.keyring.InternalUnsupportedGuiltRiddenInterface.UnlockWithMasterPassword", 0, loginKeyring, secret).Err
	if err := errors.Join(err, r.is(false)); err != nil {
		t.Fatal(err)
	}
}

// is returns an error unless the keyring is locked, or is not.
func (r ring) is(locked bool) error {
	got, err := r.bus.Object(secretService, loginKeyring).GetProperty("org.freedesktop.Secret.Collection.Locked")
	if err == nil && got.Value() != locked {
		err = errors.New("the keyring is not as it should be")
	}
	return err
}
