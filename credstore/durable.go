package credstore

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"reflect"
	"sync"
	"sync/atomic"
	"time"
)

// writeLock is the name of the lock of whoever changes anything in a home.
const writeLock = "store"

// durable is a Store that outlives its process: a vault for the secrets and an
// index of what is in it.
//
// A write marks its row of the index first and settles it last. So when a
// process ends in between, the index knows of an item that may be in the vault,
// and List finds out; an item that nobody knows of cannot come to be. A read
// asks the vault only, so that an index that is lost or damaged hides nothing.
type durable struct {
	mode       string
	home       string
	on         files
	now        func() time.Time
	logger     *slog.Logger
	locks      *locks
	index      *index
	keyring    *keyringVault // without a namespace
	file       *fileVault
	probe      func(context.Context) error
	writeWait  time.Duration // how long others may keep a write waiting
	repairWait time.Duration // how long List waits for the vault
	warn       sync.Once
	unmade     atomic.Bool // the index was to be made by a read, and could not be
}

// Close closes the index. The store can be used on and opens it again.
func (d *durable) Close() error { return d.index.close() }

// Get implements [Store].
func (d *durable) Get(ctx context.Context, k Key) (Credential, error) {
	v, err := d.vault(ctx, "read")
	if err != nil {
		return Credential{}, err
	}
	if v == nil {
		return Credential{}, &Error{Op: "read", Place: d.home, Kind: ErrNotFound}
	}
	data, err := v.get(ctx, k)
	if errors.Is(err, errNoItem) {
		return Credential{}, d.missing(ctx, v, k)
	}
	if err != nil {
		return Credential{}, err
	}
	c, err := decode(k, data)
	if err != nil {
		return Credential{}, damagedItem("read", v, err)
	}
	d.seen(ctx, v, c.Info)
	return c, nil
}

// Put implements [Store].
func (d *durable) Put(ctx context.Context, c Credential) error {
	c, data, err := prepare(c, d.now)
	if err != nil {
		return refused(d.home, err)
	}
	unlock, err := d.beginWrite(ctx, "write")
	if err != nil {
		return err
	}
	defer unlock()
	v, err := d.choose(ctx)
	if err != nil {
		return err
	}
	former, existed, err := d.mark(ctx, v, row{c.Info, adding})
	if err != nil {
		return err
	}
	// From here on the index is brought to an end whether or not somebody
	// still waits.
	rest := context.WithoutCancel(ctx)
	if err := d.enroll(ctx, v, former, existed); err != nil {
		d.unmark(rest, c.Key, former, existed, err)
		return err
	}
	if err := v.put(ctx, c.Key, data); err != nil {
		d.unmark(rest, c.Key, former, existed, err)
		return err
	}
	if err := d.index.put(rest, row{c.Info, settled}); err != nil {
		d.note(ctx, err) // it is stored; the next List settles the row
	}
	return nil
}

// Delete implements [Store].
func (d *durable) Delete(ctx context.Context, k Key) error {
	v, err := d.vault(ctx, "delete")
	if err != nil {
		return err
	}
	gone := &Error{Op: "delete", Place: d.home, Kind: ErrNotFound}
	if v == nil {
		return gone
	}
	unlock, err := d.beginWrite(ctx, "delete")
	if err != nil {
		return err
	}
	defer unlock()
	if v, err = d.vault(ctx, "delete"); err != nil {
		return err
	}
	if v == nil { // somebody took the home away meanwhile
		return gone
	}
	former, existed, err := d.mark(ctx, v, row{Info{Key: k}, deleting})
	if err != nil {
		return err
	}
	rest := context.WithoutCancel(ctx)
	err = v.remove(ctx, k)
	if err != nil && !errors.Is(err, errNoItem) {
		d.unmark(rest, k, former, existed, err)
		return err
	}
	if errDrop := d.strike(rest, v, k); errDrop != nil {
		d.note(ctx, errDrop)
	}
	if err != nil && !existed {
		return gone
	}
	return nil
}

// List implements [Store].
func (d *durable) List(ctx context.Context, protocol string) ([]Info, error) {
	v, err := d.vault(ctx, "list")
	if err != nil {
		return nil, err
	}
	if v == nil {
		return []Info{}, nil
	}
	if !d.index.exists() {
		return d.listVault(ctx, v, protocol)
	}
	rows, err := d.index.list(ctx, protocol)
	if err == nil && d.repair(ctx, v, rows) {
		rows, err = d.index.list(ctx, protocol)
	}
	if err != nil {
		return d.listWithout(ctx, v, protocol, err)
	}
	infos := make([]Info, 0, len(rows))
	for _, r := range rows {
		if r.phase != adding {
			infos = append(infos, r.Info)
		}
	}
	return infos, nil
}

