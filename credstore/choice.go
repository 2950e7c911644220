package credstore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
)

// The choice between the keyring and the file is made once, at the first write,
// and recorded in the home. From then on a keyring that is slow, locked or gone
// is an error: secrets never go to the other place by themselves.

// choice is where secrets are: a mode, and for the keyring the namespace that
// sets the items of this home apart from those of another. The namespace is made
// with the choice and recorded with it, so that nothing outside the home can
// make it look for its items elsewhere. The zero choice is none.
type choice struct{ mode, namespace string }

// namespaceSize is the number of characters of a namespace: short enough to be
// read in a keychain window and typed into the record again.
const namespaceSize = 8

func newChoice(mode string) choice {
	c := choice{mode: mode}
	if mode == ModeKeyring {
		c.namespace = strings.ToLower(rand.Text()[:namespaceSize]) // 40 bits
	}
	return c
}

// parseChoice reads a record: "file", "keyring k3f9x2ab", or "keyring" for items
// without a namespace.
func parseChoice(text string) (choice, bool) {
	mode, namespace, named := strings.Cut(strings.TrimSpace(text), " ")
	switch {
	case !named:
		return choice{mode: mode}, mode == ModeKeyring || mode == ModeFile
	case mode != ModeKeyring || len(namespace) != namespaceSize || strings.Trim(namespace, "abcdefghijklmnopqrstuvwxyz0123456789") != "":
		return choice{}, false
	}
	return choice{mode, namespace}, true
}

func (c choice) record() []byte {
	if c.namespace == "" {
		return []byte(c.mode + "\n")
	}
	return []byte(c.mode + " " + c.namespace + "\n")
}

// recordForm tells a person what a record looks like.
const recordForm = `the one line that says where your credentials are: "file", or "keyring" and the eight characters in brackets in the names of its items, as in "keyring k3f9x2ab" for "enlist [k3f9x2ab]: ..."`

func (d *durable) recordPath() string { return filepath.Join(d.home, "store") }

// recorded returns the recorded choice, if there is one.
func (d *durable) recorded() (choice, error) {
	path := d.recordPath()
	text, err := readFile(path, 64)
	if errors.Is(err, fs.ErrNotExist) {
		return choice{}, nil
	}
	if err != nil {
		return choice{}, &Error{Op: "open", Place: path, Kind: ErrUnavailable, Cause: err, Remedy: diskRemedy(err, d.home)}
	}
	c, ok := parseChoice(string(text))
	if !ok {
		return choice{}, &Error{
			Op: "open", Place: path, Kind: ErrDamaged, Cause: errors.New("it does not say where the credentials are"),
			Remedy: "write into it " + recordForm,
		}
	}
	return c, nil
}

// allowed returns the recorded choice, or an error if this store must not be
// used with it. It looks each time: other processes choose, too.
func (d *durable) allowed(ctx context.Context) (choice, error) {
	recorded, err := d.recorded()
	if err == nil {
		err = d.refuseSplit(ctx, recorded)
	}
	return recorded, err
}

// at returns the vault of a choice.
func (d *durable) at(c choice) vault {
	if c.mode == ModeKeyring {
		return d.keyring.in(c.namespace)
	}
	return d.file
}

// vault returns where to read from, or nil where nothing can be: before the
// first write has chosen, or named the items in the keyring.
func (d *durable) vault(ctx context.Context, op string) (vault, error) {
	if err := ctx.Err(); err != nil {
		return nil, &Error{Op: op, Place: d.home, Kind: ErrUnavailable, Cause: err, Remedy: "try again"}
	}
	recorded, err := d.allowed(ctx)
	switch {
	case err != nil:
		return nil, err
	case d.mode == ModeFile:
		return d.file, nil
	case recorded.mode == "", d.mode == ModeKeyring && recorded.mode != ModeKeyring:
		return nil, nil
	}
	return d.at(recorded), nil
}

// keptIn reports whether a vault is the one that the record names: only then
// does an item that it does not have say anything of the credential.
func (d *durable) keptIn(v vault) bool {
	recorded, err := d.recorded()
	if err != nil {
		return false
	}
	if k, ok := v.(*keyringVault); ok {
		return recorded == choice{ModeKeyring, k.namespace}
	}
	return recorded.mode == ModeFile
}

