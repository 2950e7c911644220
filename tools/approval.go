package tools

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"

	"github.com/mark3labs/mcp-go/mcp"
	"github.com/mark3labs/mcp-go/server"

	"github.com/enlist-mcp/enlist/gateway"
)

// question is the result that has a client ask the person. It is a form without
// fields: to send it is to agree.
func question(ask *gateway.ApprovalError) *mcp.CallToolResult {
	return server.NewInputRequestBuilder("").Elicit(ask.ID, mcp.ElicitationParams{
		Mode:            mcp.ElicitationModeForm,
		Message:         "Enlist: " + ask.Question,
		RequestedSchema: json.RawMessage(`{"type":"object","properties":{}}`),
	}).ToolResult()
}

// answered returns a context for a call with what the person said to the
// questions that the same call led to before.
func answered(ctx context.Context, req mcp.CallToolRequest) context.Context {
	given := make(map[string]gateway.Answer)
	for id := range req.Params.InputResponses {
		given[id] = gateway.AnswerNone
		answer := server.ElicitationResponse(req.Params.InputResponses, id)
		switch {
		case answer == nil:
		case answer.Action == mcp.ElicitationResponseActionAccept:
			given[id] = gateway.AnswerYes
		case answer.Action == mcp.ElicitationResponseActionDecline:
			given[id] = gateway.AnswerNo
		}
	}
	return gateway.WithAnswers(ctx, fingerprint(req), given)
}

// fingerprint tells apart the calls of tools by their arguments, however a client
// writes them down when it makes a call again.
func fingerprint(req mcp.CallToolRequest) string {
	var arguments any = map[string]any{}
	// What cannot be read is refused, and nobody is asked.
	_ = bind(req, &arguments)
	text, _ := json.Marshal([]any{req.Params.Name, arguments})
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// policed returns the result for what the policy refuses, or a person must agree
// to; nil for any other error.
func policed(s spec, err error) *mcp.CallToolResult {
	var policy *gateway.PolicyError
	if errors.As(err, &policy) {
		return failed(Failure{
			Code: CodePolicy, WhatHappened: policy.Why + " Nothing was done.", WhatIsStored: s.kept,
			NextStep: "Tell the person. " + policy.Remedy,
		})
	}
	var ask *gateway.ApprovalError
	switch {
	case !errors.As(err, &ask):
		return nil
	case !ask.Final:
		return question(ask)
	}
	f := Failure{Code: ask.Code, WhatIsStored: s.kept}
	switch ask.Code {
	case gateway.ApprovalDeclined:
		f.WhatHappened = "The person was asked and did not agree. Nothing was done."
		f.NextStep = "Tell the person that nothing was done. Do not call " + s.name + " for this again, unless they tell you to."
	case gateway.ApprovalUnanswered:
		f.WhatHappened = "The person was asked and did not answer, or too late. Nothing was done."
		f.NextStep = "Ask the person whether they are there and agree, then " + s.again() + ": they are asked again."
	default:
		f.WhatHappened = "A person must agree to this first, and your client cannot ask them. Nothing was done."
		f.NextStep = "Ask the person to allow it, then " + s.again() + ". " + ask.Remedy
	}
	return failed(f)
}
