package credstore

import (
	"context"
	"errors"
	"fmt"

	"github.com/zalando/go-keyring"
)

// listName returns the name of a part of the keyring's own list.
func (v *keyringVault) listName(n int) (service, user string) {
	return v.title() + ": list of credentials", fmt.Sprintf("part %d", n)
}

// readList reads the keyring's own list. What of it cannot be read is marked.
func (v *keyringVault) readList(ctx context.Context) (keyList, error) {
	var l keyList
	for n := 1; n <= maxListParts; n++ {
		service, user := v.listName(n)
		text, err := await(ctx, v, "read", func() (string, error) { return v.ring.Get(service, user) })
		switch {
		case errors.Is(err, errNoItem) && n > l.atLeast:
			return l, nil
		case errors.Is(err, errNoItem):
			l.parts = append(l.parts, keyPart{keys: make(map[Key]bool), broken: errListGone})
			continue
		case err != nil:
			return keyList{}, err
		}
		p, parts, err := parsePart(n, []byte(text))
		if errors.Is(err, errNewerList) {
			return keyList{}, damagedItem("read", v, err)
		}
		if err != nil {
			p = keyPart{keys: make(map[Key]bool), stored: true, broken: err}
		}
		l.parts = append(l.parts, p)
		l.atLeast = max(l.atLeast, parts)
	}
	return l, nil
}

// writeList writes what was changed of the list: new parts before the first one
// counts them, and no part is deleted before the first one stops counting it.
func (v *keyringVault) writeList(ctx context.Context, l keyList) error {
	length := l.length()
	for n := length; n > 0; n-- {
		p := l.parts[n-1]
		recount := n == 1 && p.broken == nil && l.atLeast != length
		if !p.dirty && !recount {
			continue
		}
		data, err := p.marshal(n, length)
		if err != nil {
			return v.unavailable("write", err)
		}
		service, user := v.listName(n)
		if _, err := await(ctx, v, "write", func() (string, error) {
			return "", v.replace(service, user, string(data))
		}); err != nil {
			return err
		}
	}
	for n := len(l.parts); n > length; n-- {
		if !l.parts[n-1].stored {
			continue
		}
		service, user := v.listName(n)
		_, err := await(ctx, v, "delete", func() (string, error) { return "", v.ring.Delete(service, user) })
		if err != nil && !errors.Is(err, errNoItem) {
			return err
		}
	}
	return nil
}

// record implements recorder. A part that cannot be read is left as it is, so
// that what it may hold is not destroyed; the index has its keys, and they come
// with the others into the parts beside it.
func (v *keyringVault) record(ctx context.Context, add, drop []Key) error {
	l, err := v.readList(ctx)
	if err != nil {
		return err
	}
	return v.change(ctx, l, add, drop)
}

// rewrite implements recorder.
func (v *keyringVault) rewrite(ctx context.Context, add []Key) error {
	l, err := v.readList(ctx)
	if err != nil {
		return err
	}
	for i, p := range l.parts {
		if p.broken != nil {
			l.parts[i].broken, l.parts[i].dirty = nil, true
		}
	}
	return v.change(ctx, l, add, nil)
}

func (v *keyringVault) change(ctx context.Context, l keyList, add, drop []Key) error {
	l.drop(drop)
	if err := l.add(add); err != nil {
		return &Error{
			Op: "write", Place: v.place(), Kind: ErrTooLarge, Cause: err,
			Remedy: "forget credentials that are no longer used",
		}
	}
	return v.writeList(ctx, l)
}

// all implements lister. What the list names and the keyring does not have is
// lost; what it has something else in place of is left out, and stays in the
// list. A keyring without a list cannot say what it holds: errNoItem.
func (v *keyringVault) all(ctx context.Context) ([]Info, error) {
	l, err := v.readList(ctx)
	if err != nil {
		return nil, err
	}
	if len(l.parts) == 0 {
		return nil, errNoItem
	}
	infos := []Info{}
	for _, k := range l.keys() {
		data, err := v.get(ctx, k)
		if errors.Is(err, errNoItem) {
			infos = append(infos, Info{Key: k, State: StateLost})
			continue
		}
		if err != nil {
			return nil, err
		}
		c, err := decode(k, data)
		switch {
		case errors.Is(err, errNewer):
			return nil, damagedItem("list", v, err)
		case err == nil:
			infos = append(infos, c.Info)
		}
	}
	return infos, nil
}

// replace sets an item and makes sure that it is there. If it is not, the former
// one goes back. An item that a newer Enlist wrote stays.
func (v *keyringVault) replace(service, user, text string) error {
	former, err := v.ring.Get(service, user)
	existed := err == nil
	if err != nil && !errors.Is(err, keyring.ErrNotFound) {
		return err
	}
	if existed && newer([]byte(former)) {
		return errNewer
	}
	if err = v.keep(service, user, text); err == nil {
		return nil
	}
	var undo error
	switch now, errNow := v.ring.Get(service, user); {
	case existed && (errNow != nil || now != former):
		undo = v.keep(service, user, former)
	case !existed && !errors.Is(errNow, keyring.ErrNotFound):
		undo = v.ring.Delete(service, user)
	}
	if undo != nil && !errors.Is(undo, keyring.ErrNotFound) {
		return fmt.Errorf("%w; %w; %w", err, undo, errUnknown) // it was locked half-way
	}
	return err
}
