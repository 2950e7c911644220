package credstore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"
)

// Inspector is a [Store] that can say how it is and put right what can be. The
// store that [Open] returns is one, unless it is in memory.
type Inspector interface {
	// Inspect looks at everything and changes nothing, but for an item that it
	// puts into the keyring and takes out again, to see whether that works. It
	// reads every item. The report holds no secret. What is wrong with the
	// store is in the report; the error is ctx's.
	Inspect(ctx context.Context) (Report, error)
	// Repair puts right what it can: a damaged index is moved aside and made
	// again, what only the vault knows is listed, what has no secret is marked
	// as lost, what a crash left half-done is settled, and the keyring's own
	// list is completed. It waits for who writes and lets nobody write
	// meanwhile. It never deletes a secret. What it stopped at is the error;
	// running it again goes on.
	Repair(ctx context.Context) (Repaired, error)
}

// Report is what Inspect found.
type Report struct {
	Home    string
	Choice  Choice
	Keyring KeyringHealth
	Index   IndexHealth
	// Unread is why the secrets could not be looked at: then Flaws says only
	// what is known without them.
	Unread Fault
	// Flaws are what does not fit together, sorted by key.
	Flaws []Flaw
	// Busy: somebody was writing, so rows that are not settled may be theirs
	// and are not among the flaws.
	Busy bool
}

// Fault is what is wrong in words, and what a person can do. The zero Fault is
// none.
type Fault struct{ Text, Remedy string }

// Choice is which backend keeps the secrets, and why.
type Choice struct {
	Asked     string    // the mode of [Options]: "auto", "keyring" or "file"
	Backend   string    // where secrets are: "keyring" or "file"; "" before the first write
	Namespace string    // what tells this home's items in the keyring from others; it is in their names
	ChosenAt  time.Time // when it was recorded; zero: it is not yet
	Why       string    // one sentence
	Fault     Fault     // why it cannot be used as it was asked for
}

// KeyringState is what the keyring says when it is asked.
type KeyringState string

// The states of a keyring.
const (
	KeyringWorks   KeyringState = "works"   // it kept an item and gave it back
	KeyringLocked  KeyringState = "locked"  // it is there and wants its password
	KeyringMissing KeyringState = "missing" // there is none, or no way to it
	KeyringSlow    KeyringState = "slow"    // it gave no answer in time; often a window waits for its password
	KeyringRefuses KeyringState = "refuses" // anything else
)

// KeyringHealth is what the keyring says now, whatever backend is in use.
type KeyringHealth struct {
	State  KeyringState
	Took   time.Duration // until it answered or was given up
	Detail string        // what the system said; "" if it works
	Remedy string        // what this system needs to unlock or install it
}

// IndexState is what the index is like.
type IndexState string

// The states of an index.
const (
	IndexOK       IndexState = "ok"
	IndexNone     IndexState = "none"     // there is none; it is made at the next write or list
	IndexDamaged  IndexState = "damaged"  // Repair makes it again
	IndexNewer    IndexState = "newer"    // a newer Enlist wrote it; this one leaves it alone
	IndexUnusable IndexState = "unusable" // the disk or somebody who writes keeps it from being opened
)

// IndexHealth is how the index is.
type IndexHealth struct {
	Path  string
	State IndexState
	Rows  int // credentials in it
	Fault Fault
}

// FlawKind is a way in which index and vault do not fit together.
type FlawKind string

// The kinds of flaw.
const (
	// FlawUnlisted: only the vault knows of the credential. Repair lists it.
	FlawUnlisted FlawKind = "unlisted"
	// FlawGone: the index or the keyring's own list knows of it and the vault
	// has no secret. Repair marks it as lost.
	FlawGone FlawKind = "gone"
	// FlawUnsettled: a process ended while it wrote. Repair looks at what came
	// of it.
	FlawUnsettled FlawKind = "unsettled"
	// FlawOutdated: the index says something else of it than the vault. Repair
	// believes the vault.
	FlawOutdated FlawKind = "outdated"
	// FlawUnreadable: what the vault has in its place is not this credential.
	FlawUnreadable FlawKind = "unreadable"
	// FlawNewer: a newer Enlist wrote the item.
	FlawNewer FlawKind = "newer"
	// FlawUnnamed: the keyring's own list does not name it. Repair adds it.
	FlawUnnamed FlawKind = "unnamed"
	// FlawList: the keyring's own list, or a part of it, is missing or cannot
	// be read; the Key is empty. Repair writes it again of what is known.
	FlawList FlawKind = "list"
)

