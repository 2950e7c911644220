package credstore

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// A keyring cannot be listed. So it keeps a list of its own: the keys of what is
// in it for one home, in an item, or in several where one would be too large.
//
// Every part is whole in itself and the list is the union of all of them, so a
// change that was cut off between two parts leaves a list all the same. The
// list is written before what it names and shortened after it: it may name an
// item that is not there, which harms nobody, but no item is missing in it that
// the index does not know.

const (
	keyListVersion = 1
	maxListParts   = 256 // some 3,000 credentials
)

// listPart is what an item of the list holds.
type listPart struct {
	Version int `json:"v"`
	Part    int `json:"part"`
	// Parts, in the first part, is how many there are at least: so one that the
	// keyring lost is missed.
	Parts int        `json:"parts,omitzero"`
	Keys  listedKeys `json:"keys"`
}

// listedKeys are keys as protocol, origin, kind and agent, one within the
// other, so that what they share is there once. A label stands in a second line
// behind its agent: a key has no other line break.
type listedKeys map[string]map[string]map[Kind][]string

// keyList is the whole list.
type keyList struct {
	parts []keyPart
	// atLeast is how many parts the first one says that there are.
	atLeast int
}

// keyPart is a part of the list as it is known.
type keyPart struct {
	keys   map[Key]bool
	stored bool  // the keyring has an item for it
	broken error // why it cannot be read; it is left alone then
	dirty  bool  // it has to be written
	full   bool  // a key did not fit
}

var (
	errListPart    = errors.New("a part of the keyring's own list cannot be read")
	errListGone    = errors.New("a part of the keyring's own list is gone")
	errListTooLong = fmt.Errorf("the keyring's own list would have more than %d parts", maxListParts)
)

// parsePart reads a part of the list.
func parsePart(n int, data []byte) (keyPart, int, error) {
	if versionOf(data) > keyListVersion {
		return keyPart{}, 0, errNewerList
	}
	var in listPart
	if err := json.Unmarshal(data, &in); err != nil || in.Version < 1 || in.Part != n || in.Parts < 0 || in.Parts > maxListParts {
		return keyPart{}, 0, errListPart
	}
	p := keyPart{keys: make(map[Key]bool), stored: true}
	for protocol, origins := range in.Keys {
		for origin, kinds := range origins {
			for kind, agents := range kinds {
				for _, line := range agents {
					agent, label, _ := strings.Cut(line, "\n")
					k := Key{Protocol: protocol, Origin: origin, Agent: agent, Kind: kind, Label: label}
					if checkKey(k) != nil {
						return keyPart{}, 0, errListPart
					}
					p.keys[k] = true
				}
			}
		}
	}
	return p, in.Parts, nil
}

// marshal returns a part as it is stored; the first one names the number of all.
func (p keyPart) marshal(n, parts int) ([]byte, error) {
	out := listPart{Version: keyListVersion, Part: n, Keys: make(listedKeys)}
	if n == 1 {
		out.Parts = parts
	}
	for _, k := range slices.SortedFunc(maps.Keys(p.keys), compareKeys) {
		if out.Keys[k.Protocol] == nil {
			out.Keys[k.Protocol] = make(map[string]map[Kind][]string)
		}
		origins := out.Keys[k.Protocol]
		if origins[k.Origin] == nil {
			origins[k.Origin] = make(map[Kind][]string)
		}
		line := k.Agent
		if k.Label != "" {
			line += "\n" + k.Label
		}
		origins[k.Origin][k.Kind] = append(origins[k.Origin][k.Kind], line)
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(out); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// keys returns what the parts that can be read name, sorted.
func (l *keyList) keys() []Key {
	all := make(map[Key]bool)
	for _, p := range l.parts {
		maps.Copy(all, p.keys)
	}
	return slices.SortedFunc(maps.Keys(all), compareKeys)
}

// add adds keys, each to the first part that has room for it.
func (l *keyList) add(keys []Key) error {
	known := make(map[Key]bool, len(keys))
	for _, k := range l.keys() {
		known[k] = true
	}
	for _, k := range keys {
		if known[k] {
			continue
		}
		known[k] = true
		n := 0
		for n < len(l.parts) && !l.parts[n].take(n+1, k) {
			n++
		}
		if n < len(l.parts) {
			continue
		}
		if n == maxListParts {
			return errListTooLong
		}
		l.parts = append(l.parts, keyPart{keys: map[Key]bool{k: true}, dirty: true})
	}
	return nil
}

// take adds a key to a part if it fits. One key alone always does: it is smaller
// than the envelope that the keyring took with it.
func (p *keyPart) take(n int, k Key) bool {
	if p.broken != nil || p.full {
		return false
	}
	p.keys[k] = true
	if data, err := p.marshal(n, maxListParts); err != nil || len(data) > maxEnvelope {
		delete(p.keys, k)
		p.full = true
		return false
	}
	p.dirty = true
	return true
}

// drop takes keys off every part that names them.
func (l *keyList) drop(keys []Key) {
	for i := range l.parts {
		p := &l.parts[i]
		for _, k := range keys {
			if p.keys[k] {
				delete(p.keys, k)
				p.dirty = true
			}
		}
	}
}

// length is how many parts are needed: those up to the last that names a key or
// cannot be read.
func (l *keyList) length() int {
	n := len(l.parts)
	for n > 0 && len(l.parts[n-1].keys) == 0 && l.parts[n-1].broken == nil {
		n--
	}
	return n
}

// compareKeys orders keys as List does.
func compareKeys(a, b Key) int {
	return cmp.Or(
		strings.Compare(a.Protocol, b.Protocol),
		strings.Compare(a.Origin, b.Origin),
		strings.Compare(a.Agent, b.Agent),
		strings.Compare(string(a.Kind), string(b.Kind)),
		strings.Compare(a.Label, b.Label),
	)
}
