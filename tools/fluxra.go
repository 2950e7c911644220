package tools

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/mark3labs/mcp-go/server"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/gateway"
	"github.com/enlist-mcp/enlist/gateway/wire"
)

const (
	fluxraRegister = "fluxra_register_agent"
	fluxraVerify   = "fluxra_verify_email"
	fluxraRecover  = "fluxra_recover_account"

	// fluxraOutbox is where a mail lies that an embedded gateway could not send.
	fluxraOutbox = "If the service is an Enlist gateway without mail, its operator reads the mail with `enlist gateway outbox`."
)

// fluxra is what the shared tools know of Fluxra.
func fluxra() protocol {
	const again = "Wait a minute, then {again}. If it fails again, tell the person that the service is out of order."
	return protocol{
		tools:    []func(Deps) server.ServerTool{fluxraRecoverAccount, fluxraRegisterAgent, fluxraVerifyEmail},
		register: fluxraRegister,
		names:    "agent_name",
		setting:  "FLUXRA_API_URL",
		forgets:  "Its recovery key is gone, too: without a verified email the account can never be had again.",
		asks:     "An agent_name of your choice. The person's email is optional, but without a verified one the account cannot be recovered.",
		routes: []string{
			"GET /api/agents/{agent_id} lists the agent's API keys, never the keys themselves.",
			"GET /health says whether the service is up.",
		},
		advice: map[string]string{
			wire.FluxraInvalidAgentName: "Call " + fluxraRegister + " again with another agent_name: 3 to 50 ASCII letters, digits and dashes.",
			wire.FluxraInvalidRequest:   "{Again} with what service_said says put right.",
			wire.FluxraInvalidEmail:     "Ask the person for email, the right address, then {again} with email.",
			wire.FluxraInvalidAgentID:   "The service does not know its own name for this agent. Ask the person whether the service's base URL (FLUXRA_API_URL) is right.",
			wire.FluxraInvalidKeyName:   "Tell the person: the service does not take the name that Enlist gives its API keys. Enlist may need an update.",
			wire.FluxraUnauthorized:     "Call rotate_credential, then {again}. If it fails again, ask the person for email, the account's verified one, then call " + fluxraRecover + " with email.",
			wire.FluxraInvalidToken: "Ask the person for email, the account's, then {again} with email alone: it has another mail sent. " +
				"What the last one had is wrong, too old, or used already; an email may be verified by now.",
			wire.FluxraForbidden: "Tell the person what service_said says: the account may not do this.",
			wire.FluxraNotFound:  "Call list_credentials to see whether this is the right agent; else ask the person whether the service's base URL (FLUXRA_API_URL) is right.",
			wire.FluxraCodeUsed: "Call " + fluxraRecover + " again with email alone: it has another code sent. Ask the person whether they used this one: " +
				"it was used already, by a call before whose answer was lost, or by somebody else, who then has the account's recovery key.",
			wire.FluxraKeyReused:   "{Again}. If it fails again, call forget_credential for this agent, then call " + fluxraRegister + ".",
			wire.FluxraRateLimited: "Wait an hour, then {again}.",
			wire.FluxraInternal:    again,
			wire.FluxraUnavailable: again,
			gateway.CodeRecovery: "Ask the person for email, the account's verified one, then call " + fluxraRecover + " with email. If there is none, the account is lost: call " + fluxraRegister +
				" with a label of its own for another account.",
		},
		lost: map[string]string{
			"register": "Wait a minute, then call " + fluxraRegister + " again with the same arguments, within a day: a service that knows it is the same call gives this account new keys; " +
				"any other makes another account. Tell the person that one may then be left there that nobody has a key of; names are not unique, so it is in nobody's way.",
			"make an API key":     "Wait a minute, then {again}: it makes another key and ends the one that was lost.",
			"verify the email":    "Call " + fluxraVerify + " again with the same token. If that is INVALID_TOKEN, the email is most likely verified.",
			"recover the account": "Call " + fluxraRecover + " again with email alone: it has another code sent. The last one may be used up, and the new recovery key lost with the answer.",
		},
	}
}