// choose returns where to write to, and decides it if it is not decided yet.
// The caller holds the write lock, so that two first writers agree.
func (d *durable) choose(ctx context.Context) (vault, error) {
	recorded, err := d.allowed(ctx)
	if err == nil && recorded.mode == "" {
		err = d.refuseUnrecorded(ctx)
	}
	if err != nil {
		return nil, err
	}
	mode, say := d.mode, func() {}
	if mode == ModeAuto {
		mode = recorded.mode
	}
	if mode == "" {
		if mode, say, err = d.try(ctx); err != nil {
			return nil, err
		}
	}
	if mode == ModeFile {
		if err := d.file.creatable(); err != nil {
			return nil, err
		}
	}
	if mode == recorded.mode {
		return d.at(recorded), nil
	}
	chosen := newChoice(mode)
	if err := d.record(chosen, recorded); err != nil {
		return nil, err
	}
	say()
	if chosen.mode == ModeKeyring {
		// Its namespace is new, so nothing is there, and the keyring need not be
		// asked: should it not work, the index says that it holds nothing, and
		// another choice can be made.
		if err := d.index.create(ctx, nil); err != nil {
			return nil, err
		}
	}
	return d.at(chosen), nil
}

// try finds out what this machine offers; say tells the user.
func (d *durable) try(ctx context.Context) (choice string, say func(), err error) {
	err = d.probe(ctx)
	if ctx.Err() != nil {
		return "", nil, err // nobody waited for the answer, so there is none
	}
	if err == nil {
		return ModeKeyring, func() {
			d.logger.InfoContext(ctx, "credentials are kept in the OS keyring from now on")
		}, nil
	}
	cause := err // say runs later, when err is what try returned
	if failed := new(Error); errors.As(err, &failed) {
		cause = failed.Cause // without the remedy, which is what is being done
	}
	return ModeFile, func() { d.sayFile(ctx, cause) }, nil
}

// sayFile says that the file was chosen. It is a warning, because it is for good
// and a person with a keyring did not ask for it.
func (d *durable) sayFile(ctx context.Context, cause error) {
	because, more := "the OS keyring cannot be used", []any{"path", d.file.place(), "reason", cause}
	locked := isLocked(cause)
	if locked {
		because = "the OS keyring is locked"
	}
	if locked || errors.Is(cause, errNoAnswer) {
		more = append(more, "remedy", fmt.Sprintf("to have them in the keyring, unlock it and, if nothing is in the file any more, delete %s and %s; or set ENLIST_STORE=keyring before the first registration",
			d.recordPath(), d.file.place()))
	}
	d.logger.WarnContext(ctx, "credentials are kept in an encrypted file from now on, because "+because, more...)
}

func (d *durable) record(chosen, former choice) error {
	var old []byte
	if former.mode != "" {
		old = former.record()
	}
	if err := writeFile(d.on, d.recordPath(), chosen.record(), old); err != nil {
		return &Error{Op: "write", Place: d.recordPath(), Kind: ErrUnavailable, Cause: err, Remedy: diskRemedy(err, d.home)}
	}
	return nil
}

// refuseSplit returns an error when this store would not see the credentials
// that are there.
func (d *durable) refuseSplit(ctx context.Context, recorded choice) error {
	if d.mode == ModeAuto || recorded.mode == "" || d.mode == recorded.mode || d.empty(ctx, recorded) {
		return nil
	}
	return &Error{
		Op: "open", Place: d.home, Kind: ErrUnavailable,
		Cause: fmt.Errorf("its credentials are in the %s, but ENLIST_STORE says %s", recorded.mode, d.mode),
		Remedy: fmt.Sprintf("unset ENLIST_STORE or set it to %[1]s; to move, forget every credential first and register again (if there are none in the %[1]s any more, delete %[2]s and %[3]s)",
			recorded.mode, d.recordPath(), d.index.path),
	}
}

// refuseUnrecorded returns an error when there are credentials and no record
// says any more where: a new choice would lose sight of them.
func (d *durable) refuseUnrecorded(ctx context.Context) error {
	if !d.index.exists() {
		return nil
	}
	rows, err := d.index.list(ctx, "")
	if err != nil || len(rows) == 0 {
		return err
	}
	return &Error{
		Op: "open", Place: d.recordPath(), Kind: ErrDamaged, Cause: errors.New("it is gone, and there are credentials"),
		Remedy: fmt.Sprintf("put it back, with %s; or, to give them up, move %s away", recordForm, d.index.path),
	}
}

// empty reports whether it is certain that a backend holds nothing.
func (d *durable) empty(ctx context.Context, recorded choice) bool {
	if recorded.mode == ModeFile {
		content, _, err := d.file.read("open")
		return err == nil && len(content.Items) == 0
	}
	if !d.index.exists() {
		return false
	}
	rows, err := d.index.list(ctx, "")
	return err == nil && len(rows) == 0
}
