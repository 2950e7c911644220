package main

import (
	"cmp"
	"context"
	"errors"
	"io"
	"log"
	"net/http"
	"time"

	"github.com/spf13/cobra"
)

// The exit codes.
const (
	exitOK      = 0
	exitFailure = 1 // a tool error, a service that refuses, a store that is locked
	exitUsage   = 2 // an unknown command, flag or argument
)

// program is one run of the command, with everything from outside passed in.
type program struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	env            func(string) string
	environ        func() []string // all of it, for the program that exec runs
	now            func() time.Time

	// wrapGateway stands around the handler of every gateway that this process
	// runs. Tests use it to learn which secrets were issued; otherwise nil.
	wrapGateway func(http.Handler) http.Handler

	flags       globalFlags
	gatewayFile string // --config of `enlist gateway`

	spins    *spinner // see waits
	serves   bool     // the command is a server; its log says what it does
	logsJSON bool     // each line of its log is JSON
}

// run executes the command line and returns the exit code.
func (p *program) run(ctx context.Context, args []string) int {
	// What libraries write here is nobody's message, and can quote what a service
	// sent: net/http does so with what comes behind an answer.
	log.SetOutput(io.Discard)
	root := p.root(args...)
	root.SetArgs(args)
	root.SetIn(p.stdin)
	root.SetOut(p.stdout)
	root.SetErr(p.stderr)
	cmd, err := root.ExecuteContextC(ctx)
	var broken *runError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &broken):
		if !broken.reported {
			p.printFailure(cmd, args, broken.err, false)
		}
		return cmp.Or(broken.code, exitFailure)
	}
	p.printFailure(cmd, args, err, true)
	return exitUsage
}

// runError is a failure of a command that was called correctly.
type runError struct {
	err      error
	reported bool // the command has said it in its own way
	code     int  // the exit code; 0: exitFailure
}

func (e *runError) Error() string { return e.err.Error() }
func (e *runError) Unwrap() error { return e.err }

// usageError is a mistake in the command line that shows only inside a command.
type usageError struct{ error }

// run adapts a command: what f returns is a failure, unless it is a usageError;
// what cobra itself finds wrong is a mistake in the command line.
func run(f func(cmd *cobra.Command, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		err := f(cmd, args)
		var usage *usageError
		var failed *runError
		if err == nil || errors.As(err, &usage) || errors.As(err, &failed) {
			return err
		}
		return &runError{err: err}
	}
}

func (p *program) root(args ...string) *cobra.Command {
	root := &cobra.Command{
		Use:   "enlist",
		Short: "Accounts for AI agents, keys out of the model's sight",
		Long: `Enlist gives an AI agent an account wherever agents may sign up, and keeps
the keys out of the model's sight.

  enlist demo       a tour, offline, in a few seconds
  enlist mcp        the MCP server for Claude, Cursor, VS Code and others
  enlist gateway    the registration gateway, for those who run a service
  enlist help       the manual, such as: enlist help quick-start

Exit codes: 0 done, 1 failed, 2 a mistake in the command line. A command with
--json that fails prints {"error": {"code", "what_happened", "next_step"}} on
standard output. Only a terminal gets colours, times such as "in 12 days", and
lines that are broken to fit: what a script reads is the same everywhere.`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	p.flags.register(root.PersistentFlags())
	if len(args) > 0 && args[0] == "mcp" {
		// A client waits for this one: the others are not made.
		root.AddCommand(p.mcpCommand())
		return root
	}
	root.SetHelpCommand(p.helpCommand())
	root.AddCommand(
		p.auditCommand(),
		p.callCommand(),
		p.conformCommand(),
		p.demoCommand(),
		p.doctorCommand(),
		p.execCommand(),
		p.exportCommand(),
		p.forgetCommand(),
		p.gatewayCommand(), p.benchCommand(),
		p.importCommand(),
		p.installCommand(),
		p.listCommand(),
		p.mcpCommand(),
		p.policyCommand(),
		p.requestCommand(),
		p.revokeCommand(),
		p.rotateCommand(),
		p.showCommand(),
		p.tokenCommand(),
		p.versionCommand(),
		p.walletCommand(),
	)
	p.complete(root)
	return root
}