// Lock implements [Store].
func (d *durable) Lock(ctx context.Context, k Key) (func(), error) {
	return lockKey(ctx, d.locks, d.logger, k)
}

// Backend implements [Store].
func (d *durable) Backend(ctx context.Context) (string, error) {
	recorded, err := d.allowed(ctx)
	if d.mode == ModeAuto && recorded.mode != "" {
		return recorded.mode, err
	}
	return d.mode, err
}

// beginWrite takes the write lock, which also makes the home.
func (d *durable) beginWrite(ctx context.Context, op string) (func(), error) {
	ctx, cancel := context.WithTimeout(ctx, d.writeWait)
	defer cancel()
	unlock, err := d.locks.acquire(ctx, writeLock, func() {})
	if err != nil {
		return nil, &Error{Op: op, Place: d.home, Kind: ErrUnavailable, Cause: err, Remedy: diskRemedy(err, d.home)}
	}
	return unlock, nil
}

// mark writes what is about to happen into the index, which is made if there
// is none, and returns the row that was there. The caller holds the write lock.
func (d *durable) mark(ctx context.Context, v vault, r row) (former row, existed bool, err error) {
	if err := d.makeIndex(ctx, v); err != nil {
		return row{}, false, err
	}
	former, existed, err = d.index.find(ctx, r.Key)
	if err != nil {
		return row{}, false, err
	}
	switch {
	case existed && r.phase == deleting:
		r.Info = former.Info
	case r.phase == deleting:
		return former, false, nil // nothing that could be lost sight of
	case existed && (former.phase == settled || former.phase == changing):
		// Until the vault has the new one, the former one is what is listed.
		r = row{former.Info, changing}
	}
	return former, existed, d.index.put(ctx, r)
}

// unmark undoes mark after the vault failed, unless the vault may still do what
// it was asked for: then List finds out.
func (d *durable) unmark(ctx context.Context, k Key, former row, existed bool, cause error) {
	var err error
	switch {
	case errors.Is(cause, errUnknown):
		return
	case existed:
		err = d.index.put(ctx, former)
	default:
		err = d.index.remove(ctx, k)
	}
	if err != nil {
		d.note(ctx, err)
	}
}

// enroll has the vault's own list name what the index does, before an item is
// put that it may not name yet. The caller holds the write lock and has marked
// the row, so that the key is among them.
func (d *durable) enroll(ctx context.Context, v vault, former row, existed bool) error {
	r, ok := v.(recorder)
	if !ok {
		return nil
	}
	listed, err := d.index.listed(ctx)
	if err != nil || listed && existed && (former.phase == settled || former.phase == changing) {
		return err
	}
	rows, err := d.index.list(ctx, "")
	if err != nil {
		return err
	}
	if err := r.record(ctx, keysOf(rows), nil); err != nil || listed {
		return err
	}
	return d.index.setListed(ctx)
}

// strike takes a key that the vault has no item for off its own list and out of
// the index. Where only the list stays, it names what is not there, which harms
// nobody. The caller holds the write lock.
func (d *durable) strike(ctx context.Context, v vault, k Key) error {
	var err error
	if r, ok := v.(recorder); ok {
		err = r.record(ctx, nil, []Key{k})
	}
	return errors.Join(err, d.index.remove(ctx, k))
}

// makeIndex makes the index if there is none, of what the vault says it holds.
func (d *durable) makeIndex(ctx context.Context, v vault) error {
	if d.index.exists() {
		return nil
	}
	infos, err := d.remake(ctx, v)
	if err != nil {
		return err
	}
	return d.index.create(ctx, infos)
}

// remake returns what a new index would hold.
func (d *durable) remake(ctx context.Context, v vault) ([]Info, error) {
	l, ok := v.(lister)
	if !ok {
		return nil, nil
	}
	infos, err := l.all(ctx)
	if errors.Is(err, errNoItem) {
		return nil, nil
	}
	return infos, err
}

// listVault lists without an index, and makes it again if nobody writes: the
// next list need not ask the vault for every credential.
func (d *durable) listVault(ctx context.Context, v vault, protocol string) ([]Info, error) {
	infos, err := d.remake(ctx, v)
	if err != nil {
		return nil, err
	}
	if infos == nil {
		return []Info{}, nil // no list was made yet
	}
	if unlock, ok := d.tryWrite(); ok {
		// Whoever wrote since made the index: then this one is not made.
		if err := d.index.create(ctx, infos); err != nil {
			d.note(ctx, err)
		}
		unlock()
	}
	return ordered(infos, protocol), nil
}

