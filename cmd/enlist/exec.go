package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/enlist-mcp/enlist/embeddedgateway"
)

// The exit codes of a program that could not be started, as shells have them.
const (
	exitNotExecutable = 126
	exitNotFound      = 127
	exitSignal        = 128 // and the number of the signal that ended it
)

func (p *program) execCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "exec CREDENTIAL -- CMD [ARG...]",
		Short: "Run a program with a credential in its environment",
		Long: `Run a program with a credential in the variables that the service's own programs
read, such as LONA_API_KEY and LONA_USER_ID. It gets the rest of this environment,
but nothing of Enlist's own. Its exit code is that of this command.

This hands the key itself to the program, and to whatever that prints it to: it is
for people, and no tool of a model can do it.

CREDENTIAL is a handle as 'enlist list' prints it, such as lona/my-agent.`,
		Example: "  enlist exec lona/my-agent -- python bot.py",
		Args: func(cmd *cobra.Command, args []string) error {
			if cmd.ArgsLenAtDash() != 1 || len(args) < 2 {
				return errors.New("exec wants a credential, --, and a program: enlist exec lona/my-agent -- CMD")
			}
			return nil
		},
		RunE: run(func(cmd *cobra.Command, args []string) error {
			env, err := p.environmentFor(cmd, args[0])
			if err != nil {
				return err
			}
			return p.runProgram(cmd.Context(), args[1:], env)
		}),
	}
}

// environmentFor returns the environment of a program that runs with a
// credential. Everything of Enlist's is closed again when it returns.
func (p *program) environmentFor(cmd *cobra.Command, handle string) (env []string, err error) {
	err = p.withClient(cmd, func(ctx context.Context, c *client) error {
		info, err := named(ctx, c, handle)
		if err != nil {
			return err
		}
		if info.Origin == embeddedgateway.Origin {
			fmt.Fprintf(p.stderr, "enlist: %s is the gateway inside Enlist, which no other program reaches\n", info.Origin)
		}
		env, err = c.Lifecycle.Environ(ctx, info.Key, p.environ())
		return err
	})
	return env, err
}

// runProgram runs a program until it ends, with the standard streams and the
// signals of this one.
func (p *program) runProgram(ctx context.Context, args, env []string) error {
	// It ends when it wants to: a signal is passed on, and is not the end.
	child := exec.CommandContext(context.WithoutCancel(ctx), args[0], args[1:]...) //nolint:gosec // running what the person names is what the command is for
	child.Env = env
	child.Stdin, child.Stdout, child.Stderr = p.stdin, p.stdout, p.stderr

	// A channel for SIGPIPE, which this program ignores: the child would
	// inherit that, and go on writing to a reader that has gone.
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, append(forwarded(), syscall.SIGPIPE)...)
	defer signal.Stop(signals)

	if err := child.Start(); err != nil {
		code := exitNotExecutable
		if errors.Is(err, exec.ErrNotFound) || errors.Is(err, exec.ErrDot) || errors.Is(err, fs.ErrNotExist) {
			code = exitNotFound
		}
		return &runError{err: fmt.Errorf("run the program: %w", err), code: code}
	}
	ended := make(chan error, 1)
	go func() { ended <- child.Wait() }()
	for {
		select {
		case s := <-signals:
			p.forward(child.Process, s)
		case err := <-ended:
			return exitOf(child.ProcessState, err)
		}
	}
}

// forward passes a signal on, but not one that a terminal has sent to the
// program already.
func (p *program) forward(to *os.Process, s os.Signal) {
	f, ok := p.stdin.(*os.File)
	typed := s == os.Interrupt || s == syscall.SIGQUIT
	if s == syscall.SIGPIPE || typed && ok && term.IsTerminal(int(f.Fd())) {
		return
	}
	_ = to.Signal(s) // it may have ended
}

// exitOf returns the outcome of a program as the outcome of this one.
func exitOf(state *os.ProcessState, err error) error {
	switch code := exitCodeOf(state); {
	case code > 0:
		return &runError{err: err, code: code, reported: true}
	case err != nil:
		return err
	}
	return nil
}
