package credstore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/zalando/go-keyring"
)

// ring is the OS keyring: the Keychain on macOS, the Credential Manager on
// Windows, the Secret Service elsewhere. Its calls block for as long as they
// like. It is a seam: faults that no real keyring makes on demand are put in here.
type ring interface {
	Set(service, user, secret string) error
	Get(service, user string) (string, error)
	Delete(service, user string) error
}

type osRing struct{}

func (osRing) Set(service, user, secret string) error   { return keyring.Set(service, user, secret) }
func (osRing) Get(service, user string) (string, error) { return keyring.Get(service, user) }
func (osRing) Delete(service, user string) error        { return keyring.Delete(service, user) }

// keyringVault keeps each envelope in an item of its own.
type keyringVault struct {
	ring      ring
	namespace string
	limit     time.Duration // how long an answer may take
	// busy holds an element while a call runs. A call that nobody waits for any
	// more runs on, and later ones must not overtake it.
	busy chan struct{}
}

func newKeyringVault(r ring, namespace string, limit time.Duration) *keyringVault {
	return &keyringVault{ring: r, namespace: namespace, limit: limit, busy: make(chan struct{}, 1)}
}

// in returns the vault of a namespace. Its calls wait for those of v, and those
// of v for its.
func (v *keyringVault) in(namespace string) *keyringVault {
	named := *v
	named.namespace = namespace
	return &named
}

func (v *keyringVault) place() string { return "keyring" }

func (v *keyringVault) get(ctx context.Context, k Key) ([]byte, error) {
	service, user := v.name(k)
	text, err := await(ctx, v, "read", func() (string, error) { return v.ring.Get(service, user) })
	return []byte(text), err
}

// put asks what is there before and after: a keyring may report success and
// keep nothing (macOS' tool does when it is told what to do on its standard
// input, a Secret Service when somebody dismisses its prompt), and then the
// former item goes back.
func (v *keyringVault) put(ctx context.Context, k Key, data []byte) error {
	service, user := v.name(k)
	_, err := await(ctx, v, "write", func() (string, error) { return "", v.replace(service, user, string(data)) })
	return err
}

// keep sets an item and makes sure that it is there.
func (v *keyringVault) keep(service, user, text string) error {
	if err := v.ring.Set(service, user, text); err != nil {
		return err
	}
	got, err := v.ring.Get(service, user)
	if err == nil && got == text {
		return nil
	}
	return errNotKept
}

func (v *keyringVault) remove(ctx context.Context, k Key) error {
	service, user := v.name(k)
	_, err := await(ctx, v, "delete", func() (string, error) {
		if former, err := v.ring.Get(service, user); err == nil && newer([]byte(former)) {
			return "", errNewer
		}
		if err := v.ring.Delete(service, user); err != nil {
			return "", err
		}
		switch _, err := v.ring.Get(service, user); {
		case err == nil:
			return "", errNotGone
		case !errors.Is(err, keyring.ErrNotFound):
			return "", fmt.Errorf("%w; %w", err, errUnknown)
		}
		return "", nil
	})
	return err
}

// probe reports whether secrets can be kept here, by keeping one.
func (v *keyringVault) probe(ctx context.Context) error {
	service, user := v.title()+": self-test", rand.Text()
	_, err := await(ctx, v, "probe", func() (string, error) {
		// One call, so that it clears up even when nobody waits for it any more.
		if err := v.keep(service, user, "not a secret"); err != nil {
			return "", err
		}
		return "", v.ring.Delete(service, user)
	})
	return err
}

var (
	errNotKept   = errors.New("the keyring did not keep the item")
	errNotGone   = errors.New("the keyring did not delete the item")
	errPanicked  = errors.New("the keyring's answer could not be understood")
	errNoAnswer  = errors.New("the keyring does not answer")
	errAbandoned = errors.New("the call was given up")
)

// await runs a call until it answers, ctx ends or the limit is over.
func await(ctx context.Context, v *keyringVault, op string, call func() (string, error)) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", v.unavailable(op, err)
	}
	limited, cancel := context.WithTimeout(ctx, v.limit)
	defer cancel()
	type answer struct {
		text string
		err  error
	}
	answered := make(chan answer, 1)
	select {
	case v.busy <- struct{}{}:
	case <-limited.Done():
		return "", v.unavailable(op, v.gaveUp(ctx))
	}
	go func() {
		a := answer{err: errPanicked}
		defer func() {
			// go-keyring asserts the types of what the Secret Service says.
			// The panic's own text may quote an item.
			_ = recover()
			<-v.busy
			answered <- a
		}()
		a.text, a.err = call()
	}()
	select {
	case a := <-answered:
		if a.err != nil {
			return "", v.unavailable(op, a.err)
		}
		return a.text, nil
	case <-limited.Done():
		err := v.gaveUp(ctx)
		if op != "read" {
			err = fmt.Errorf("%w; %w", err, errUnknown)
		}
		return "", v.unavailable(op, err)
	}
}

// gaveUp says why nobody waits any more.
func (v *keyringVault) gaveUp(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%w: %w", errAbandoned, err)
	}
	return fmt.Errorf("%w: nothing within %s", errNoAnswer, v.limit)
}

