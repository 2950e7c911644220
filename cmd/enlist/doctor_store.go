package main

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/gateway"
)

// examineStore looks at the store: which one and why, the keyring of the system,
// the index, and what does not fit together.
func (d *doctor) examineStore(ctx context.Context) {
	inspector, ok := d.c.store.(credstore.Inspector)
	if !ok {
		d.add(levelNote, "store", "", "credentials are in memory and end with each process (ENLIST_STORE=memory)", "")
		return
	}
	done := d.p.waits().wait("looking at the credential store and the keyring")
	r, err := inspector.Inspect(ctx)
	done()
	if err != nil {
		d.add(levelProblem, "store", r.Home, err.Error(), "try again")
		return
	}
	d.choice(r)
	d.keyring(r)
	d.index(r)
	if r.Unread != (credstore.Fault{}) && r.Unread != r.Choice.Fault {
		d.add(levelProblem, "store", "", r.Unread.Text, r.Unread.Remedy)
	}
	for _, f := range r.Flaws {
		d.flaw(f)
	}
	if r.Busy {
		d.add(levelNote, "store", "", "another process is writing just now; what it has not finished was left out", "")
	}
}

// examinePolicy looks whether there is a policy, and whether it can be used: while
// it cannot, everything is refused.
func (d *doctor) examinePolicy() {
	home, err := d.p.home()
	if err != nil {
		return // it is said of the store
	}
	path := filepath.Join(home, gateway.PolicyFile)
	view, err := gateway.ViewPolicy(path, d.p.now)
	switch {
	case err != nil:
		d.add(levelProblem, "policy", path, err.Error()+"; everything is refused",
			"put that right with an editor, or move the file away; 'enlist policy check' says whether it is right")
	case !view.Written:
		d.add(levelOK, "policy", "", "there is no "+path+"; 'enlist policy show' says what holds without one", "")
	default:
		d.add(levelOK, "policy", path, "it can be used; 'enlist policy show' says what holds", "")
	}
}

// choice says which backend keeps the secrets, and why.
func (d *doctor) choice(r credstore.Report) {
	if r.Choice.Fault != (credstore.Fault{}) {
		d.add(levelProblem, "store", r.Home, r.Choice.Fault.Text, r.Choice.Fault.Remedy)
		return
	}
	if r.Choice.Backend == "" {
		d.add(levelNote, "store", r.Home, r.Choice.Why, "")
		return
	}
	where := "the encrypted file"
	if r.Choice.Backend == credstore.ModeKeyring {
		where = "the OS keyring"
		if r.Choice.Namespace != "" {
			where += ", under the name enlist [" + r.Choice.Namespace + "]"
		}
	}
	d.add(levelOK, "store", r.Home, fmt.Sprintf("credentials are in %s: %s", where, r.Choice.Why), "")
}

// keyring says how the keyring of the system is. One that is not in use may be
// missing.
func (d *doctor) keyring(r credstore.Report) {
	h := r.Keyring
	if h.State == credstore.KeyringWorks {
		d.add(levelOK, "keyring", "", fmt.Sprintf("it works (%s)", h.Took.Round(time.Millisecond)), "")
		return
	}
	level, text := levelNote, fmt.Sprintf("%s: %s", h.State, h.Detail)
	wanted := r.Choice.Asked == credstore.ModeKeyring || r.Choice.Backend == credstore.ModeKeyring
	switch {
	case wanted:
		level = levelProblem
	case r.Choice.Backend != "" || r.Choice.Asked == credstore.ModeFile:
		text += "; it is not in use"
		h.Remedy = ""
	}
	d.add(level, "keyring", "", text, h.Remedy)
}

// index says how the list of what is stored is.
func (d *doctor) index(r credstore.Report) {
	switch r.Index.State {
	case credstore.IndexOK:
		d.add(levelOK, "index", r.Index.Path, counted(r.Index.Rows, "secret"), "")
	case credstore.IndexNone:
		d.add(levelOK, "index", r.Index.Path, "there is none yet; it is made when it is needed", "")
	default:
		d.add(levelProblem, "index", r.Index.Path, r.Index.Fault.Text, r.Index.Fault.Remedy)
		if r.Index.State == credstore.IndexDamaged {
			last := &d.found[len(d.found)-1]
			last.Repairable, last.Remedy = true, "enlist doctor --repair moves it aside and makes it again of what is stored"
		}
	}
}

// flaw adds something that does not fit together.
func (d *doctor) flaw(f credstore.Flaw) {
	subject := ""
	if f.Key != (credstore.Key{}) {
		subject = d.secretName(f.Key)
	}
	d.found = append(d.found, finding{
		Level: levelProblem, Area: "store", Subject: subject, Text: f.Detail, Remedy: f.Remedy, Repairable: f.Repairable,
	})
}

// secretName names a secret for people: a handle, and its kind where it has none
// of its own.
func (d *doctor) secretName(k credstore.Key) string {
	name := d.c.Lifecycle.Handle(k)
	if !d.c.Lifecycle.HasHandle(k) {
		name += " (" + string(k.Kind) + ")"
	}
	return name
}

// repairStore has the store mend itself where it can.
func (d *doctor) repairStore(ctx context.Context) ([]string, error) {
	inspector, ok := d.c.store.(credstore.Inspector)
	if !ok {
		return nil, nil
	}
	waited := d.p.waits().wait("mending the credential store")
	r, err := inspector.Repair(ctx)
	waited()
	var done []string
	if r.Index != "" {
		done = append(done, "the damaged index is at "+r.Index+" now")
	}
	if r.Rebuilt && r.Index != "" {
		done = append(done, "the index was made again of what is stored")
	}
	for _, f := range r.Done {
		what := "the keyring's own list"
		if f.Key != (credstore.Key{}) {
			what = d.secretName(f.Key)
		}
		done = append(done, what+": "+f.Detail+"; "+f.Remedy)
	}
	return done, err
}
