package credstore

import (
	"bytes"
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"time"

	"filippo.io/age"
	"filippo.io/age/armor"
	"github.com/go-json-experiment/json"
)

// An archive carries credentials to another machine: one file that age
// encrypted with a passphrase, so that age itself opens it, too. In it is JSON
// with the envelopes. Nothing is ever written that is not encrypted.

const (
	archiveFormat  = "enlist archive"
	archiveVersion = 1
	archivePlace   = "archive"
	// workFactor is the cost of a passphrase, as age chooses it by itself: a
	// second and 256 MiB.
	workFactor = 18
	// maxWorkFactor is what an archive may ask for: 1 GiB. It keeps a file that
	// somebody else wrote from exhausting the machine.
	maxWorkFactor = 20
	maxArchive    = 16 << 20
)

// archive is what is encrypted.
type archive struct {
	Format      string     `json:"format"`
	Version     int        `json:"version"`
	Credentials []envelope `json:"credentials"`
}

// Outcome is what came of a credential of an archive.
type Outcome string

// The outcomes.
const (
	OutcomeAdded    Outcome = "added"    // it was not there
	OutcomeSame     Outcome = "same"     // it was there already
	OutcomeKept     Outcome = "kept"     // another one is there, and stays
	OutcomeReplaced Outcome = "replaced" // another one was there
)

// Imported is what came of one credential of an archive.
type Imported struct {
	Key     Key
	Outcome Outcome
}

// WriteArchive writes credentials into one file that the passphrase encrypts,
// and returns how many. With nil for keys it is all that there are, but for
// those that are lost: they have no secret. A key that is named must have one.
// All of them are read before anything is written.
func WriteArchive(ctx context.Context, s Store, w io.Writer, passphrase Secret, keys []Key) (n int, err error) {
	return writeArchive(ctx, s, w, passphrase, keys, workFactor)
}

func writeArchive(ctx context.Context, s Store, w io.Writer, passphrase Secret, keys []Key, cost int) (n int, err error) {
	to, err := age.NewScryptRecipient(passphrase.Reveal())
	if err != nil {
		return 0, noPassphrase("write")
	}
	to.SetWorkFactor(cost)
	all, err := gather(ctx, s, keys)
	if err != nil {
		return 0, err
	}
	var sealed bytes.Buffer
	if err := sealArchive(&sealed, to, all); err != nil {
		return 0, &Error{Op: "write", Place: archivePlace, Cause: err, Remedy: "try again"}
	}
	if sealed.Len() > maxArchive {
		return 0, &Error{
			Op: "write", Place: archivePlace, Kind: ErrTooLarge, Cause: fmt.Errorf("more than %d bytes", maxArchive),
			Remedy: "write several archives, each with some of the credentials",
		}
	}
	if _, err := w.Write(sealed.Bytes()); err != nil {
		return 0, &Error{Op: "write", Place: archivePlace, Kind: ErrUnavailable, Cause: err, Remedy: "see whether there is space where it goes, and write it again"}
	}
	return len(all.Credentials), nil
}

// gather reads the credentials of an archive.
func gather(ctx context.Context, s Store, keys []Key) (archive, error) {
	a := archive{Format: archiveFormat, Version: archiveVersion, Credentials: []envelope{}}
	named := keys != nil
	keys = slices.Clone(keys)
	if !named {
		infos, err := s.List(ctx, "")
		if err != nil {
			return archive{}, err
		}
		for _, info := range infos {
			keys = append(keys, info.Key)
		}
	}
	slices.SortFunc(keys, compareKeys)
	for _, k := range slices.Compact(keys) {
		c, err := s.Get(ctx, k)
		if errors.Is(err, ErrNotFound) && !named {
			continue
		}
		if err != nil {
			return archive{}, err
		}
		a.Credentials = append(a.Credentials, enclose(c))
	}
	return a, nil
}

func sealArchive(w io.Writer, to age.Recipient, a archive) error {
	armored := armor.NewWriter(w)
	sealed, err := age.Encrypt(armored, to)
	if err != nil {
		return err
	}
	if err := json.MarshalWrite(sealed, a); err != nil {
		return err
	}
	return errors.Join(sealed.Close(), armored.Close())
}

// ReadArchive puts the credentials of an archive into a store and says what
// came of each, in the order of List. A different credential that is there
// stays, unless replace says otherwise; one that is lost or gone comes back.
//
// Nothing is stored before the whole archive was read and found good. When the
// store fails half-way, what was done so far is returned with the error, and
// reading the archive again does the rest.
func ReadArchive(ctx context.Context, s Store, r io.Reader, passphrase Secret, replace bool) ([]Imported, error) {
	all, err := openArchive(r, passphrase)
	if err != nil {
		return nil, err
	}
	done := make([]Imported, 0, len(all))
	for _, c := range all {
		outcome, err := importOne(ctx, s, c, replace)
		if err != nil {
			return done, err
		}
		done = append(done, Imported{c.Key, outcome})
	}
	return done, nil
}

