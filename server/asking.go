package server

import (
	"context"
	"errors"
	"time"

	"github.com/mark3labs/mcp-go/mcp"
	mcpserver "github.com/mark3labs/mcp-go/server"
)

const (
	// askTime is for how long a question to a person waits for its answer.
	askTime = 5 * time.Minute
	// maxRounds is how many questions one call may lead to.
	maxRounds = 3
)

// asking puts the questions of a tool to the person, for a client with a session,
// and calls the tool again with the answers. It stands outside the limit of a
// call, which is for what services and stores take. A client of the stateless era
// gets the questions as the result, and makes the call again itself.
//
// mcp-go would do the same, but wait for ever, and make an error of the protocol
// of a question that could not be asked.
func (s *Server) asking(next mcpserver.ToolHandlerFunc) mcpserver.ToolHandlerFunc {
	return func(ctx context.Context, req mcp.CallToolRequest) (*mcp.CallToolResult, error) {
		res, err := next(ctx, req)
		if mcpserver.IsModernRequest(ctx) {
			return res, err
		}
		for range maxRounds {
			if err != nil || !res.NeedsInput() {
				return res, err
			}
			answers := make(mcp.InputResponses)
			for id, question := range res.InputRequests {
				answers[id] = mcp.NewElicitationInputResponse(s.elicit(ctx, question))
			}
			if ctx.Err() != nil {
				// The tool hears of it all the same: what was asked for is off.
				for id := range answers {
					answers[id] = mcp.NewElicitationInputResponse(unanswered())
				}
				ctx = context.WithoutCancel(ctx)
			}
			again := req
			again.Params.InputResponses, again.Params.RequestState = answers, res.RequestState
			res, err = next(ctx, again)
		}
		if err == nil && res.NeedsInput() {
			return nil, errors.New("a tool asks too many questions")
		}
		return res, err
	}
}

// elicit asks the person. That there is no answer, for whatever reason, is one:
// the question was cancelled.
func (s *Server) elicit(ctx context.Context, question mcp.InputRequest) mcp.ElicitationResult {
	if question.Elicitation == nil {
		return unanswered()
	}
	ctx, cancel := context.WithTimeout(ctx, s.askTime)
	defer cancel()
	go func() {
		select {
		case <-s.stopping:
			cancel()
		case <-ctx.Done():
		}
	}()
	answer, err := s.mcp.RequestElicitation(ctx, mcp.ElicitationRequest{
		Request: mcp.Request{Method: string(mcp.MethodElicitationCreate)}, Params: *question.Elicitation,
	})
	if err != nil || answer == nil {
		s.log.WarnContext(ctx, "a question to the person was not answered", "error", s.redact.text(errorText(err)))
		return unanswered()
	}
	return *answer
}

func unanswered() mcp.ElicitationResult {
	return mcp.ElicitationResult{ElicitationResponse: mcp.ElicitationResponse{Action: mcp.ElicitationResponseActionCancel}}
}

func errorText(err error) string {
	if err == nil {
		return "there was no answer"
	}
	return err.Error()
}
