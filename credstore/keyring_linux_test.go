package credstore_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/godbus/dbus/v5"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/credstore/credstoretest"
)

// The faults in here are real ones: no bus, and a Secret Service of the test's
// own that is locked or stopped.

func keyringRoles() map[string]func(context.Context, credstore.Options, string) error {
	return map[string]func(context.Context, credstore.Options, string) error{
		"no-bus": roleNoBus,
		"locked": roleLocked,
		"hung":   roleHung,
		"full":   roleFull,
	}
}

func TestWithoutABus(t *testing.T) {
	for name, env := range map[string][]string{
		"an address that leads nowhere": {"DBUS_SESSION_BUS_ADDRESS=unix:path=/nonexistent/bus"},
		"no address and no dbus-launch": {"DBUS_SESSION_BUS_ADDRESS=", "PATH=/nonexistent"},
	} {
		t.Run(name, func(t *testing.T) {
			o := options(t, credstore.ModeAuto)
			_, say := another(t, "no-bus", o, env...)
			wantSay(t, say, "done")
			wantFile(t, filepath.Join(o.Home, "store"), "file\n")
		})
	}
}

func roleNoBus(ctx context.Context, o credstore.Options, _ string) error {
	c := credstoretest.Lona("my-agent")
	explicit := o
	explicit.Mode = credstore.ModeKeyring
	explicit.Home = filepath.Join(o.Home, "explicit")
	s, err := credstore.Open(explicit)
	if err != nil {
		return err
	}
	if err := wantUnavailable(s.Put(ctx, c), "ENLIST_STORE=file", "D-Bus"); err != nil {
		return err
	}
	if err := wantUnavailable(getError(ctx, s, c.Key), "ENLIST_STORE=file"); err != nil {
		return err
	}
	if s, err = credstore.Open(o); err != nil {
		return err
	}
	if err := s.Put(ctx, c); err != nil {
		return err
	}
	_, err = s.Get(ctx, c.Key)
	return err
}

func TestLockedKeyring(t *testing.T) {
	needKeyring(t)
	_, say := another(t, "locked", options(t, credstore.ModeAuto), "with-keyring")
	wantSay(t, say, "done")
}

func roleLocked(ctx context.Context, o credstore.Options, _ string) error {
	c := credstoretest.Lona("my-agent")
	s, err := credstore.Open(o)
	if err != nil {
		return err
	}
	if err := s.Put(ctx, c); err != nil {
		return err
	}
	if backend, err := s.Backend(ctx); err != nil || backend != credstore.ModeKeyring {
		return fmt.Errorf("got %q, %w, want the keyring", backend, err)
	}
	bus, err := dbus.SessionBus()
	if err != nil {
		return err
	}
	login := []dbus.ObjectPath{"/org/freedesktop/secrets/collection/login"}
	service := bus.Object("org.freedesktop.secrets", "/org/freedesktop/secrets")
	if err := service.CallWithContext(ctx, "org.freedesktop.Secret.Service.Lock", 0, login).Err; err != nil {
		return err
	}
	if err := wantUnavailable(getError(ctx, s, c.Key), "unlock the login keyring"); err != nil {
		return err
	}
	if err := wantUnavailable(s.Put(ctx, c), "unlock the login keyring"); err != nil {
		return err
	}
	if infos, err := s.List(ctx, ""); err != nil || len(infos) != 1 {
		return fmt.Errorf("got %v, %w, want the one that is stored", infos, err)
	}
	if _, err := os.Stat(filepath.Join(o.Home, "credentials.enc")); err == nil {
		return errors.New("a locked keyring led to the file")
	}
	o.Home = filepath.Join(o.Home, "new")
	s, err = credstore.Open(o)
	if err != nil {
		return err
	}
	if err := s.Put(ctx, c); err != nil {
		return err
	}
	if backend, err := s.Backend(ctx); err != nil || backend != credstore.ModeFile {
		return fmt.Errorf("got %q, %w, want a new home to choose the file", backend, err)
	}
	return nil
}

