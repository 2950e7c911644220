package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/clipperhouse/displaywidth"
	"github.com/spf13/cobra"

	"github.com/enlist-mcp/enlist/gateway"
)

// The levels of a finding.
const (
	levelOK      = "ok"
	levelNote    = "note"    // worth knowing; nothing need be done
	levelProblem = "problem" // needs a hand
	// levelRepaired is what stands before what --repair did.
	levelRepaired = "repaired"
)

// finding is one thing that the doctor has looked at.
type finding struct {
	Level      string `json:"level"`
	Area       string `json:"area"`              // store, keyring, index, policy, journal, operation, credential, service
	Subject    string `json:"subject,omitempty"` // a handle or an origin
	Text       string `json:"text"`
	Remedy     string `json:"remedy,omitempty"`
	Repairable bool   `json:"repairable,omitempty"` // --repair does it
}

// diagnosis is what the doctor says.
type diagnosis struct {
	Well     bool      `json:"well"`
	Repaired []string  `json:"repaired,omitempty"` // what --repair did
	Findings []finding `json:"findings"`
}

// doctor looks at everything.
type doctor struct {
	p       *program
	c       *client
	offline bool
	found   []finding
	// journal is what is wrong with the journal.
	journal error
	// open is what was begun and has not come to an end.
	open []gateway.Unfinished
}

func (d *doctor) add(level, area, subject, text, remedy string) {
	d.found = append(d.found, finding{Level: level, Area: area, Subject: subject, Text: text, Remedy: remedy})
}

func (p *program) doctorCommand() *cobra.Command {
	var asJSON, repair, offline bool
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Look whether everything is in order, and say what is not and what to do",
		Long: `Look at everything that the credentials depend on: which store keeps them and why,
what a locked or missing keyring needs on this system, the index, the policy, the
journal, each credential's state, what was begun and not finished, and whether each
service can be reached and has the same time. No credential is sent: a service is asked for nothing
but its first page. With --offline no request is made at all.

--repair does what is safe: it mends the index, lists again what only the keyring
knows, marks what is lost, and finishes what was left half-done, for which the
services are asked. It never deletes a secret, and asks on the terminal before it
gives up anything.

The exit code is 0 when all is well, and 1 when something needs a hand.`,
		Args: cobra.NoArgs,
		RunE: run(func(cmd *cobra.Command, _ []string) error {
			return p.withClient(cmd, func(ctx context.Context, c *client) error {
				return p.doctor(ctx, c, asJSON, repair, offline)
			})
		}),
	}
	jsonFlag(cmd, &asJSON, `an object: well, repaired (what --repair did), and findings, an array of
objects: level (ok, note or problem), area, subject, text, remedy, repairable.`)
	cmd.Flags().BoolVar(&repair, "repair", false, "do what is safe, and ask about the rest")
	cmd.Flags().BoolVar(&offline, "offline", false, "make no request")
	return cmd
}

func (p *program) doctor(ctx context.Context, c *client, asJSON, repair, offline bool) error {
	d := &doctor{p: p, c: c, offline: offline}
	var repaired []string
	if repair {
		d.examine(ctx, false)
		var err error
		if repaired, err = d.repair(ctx); err != nil {
			return fmt.Errorf("repair: %w", err)
		}
		d = &doctor{p: p, c: c, offline: offline}
	}
	d.examine(ctx, !offline)
	if err := ctx.Err(); err != nil {
		return err
	}
	all := diagnosis{Well: true, Repaired: repaired, Findings: d.found}
	for _, f := range d.found {
		all.Well = all.Well && f.Level != levelProblem
	}
	show := p.screen().diagnosis
	if asJSON {
		show = func(all diagnosis) error { return printJSON(p.stdout, all) }
	}
	if err := show(all); err != nil || all.Well {
		return err
	}
	return &runError{err: errors.New("something needs a hand"), reported: true}
}

