package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/gateway"
	"github.com/enlist-mcp/enlist/tools"
)

// forgotten is what came of forgetting a credential.
type forgotten struct {
	Credential     string `json:"credential"`
	Deleted        bool   `json:"deleted"`          // from this machine
	EndedAtService bool   `json:"ended_at_service"` // and seen to be: the service refuses it
	MayStillWork   bool   `json:"may_still_work"`
	WhatHappened   string `json:"what_happened"`
	NextStep       string `json:"next_step,omitempty"`
	// Error is why nothing was deleted.
	Error *failure `json:"error,omitempty"`
}

func (p *program) forgetCommand() *cobra.Command {
	var asJSON, localOnly bool
	cmd := p.credentialCommand("forget", "End a credential at its service, see that it is dead, and delete it here",
		`End a credential at its service, see that the service refuses it, and only then
delete it from this machine, with what stands behind it. Until that is seen nothing
is deleted, and the command can be given again.

Lona, Lithtrix and AgentDoor have no call that ends a credential, and a service may
be gone. With --local-only the credential is deleted here and the service is not
told: there it lives until it expires, if it does.`,
		func(ctx context.Context, c *client, info credstore.Info) error {
			forget := p.forgetProved
			if localOnly {
				forget = p.forgetHere
			}
			done, err := forget(ctx, c, info)
			if asJSON {
				if err != nil {
					why := failed(err)
					why.WhatHappened, why.NextStep = done.WhatHappened, done.NextStep
					done.Error = &why
				}
				if printed := printJSON(p.stdout, done); printed != nil || err == nil {
					return printed
				}
				return &runError{err: err, reported: true}
			}
			if err != nil {
				return err
			}
			p.screen().say(done.WhatHappened)
			return nil
		})
	jsonFlag(cmd, &asJSON, `an object: credential (its handle), deleted, ended_at_service,
may_still_work, what_happened, next_step, and error where it failed.`)
	cmd.Flags().BoolVar(&localOnly, "local-only", false, "delete it here without telling the service, which accepts it until it expires")
	return cmd
}

// forgetHere deletes a credential from this machine and nowhere else.
func (p *program) forgetHere(ctx context.Context, c *client, info credstore.Info) (forgotten, error) {
	done := forgotten{Credential: c.Lifecycle.Handle(info.Key), MayStillWork: true}
	mayLive, err := c.Lifecycle.Forget(ctx, info.Key)
	if err != nil {
		done.WhatHappened = err.Error()
		return done, err
	}
	done.Deleted, done.MayStillWork = true, mayLive
	said := []string{"Forgot " + done.Credential + " here."}
	if mayLive {
		said = append(said, fmt.Sprintf("%s was not told: there it lives until %s.", info.Origin, expiryOf(info)))
	}
	if more := tools.Forgets(info.Protocol); more != "" {
		said = append(said, more)
	}
	done.WhatHappened = strings.Join(said, " ")
	return done, nil
}

// forgetProved deletes a credential once its service was seen to refuse it.
func (p *program) forgetProved(ctx context.Context, c *client, info credstore.Info) (forgotten, error) {
	done := forgotten{Credential: c.Lifecycle.Handle(info.Key), MayStillWork: true}
	retired, err := c.Lifecycle.Retire(ctx, info.Key)
	if err != nil {
		if none, ok := errors.AsType[*gateway.UnsupportedError](err); ok {
			err = &gateway.UnsupportedError{Protocol: none.Protocol, Op: none.Op, Instead: "So it cannot be seen to end there."}
		}
		done.WhatHappened = err.Error()
		done.NextStep = "Nothing was deleted. " + forgetRemedy(err, info)
		return done, fmt.Errorf("%w\n%s", err, done.NextStep)
	}
	done.Deleted, done.EndedAtService, done.MayStillWork = true, retired.Proved, false
	said := []string{fmt.Sprintf("%s has ended %s, and refuses it (401). It is deleted here.", info.Origin, done.Credential)}
	if !retired.Proved {
		said = []string{fmt.Sprintf("Forgot %s here. There was nothing to end at %s: it expired on %s.", done.Credential, info.Origin, expiryOf(info))}
	}
	if retired.BehindLives {
		said = append(said, "What stood behind it is deleted here, too; "+info.Origin+" may still accept that from whoever has a copy.")
	}
	if more := tools.Forgets(info.Protocol); more != "" {
		said = append(said, more)
	}
	done.WhatHappened = strings.Join(said, " ")
	return done, nil
}

// forgetRemedy says what a person can do about a credential that could not be
// seen to end.
func forgetRemedy(err error, info credstore.Info) string {
	var (
		unsupported *gateway.UnsupportedError
		unproved    *gateway.NotProvedError
	)
	local := "--local-only deletes it from this machine alone; " + info.Origin + " then accepts it until " + expiryOf(info) + ", from whoever has a copy."
	switch {
	case errors.As(err, &unsupported):
		return "Here " + local
	case errors.As(err, &unproved):
		return "Give the command again in a while. If that does not help, " + local
	case errors.Is(err, credstore.ErrNotFound), errors.Is(err, credstore.ErrDamaged):
		return "Its secret cannot be read, so the service cannot be told: " + local
	}
	return "Give the command again when the service can be reached. If it is gone for good, " + local
}