// name returns the name of an item. It is what a person sees in the keychain
// window, so it is made to be read: the Secret Service shows "Password for
// 'lona/my-agent token' on 'enlist: https://gateway.lona.agency'". It is
// different for every key.
func (v *keyringVault) name(k Key) (service, user string) {
	service = v.title() + ": " + plain(k.Origin, "/:[]")
	user = plain(k.Protocol, "") + "/" + plain(k.Agent, "@+:") + " " + plain(string(k.Kind), "")
	if k.Label != "" {
		user += " (" + plain(k.Label, "@+") + ")"
	}
	if all := service + user; all != strings.ToLower(all) {
		user += " #" + id(k)[:12] // to Windows, Scout and scout are one name
	}
	return service, user
}

func (v *keyringVault) title() string {
	if v.namespace == "" {
		return "enlist"
	}
	return "enlist [" + plain(v.namespace, "") + "]"
}

// maxName is how much of a name's part is shown: Windows takes 512 characters
// for all of them.
const maxName = 100

// plain escapes what is not a letter, a digit, one of "._-" or allowed, and
// shortens what is too long; what was different stays so.
func plain(s, allowed string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', strings.IndexByte("._-"+allowed, c) >= 0:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02x", c)
		}
	}
	if out := b.String(); len(out) <= maxName {
		return out
	}
	return b.String()[:maxName] + "~" + digest(s)[:32]
}

func (v *keyringVault) unavailable(op string, cause error) error {
	if errors.Is(cause, keyring.ErrNotFound) {
		return errNoItem
	}
	if errors.Is(cause, errNewer) {
		return damagedItem(op, v, errNewer)
	}
	kind := ErrUnavailable
	if errors.Is(cause, keyring.ErrSetDataTooBig) {
		kind = ErrTooLarge
	}
	return &Error{Op: op, Place: "keyring", Kind: kind, Cause: cause, Remedy: keyringRemedy(runtime.GOOS, cause)}
}

// keyringRemedy says what a person can do. Systems tell in words only what is
// wrong; so words are looked at, for the remedy and for nothing else.
func keyringRemedy(system string, cause error) string {
	const file = "on a machine without one, set ENLIST_STORE=file before the first registration"
	has := func(words ...string) bool { return says(cause, words...) }
	switch {
	case errors.Is(cause, context.Canceled):
		return "try again"
	case errors.Is(cause, keyring.ErrSetDataTooBig):
		return "use a shorter agent name or label"
	case errors.Is(cause, errNoAnswer), errors.Is(cause, context.DeadlineExceeded):
		return "see whether the keyring asks for its password in a window, unlock it and try again"
	case isLocked(cause):
		if system == "darwin" {
			return "unlock the login keychain (security unlock-keychain) and try again"
		}
		return "unlock the login keyring, or make one, and try again"
	case has("dbus-launch", "session bus", "dial unix", "connection refused", "closed by user"):
		return "log in to a desktop session, which has a D-Bus session bus and a keyring; " + file
	case has("org.freedesktop.secrets", "ServiceUnknown", "NoReply"):
		return "start a keyring such as gnome-keyring or KWallet; " + file
	case has("collection", "No such object"):
		return "create a default keyring, for example with Seahorse; " + file
	case system == "windows":
		return "log on at the machine itself or by Remote Desktop: the Credential Manager is closed to network logons; " + file
	}
	return "see whether the keyring works and is unlocked; " + file
}

// keyringState sorts what a keyring said, by the same words as keyringRemedy.
func keyringState(cause error) KeyringState {
	has := func(words ...string) bool { return says(cause, words...) }
	switch {
	case errors.Is(cause, errNoAnswer), errors.Is(cause, context.DeadlineExceeded):
		return KeyringSlow
	case isLocked(cause):
		return KeyringLocked
	case errors.Is(cause, keyring.ErrUnsupportedPlatform),
		has("dbus-launch", "session bus", "dial unix", "connection refused", "closed by user"),
		has("org.freedesktop.secrets", "ServiceUnknown", "NoReply"),
		has("collection", "No such object"):
		return KeyringMissing
	}
	return KeyringRefuses
}

// keyringNeeds says at more length than keyringRemedy what a system needs, for
// who asks what is wrong and not in the middle of a call.
func keyringNeeds(system string, state KeyringState, cause error) string {
	remedy := keyringRemedy(system, cause)
	switch {
	case system == "darwin" && state == KeyringLocked:
		return "run: security unlock-keychain ~/Library/Keychains/login.keychain-db; over SSH the login keychain is locked until then"
	case system == "darwin" && state == KeyringSlow:
		return "see whether a window asks to allow access to the login keychain; allow it and try again"
	case system == "windows":
		return "log on at the machine itself or by Remote Desktop, and see in services.msc that the Credential Manager (VaultSvc) is not disabled; or set ENLIST_STORE=file before the first registration"
	case state == KeyringLocked, state == KeyringSlow:
		return "log in to the desktop, or unlock the login keyring with Seahorse or KWalletManager; without a desktop: read -rs P && printf %s \"$P\" | gnome-keyring-daemon --unlock"
	case state == KeyringMissing:
		return remedy + "; to install one: apt install gnome-keyring (Debian, Ubuntu), dnf install gnome-keyring (Fedora), pacman -S gnome-keyring (Arch), or KWallet with KDE; without a desktop: dbus-run-session"
	}
	return remedy
}

// isLocked reports whether a keyring is there and locked. The numbers are those
// of macOS' tool.
func isLocked(cause error) bool {
	return says(cause, "failed to unlock", "IsLocked", "is locked", "exit status 36", "exit status 51", "exit status 128")
}

func says(cause error, words ...string) bool {
	text := cause.Error()
	return slices.ContainsFunc(words, func(w string) bool { return strings.Contains(text, w) })
}
