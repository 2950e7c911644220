package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"

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
	}
	command := func(use, short string, f func(path string) error) {
		cmd.AddCommand(&cobra.Command{
			Use: use, Short: short, Args: cobra.NoArgs,
			RunE: run(func(*cobra.Command, []string) error {
				home, err := p.home()
				if err != nil {
					return err
				}
				return f(filepath.Join(home, gateway.PolicyFile))
			}),
		})
	}
	command("show", "Say what holds now, with the file or without one", p.showPolicy)
	command("check", "Say whether the file is right", p.checkPolicy)
	command("init", "Write a file that changes nothing yet, with everything it could say as comments", p.beginPolicy)
	return cmd
}

// readPolicy reads the policy file, if there is one.
func (p *program) readPolicy(path string) (gateway.PolicyView, error) {
	view, err := gateway.ViewPolicy(path, p.now)
	if err != nil {
		return view, fmt.Errorf("%s: %w; until that is put right, everything is refused", path, err)
	}
	return view, nil
}

func (p *program) checkPolicy(path string) error {
	view, err := p.readPolicy(path)
	switch {
	case err != nil:
		return err
	case !view.Written:
		fmt.Fprintf(p.stdout, "There is no %s; 'enlist policy show' says what holds without one.\n", path)
	default:
		fmt.Fprintf(p.stdout, "%s is right.\n", path)
	}
	return nil
}

func (p *program) showPolicy(path string) error {
	view, err := p.readPolicy(path)
	if err != nil {
		return err
	}
	if view.Written {
		fmt.Fprintf(p.stdout, "%s\n", path)
	} else {
		fmt.Fprintf(p.stdout, "There is no %s; 'enlist policy init' writes one. Without it:\n", path)
	}
	return printPolicy(p.stdout, view)
}

// printPolicy prints what holds, for what and for whom.
func printPolicy(out io.Writer, view gateway.PolicyView) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\nACTION\tAN AGENT\tA SCRIPT\tYOU\tENLIST BY ITSELF\tFOR")
	for _, r := range view.Rules {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", r.Action, r.Model, r.Script, r.Person, r.Itself, forWhat(r.For))
	}
	fmt.Fprintln(w, "\nLIST\tALLOWED\tFOR")
	for _, l := range view.Lists {
		values := strings.Join(l.Values, ", ")
		switch {
		case l.Any:
			values = "any"
		case values == "":
			values = "none"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", l.Name, values, forWhat(l.For))
	}
	return w.Flush()
}

func forWhat(of string) string {
	if of == "" {
		return "everything"
	}
	return of
}

// beginPolicy writes the file, unless there is one.
func (p *program) beginPolicy(path string) error {
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
	fmt.Fprintf(p.stdout, "Written: %s. It changes nothing until you take the # from a line.\n", path)
	return nil
}
