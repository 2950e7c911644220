package server

import (
	"context"
	"errors"

	"github.com/mark3labs/mcp-go/mcp"
	mcpserver "github.com/mark3labs/mcp-go/server"
)

// The prompts and their arguments.
const (
	signUp         = "sign-up"
	recoverAccount = "recover-account"

	serviceArgument    = "service"
	nameArgument       = "agent_name"
	credentialArgument = "credential"
	emailArgument      = "email"

	// maxPromptName is the longest name of a prompt that an error repeats.
	maxPromptName = 64
)

// addPrompts adds the prompts.
func (r *resources) addPrompts(s *mcpserver.MCPServer) {
	s.AddPrompts(
		mcpserver.ServerPrompt{
			Prompt: mcp.NewPrompt(signUp,
				mcp.WithPromptTitle("Sign the agent up"),
				mcp.WithPromptDescription("Has the agent register at a service, and ask for what only you can say."),
				mcp.WithArgument(serviceArgument, mcp.ArgumentTitle("Service"), mcp.ArgumentDescription("a service by its name, such as lona, or its URL")),
				mcp.WithArgument(nameArgument, mcp.ArgumentTitle("Agent name"), mcp.ArgumentDescription("what the agent is called there; left out: it chooses")),
			),
			Handler: func(_ context.Context, req mcp.GetPromptRequest) (*mcp.GetPromptResult, error) {
				a := req.Params.Arguments
				return said("Signs the agent up", r.deps.SignUp(a[serviceArgument], a[nameArgument])), nil
			},
		},
		mcpserver.ServerPrompt{
			Prompt: mcp.NewPrompt(recoverAccount,
				mcp.WithPromptTitle("Recover an account"),
				mcp.WithPromptDescription("Has the agent get back into an account whose key is lost, expired or refused."),
				mcp.WithArgument(credentialArgument, mcp.ArgumentTitle("Credential"), mcp.ArgumentDescription("a handle, such as lona/my-agent")),
				mcp.WithArgument(emailArgument, mcp.ArgumentTitle("Email"), mcp.ArgumentDescription("the email address of the account, where it has one")),
			),
			Handler: func(_ context.Context, req mcp.GetPromptRequest) (*mcp.GetPromptResult, error) {
				a := req.Params.Arguments
				return said("Gets back into an account", r.deps.RecoverAccount(a[credentialArgument], a[emailArgument])), nil
			},
		},
	)
}

// said is a prompt in the person's voice.
func said(description, text string) *mcp.GetPromptResult {
	return mcp.NewGetPromptResult(description, []mcp.PromptMessage{mcp.NewPromptMessage(mcp.RoleUser, mcp.NewTextContent(text))})
}

// shorten bounds the name of a prompt, which the error that there is none repeats.
func shorten(_ context.Context, _ any, req *mcp.GetPromptRequest) {
	if len(req.Params.Name) > maxPromptName {
		req.Params.Name = "…"
	}
}

// prompts stands around the handlers of prompts as [resources.reads] does around
// those of resources.
func (r *resources) prompts(next mcpserver.PromptHandlerFunc) mcpserver.PromptHandlerFunc {
	return func(ctx context.Context, req mcp.GetPromptRequest) (out *mcp.GetPromptResult, err error) {
		if ofTheSuite(req.Params.Name) {
			return next(ctx, req)
		}
		defer func() {
			if p := recover(); p != nil {
				out, err = nil, errors.New("internal error "+r.server.panicked(ctx, p, "prompt", req.Params.Name))
			}
		}()
		out, err = next(ctx, req)
		if err != nil {
			return nil, errors.New(r.server.redact.all(ctx, err.Error()))
		}
		for n, m := range out.Messages {
			text, ok := m.Content.(mcp.TextContent)
			if !ok {
				return nil, errors.New("internal error " + r.server.bug(ctx, "a prompt is no text"))
			}
			// A secret in an argument is the client's own doing, and no bug.
			text.Text = r.server.redact.all(ctx, text.Text)
			out.Messages[n].Content = text
		}
		return out, nil
	}
}

// CompletePromptArgument implements [mcpserver.PromptCompletionProvider].
func (r *resources) CompletePromptArgument(ctx context.Context, name string, arg mcp.CompleteArgument, _ mcp.CompleteContext) (*mcp.Completion, error) {
	switch {
	case name == signUp && arg.Name == serviceArgument:
		return r.complete(ctx, r.deps.Offered(), arg.Value), nil
	case name == recoverAccount && arg.Name == credentialArgument:
		return r.complete(ctx, r.handles(ctx), arg.Value), nil
	}
	return &mcp.Completion{}, nil
}