// examine looks at everything; at the services only if they are to be reached.
func (d *doctor) examine(ctx context.Context, services bool) {
	d.examineStore(ctx)
	d.examinePolicy()
	d.examineJournal(ctx)
	d.examineCredentials(ctx)
	if services {
		d.examineServices(ctx)
	}
}

func (s *screen) diagnosis(all diagnosis) error {
	for _, done := range all.Repaired {
		if err := s.found(field{levelRepaired, styleGood}, "✓", done); err != nil {
			return err
		}
	}
	problems, repairable := 0, 0
	for _, f := range all.Findings {
		if f.Level == levelProblem {
			problems++
		}
		if f.Repairable {
			repairable++
		}
		if err := s.finding(f); err != nil {
			return err
		}
	}
	switch {
	case problems == 0:
		fmt.Fprintln(s.out, "\n"+s.paint(styleGood, "All is well."))
	case repairable == 0:
		fmt.Fprintf(s.out, "\n%s.\n", s.paint(styleBad, counted(problems, "problem")))
	default:
		fmt.Fprintf(s.out, "\n%s, of which 'enlist doctor --repair' mends %d.\n", s.paint(styleBad, counted(problems, "problem")), repairable)
	}
	return nil
}

// finding prints a finding and, below it, what to do.
func (s *screen) finding(f finding) error {
	what := f.Area
	if f.Subject != "" {
		what += " " + cell(f.Subject)
	}
	level, sign := field{f.Level, styleQuiet}, "·"
	switch f.Level {
	case levelOK:
		level.look, sign = styleGood, "✓"
	case levelProblem:
		level.look, sign = styleBad, "✗"
	}
	if err := s.found(level, sign, what+": "+f.Text); err != nil || f.Remedy == "" {
		return err
	}
	begin := strings.Repeat(" ", displaywidth.String(s.signed(sign, field{}).text)+levelWidth+len(columnGap)) + "→ "
	return s.hang(begin, displaywidth.String(begin), field{text: plain(f.Remedy)})
}

// levelWidth is how wide the longest level is.
const levelWidth = len(levelRepaired)

// found prints one line of a diagnosis behind its level.
func (s *screen) found(level field, sign, text string) error {
	word := s.signed(sign, level).text
	columns := displaywidth.String(s.signed(sign, field{}).text) + levelWidth
	begin := s.paint(level.look, word) + strings.Repeat(" ", columns-displaywidth.String(word)) + columnGap
	return s.hang(begin, columns+len(columnGap), field{text: plain(text)})
}

// repair does what is safe of what was found, and asks about the rest.
func (d *doctor) repair(ctx context.Context) ([]string, error) {
	done, err := d.repairStore(ctx)
	if err != nil {
		return done, err
	}
	if d.journal != nil && gateway.JournalDamaged(d.journal) {
		said, err := d.repairJournal()
		return append(done, said...), err
	}
	if d.offline || d.journal != nil {
		return done, nil
	}
	before, err := d.c.Lifecycle.Unfinished(ctx)
	if err != nil {
		return done, err
	}
	// What cannot be finished is a finding of the second look.
	_ = d.c.Lifecycle.Heal(ctx)
	after, err := d.c.Lifecycle.Unfinished(ctx)
	if n := len(before) - len(after); n > 0 {
		done = append(done, fmt.Sprintf("%s left half-done: finished", counted(n, "operation")))
	}
	return done, err
}

// repairJournal gives up a journal that cannot be read, if a person agrees.
func (d *doctor) repairJournal() ([]string, error) {
	typed, err := d.p.ask("The journal cannot be read. It can be moved away, and a new one is begun: the audit trail\n"+
		"begins anew, and what was left half-done is not known any more. Type yes to do that: ", "without one, the journal stays as it is")
	if err != nil {
		return nil, err
	}
	if !strings.EqualFold(typed, "yes") {
		return nil, nil
	}
	aside, err := d.c.SetJournalAside()
	if err != nil {
		return nil, err
	}
	return []string{"the damaged journal is at " + aside + " now"}, nil
}