// FluxraRegisterInput is the arguments of fluxra_register_agent.
type FluxraRegisterInput struct {
	AgentName string         `json:"agent_name" jsonschema:"3 to 50 ASCII letters, digits or -"`
	Email     string         `json:"email,omitzero" jsonschema:"the person's; only a verified one recovers the account"`
	Metadata  FluxraMetadata `json:"metadata,omitzero"`
	Label     string         `json:"label,omitzero" jsonschema:"another handle, if the agent_name's is taken"`
}

// FluxraMetadata describes an agent.
type FluxraMetadata struct {
	Owner       string `json:"owner,omitzero"`
	Description string `json:"description,omitzero"`
	Version     string `json:"version,omitzero"`
}

// FluxraRegistered is the result of fluxra_register_agent.
type FluxraRegistered struct {
	Credential
	AgentID  string `json:"agent_id"`
	StoredIn string `json:"stored_in,omitzero"`
	Reused   bool   `json:"reused"`
	NextStep string `json:"next_step"`
}

func fluxraRegisterAgent(d Deps) server.ServerTool {
	s := spec{
		name:  fluxraRegister,
		title: "Register at Fluxra",
		description: "Registers an agent at Fluxra and stores its keys and token, which you never see. " +
			"Call it once; again with the same agent_name, it returns what is stored (reused). Returns the credential's handle. " +
			"If it breaks off, the same call goes on.",
		readOnly:    false,
		destructive: false, // it ends nothing that anybody has
		idempotent:  true,  // one account a handle, but for a lost answer
		openWorld:   true,
		kept:        "What the service issued before this, if anything. The same call goes on from there.",
		lost:        "What the service issued before this, if anything; what the lost answer held is not stored. list_credentials has the credential as pending until a registration is finished.",
	}
	return tool(d, s, func(ctx context.Context, in FluxraRegisterInput) (FluxraRegistered, error) {
		done, err := d.Client.Fluxra.Register(ctx, gateway.FluxraRegistration{
			AgentName: in.AgentName, Email: in.Email, Label: in.Label,
			Metadata: wire.FluxraMetadata{Description: in.Metadata.Description, Owner: in.Metadata.Owner, Version: in.Metadata.Version},
		})
		if err != nil {
			return FluxraRegistered{}, err
		}
		out := FluxraRegistered{
			Credential: d.describe(done.Info), AgentID: gateway.FluxraAgentID(done.Info),
			StoredIn: d.storedIn(ctx), Reused: done.Reused,
		}
		out.NextStep = "Call send_request with credential " + out.Handle + ", method GET and path " + wire.FluxraAgentPath(out.AgentID) +
			": it lists the account's keys. The access token renews itself." + afterMail(done, in.Email != "")
		return out, nil
	})
}

// afterMail says what is to be done about the mail that verifies an email.
func afterMail(done gateway.FluxraRegistered, given bool) string {
	verify := " Only a verified email recovers the account: ask the person to open the link in the mail, or to give you its token for " + fluxraVerify + "."
	switch {
	case done.Mail == gateway.FluxraSent:
		if !done.MailEnds.IsZero() {
			return verify + " It is good until " + done.MailEnds.Format(time.RFC3339) + "."
		}
		return verify
	case done.Mail == gateway.FluxraNotSent:
		return verify + " The service says that it did not send the mail. " + fluxraOutbox
	case given && done.Mail == gateway.FluxraNoMail:
		return verify + " The service did not say whether it sent the mail."
	case !given && done.Mail == gateway.FluxraNoMail && !done.Reused:
		return " Without an email, the account cannot be recovered if its keys are lost."
	}
	return ""
}

// FluxraVerifyInput is the arguments of fluxra_verify_email.
type FluxraVerifyInput struct {
	CredentialInput
	Token string `json:"token,omitzero" jsonschema:"of the link in the mail, or the whole link"`
	Email string `json:"email,omitzero" jsonschema:"instead of token: sends the mail again"`
}

