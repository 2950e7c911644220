package credstore

import (
	"context"
	"errors"
	"maps"
	"reflect"
	"slices"
)

// names is what a vault says that it holds.
type names struct {
	keys map[Key]bool
	// own: the keys are from a list of the vault's own, which may be wrong.
	own bool
	// none: there is no such list yet.
	none bool
	// nameless are the ids of items that do not say whose they are, and why.
	nameless map[string]error
	// broken is what is wrong with the parts of the vault's own list.
	broken []error
}

// names implements lister.
func (v *keyringVault) names(ctx context.Context) (names, error) {
	l, err := v.readList(ctx)
	if err != nil {
		return names{}, err
	}
	said := names{keys: make(map[Key]bool), own: true, none: len(l.parts) == 0}
	for _, p := range l.parts {
		maps.Copy(said.keys, p.keys)
		if p.broken != nil {
			said.broken = append(said.broken, p.broken)
		}
	}
	return said, nil
}

// names implements lister.
func (v *fileVault) names(context.Context) (names, error) {
	said := names{keys: make(map[Key]bool), nameless: make(map[string]error)}
	f, _, err := v.read("inspect")
	if err != nil || len(f.Items) == 0 {
		return said, err
	}
	key, err := v.unlock("inspect", f)
	if err != nil {
		return names{}, err
	}
	for _, item := range f.Items {
		c, err := item.credential(key)
		if err != nil {
			said.nameless[item.ID] = err
			continue
		}
		said.keys[c.Key] = true
	}
	return said, nil
}

// finding is a flaw and, where the vault gave the credential, what it is.
type finding struct {
	Flaw
	info Info
}

// survey compares what the index says with what the vault holds. Without an
// index that can be read, what is missing in it is no flaw.
func (d *durable) survey(ctx context.Context, v vault, rows []row, index IndexState) ([]finding, error) {
	l, ok := v.(lister)
	if !ok {
		return nil, nil
	}
	said, err := l.names(ctx)
	if err != nil {
		return nil, err
	}
	found := said.flaws(rows)
	all := maps.Clone(said.keys)
	indexed := make(map[Key]row, len(rows))
	for _, r := range rows {
		all[r.Key], indexed[r.Key] = true, r
	}
	for _, k := range slices.SortedFunc(maps.Keys(all), compareKeys) {
		r, known := indexed[k]
		info, state, err := look(ctx, v, k)
		if err != nil {
			return found, err
		}
		kind := judge(r, known, info, state)
		if kind == FlawUnlisted && index != IndexOK {
			kind = "" // it is listed when there is an index again
		}
		if kind != "" {
			found = append(found, finding{explain(kind, k), info})
		}
		if known && state != itemNone && said.own && !said.none && !said.keys[k] {
			found = append(found, finding{explain(FlawUnnamed, k), info})
		}
	}
	return found, nil
}

// flaws returns what is wrong with how a vault says what it holds.
func (n names) flaws(rows []row) []finding {
	var found []finding
	for _, err := range n.broken {
		f := explain(FlawList, Key{})
		f.Detail = err.Error()
		found = append(found, finding{Flaw: f})
	}
	if n.none && len(rows) > 0 {
		f := explain(FlawList, Key{})
		f.Detail = "the keyring has no list of its own"
		found = append(found, finding{Flaw: f})
	}
	known := make(map[string]bool, len(rows))
	for _, r := range rows {
		known[id(r.Key)] = true
	}
	for _, id := range slices.Sorted(maps.Keys(n.nameless)) {
		if known[id] {
			continue // it is found by its key
		}
		f := explain(FlawUnreadable, Key{})
		f.Remedy = "put back a copy of the file"
		if errors.Is(n.nameless[id], errNewer) {
			f = explain(FlawNewer, Key{})
		}
		f.Detail = "item " + id[:min(len(id), 12)] + " cannot be read, and nothing says whose it is"
		found = append(found, finding{Flaw: f})
	}
	return found
}

// itemState is what a vault has for a key.
type itemState int

const (
	itemNone itemState = iota
	itemGood
	itemNewer
	itemUnreadable
)

// look asks the vault for a key. The error says that it did not answer.
func look(ctx context.Context, v vault, k Key) (Info, itemState, error) {
	data, err := v.get(ctx, k)
	switch {
	case errors.Is(err, errNoItem):
		return Info{}, itemNone, nil
	case errors.Is(err, ErrDamaged):
		return Info{}, itemUnreadable, nil
	case err != nil:
		return Info{}, itemNone, err
	}
	c, err := decode(k, data)
	switch {
	case errors.Is(err, errNewer):
		return Info{}, itemNewer, nil
	case err != nil:
		return Info{}, itemUnreadable, nil
	}
	return c.Info, itemGood, nil
}

// judge says what is wrong with a credential, or "".
func judge(r row, known bool, info Info, state itemState) FlawKind {
	switch {
	case state == itemNewer:
		return FlawNewer
	case state == itemUnreadable:
		return FlawUnreadable
	case !known && state == itemGood:
		return FlawUnlisted
	case !known:
		return FlawGone
	case r.phase != settled:
		return FlawUnsettled
	case state == itemNone && r.State != StateLost:
		return FlawGone
	case state == itemGood && !reflect.DeepEqual(r.Info, info):
		return FlawOutdated
	}
	return ""
}

// explain returns a flaw in words.
func explain(kind FlawKind, k Key) Flaw {
	f := Flaw{Kind: kind, Key: k, Repairable: true}
	switch kind {
	case FlawUnlisted:
		f.Detail, f.Remedy = "it is stored, and the index does not list it", "repair lists it"
	case FlawGone:
		f.Detail, f.Remedy = "its secret is gone", "repair marks it as lost; then register again, or forget it"
	case FlawUnsettled:
		f.Detail, f.Remedy = "a process ended while it wrote it", "repair looks at what came of it"
	case FlawOutdated:
		f.Detail, f.Remedy = "the index says something else of it than what is stored", "repair takes over what is stored"
	case FlawUnnamed:
		f.Detail, f.Remedy = "the keyring's own list does not name it", "repair adds it"
	case FlawList:
		f.Detail, f.Remedy = errListPart.Error(), "repair writes the list again"
	case FlawUnreadable:
		f.Repairable = false
		f.Detail, f.Remedy = "what is stored in its place cannot be read as this credential", "register again; the item is replaced"
	case FlawNewer:
		f.Repairable = false
		f.Detail, f.Remedy = "a newer Enlist wrote it", "update Enlist"
	}
	return f
}
