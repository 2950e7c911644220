package credstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
)

// The choice between the keyring and the file is made once, at the first write,
// and recorded in the home. From then on a keyring that is slow, locked or gone
// is an error: secrets never go to the other place by themselves.

func (d *durable) recordPath() string { return filepath.Join(d.home, "store") }

// recorded returns the recorded choice, or "".
func (d *durable) recorded() (string, error) {
	path := d.recordPath()
	text, err := readFile(path, 64)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", &Error{Op: "open", Place: path, Kind: ErrUnavailable, Cause: err, Remedy: diskRemedy(err, d.home)}
	}
	word := strings.TrimSpace(string(text))
	if word != ModeKeyring && word != ModeFile {
		return "", &Error{
			Op: "open", Place: path, Kind: ErrDamaged, Cause: errors.New("it says neither keyring nor file"),
			Remedy: "write the one word into it that says where your credentials are: keyring or file",
		}
	}
	return word, nil
}

// backend returns where secrets are, or "" before that is decided. It looks
// each time: other processes choose, too.
func (d *durable) backend(ctx context.Context) (string, error) {
	recorded, err := d.recorded()
	if err == nil {
		err = d.refuseSplit(ctx, recorded)
	}
	if err != nil || d.mode == ModeAuto {
		return recorded, err
	}
	return d.mode, nil
}

// vault returns where to read from, or nil before that is decided.
func (d *durable) vault(ctx context.Context, op string) (vault, error) {
	if err := ctx.Err(); err != nil {
		return nil, &Error{Op: op, Place: d.home, Kind: ErrUnavailable, Cause: err, Remedy: "try again"}
	}
	name, err := d.backend(ctx)
	if err != nil || name == "" {
		return nil, err
	}
	return d.vaults[name], nil
}

// choose returns where to write to, and decides it if it is not decided yet.
// The caller holds the write lock, so that two first writers agree.
func (d *durable) choose(ctx context.Context) (vault, error) {
	recorded, err := d.recorded()
	if err == nil {
		err = d.refuseSplit(ctx, recorded)
	}
	if err != nil {
		return nil, err
	}
	choice, say := d.mode, func() {}
	if choice == ModeAuto {
		choice = recorded
	}
	if choice == "" {
		if choice, say, err = d.try(ctx); err != nil {
			return nil, err
		}
	}
	if choice != recorded {
		if err := d.record(choice, recorded); err != nil {
			return nil, err
		}
		say()
	}
	return d.vaults[choice], nil
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
	var failed *Error
	if errors.As(err, &failed) {
		err = failed.Cause // without the remedy, which is what is being done
	}
	return ModeFile, func() {
		d.logger.InfoContext(ctx, "credentials are kept in an encrypted file from now on, because the OS keyring cannot be used",
			"path", d.vaults[ModeFile].place(), "reason", err)
	}, nil
}

func (d *durable) record(choice, former string) error {
	var old []byte
	if former != "" {
		old = []byte(former + "\n")
	}
	if err := writeFile(d.on, d.recordPath(), []byte(choice+"\n"), old); err != nil {
		return &Error{Op: "write", Place: d.recordPath(), Kind: ErrUnavailable, Cause: err, Remedy: diskRemedy(err, d.home)}
	}
	return nil
}

// refuseSplit returns an error when this store would not see the credentials
// that are there.
func (d *durable) refuseSplit(ctx context.Context, recorded string) error {
	if d.mode == ModeAuto || recorded == "" || d.mode == recorded || d.empty(ctx, recorded) {
		return nil
	}
	return &Error{
		Op: "open", Place: d.home, Kind: ErrUnavailable,
		Cause: fmt.Errorf("its credentials are in the %s, but ENLIST_STORE says %s", recorded, d.mode),
		Remedy: fmt.Sprintf("unset ENLIST_STORE or set it to %[1]s; to move, forget every credential first and register again (if there are none in the %[1]s any more, delete %[2]s)",
			recorded, d.recordPath()),
	}
}

// empty reports whether it is certain that a backend holds nothing.
func (d *durable) empty(ctx context.Context, recorded string) bool {
	if f, ok := d.vaults[recorded].(*fileVault); ok {
		content, _, err := f.read("open")
		return err == nil && len(content.Items) == 0
	}
	if !d.index.exists() {
		return false
	}
	rows, err := d.index.list(ctx, "")
	return err == nil && len(rows) == 0
}
