package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/enlist-mcp/enlist/gateway"
)

// auditFlags are the flags of `enlist audit`.
type auditFlags struct {
	json       bool
	since      string
	credential string
	action     string
	client     string
	limit      int
}

func (p *program) auditCommand() *cobra.Command {
	var flags auditFlags
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "Show what was done with the credentials, by whom, and what came of it",
		Long: fmt.Sprintf(`Show the audit trail, the oldest entry first: when, on whose behalf (what the client
calls itself, behind the name of the token that it came with over HTTP), what was done with which credential, and what came of it. There is no
secret in it. The last %d entries are kept.

What came of it is one of: done; failed, with nothing changed; refused, by Enlist,
before anything was sent; approved, by a person who was asked, and the entry behind
it says what became of that; unknown: the service may have done it.`, gateway.AuditKept),
		Example: `  enlist audit --since 24h
  enlist audit --credential lona/my-agent --action reveal --json`,
		Args: cobra.NoArgs,
		RunE: run(func(cmd *cobra.Command, _ []string) error {
			since, err := p.auditSince(flags)
			if err != nil {
				return &usageError{err}
			}
			return p.withClient(cmd, func(ctx context.Context, c *client) error {
				events, err := c.Lifecycle.Audit(ctx, since, gateway.AuditKept)
				if err != nil {
					return err
				}
				events = slices.DeleteFunc(events, func(e gateway.Event) bool { return !flags.wants(c, e) })
				if flags.limit > 0 && len(events) > flags.limit {
					events = events[len(events)-flags.limit:]
				}
				if flags.json {
					return auditLines(p.stdout, c, events)
				}
				return p.screen().audit(c, events)
			})
		}),
	}
	jsonFlag(cmd, &flags.json, `one object a line, the oldest first: time, client, version, token_name
(over HTTP), action, protocol, origin, agent, kind, label, method, path, status,
outcome, code, credential (its handle). What an entry has nothing of is left out.`)
	cmd.Flags().StringVar(&flags.since, "since", "", "from this `time` on: 90m, 24h, 7d, 2026-11-01, or with a time of day")
	cmd.Flags().StringVar(&flags.credential, "credential", "", "of this `handle` only; it may be forgotten already")
	cmd.Flags().StringVar(&flags.action, "action", "", "of this action only, such as register or reveal")
	cmd.Flags().StringVar(&flags.client, "client", "", "of this client only: the `name` of its token (enlist token), or what it calls itself")
	cmd.Flags().IntVar(&flags.limit, "limit", 0, "the last `N` entries only")
	return cmd
}

// auditSince checks the flags and returns from when on entries are wanted.
func (p *program) auditSince(flags auditFlags) (time.Time, error) {
	if flags.limit < 0 {
		return time.Time{}, errors.New("--limit is less than nothing")
	}
	if flags.action != "" && !slices.Contains(gateway.Actions(), gateway.Action(flags.action)) {
		var known []string
		for _, a := range gateway.Actions() {
			known = append(known, string(a))
		}
		return time.Time{}, fmt.Errorf("--action: there is no %q; there are %s", flags.action, strings.Join(known, ", "))
	}
	if flags.since == "" {
		return time.Time{}, nil
	}
	if days, ok := strings.CutSuffix(flags.since, "d"); ok {
		if n, err := strconv.Atoi(days); err == nil && n >= 0 && n < 1e5 {
			return p.now().AddDate(0, 0, -n), nil
		}
	}
	if d, err := time.ParseDuration(flags.since); err == nil && d >= 0 {
		return p.now().Add(-d), nil
	}
	for _, layout := range []string{time.DateOnly, time.RFC3339} {
		if at, err := time.Parse(layout, flags.since); err == nil {
			return at, nil
		}
	}
	return time.Time{}, fmt.Errorf("--since: %q is neither a length of time such as 24h or 7d, nor a date such as 2026-11-01 (UTC)", flags.since)
}

// wants reports whether an event is one that the flags ask for.
func (f auditFlags) wants(c *client, e gateway.Event) bool {
	if f.action != "" && e.Action != gateway.Action(f.action) {
		return false
	}
	if f.client != "" && f.client != e.TokenName && f.client != e.Client {
		return false
	}
	handle := eventHandle(c, e)
	return f.credential == "" || handle == f.credential || strings.HasPrefix(handle, f.credential+"@")
}

// eventHandle returns the handle of the credential that an event is about, or ""
// for none.
func eventHandle(c *client, e gateway.Event) string {
	if e.Protocol == "" {
		return ""
	}
	return c.Lifecycle.Handle(e.Key())
}

func auditLines(out io.Writer, c *client, events []gateway.Event) error {
	var text bytes.Buffer
	enc := json.NewEncoder(&text)
	enc.SetEscapeHTML(false)
	for _, e := range events {
		line := struct {
			gateway.Event
			Credential string `json:"credential,omitempty"`
		}{e, eventHandle(c, e)}
		if err := enc.Encode(line); err != nil {
			return err
		}
	}
	_, err := out.Write(escaped(text.Bytes()))
	return err
}

func (s *screen) audit(c *client, events []gateway.Event) error {
	if len(events) == 0 {
		s.say("The audit trail has nothing, or nothing of what was asked for.")
		return nil
	}
	t := titled("TIME", "WHO…", "ACTION", "CREDENTIAL…", "OUTCOME…")
	for _, e := range events {
		credential := eventHandle(c, e)
		if credential != "" && !c.Lifecycle.HasHandle(e.Key()) {
			credential += " (" + e.Kind + ")"
		}
		t.row(s.when(&e.Time), auditWho(e), e.Action, credential, field{auditOutcome(e), outcomeLook(e.Outcome)})
	}
	return s.print(t)
}

func outcomeLook(outcome string) style {
	switch outcome {
	case gateway.OutcomeDone:
		return styleGood
	case gateway.OutcomeFailed, gateway.OutcomeRefused:
		return styleBad
	case gateway.OutcomeUnknown:
		return styleWarning
	}
	return stylePending
}

// auditWho returns who did it: first what Enlist knows, then what the client says.
func auditWho(e gateway.Event) string {
	who := e.Client + " " + e.Version
	if e.TokenName != "" {
		who = e.TokenName + ": " + who
	}
	return who
}

// auditOutcome returns what came of an act, with the request that it was.
func auditOutcome(e gateway.Event) string {
	said := e.Outcome
	if e.Code != "" {
		said += " (" + e.Code + ")"
	}
	if e.Method != "" {
		said += ": " + e.Method + " " + e.Path
		if e.Status != 0 {
			said += " " + strconv.Itoa(e.Status)
		}
	}
	return said
}
