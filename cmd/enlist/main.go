// Command enlist gives an AI agent an account wherever agents may sign up, and
// keeps the keys out of the model's sight. It is both halves in one binary:
// the MCP server that an agent uses, and the registration gateway that a
// service runs. One file a command.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	// A reader that has gone is an error of the write, not the end of the
	// program: what was issued is still to be stored, and a folder removed.
	signal.Ignore(syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	env, environ := takeEnvironment()
	p := &program{
		stdin:   os.Stdin,
		stdout:  os.Stdout,
		stderr:  os.Stderr,
		env:     env,
		environ: environ,
		now:     time.Now,
	}
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	code := p.run(ctx, os.Args[1:])
	os.Exit(code)
}