// Flaw is one thing that does not fit together.
type Flaw struct {
	Kind       FlawKind
	Key        Key // empty where it cannot be said whose it is
	Detail     string
	Remedy     string // what a person can do
	Repairable bool   // Repair does it
}

// Inspect implements [Inspector].
func (d *durable) Inspect(ctx context.Context) (Report, error) {
	r := Report{Home: d.home, Choice: d.inspectChoice(ctx), Keyring: d.inspectKeyring(ctx)}
	if unlock, ok := d.tryWrite(); ok {
		unlock()
	} else {
		r.Busy = d.hasHome()
	}
	var rows []row
	r.Index, rows = d.inspectIndex(ctx)
	v, err := d.vault(ctx, "inspect")
	if err == nil && v != nil {
		var found []finding
		found, err = d.survey(ctx, v, rows, r.Index.State)
		for _, f := range found {
			if f.Kind != FlawUnsettled || !r.Busy {
				r.Flaws = append(r.Flaws, f.Flaw)
			}
		}
	}
	r.Unread = faultOf(err)
	return r, ctx.Err()
}

// faultOf returns what an error says, without the remedy in its text.
func faultOf(err error) Fault {
	if err == nil {
		return Fault{}
	}
	var e *Error
	if !errors.As(err, &e) {
		return Fault{Text: err.Error()}
	}
	bare := *e
	bare.Remedy = ""
	return Fault{Text: bare.Error(), Remedy: e.Remedy}
}

// inspectChoice says which backend is in use and why.
func (d *durable) inspectChoice(ctx context.Context) Choice {
	c := Choice{Asked: d.mode}
	recorded, err := d.allowed(ctx)
	c.Fault = faultOf(err)
	c.Backend, c.Namespace = recorded.mode, recorded.namespace
	if stat, err := os.Stat(d.recordPath()); err == nil {
		c.ChosenAt = stat.ModTime()
	}
	switch {
	case recorded.mode == "" && c.Fault != Fault{}:
		c.Why = "it cannot be said: " + c.Fault.Text
	case recorded.mode == "" && d.mode == ModeAuto:
		c.Why = "nothing was stored yet; the first write takes the keyring if it answers in time, and else the encrypted file"
	case recorded.mode == "":
		c.Why = fmt.Sprintf("nothing was stored yet; ENLIST_STORE=%s says where to", d.mode)
	case d.mode == ModeAuto:
		c.Why = fmt.Sprintf("the first write chose it, and %s records it", d.recordPath())
	default:
		c.Why = fmt.Sprintf("%s records it, and ENLIST_STORE=%s was set", d.recordPath(), d.mode)
	}
	return c
}

// inspectKeyring asks the keyring as the first write of auto does.
func (d *durable) inspectKeyring(ctx context.Context) KeyringHealth {
	start := d.now()
	err := d.probe(ctx)
	h := KeyringHealth{State: KeyringWorks, Took: d.now().Sub(start)}
	if err == nil {
		return h
	}
	cause := err
	if failed := new(Error); errors.As(err, &failed) && failed.Cause != nil {
		cause = failed.Cause
	}
	h.State, h.Detail = keyringState(cause), cause.Error()
	h.Remedy = keyringNeeds(runtime.GOOS, h.State, cause)
	return h
}

// inspectIndex says how the index is, and returns what is in it.
func (d *durable) inspectIndex(ctx context.Context) (IndexHealth, []row) {
	h := IndexHealth{Path: d.index.path, State: IndexNone}
	if !d.index.exists() {
		return h, nil
	}
	rows, err := d.index.list(ctx, "")
	h.Rows, h.Fault = len(rows), faultOf(err)
	switch {
	case err == nil:
		h.State = IndexOK
	case errors.Is(err, errNewerIndex):
		h.State = IndexNewer
	case errors.Is(err, ErrDamaged):
		h.State = IndexDamaged
	default:
		h.State = IndexUnusable
	}
	return h, rows
}
