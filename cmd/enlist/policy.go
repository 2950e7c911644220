package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/enlist-mcp/enlist/gateway"
)

func (p *program) policyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "policy",
		Short: "Show, check or begin the file that says what agents may do",
		Long: `Show, check or begin the file that says what agents may do: policy.toml in the data
folder. It is written with an editor, by a person; no tool of an agent reads or
changes it. A change holds at once, also for servers that run.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	command := func(use, short, fields string, f func(path string, asJSON bool) error) {
		var asJSON bool
		sub := &cobra.Command{
			Use: use, Short: short, Args: cobra.NoArgs,
			RunE: run(func(*cobra.Command, []string) error {
				home, err := p.home()
				if err != nil {
					return err
				}
				return f(filepath.Join(home, gateway.PolicyFile), asJSON)
			}),
		}
		jsonFlag(sub, &asJSON, fields)
		cmd.AddCommand(sub)
	}
	command("show", "Say what holds now, with the file or without one", `an object: path, written (there is a file), rules, an array of objects:
action, model, script, person, itself, for (absent: everything), and lists, an
array of objects: name, any, values, for.`, p.showPolicy)
	command("check", "Say whether the file is right", "an object: path, written (there is a file), right.", p.checkPolicy)
	command("init", "Write a file that changes nothing yet, with everything it could say as comments", "an object: path, written.", p.beginPolicy)
	return cmd
}

// policyFile is what is said of the file.
type policyFile struct {
	Path    string `json:"path"`
	Written bool   `json:"written"`
	Right   bool   `json:"right,omitempty"`
}

// policyInForce is what holds.
type policyInForce struct {
	policyFile
	Rules []policyRule `json:"rules"`
	Lists []policyList `json:"lists"`
}

type policyRule struct {
	Action gateway.Action `json:"action"`
	Model  string         `json:"model"`
	Script string         `json:"script"`
	Person string         `json:"person"`
	Itself string         `json:"itself"`
	For    string         `json:"for,omitempty"`
}

type policyList struct {
	Name   string   `json:"name"`
	Any    bool     `json:"any"`
	Values []string `json:"values"`
	For    string   `json:"for,omitempty"`
}

// inForce is a policy as it is printed as JSON.
func inForce(path string, view gateway.PolicyView) policyInForce {
	p := policyInForce{policyFile{Path: path, Written: view.Written}, []policyRule{}, []policyList{}}
	for _, r := range view.Rules {
		p.Rules = append(p.Rules, policyRule{r.Action, r.Model, r.Script, r.Person, r.Itself, r.For})
	}
	for _, l := range view.Lists {
		p.Lists = append(p.Lists, policyList{l.Name, l.Any, append([]string{}, l.Values...), l.For})
	}
	return p
}

// readPolicy reads the policy file, if there is one.
func (p *program) readPolicy(path string) (gateway.PolicyView, error) {
	view, err := gateway.ViewPolicy(path, p.now)
	if err != nil {
		return view, fmt.Errorf("%s: %w; until that is put right, everything is refused", path, err)
	}
	return view, nil
}

func (p *program) checkPolicy(path string, asJSON bool) error {
	view, err := p.readPolicy(path)
	switch {
	case err != nil:
		return err
	case asJSON:
		return printJSON(p.stdout, policyFile{path, view.Written, true})
	case !view.Written:
		p.screen().say(fmt.Sprintf("There is no %s; 'enlist policy show' says what holds without one.", path))
	default:
		p.screen().say(path + " is right.")
	}
	return nil
}

func (p *program) showPolicy(path string, asJSON bool) error {
	view, err := p.readPolicy(path)
	if err != nil {
		return err
	}
	if asJSON {
		return printJSON(p.stdout, inForce(path, view))
	}
	s := p.screen()
	if view.Written {
		s.say(path)
	} else {
		s.say(fmt.Sprintf("There is no %s; 'enlist policy init' writes one. Without it:", path))
	}
	return s.policy(view)
}

// policy prints what holds, for what and for whom.
func (s *screen) policy(view gateway.PolicyView) error {
	rules := titled("ACTION…", "AN AGENT", "A SCRIPT", "YOU", "ENLIST BY ITSELF", "FOR…")
	for _, r := range view.Rules {
		rules.row(r.Action, ruled(r.Model), ruled(r.Script), ruled(r.Person), ruled(r.Itself), forWhat(r.For))
	}
	lists := titled("LIST", "ALLOWED…", "FOR…")
	for _, l := range view.Lists {
		values := strings.Join(l.Values, ", ")
		switch {
		case l.Any:
			values = "any"
		case values == "":
			values = "none"
		}
		lists.row(l.Name, values, forWhat(l.For))
	}
	for _, t := range []*table{rules, lists} {
		fmt.Fprintln(s.out)
		if err := s.print(t); err != nil {
			return err
		}
	}
	return nil
}

// ruled is a verdict of the policy.
func ruled(verdict string) field {
	switch verdict {
	case "allow":
		return field{verdict, styleGood}
	case "deny":
		return field{verdict, styleBad}
	}
	return field{verdict, styleWarning}
}

func forWhat(of string) string {
	if of == "" {
		return "everything"
	}
	return of
}

// beginPolicy writes the file, unless there is one.
func (p *program) beginPolicy(path string, asJSON bool) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("there is a %s already, and it is left as it is", path)
	}
	if err != nil {
		return err
	}
	_, err = f.WriteString(gateway.PolicyTemplate)
	if err := errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	if asJSON {
		return printJSON(p.stdout, policyFile{Path: path, Written: true})
	}
	p.screen().say(fmt.Sprintf("Written: %s. It changes nothing until you take the # from a line.", path))
	return nil
}
