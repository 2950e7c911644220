package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"

	"github.com/aymanbagabas/go-udiff"
	"github.com/spf13/cobra"

	"github.com/enlist-mcp/enlist/tools"
)

// installFlags are the flags of `enlist install`.
type installFlags struct {
	remove, yes, dryRun, force, project, asJSON bool
	config, name                                string
	tools                                       tools.Selection
}

func (p *program) installCommand() *cobra.Command {
	var flags installFlags
	cmd := &cobra.Command{
		Use:   "install [CLIENT]",
		Short: "Add Enlist to an MCP client: Claude, Cursor, VS Code, Codex",
		Long: `Add Enlist to an MCP client, or take it out again with --remove: claude-desktop,
claude-code, cursor, vscode, vscode-insiders or codex. Without a client: list those
that were found, and whether Enlist is in their files.

The change is shown first, with everything that is not Enlist's hidden, since
clients' files hold keys of other servers. Then it is asked about. The rest of the
file stays as it is, byte for byte, and a copy is kept beside it. What a person has
added to Enlist's own entry stays, too.

The entry has the full path of this program, since clients with windows often have
no PATH to look in; in a project's file, which others share, it is just "enlist".
--embedded, --home, --store, --services and --read-only go into the entry: the
client starts enlist mcp with them. No environment variable does.

Claude Code, VS Code and Codex can do the same themselves: claude mcp add,
code --add-mcp, codex mcp add.`,
		Example: `  enlist install
  enlist install claude-desktop
  enlist install cursor --project --read-only
  enlist install codex --dry-run
  enlist install vscode --remove`,
		Args:      cobra.MaximumNArgs(1),
		ValidArgs: clientIDs(),
		RunE: run(func(cmd *cobra.Command, args []string) error {
			if err := p.checkInstall(cmd, args, flags); err != nil {
				return &usageError{err}
			}
			if len(args) == 0 {
				return p.listClients(flags)
			}
			c, err := clientNamed(args[0])
			if err != nil {
				return &usageError{err}
			}
			return p.install(cmd.Context(), c, flags)
		}),
	}
	set := cmd.Flags()
	set.BoolVar(&flags.remove, "remove", false, "take Enlist out again")
	set.BoolVarP(&flags.yes, "yes", "y", false, "write without asking")
	set.BoolVar(&flags.dryRun, "dry-run", false, "show the change and write nothing")
	set.BoolVar(&flags.project, "project", false, "the file of the project in the current folder instead of your own")
	set.StringVar(&flags.config, "config", "", "this `file` instead of the one where the client looks")
	set.StringVar(&flags.name, "name", "enlist", "what the entry is called")
	set.BoolVar(&flags.force, "force", false, "replace or remove an entry of this name that starts something else")
	set.StringSliceVar(&flags.tools.Services, "services", nil, "offer the tools of these `services` only, as in lona,fluxra")
	set.BoolVar(&flags.tools.ReadOnly, "read-only", false, "offer nothing that changes anything, here or at a service")
	jsonFlag(cmd, &flags.asJSON, `an array of objects, one a file: client, title, scope (user or project),
found, file, exists, enlist (yes, no, other or unknown), entry, error. With a client,
and --yes or --dry-run: an object: client, file, name, action (add, change, remove or
nothing), written, diff, backup.`)
	return cmd
}