// listWithout lists what the vault says it holds where the disk, full or
// read-only, does not let the index be opened. Otherwise it returns the error.
func (d *durable) listWithout(ctx context.Context, v vault, protocol string, cause error) ([]Info, error) {
	l, ok := v.(lister)
	if !ok || !diskTrouble(cause) {
		return nil, cause
	}
	infos, err := l.all(ctx)
	if err != nil {
		return nil, cause
	}
	d.note(ctx, cause)
	return ordered(infos, protocol), nil
}

// tryWrite takes the write lock if nobody has it, unless there is no home: a
// read makes none.
func (d *durable) tryWrite() (unlock func(), ok bool) {
	if !d.hasHome() {
		return nil, false
	}
	return d.locks.try(writeLock)
}

func (d *durable) hasHome() bool {
	_, err := os.Stat(d.home)
	return !errors.Is(err, fs.ErrNotExist)
}

// seen puts a credential that the vault gave into the index, if the index says
// otherwise. A read never fails for that.
func (d *durable) seen(ctx context.Context, v vault, info Info) {
	if d.index.exists() {
		r, ok, err := d.index.find(ctx, info.Key)
		if err != nil {
			d.note(ctx, err)
			return
		}
		if ok && r.phase == settled && reflect.DeepEqual(r.Info, info) {
			return
		}
	}
	if d.unmade.Load() && !d.index.exists() {
		return
	}
	if unlock, ok := d.tryWrite(); ok {
		defer unlock()
		err := d.settle(ctx, v, info.Key)
		if err != nil {
			d.note(ctx, err)
		}
		// Where no index can be made, the vault is not asked for all that it
		// holds at every read.
		d.unmade.Store(err != nil && !d.index.exists())
	}
}

// missing returns the error for a key that the vault has no item for. If the
// index knows of one, its row is settled: as lost, unless it was on its way in
// or out.
func (d *durable) missing(ctx context.Context, v vault, k Key) error {
	notFound := &Error{Op: "read", Place: v.place(), Kind: ErrNotFound}
	if !d.index.exists() {
		return notFound
	}
	r, ok, err := d.index.find(ctx, k)
	if err != nil {
		d.note(ctx, err)
		return notFound
	}
	if !ok {
		return notFound
	}
	if r.phase == settled || r.phase == changing {
		notFound.Remedy = "its secret is gone from the " + v.place() + ": register again, or forget the credential"
	}
	if r.phase == settled && r.State == StateLost {
		return notFound
	}
	if unlock, ok := d.locks.try(writeLock); ok {
		defer unlock()
		if err := d.settle(ctx, v, k); err != nil {
			d.note(ctx, err)
		}
	}
	return notFound
}

// repair settles the rows that a process left when it ended. While somebody
// writes it does nothing: the rows may be theirs.
func (d *durable) repair(ctx context.Context, v vault, rows []row) (repaired bool) {
	for _, r := range rows {
		if r.phase == settled {
			continue
		}
		unlock, ok := d.locks.try(writeLock)
		if !ok {
			return repaired
		}
		limited, cancel := context.WithTimeout(ctx, d.repairWait)
		err := d.settle(limited, v, r.Key)
		cancel()
		unlock()
		if err != nil {
			d.note(ctx, err)
			return repaired // the vault would not answer for the others either
		}
		repaired = true
	}
	return repaired
}

// settle makes the row of a key say what the vault holds. The caller holds the
// write lock.
func (d *durable) settle(ctx context.Context, v vault, k Key) error {
	if err := d.makeIndex(ctx, v); err != nil {
		return err
	}
	data, err := v.get(ctx, k)
	if err == nil {
		c, err := decode(k, data)
		if err != nil {
			return damagedItem("list", v, err)
		}
		return d.index.put(ctx, row{c.Info, settled})
	}
	if !errors.Is(err, errNoItem) {
		return err
	}
	if !d.keptIn(v) {
		return nil // the item may be elsewhere
	}
	r, ok, err := d.index.find(ctx, k)
	if err != nil || !ok {
		return err
	}
	if r.phase == adding || r.phase == deleting {
		return d.strike(ctx, v, k)
	}
	r.State, r.phase = StateLost, settled
	return d.index.put(ctx, r)
}

// note says once what is wrong with the index where it does not stop anybody.
func (d *durable) note(ctx context.Context, err error) {
	d.warn.Do(func() { d.logger.WarnContext(ctx, "the index of credentials is out of date", "error", err) })
}

func damagedItem(op string, v vault, cause error) error {
	remedy := "register again; the item is replaced"
	if errors.Is(cause, errNewer) {
		remedy = "update Enlist"
	}
	return &Error{Op: op, Place: v.place(), Kind: ErrDamaged, Cause: cause, Remedy: remedy}
}
