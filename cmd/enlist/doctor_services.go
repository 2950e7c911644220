package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/embeddedgateway"
	"github.com/enlist-mcp/enlist/gateway"
)

// maxSkew is how far the clock of a service may be off before it is a problem:
// what AgentDoor and Lumina have signed is good for five minutes.
const maxSkew = 30 * time.Second

// examineJournal looks at the journal, and at what it says is unfinished.
func (d *doctor) examineJournal(ctx context.Context) {
	open, err := d.c.Lifecycle.Unfinished(ctx)
	if err == nil {
		_, err = d.c.Lifecycle.Audit(ctx, time.Time{}, 1)
	}
	d.journal, d.open = err, open
	if err != nil {
		remedy := ""
		if failed := new(credstore.Error); errors.As(err, &failed) {
			bare := *failed
			remedy, bare.Remedy = failed.Remedy, ""
			err = &bare
		}
		d.add(levelProblem, "journal", "", err.Error(), remedy)
		d.found[len(d.found)-1].Repairable = gateway.JournalDamaged(err)
		return
	}
	d.add(levelOK, "journal", "", "it can be read; "+counted(len(open), "operation")+" not finished", "")
	stored, err := d.c.Lifecycle.List(ctx)
	if err != nil {
		return // it is said of the store
	}
	for _, u := range open {
		if slices.ContainsFunc(stored, func(i credstore.Info) bool { return i.Key == u.Key && d.c.Lifecycle.HasHandle(i.Key) }) {
			continue // it is said of the credential
		}
		d.add(levelProblem, "operation", d.secretName(u.Key),
			fmt.Sprintf("%s was begun on %s and did not come to an end", u.Action, u.Begun.UTC().Format(time.RFC3339)),
			"enlist doctor --repair finishes it, where that can be; otherwise repeat the call")
		d.found[len(d.found)-1].Repairable = true
	}
}

// examineCredentials says how each credential stands.
func (d *doctor) examineCredentials(ctx context.Context) {
	if d.journal != nil {
		return
	}
	all, err := d.c.Lifecycle.Standings(ctx)
	if err != nil {
		if !slices.ContainsFunc(d.found, func(f finding) bool { return f.Level == levelProblem }) {
			d.add(levelProblem, "store", "", err.Error(), "")
		}
		return
	}
	for _, s := range all {
		if !d.c.Lifecycle.HasHandle(s.Key) {
			continue
		}
		level := levelOK
		if s.Reason != "" {
			level = levelNote
		}
		if !s.UsableNow() {
			level = levelProblem
		}
		text := string(s.Now)
		if s.Reason != "" {
			text += ". " + s.Reason
		}
		d.add(level, "credential", d.c.Lifecycle.Handle(s.Key), text, s.Remedy)
		d.found[len(d.found)-1].Repairable = level == levelProblem &&
			slices.ContainsFunc(d.open, func(u gateway.Unfinished) bool { return u.Key == s.Key })
	}
}

// examineServices asks each service for its first page: those that credentials
// are stored of, and those that were set.
func (d *doctor) examineServices(ctx context.Context) {
	origins := d.services(ctx)
	found := make([]finding, len(origins))
	var asked sync.WaitGroup
	for i, origin := range origins {
		asked.Go(func() { found[i] = d.service(ctx, origin) })
	}
	asked.Wait()
	d.found = append(d.found, found...)
}

// services returns the origins that are to be reached, sorted. The gateway inside
// Enlist is there with --embedded only, and then it is the only one.
func (d *doctor) services(ctx context.Context) []string {
	var origins []string
	for _, p := range d.c.All() {
		if p.Origin() != p.Wire().Origin {
			origins = append(origins, p.Origin())
		}
	}
	stored, err := d.c.Lifecycle.List(ctx)
	if err == nil {
		for _, i := range stored {
			origins = append(origins, i.Origin)
		}
	}
	origins = slices.DeleteFunc(origins, func(origin string) bool {
		return origin == "" || (origin == embeddedgateway.Origin) != d.p.flags.embedded
	})
	slices.Sort(origins)
	return slices.Compact(origins)
}

func (d *doctor) service(ctx context.Context, origin string) finding {
	f := finding{Level: levelOK, Area: "service", Subject: origin}
	r, err := d.c.Lifecycle.Reach(ctx, origin)
	if err != nil {
		f.Level = levelProblem
		f.Text, f.Remedy = unreached(err)
		return f
	}
	f.Text = fmt.Sprintf("answers in %s", r.Took.Round(time.Millisecond))
	if r.Status >= http.StatusInternalServerError {
		f.Level = levelNote
		f.Text += fmt.Sprintf(", with HTTP %d", r.Status)
	}
	switch {
	case !r.Told:
		f.Text += ", and does not say what time it is"
	case r.Skew.Abs() > maxSkew:
		f.Level = levelProblem
		f.Text += fmt.Sprintf("; its clock is %s ahead of this one", r.Skew)
		if r.Skew < 0 {
			f.Text = fmt.Sprintf("answers in %s; its clock is %s behind this one", r.Took.Round(time.Millisecond), -r.Skew)
		}
		f.Remedy = "set the clock of this machine by the network, if it is this one that is wrong: what is signed at the wrong time is refused, and expiry is misjudged"
	default:
		f.Text += ", and has the same time"
	}
	return f
}

// unreached says why a service did not answer, and what a person can do.
func unreached(err error) (text, remedy string) {
	var (
		local  *gateway.LocalError
		failed *gateway.Error
	)
	switch {
	case errors.As(err, &local):
		return local.Why, local.Remedy
	case !errors.As(err, &failed):
		return err.Error(), "try again"
	}
	text = failed.Code
	if failed.Cause != nil {
		text += ": " + failed.Cause.Error()
	}
	switch failed.Code {
	case gateway.CodeAddressRefused:
		return text, "requests go to public addresses only: set the service's base URL yourself if it is in your own network"
	case gateway.CodeInsecure:
		return text, "use its https address"
	}
	return text, "see whether this machine has a network and whether the address is right; if it is, the service is down"
}