func TestHungKeyring(t *testing.T) {
	needKeyring(t)
	_, say := another(t, "hung", options(t, credstore.ModeAuto), "with-keyring")
	wantSay(t, say, "done")
}

func roleHung(ctx context.Context, o credstore.Options, _ string) error {
	c := credstoretest.Lona("my-agent")
	s, err := credstore.Open(o)
	if err != nil {
		return err
	}
	if err := s.Put(ctx, c); err != nil {
		return err
	}
	bus, err := dbus.SessionBus()
	if err != nil {
		return err
	}
	var pid uint32
	err = bus.BusObject().CallWithContext(ctx, "org.freedesktop.DBus.GetConnectionUnixProcessID", 0, "org.freedesktop.secrets").Store(&pid)
	if err != nil {
		return err
	}
	if err := syscall.Kill(int(pid), syscall.SIGSTOP); err != nil {
		return err
	}
	defer func() { _ = syscall.Kill(int(pid), syscall.SIGCONT) }()
	short, cancel := context.WithTimeout(ctx, hung)
	defer cancel()
	if err := wantUnavailable(getError(short, s, c.Key), "unlock it and try again"); err != nil {
		return err
	}
	next := c
	next.KeyID = "next"
	short, cancel = context.WithTimeout(ctx, 4*hung)
	defer cancel()
	if err := wantUnavailable(s.Put(short, next), "again"); err != nil {
		return err
	}
	if err := syscall.Kill(int(pid), syscall.SIGCONT); err != nil {
		return err
	}
	got, err := s.Get(ctx, c.Key)
	if err != nil || got.Secret.Reveal() != c.Secret.Reveal() {
		return fmt.Errorf("got %v, %w, want it back when the keyring is", got, err)
	}
	infos, err := s.List(ctx, "")
	if err != nil || len(infos) != 1 || infos[0].KeyID != got.KeyID {
		return fmt.Errorf("got %v, %w, want what the keyring says", infos, err)
	}
	return nil
}

func getError(ctx context.Context, s credstore.Store, k credstore.Key) error {
	_, err := s.Get(ctx, k)
	return err
}

func wantUnavailable(err error, words ...string) error {
	if !errors.Is(err, credstore.ErrUnavailable) {
		return fmt.Errorf("got %w, want unavailable", err)
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			return fmt.Errorf("got %w, want %q in it", err, word)
		}
	}
	return nil
}

// A disk without space fails a read of the index too: SQLite needs to write
// beside it. The limit of a process on its files is such a disk. What is stored
// is listed all the same, by what the file itself says.
func TestListOnAFullDisk(t *testing.T) {
	o := options(t, credstore.ModeFile)
	s := openOn(t, o, credstore.QuickSystem())
	put(t, s, credstoretest.Lona("my-agent"))
	if err := s.(io.Closer).Close(); err != nil {
		t.Fatal(err)
	}
	_, say := another(t, "full", o)
	wantSay(t, say, "done")
	wantListed(t, s, "my-agent")
}

func roleFull(ctx context.Context, o credstore.Options, _ string) error {
	signal.Ignore(syscall.SIGXFSZ)
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: 1 << 10, Max: 1 << 10}); err != nil {
		return err
	}
	s, err := credstore.Open(o)
	if err != nil {
		return err
	}
	infos, err := s.List(ctx, "")
	if err != nil || len(infos) != 1 || infos[0].Agent != "my-agent" {
		return fmt.Errorf("got %v, %w, want the one that is stored", infos, err)
	}
	if _, err = s.Get(ctx, infos[0].Key); err != nil {
		return err
	}
	if err := os.Rename(filepath.Join(o.Home, "credentials.enc"), filepath.Join(o.Home, "elsewhere")); err != nil {
		return err
	}
	defer func() { _ = os.Rename(filepath.Join(o.Home, "elsewhere"), filepath.Join(o.Home, "credentials.enc")) }()
	if err := os.WriteFile(filepath.Join(o.Home, "credentials.enc"), []byte("{"), 0o600); err != nil {
		return err
	}
	_, err = s.List(ctx, "") // neither can be read
	return wantUnavailable(err, "disk I/O error", "free some space on the disk of "+o.Home+", or check it")
}
