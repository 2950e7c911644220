package credstore

import (
	"context"
	"database/sql/driver"
	"errors"
	"io"
	"time"

	"filippo.io/age"
	"filippo.io/age/armor"
)

// What tests in package credstore_test put into a store, and look at.
type (
	System  = system
	Files   = files
	NewFile = newFile
	OSFiles = osFiles
	Ring    = ring
	OSRing  = osRing
	Sealed  = sealed
)

const (
	MaxEnvelope   = maxEnvelope
	WorkFactor    = workFactor
	MaxWorkFactor = maxWorkFactor
)

// QuickSystem is the real system with a passphrase that costs nothing.
func QuickSystem() System {
	on := realSystem()
	on.argon = derivation{Time: 1, Memory: 64, Threads: 1}
	return on
}

func (s System) WithFiles(f Files) System { s.files = f; return s }
func (s System) WithRing(r Ring) System   { s.ring = r; return s }

func (s System) WithPragmas(p string) System { s.pragmas = p; return s }

// WithPause has f instead of the pause before the index is tried again.
func (s System) WithPause(f func(context.Context) error) System { s.pause = f; return s }

// WithFirst shortens how long auto waits for the keyring.
func (s System) WithFirst(d time.Duration) System { s.first = d; return s }

// WithRepair shortens how long List waits for the keyring.
func (s System) WithRepair(d time.Duration) System { s.repairWait = d; return s }

// WithWaits shortens how long the keyring and other writers may take.
func (s System) WithWaits(d time.Duration) System {
	s.answer, s.first, s.writeWait, s.repairWait = d, d, d, d
	return s
}

func OpenOn(o Options, on System) (Store, error) { return open(o, on) }

func Parse(data []byte) (Sealed, error) { return parse(data) }

func (f Sealed) Marshal() ([]byte, error) { return f.marshal() }

// Unseal opens every item with a key file's key.
func (f Sealed) Unseal(secret Secret) error {
	key, err := f.Key.derive(secret)
	if err != nil {
		return err
	}
	if _, err := f.Check.open(key, f.Key.forCheck()); err != nil {
		return err
	}
	for _, item := range f.Items {
		if _, err := item.credential(key); err != nil {
			return err
		}
	}
	return nil
}

// ItemName is the name of a credential's item in the keyring.
func ItemName(namespace string, k Key) (service, user string) {
	return newKeyringVault(osRing{}, namespace, 0).name(k)
}

func KeyringRemedy(system string, cause error) string { return keyringRemedy(system, cause) }

// ReadKeyring reads an item as a store with the real waits does.
func ReadKeyring(ctx context.Context, r Ring, k Key) error {
	_, err := newKeyringVault(r, "", realSystem().answer).get(ctx, k)
	return err
}

// ProbeKeyring asks a keyring as auto does with the real waits.
func ProbeKeyring(ctx context.Context, r Ring) error {
	return newKeyringVault(r, "", realSystem().first).probe(ctx)
}

// Ring returns the keyring that a system has.
func (s System) Ring() Ring { return s.ring }

func KeyringNeeds(system string, state KeyringState, cause error) string {
	return keyringNeeds(system, state, cause)
}

func StateOfKeyring(cause error) KeyringState { return keyringState(cause) }

// SealArchive encrypts a text as an archive is, at no cost.
func SealArchive(w io.Writer, passphrase, text string) error {
	to, err := age.NewScryptRecipient(passphrase)
	if err != nil {
		return err
	}
	to.SetWorkFactor(1)
	armored := armor.NewWriter(w)
	sealed, err := age.Encrypt(armored, to)
	if err != nil {
		return err
	}
	_, err = io.WriteString(sealed, text)
	return errors.Join(err, sealed.Close(), armored.Close())
}

// WriteArchiveQuick is WriteArchive with a passphrase that costs nothing.
func WriteArchiveQuick(ctx context.Context, s Store, w io.Writer, passphrase Secret, keys []Key) (int, error) {
	return writeArchive(ctx, s, w, passphrase, keys, 1)
}

// Reconnect has the index's connection end as after a call that was cancelled.
func Reconnect(s Store) {
	x := s.(*durable).index
	conn, err := x.db.Conn(context.Background())
	if err != nil {
		panic(err)
	}
	_ = conn.Raw(func(any) error { return driver.ErrBadConn })
	_ = conn.Close()
}
