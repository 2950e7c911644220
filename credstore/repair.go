package credstore

import (
	"context"
	"errors"
	"slices"
	"time"
)

// Repaired is what Repair did.
type Repaired struct {
	// Index is where the damaged index is now; "" if it was not damaged.
	Index string
	// Rebuilt: the index was made again of what the vault holds.
	Rebuilt bool
	// Done are the flaws that were put right, Left those that only a person can.
	Done, Left []Flaw
}

// Repair implements [Inspector].
func (d *durable) Repair(ctx context.Context) (Repaired, error) {
	var done Repaired
	v, err := d.vault(ctx, "repair")
	if err != nil || v == nil || !d.hasHome() {
		return done, err
	}
	unlock, err := d.beginWrite(ctx, "repair")
	if err != nil {
		return done, err
	}
	defer unlock()
	if v, err = d.vault(ctx, "repair"); err != nil || v == nil {
		return done, err
	}
	if done.Index, done.Rebuilt, err = d.reindex(ctx, v); err != nil {
		return done, err
	}
	rows, err := d.index.list(ctx, "")
	if err != nil {
		return done, err
	}
	found, err := d.survey(ctx, v, rows, IndexOK)
	for _, f := range found {
		if !f.Repairable {
			done.Left = append(done.Left, f.Flaw)
			continue
		}
		if err := d.mend(ctx, v, f); err != nil {
			return done, err
		}
		if f.Kind != FlawList && f.Kind != FlawUnnamed {
			done.Done = append(done.Done, f.Flaw)
		}
	}
	if err == nil && done.Index != "" {
		done.Left, err = d.unlistable(ctx, v, done.Left)
	}
	if err != nil {
		return done, err
	}
	return done, d.mendList(ctx, v, found, &done)
}

// reindex makes the index if there is none, or if it is damaged, and then
// returns where the damaged one is now. It moves nothing away before the vault
// has said what goes into the new one.
func (d *durable) reindex(ctx context.Context, v vault) (aside string, rebuilt bool, err error) {
	there := d.index.exists()
	if there {
		_, err := d.index.list(ctx, "")
		if err == nil || errors.Is(err, errNewerIndex) || !errors.Is(err, ErrDamaged) {
			return "", false, err
		}
	}
	found, err := d.survey(ctx, v, nil, IndexOK)
	if err != nil {
		return "", false, err
	}
	var infos []Info
	for _, f := range found {
		if f.Kind == FlawUnlisted {
			infos = append(infos, f.info)
		}
	}
	if there {
		if aside, err = d.index.setAside(d.now()); err != nil {
			return "", false, err
		}
	}
	return aside, true, d.index.create(ctx, infos)
}

// unlistable adds to what is left that a keyring without a list of its own could
// not say what goes into the new index.
func (d *durable) unlistable(ctx context.Context, v vault, left []Flaw) ([]Flaw, error) {
	l, ok := v.(lister)
	if !ok {
		return left, nil
	}
	said, err := l.names(ctx)
	if err != nil || !said.none {
		return left, err
	}
	return append(left, Flaw{
		Kind:   FlawList,
		Detail: "the keyring has no list of its own, so it could not say what is in it",
		Remedy: "use what you know of: it is listed again then",
	}), nil
}

// mend puts the row of a flaw right. The caller holds the write lock.
func (d *durable) mend(ctx context.Context, v vault, f finding) error {
	switch f.Kind {
	case FlawUnlisted, FlawOutdated:
		return d.index.put(ctx, row{f.info, settled})
	case FlawUnsettled:
		return d.settle(ctx, v, f.Key)
	case FlawGone:
		r, known, err := d.index.find(ctx, f.Key)
		if err != nil {
			return err
		}
		if !known {
			r = row{Info: Info{Key: f.Key}}
		}
		r.State, r.phase = StateLost, settled
		return d.index.put(ctx, r)
	}
	return nil
}

// mendList makes the vault's own list name what the index does, in place of
// what cannot be read of it.
func (d *durable) mendList(ctx context.Context, v vault, found []finding, done *Repaired) error {
	r, ok := v.(recorder)
	broken := slices.ContainsFunc(found, func(f finding) bool { return f.Kind == FlawList || f.Kind == FlawUnnamed })
	if !ok || !broken {
		return nil
	}
	rows, err := d.index.list(ctx, "")
	if err != nil {
		return err
	}
	if err := r.rewrite(ctx, keysOf(rows)); err != nil {
		return err
	}
	if err := d.index.setListed(ctx); err != nil {
		return err
	}
	for _, f := range found {
		if f.Kind == FlawList || f.Kind == FlawUnnamed {
			done.Done = append(done.Done, f.Flaw)
		}
	}
	return nil
}

// keysOf returns the keys of rows.
func keysOf(rows []row) []Key {
	keys := make([]Key, len(rows))
	for i, r := range rows {
		keys[i] = r.Key
	}
	return keys
}

// stampOf is a time in the name of a file.
func stampOf(t time.Time) string { return t.UTC().Format("20060102-150405") }
