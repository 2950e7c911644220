package main

import (
	"context"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
)

// hangUps sees to SIGHUP while a gateway serves, until it is stopped. It does not
// end the gateway, as it would by itself: whoever sends it to a service wants it
// to look at its files again. Those of the certificate are; they are also
// whenever they change, so it is for those who want to be sure. The settings
// are not: a gateway that took some of them and not others would be hard to
// know, and with a replica or a drain delay a restart costs nobody a request.
//
// Where a person runs it in a terminal, the signal says that the terminal has
// gone: it ends the gateway as SIGTERM does. What was told to ignore it (nohup)
// does.
func (p *program) hangUps(ctx context.Context, cert *certificate, log *slog.Logger) (_ context.Context, stop func()) {
	if signal.Ignored(syscall.SIGHUP) {
		return ctx, func() {}
	}
	if _, ok := terminal(p.stderr); ok {
		return signal.NotifyContext(ctx, syscall.SIGHUP)
	}
	came, done := make(chan os.Signal, 1), make(chan struct{})
	signal.Notify(came, syscall.SIGHUP)
	go func() {
		for {
			select {
			case <-done:
				return
			case <-came:
			}
			says := "SIGHUP: all settings stay as they are until a restart"
			if cert != nil {
				cert.again()
				says = "SIGHUP: the certificate was looked at; all other settings stay as they are until a restart"
			}
			log.InfoContext(ctx, says)
		}
	}()
	return ctx, func() {
		signal.Stop(came)
		close(done)
	}
}

// again reads the files, whether they seem to have changed or not.
func (c *certificate) again() {
	c.mu.Lock()
	c.files = [2]fs.FileInfo{}
	c.mu.Unlock()
	c.current()
}