// FluxraVerified is the result of fluxra_verify_email.
type FluxraVerified struct {
	Verified     bool   `json:"verified"`
	Credential   string `json:"credential,omitzero"`
	WhatHappened string `json:"what_happened"`
	NextStep     string `json:"next_step"`
}

func fluxraVerifyEmail(d Deps) server.ServerTool {
	s := spec{
		name:  fluxraVerify,
		title: "Verify an email at Fluxra",
		description: "Verifies the email of a Fluxra account with the token of the mail, or has the mail sent again. " +
			"Call it when the person has the mail. If the token is refused, call it with email for a new one.",
		readOnly:    false,
		destructive: false,
		idempotent:  false, // a token is good once, and each mail counts
		openWorld:   true,
		kept:        unchanged,
		lost:        "The credential is stored as it was. The email may be verified by now.",
	}
	return tool(d, s, func(ctx context.Context, in FluxraVerifyInput) (FluxraVerified, error) {
		switch {
		case in.Token != "" && in.Email != "":
			return FluxraVerified{}, &gateway.RefusedError{Why: "Either token or email is wanted, and not both. Nothing was asked for."}
		case in.Token == "" && in.Email == "":
			return FluxraVerified{}, &missing{form: form{
				message: "Fluxra has sent a mail to verify the email of an account. What is the link in it?",
				fields: []field{{
					name: "token", title: "Link in the mail", wanted: "the link in the mail that verifies the email, or the token in it", kind: aText,
				}},
			}}
		}
		var k credstore.Key
		if in.Credential != "" {
			info, err := d.Client.Lifecycle.ResolveOf(ctx, wire.FluxraName, in.Credential)
			if err != nil {
				return FluxraVerified{}, err
			}
			k = info.Key
		}
		if in.Email != "" {
			if err := d.Client.Fluxra.ResendVerification(ctx, k, in.Email); err != nil {
				return FluxraVerified{}, err
			}
			return FluxraVerified{
				WhatHappened: "The service sends the mail again if an account has this email and it is not verified. It never says whether there is one.",
				NextStep:     tokenStep(ctx) + " " + fluxraOutbox,
			}, nil
		}
		info, err := d.Client.Fluxra.VerifyEmail(ctx, k, in.Token)
		if err != nil {
			return FluxraVerified{}, err
		}
		out := FluxraVerified{
			Verified: true, WhatHappened: "The email is verified: the account can be recovered with it.",
			NextStep: "Call send_request to use Fluxra.",
		}
		if info.Protocol != "" {
			out.Credential = d.Client.Lifecycle.Handle(info.Key)
		}
		return out, nil
	})
}

// tokenStep says what to do when a mail is on its way whose link verifies an email.
func tokenStep(ctx context.Context) string {
	if asks(ctx) {
		return "Ask the person to look for the mail. When they have it, call " + fluxraVerify + " without arguments: they are asked for its link, which you need not see."
	}
	return "Ask the person for token, that of the link in the mail, then call " + fluxraVerify + " with token."
}

// FluxraRecoverInput is the arguments of fluxra_recover_account.
type FluxraRecoverInput struct {
	Email string `json:"email,omitzero" jsonschema:"the verified email of the account"`
	Code  string `json:"code,omitzero" jsonschema:"six digits of the mail"`
}

// FluxraRecovered is the result of fluxra_recover_account.
type FluxraRecovered struct {
	Recovered     bool   `json:"recovered"`
	Credential    string `json:"credential,omitzero"`
	StoredIn      string `json:"stored_in,omitzero"`
	CodeExpiresAt string `json:"code_expires_at,omitzero"`
	WhatHappened  string `json:"what_happened"`
	NextStep      string `json:"next_step"`
}