// serverName reports whether every client takes a name as that of a server.
func serverName(name string) bool {
	return regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_-]{0,63}$`).MatchString(name)
}

// checkInstall returns what is wrong with the command line.
func (p *program) checkInstall(cmd *cobra.Command, args []string, flags installFlags) error {
	if cmd.Flags().Changed("services") && len(flags.tools.Services) == 0 {
		return errors.New("--services names none: leave it out for all")
	}
	if err := flags.tools.Check(); err != nil {
		return fmt.Errorf("--services: %w", err)
	}
	if len(args) == 0 {
		for _, name := range []string{"remove", "yes", "dry-run", "config", "project", "force", "services", "read-only"} {
			if cmd.Flags().Changed(name) {
				return fmt.Errorf("--%s goes with a client: enlist install CLIENT --%s", name, name)
			}
		}
	}
	switch {
	case flags.project && flags.config != "":
		return errors.New("--project and --config are two files: give one")
	case flags.yes && flags.dryRun:
		return errors.New("--yes writes and --dry-run does not: give one")
	case len(args) == 1 && flags.asJSON && !flags.yes && !flags.dryRun:
		return errors.New("--json asks nothing: give --yes or --dry-run with it")
	case !serverName(flags.name):
		return errors.New("--name: a letter, then up to 63 letters, digits, - and _")
	}
	return nil
}

// installed is what came of a change.
type installed struct {
	Client  string `json:"client"`
	File    string `json:"file"`
	Name    string `json:"name"`
	Action  string `json:"action"`  // what is or would be done: add, change, remove, nothing
	Written bool   `json:"written"` // it was done
	Diff    string `json:"diff,omitempty"`
	Backup  string `json:"backup,omitempty"`
}

// The actions.
const (
	actionAdd     = "add"
	actionChange  = "change"
	actionRemove  = "remove"
	actionNothing = "nothing"
)

func (p *program) install(ctx context.Context, c mcpClient, flags installFlags) error {
	path, err := p.clientPath(c, flags)
	if err != nil {
		return err
	}
	if flags.yes { // nobody is waited for: the others wait, from reading to writing
		unlock, err := p.lockInstalls(ctx)
		if err != nil {
			return err
		}
		defer unlock()
	}
	f, err := openClientFile(path)
	if err != nil {
		return err
	}
	body, done, err := p.planInstall(c, f, flags)
	if err != nil {
		return err
	}
	if !flags.asJSON {
		fmt.Fprint(p.stdout, done.Diff)
	}
	p.installNotes(c, f, flags)
	if done.Action != actionNothing && !flags.dryRun {
		if err := p.writeInstall(ctx, c, f, body, flags, &done); err != nil {
			return err
		}
	}
	if flags.asJSON {
		return printJSON(p.stdout, done)
	}
	p.sayInstalled(c, done, flags)
	return nil
}

// clientPath returns the file that is meant.
func (p *program) clientPath(c mcpClient, flags installFlags) (string, error) {
	switch {
	case flags.config != "":
		return filepath.Abs(flags.config)
	case flags.project && c.project == "":
		return "", fmt.Errorf("%s has no file for projects: leave --project out", c.title)
	case flags.project:
		return filepath.Abs(filepath.FromSlash(c.project))
	}
	path, signs, err := c.file(machine{runtime.GOOS, p.env})
	if err == nil && !flags.remove && !found(signs) {
		fmt.Fprintf(p.stderr, "%s was not found on this machine; the file is where it will look.\n", c.title)
	}
	return path, err
}

// planInstall finds out what is to be written: nil deletes the file.
func (p *program) planInstall(c mcpClient, f *clientFile, flags installFlags) ([]byte, installed, error) {
	done := installed{Client: c.id, File: f.path, Name: flags.name, Action: actionNothing}
	at := place{c.key, flags.name}
	refuse := func(err error) ([]byte, installed, error) {
		return nil, done, fmt.Errorf("%s: %w. Nothing was written", f.path, err)
	}
	doc, err := c.format(f.body, at)
	if err != nil {
		return refuse(err)
	}
	old, there := doc.lookup()
	if there && !old.ours() && !flags.force {
		return refuse(fmt.Errorf("an entry %q is there that does not start enlist mcp: --name gives this one another name, --force replaces or removes that one", flags.name))
	}
	if flags.remove && !there {
		return f.body, done, nil
	}
	var body []byte
	var edits []udiff.Edit
	if flags.remove {
		done.Action = actionRemove
		body, edits, err = c.format.remove(f.body, at, f.earlier())
	} else {
		var want entry
		if want, err = p.entryFor(c, flags); err != nil {
			return nil, done, err
		}
		done.Action = actionAdd
		if there {
			done.Action = actionChange
		}
		body, edits, err = c.format.put(f.body, at, want)
	}
	if err == nil && body == nil && f.link { // what a link leads to is not deleted
		edits = doc.remove(true)
		body, err = c.format.apply(f.body, at, edits, nil)
	}
	if err != nil {
		return refuse(err)
	}
	if len(edits) == 0 {
		done.Action = actionNothing
		return body, done, nil
	}
	done.Diff, err = diffOf(f.path, f.exists(), body != nil, doc, f.body, edits)
	return body, done, err
}

// entryFor is what a client is to start.
func (p *program) entryFor(c mcpClient, flags installFlags) (entry, error) {
	command, err := p.ownCommand(flags.project)
	if err != nil {
		return entry{}, err
	}
	e := entry{Type: c.kind, Command: command, Args: []string{"mcp"}}
	if p.flags.embedded {
		e.Args = append(e.Args, "--embedded")
	}
	if p.flags.home != "" {
		home, err := filepath.Abs(p.flags.home) // the client starts it elsewhere
		if err != nil {
			return entry{}, err
		}
		e.Args = append(e.Args, "--home", home)
	}
	if p.flags.store != "" {
		e.Args = append(e.Args, "--store", p.flags.store)
	}
	if len(flags.tools.Services) > 0 {
		e.Args = append(e.Args, "--services", strings.Join(flags.tools.Services, ","))
	}
	if flags.tools.ReadOnly {
		e.Args = append(e.Args, "--read-only")
	}
	return e, nil
}

// ownCommand is this very program, as a client is to start it: the path by which
// it is found in PATH, if it is, since the place behind a link changes when the
// program is replaced by a newer one.
func (p *program) ownCommand(shared bool) (string, error) {
	const name = "enlist"
	inPath, err := exec.LookPath(name)
	if err == nil {
		inPath, err = filepath.Abs(inPath)
	}
	if shared {
		if err != nil {
			fmt.Fprintln(p.stderr, "A project's file is shared, so it says just enlist, and in this PATH there is none: everybody needs it there.")
		}
		return name, nil
	}
	own, ownErr := os.Executable()
	if ownErr != nil {
		return "", fmt.Errorf("find out where this program is: %w", ownErr)
	}
	if slices.ContainsFunc(strings.Split(filepath.ToSlash(own), "/"), func(dir string) bool { return strings.HasPrefix(dir, "go-build") }) {
		return "", errors.New("this program was built by go run and is deleted when it ends: install it first, with go install ./cmd/enlist, and run that")
	}
	if err == nil && samePath(own, inPath) {
		return inPath, nil
	}
	return own, nil
}

func samePath(a, b string) bool {
	one, err := os.Stat(a)
	other, err2 := os.Stat(b)
	return err == nil && err2 == nil && os.SameFile(one, other)
}

// installNotes says what a person may not expect.
func (p *program) installNotes(c mcpClient, f *clientFile, flags installFlags) {
	if flags.remove {
		return
	}
	if !c.comments && len(f.body) > 0 && !json.Valid(f.body) {
		fmt.Fprintf(p.stderr, "%s has comments or a comma too many, which %s may not read. They stay.\n", f.path, c.title)
	}
	for _, v := range []struct{ name, flag, given string }{{"ENLIST_HOME", "--home", p.flags.home}, {"ENLIST_STORE", "--store", p.flags.store}} {
		if value := p.env(v.name); value != "" && v.given == "" {
			fmt.Fprintf(p.stderr, "%s is set here, and the client may not have it: %s puts it into the entry.\n", v.name, v.flag)
		}
	}
}

// lockInstalls keeps other processes of Enlist from writing.
func (p *program) lockInstalls(ctx context.Context) (unlock func(), err error) {
	home, err := p.home()
	if err != nil {
		return nil, err
	}
	return lockInstall(ctx, home)
}

// writeInstall asks, keeps a copy, and writes.
func (p *program) writeInstall(ctx context.Context, c mcpClient, f *clientFile, body []byte, flags installFlags, done *installed) error {
	if !flags.yes {
		typed, err := p.ask("Write this? [y/N] ", "--yes writes without asking, --dry-run only shows. Nothing was written")
		if err != nil {
			return err
		}
		if answer := strings.ToLower(typed); answer != "y" && answer != "yes" {
			return errors.New("nothing was written")
		}
		unlock, err := p.lockInstalls(ctx)
		if err != nil {
			return err
		}
		defer unlock()
	}
	if c.locks && f.exists() {
		unlock, err := f.lockFile(ctx)
		if err != nil {
			return err
		}
		defer unlock()
	}
	if err := f.unchanged(); err != nil {
		return err
	}
	if f.exists() && body != nil {
		var err error
		if done.Backup, err = f.backUp(p.now()); err != nil {
			return err
		}
	}
	if err := f.write(body); err != nil {
		return fmt.Errorf("write %s: %w", f.path, err)
	}
	if folder := filepath.Dir(c.project); body == nil && flags.project && folder != "." {
		_ = os.Remove(folder) // if nothing else is in it
	}
	done.Written = true
	return nil
}

// sayInstalled says what was done, and what is next.
func (p *program) sayInstalled(c mcpClient, done installed, flags installFlags) {
	switch {
	case done.Action == actionNothing && flags.remove:
		fmt.Fprintf(p.stdout, "%s is not in %s: there is nothing to remove.\n", done.Name, done.File)
	case done.Action == actionNothing:
		fmt.Fprintf(p.stdout, "%s is in %s already, with these settings.\n", done.Name, done.File)
	case !done.Written:
		fmt.Fprintln(p.stdout, "Nothing was written: --dry-run.")
	case done.Backup == "" && done.Action == actionRemove:
		fmt.Fprintf(p.stdout, "Deleted: %s, which had nothing else in it.\n", done.File)
	default:
		fmt.Fprintf(p.stdout, "Written: %s\n", done.File)
		if done.Backup != "" {
			fmt.Fprintf(p.stdout, "As it was: %s\n", done.Backup)
			if flags.project {
				fmt.Fprintln(p.stderr, "That copy is for you alone: keep it out of version control, or delete it.")
			}
		}
		if done.Action != actionRemove {
			fmt.Fprintln(p.stdout, c.reload)
		}
	}
}