// importOne puts a credential of an archive into a store, under its lock: it
// may be renewed there at the same time.
func importOne(ctx context.Context, s Store, c Credential, replace bool) (Outcome, error) {
	unlock, err := s.Lock(ctx, c.Key)
	if err != nil {
		return "", err
	}
	defer unlock()
	outcome := OutcomeAdded
	there, err := s.Get(ctx, c.Key)
	switch {
	case errors.Is(err, ErrNotFound):
	case errors.Is(err, ErrDamaged) && replace:
		outcome = OutcomeReplaced // a store refuses to replace what is of a newer Enlist
	case err != nil:
		return "", err
	case same(there, c):
		return OutcomeSame, nil
	case !replace:
		return OutcomeKept, nil
	default:
		outcome = OutcomeReplaced
	}
	if err := s.Put(ctx, c); err != nil {
		return "", err
	}
	return outcome, nil
}

// same reports whether two credentials are the same in everything.
func same(a, b Credential) bool {
	return subtle.ConstantTimeCompare([]byte(a.Secret.Reveal()), []byte(b.Secret.Reveal())) == 1 &&
		reflect.DeepEqual(a.Info, b.Info)
}

// openArchive decrypts an archive and returns what is in it, all of it checked
// and sorted. What age or a JSON decoder says is left out of the errors: it may
// quote the file, which may be another one than was meant.
func openArchive(r io.Reader, passphrase Secret) ([]Credential, error) {
	by, err := age.NewScryptIdentity(passphrase.Reveal())
	if err != nil {
		return nil, noPassphrase("read")
	}
	by.SetMaxWorkFactor(maxWorkFactor)
	raw, err := io.ReadAll(io.LimitReader(r, maxArchive+1))
	if err != nil {
		return nil, &Error{Op: "read", Place: archivePlace, Kind: ErrUnavailable, Cause: err, Remedy: "make the file readable for you"}
	}
	if len(raw) > maxArchive {
		return nil, notArchive("it has more than 16 MiB")
	}
	plain, err := age.Decrypt(armor.NewReader(bytes.NewReader(raw)), by)
	if no, ok := errors.AsType[*age.NoIdentityMatchError](err); ok && slices.Equal(no.StanzaTypes, []string{"scrypt"}) {
		return nil, &Error{
			Op: "read", Place: archivePlace, Kind: ErrPassphrase,
			Remedy: "give the passphrase that it was written with",
		}
	}
	if err != nil {
		return nil, notArchive("it is not a file that a passphrase encrypted, asks for too much work, or was cut or altered")
	}
	text, err := io.ReadAll(plain)
	if err != nil {
		return nil, notArchive("it was cut or altered")
	}
	return parseArchive(text)
}

// parseArchive reads what was in an archive.
func parseArchive(text []byte) ([]Credential, error) {
	// The version first: a newer archive may have what this Enlist does not know.
	var head struct {
		Format  string `json:"format"`
		Version int    `json:"version"`
	}
	if err := json.Unmarshal(text, &head); err != nil || head.Format != archiveFormat || head.Version < 1 {
		return nil, notArchive("what is encrypted in it is not Enlist's")
	}
	if head.Version > archiveVersion {
		return nil, newerArchive()
	}
	var a archive
	if err := json.Unmarshal(text, &a, json.RejectUnknownMembers(true)); err != nil {
		return nil, notArchive("what is encrypted in it cannot be understood")
	}
	all := make([]Credential, 0, len(a.Credentials))
	for _, e := range a.Credentials {
		c, err := e.credential()
		if errors.Is(err, errNewer) {
			return nil, newerArchive()
		}
		if err == nil {
			c, _, err = prepare(c, func() time.Time { return time.Time{} })
		}
		// Without a time of creation it would get another one at each import,
		// and never be the same.
		if err != nil || c.CreatedAt.IsZero() {
			return nil, notArchive("a credential in it cannot be stored")
		}
		all = append(all, c)
	}
	slices.SortFunc(all, func(a, b Credential) int { return compareKeys(a.Key, b.Key) })
	twice := func(a, b Credential) bool { return a.Key == b.Key }
	if len(slices.CompactFunc(all, twice)) != len(a.Credentials) {
		return nil, notArchive("a credential is in it twice")
	}
	return all, nil
}

func notArchive(cause string) error {
	return &Error{
		Op: "read", Place: archivePlace, Kind: ErrDamaged, Cause: errors.New(cause),
		Remedy: "use a whole file that enlist export wrote",
	}
}

func newerArchive() error {
	return &Error{
		Op: "read", Place: archivePlace, Kind: ErrDamaged, Cause: errors.New("it was written by a newer Enlist"),
		Remedy: "update Enlist",
	}
}

func noPassphrase(op string) error {
	return &Error{
		Op: op, Place: archivePlace, Kind: ErrUnavailable, Cause: errors.New("there is no passphrase"),
		Remedy: "give a passphrase; nothing is written or read without one",
	}
}