func fluxraRecoverAccount(d Deps) server.ServerTool {
	s := spec{
		name:  fluxraRecover,
		title: "Recover a Fluxra account",
		description: "Recovers a Fluxra account whose keys are lost or refused: with email, a code is mailed to the person; " +
			"with email and code, a new recovery key is stored, and the old one ends. Returns the handle. " +
			"If the code is refused, call it with email alone for another.",
		readOnly:    false,
		destructive: true,  // the recovery key before ends
		idempotent:  false, // a code is good once
		openWorld:   true,
		kept:        unchanged,
		lost:        "The credential is stored as it was. The recovery key that is stored may have ended, and a new one never arrived.",
	}
	return tool(d, s, func(ctx context.Context, in FluxraRecoverInput) (FluxraRecovered, error) {
		switch {
		case in.Email == "":
			return FluxraRecovered{}, &missing{form: form{
				message: "A Fluxra account is to be recovered. Which email address was verified for it?",
				fields:  []field{{name: "email", title: "Email of the account", wanted: "the verified email address of the account", kind: anEmail}},
			}}
		case in.Code == "":
			return d.askForCode(ctx, in.Email)
		}
		done, err := d.Client.Fluxra.RecoverVerify(ctx, in.Email, in.Code)
		if err != nil {
			return FluxraRecovered{}, err
		}
		out := FluxraRecovered{
			Recovered: true, Credential: d.Client.Lifecycle.Handle(done.Key), StoredIn: d.storedIn(ctx),
			WhatHappened: "The account has a new recovery key, which is stored. The one before has ended.",
		}
		out.NextStep = "Call send_request with credential " + out.Credential + "."
		if done.Incomplete {
			out.WhatHappened += " An API key or an access token could not be had with it yet."
			out.NextStep = "Wait a minute, then call rotate_credential with credential " + out.Credential + "."
		}
		return out, nil
	})
}

// askForCode has a recovery code mailed.
func (d Deps) askForCode(ctx context.Context, email string) (FluxraRecovered, error) {
	asked, err := d.Client.Fluxra.RecoverRequest(ctx, email)
	if err != nil {
		return FluxraRecovered{}, err
	}
	out := FluxraRecovered{
		WhatHappened: "The service mails a code if the email is verified and an account has it. It never says whether there is one.",
		NextStep:     "Ask the person for code, the six digits in the mail, then call " + fluxraRecover + " with the same email and code. " + fluxraOutbox,
	}
	if !asked.Ends.IsZero() {
		out.CodeExpiresAt = asked.Ends.Format(time.RFC3339)
	}
	if asked.Left >= 0 {
		out.WhatHappened += fmt.Sprintf(" It takes %d more such requests for now.", asked.Left)
	}
	if asks(ctx) {
		return FluxraRecovered{}, codeWanted(email)
	}
	return out, nil
}

// codeWanted asks for the code that was mailed, which the model need not see.
func codeWanted(email string) error {
	return &missing{form: form{
		message: "Fluxra mails six digits to " + email + ", if an account has that email and it is verified. What are they?",
		fields:  []field{{name: "code", title: "Six digits of the mail", wanted: "the six digits in the mail", kind: aText}},
		done:    "The service was asked to mail a code; it never says whether there is such an account.",
		later: "If they find the mail: ask them for its six digits, and call " + fluxraRecover + " with email and code. Call it without code only to have another mail sent. " +
			fluxraOutbox,
	}}
}

// explainHalfRotated is about a rotation whose old key did not end.
func (d Deps) explainHalfRotated(ctx context.Context, s spec, e *gateway.HalfRotatedError) Failure {
	f := d.explain(ctx, s, e.Cause)
	f.WhatIsStored = "The new key. It is in use."
	f.NextStep = "Wait a minute, then " + s.again() + ": it ends the old key too. Until then the old key may still work."
	var cause *gateway.Error
	if errors.As(e.Cause, &cause) && slices.Contains([]int{http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusNotImplemented}, cause.Status) {
		// Another rotation would leave another old key behind.
		f.NextStep = "Tell the person: the service seems to have no call that ends the old key, " +
			"so it may work until they end it there. Do not rotate it again for this."
	}
	if f.RetryAfterSeconds > 0 {
		f.NextStep = fmt.Sprintf("Wait %s, then %s: it ends the old key too. Until then the old key may still work.",
			time.Duration(f.RetryAfterSeconds)*time.Second, s.again())
	}
	return f
}
