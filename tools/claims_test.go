package tools_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/credstore"
)

// holding is what a store holds before a call and after it, as far as it can be
// seen without a secret.
type holding struct {
	now           time.Time
	before, after []credstore.Info
}

// claims are the beginnings of what what_is_stored may say, and when it is true.
func claims() map[string]func(holding) bool {
	return map[string]func(holding) bool{
		"Nothing changed":                        holding.unchanged,
		"The credential is stored as it was":     holding.unchanged,
		"The credential, renewed":                func(h holding) bool { return !h.unchanged() && h.usable() },
		"Nothing new":                            holding.nothingNew,
		"No new key":                             holding.nothingNew,
		"No new token":                           holding.nothingNew,
		"No registration that can be used":       holding.nothingNew,
		"What was stored before is still stored": holding.nothingLost,
		"The agent's key pair":                   func(h holding) bool { return h.holds(credstore.KindKeyPair) },
		"What the service issued before this":    holding.nothingLost,
		"The old key, marked as revoked":         func(h holding) bool { return h.ended() && h.nothingNew() },
		"The new key. It is in use":              holding.usable,
	}
}

// untrue returns what is wrong with what an error says of the store; "": nothing.
// What nobody can check is wrong too.
func untrue(claim string, h holding) string {
	var known bool
	for beginning, holds := range claims() {
		if !strings.HasPrefix(claim, beginning) {
			continue
		}
		known = true
		if !holds(h) {
			return fmt.Sprintf("%q is not true: stored was %q, and is %q", claim, seenIn(h.before), seenIn(h.after))
		}
	}
	if strings.Contains(claim, "is still stored") && !h.nothingLost() {
		return fmt.Sprintf("%q is not true: stored was %q, and is %q", claim, seenIn(h.before), seenIn(h.after))
	}
	if !known {
		return fmt.Sprintf("nobody can check that %q", claim)
	}
	return ""
}

// seenIn says of each credential what tells it from another, or from its
// successor.
func seenIn(infos []credstore.Info) []string {
	var out []string
	for _, i := range infos {
		out = append(out, fmt.Sprint(i.Key, " ", i.State, " ", i.KeyID, " ", i.CreatedAt.UTC().Format(time.RFC3339Nano), " ", i.ExpiresAt.UTC().Format(time.RFC3339Nano)))
	}
	return out
}

func (h holding) unchanged() bool { return slices.Equal(seenIn(h.before), seenIn(h.after)) }

// nothingNew reports whether no credential can be used that could not be used
// before.
func (h holding) nothingNew() bool {
	was := seenIn(h.before)
	return !slices.ContainsFunc(h.after, func(i credstore.Info) bool {
		usable := i.UsableAt(h.now) && (i.Kind == credstore.KindToken || i.Kind == credstore.KindAPIKey || i.Kind == credstore.KindAccess)
		return usable && !slices.Contains(was, seenIn([]credstore.Info{i})[0])
	})
}

// nothingLost reports whether everything that was there is there.
func (h holding) nothingLost() bool {
	return !slices.ContainsFunc(h.before, func(was credstore.Info) bool {
		return !slices.ContainsFunc(h.after, func(is credstore.Info) bool { return is.Key == was.Key })
	})
}

func (h holding) usable() bool {
	return slices.ContainsFunc(h.after, func(i credstore.Info) bool { return i.UsableAt(h.now) })
}

func (h holding) holds(kind credstore.Kind) bool {
	return slices.ContainsFunc(h.after, func(i credstore.Info) bool { return i.Kind == kind })
}

// ended reports whether something is marked as revoked.
func (h holding) ended() bool {
	return slices.ContainsFunc(h.after, func(i credstore.Info) bool { return i.State == credstore.StateRevoked })
}

// A check that finds nothing wrong with anything would show nothing.
func TestAnUntrueClaimIsFound(t *testing.T) {
	at := opening()
	key := credstore.Info{State: credstore.StateActive, CreatedAt: at, Key: credstore.Key{Protocol: "lona", Agent: "scout", Kind: credstore.KindToken}}
	newer := key
	newer.CreatedAt = at.Add(time.Hour)
	none, one, other := []credstore.Info(nil), []credstore.Info{key}, []credstore.Info{newer}
	for claim, h := range map[string]holding{
		"Nothing changed.": {at, none, one},
		"Nothing changed: the credential is as it was.":              {at, one, other},
		"The credential is stored as it was, but so what":            {at, one, none},
		"Nothing new. A key that was stored before is still stored.": {at, one, none},
		"Nothing new.":                   {at, none, one},
		"No new key.":                    {at, one, other},
		"No new token.":                  {at, one, other},
		"The agent's key pair.":          {at, none, one},
		"The old key, marked as revoked": {at, one, one},
		"The new key. It is in use.":     {at, one, none},
		"The credential, renewed":        {at, one, one},
		"All is well.":                   {at, one, one},
	} {
		if untrue(claim, h) == "" {
			t.Errorf("%q passed for true", claim)
		}
	}
	if got := untrue("Nothing new. A key that was stored before is still stored.", holding{at, one, one}); got != "" {
		t.Errorf("got %s, want that it is true", got)
	}
}
