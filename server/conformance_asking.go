//go:build conformance

package server

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/mark3labs/mcp-go/mcp"
	mcpserver "github.com/mark3labs/mcp-go/server"
)

// form is a question of the suite to the person.
func form(message, schema string) mcp.ElicitationParams {
	return mcp.ElicitationParams{Mode: mcp.ElicitationModeForm, Message: message, RequestedSchema: json.RawMessage(schema)}
}

// formOf is a form with one text, or with one box to tick, that must be filled in.
func formOf(message, field, kind string) mcp.ElicitationParams {
	return form(message, fmt.Sprintf(`{"type":"object","properties":{%q:{"type":%q}},"required":[%q]}`, field, kind, field))
}

func sampleOf(text string, limit int) mcp.CreateMessageParams {
	return mcp.CreateMessageParams{
		Messages:  []mcp.SamplingMessage{{Role: mcp.RoleUser, Content: mcp.NewTextContent(text)}},
		MaxTokens: limit,
	}
}

// eliciting is a fixture that asks one question, in either era by the way of the
// tools of Enlist, and says what came of it.
func eliciting(name, schema, said string, question func(mcp.CallToolRequest) mcp.ElicitationParams) mcpserver.ServerTool {
	return fixture(name, schema, func(_ context.Context, req mcp.CallToolRequest) (*mcp.CallToolResult, error) {
		answer := mcpserver.ElicitationResponse(req.Params.InputResponses, "question")
		if answer == nil {
			return mcpserver.NewInputRequestBuilder("").Elicit("question", question(req)).ToolResult(), nil
		}
		content, err := json.Marshal(answer.Content)
		return mcp.NewToolResultText(fmt.Sprintf("%s: action=%s, content=%s", said, answer.Action, content)), err
	})
}

// askingFixtures ask the client for something while they run.
func (s *Server) askingFixtures() []mcpserver.ServerTool {
	constant := func(p mcp.ElicitationParams) func(mcp.CallToolRequest) mcp.ElicitationParams {
		return func(mcp.CallToolRequest) mcp.ElicitationParams { return p }
	}
	return []mcpserver.ServerTool{
		eliciting("test_elicitation", `{"type":"object","properties":{"message":{"type":"string"}},"required":["message"]}`, "User response",
			func(req mcp.CallToolRequest) mcp.ElicitationParams {
				return form(req.GetString("message", ""), `{"type":"object","properties":{
					"username":{"type":"string","description":"User's response"},
					"email":{"type":"string","description":"User's email address"}},"required":["username","email"]}`)
			}),
		eliciting("test_elicitation_sep1034_defaults", noArguments, "Elicitation completed", constant(form("Please review", `{"type":"object","properties":{
			"name":{"type":"string","default":"John Doe"},"age":{"type":"integer","default":30},"score":{"type":"number","default":95.5},
			"status":{"type":"string","enum":["active","inactive","pending"],"default":"active"},"verified":{"type":"boolean","default":true}}}`))),
		eliciting("test_elicitation_sep1330_enums", noArguments, "Elicitation completed", constant(form("Please choose", `{"type":"object","properties":{
			"untitledSingle":{"type":"string","enum":["option1","option2","option3"]},
			"titledSingle":{"type":"string","oneOf":[{"const":"value1","title":"First Option"},{"const":"value2","title":"Second Option"},{"const":"value3","title":"Third Option"}]},
			"legacyEnum":{"type":"string","enum":["opt1","opt2","opt3"],"enumNames":["Option One","Option Two","Option Three"]},
			"untitledMulti":{"type":"array","items":{"type":"string","enum":["option1","option2","option3"]}},
			"titledMulti":{"type":"array","items":{"anyOf":[{"const":"value1","title":"First Choice"},{"const":"value2","title":"Second Choice"},{"const":"value3","title":"Third Choice"}]}}}}`))),
		eliciting("test_streaming_elicitation", noArguments, "Elicitation completed", constant(formOf("What is your name?", "name", "string"))),
		fixture("test_sampling", `{"type":"object","properties":{"prompt":{"type":"string"}},"required":["prompt"]}`,
			func(ctx context.Context, req mcp.CallToolRequest) (*mcp.CallToolResult, error) {
				//nolint:staticcheck // the suite asks for what later revisions deprecate
				answer, err := s.mcp.RequestSampling(ctx, mcp.CreateMessageRequest{CreateMessageParams: sampleOf(req.GetString("prompt", ""), 100)})
				if err != nil {
					return nil, err
				}
				return mcp.NewToolResultText("LLM response: " + sampled(answer)), nil
			}),
		fixture("test_missing_capability", noArguments, func(ctx context.Context, _ mcp.CallToolRequest) (*mcp.CallToolResult, error) {
			if c := capabilities(ctx); c == nil || c.Sampling == nil {
				return refuseCall(ctx, mcp.MissingRequiredClientCapabilityError{Capability: "sampling"})
			}
			return mcp.NewToolResultText("done"), nil
		}),
	}
}

// sampled is the text of what a model of the client said.
func sampled(answer *mcp.CreateMessageResult) string {
	text, err := json.Marshal(answer.Content)
	var content struct{ Text string }
	if err != nil || json.Unmarshal(text, &content) != nil {
		return ""
	}
	return content.Text
}

// capabilities are those of a client of the stateless era.
func capabilities(ctx context.Context) *mcp.ClientCapabilities {
	if info := mcpserver.RequestProtocolInfoFromContext(ctx); info != nil {
		return info.ClientCapabilities
	}
	return nil
}

// sealed is a state that only this process can have made.
type sealed struct{ key []byte }

func newSealed() sealed { return sealed{key: []byte(rand.Text())} }

func (s sealed) seal(state string) string {
	mac := hmac.New(sha256.New, s.key)
	mac.Write([]byte(state))
	return state + "." + hex.EncodeToString(mac.Sum(nil))
}

func (s sealed) open(text string) (state string, ok bool) {
	state, _, _ = strings.Cut(text, ".")
	return state, hmac.Equal([]byte(s.seal(state)), []byte(text))
}

var errState = errors.New("the request state is not one that was given out")

// roundTripFixtures are the tools of the stateless era that need more than one
// round.
func (s *Server) roundTripFixtures() []mcpserver.ServerTool {
	states := newSealed()
	name := formOf("What is your name?", "name", "string")
	return []mcpserver.ServerTool{
		fixture("test_input_required_result_elicitation", noArguments, func(_ context.Context, req mcp.CallToolRequest) (*mcp.CallToolResult, error) {
			answer := mcpserver.ElicitationResponse(req.Params.InputResponses, "user_name")
			if answer == nil || answer.Action != mcp.ElicitationResponseActionAccept {
				return mcpserver.NewInputRequestBuilder("").Elicit("user_name", name).ToolResult(), nil
			}
			content, _ := answer.Content.(map[string]any)
			return mcp.NewToolResultText(fmt.Sprintf("Hello, %v!", content["name"])), nil
		}),
		fixture("test_input_required_result_sampling", noArguments, func(_ context.Context, req mcp.CallToolRequest) (*mcp.CallToolResult, error) {
			answer := mcpserver.SamplingResponse(req.Params.InputResponses, "capital_question")
			if answer == nil {
				return mcpserver.NewInputRequestBuilder("").Sample("capital_question", sampleOf("What is the capital of France?", 100)).ToolResult(), nil
			}
			return mcp.NewToolResultText(sampled(answer)), nil
		}),
		fixture("test_input_required_result_list_roots", noArguments, func(_ context.Context, req mcp.CallToolRequest) (*mcp.CallToolResult, error) {
			answer := mcpserver.RootsResponse(req.Params.InputResponses, "client_roots")
			if answer == nil {
				return mcpserver.NewInputRequestBuilder("").Roots("client_roots").ToolResult(), nil
			}
			return mcp.NewToolResultText(fmt.Sprintf("The roots are %v", answer.Roots)), nil
		}),
		states.confirming("test_input_required_result_request_state"),
		states.confirming("test_input_required_result_tampered_state"),
		fixture("test_input_required_result_multiple_inputs", noArguments, func(ctx context.Context, req mcp.CallToolRequest) (*mcp.CallToolResult, error) {
			if len(req.Params.InputResponses) == 0 {
				return mcpserver.NewInputRequestBuilder(states.seal("all")).Elicit("user_name", name).
					Sample("greeting", sampleOf("Generate a greeting", 50)).Roots("client_roots").ToolResult(), nil
			}
			if state, ok := states.open(req.Params.RequestState); !ok || state != "all" {
				return refuseCall(ctx, errState)
			}
			return mcp.NewToolResultText("All is said."), nil
		}),
		fixture("test_input_required_result_multi_round", noArguments, states.rounds),
		fixture("test_input_required_result_capabilities", noArguments, func(ctx context.Context, _ mcp.CallToolRequest) (*mcp.CallToolResult, error) {
			ask := mcpserver.NewInputRequestBuilder("")
			if c := capabilities(ctx); c != nil && c.Sampling != nil {
				ask.Sample("greeting", sampleOf("Generate a greeting", 50))
			} else if c != nil && c.Elicitation != nil {
				ask.Elicit("user_name", name)
			}
			return ask.ToolResult(), nil
		}),
	}
}

// confirming is a fixture that trusts nothing but a state that it gave out.
func (s sealed) confirming(name string) mcpserver.ServerTool {
	return fixture(name, noArguments, func(ctx context.Context, req mcp.CallToolRequest) (*mcp.CallToolResult, error) {
		if len(req.Params.InputResponses) == 0 {
			return mcpserver.NewInputRequestBuilder(s.seal("confirm")).Elicit("confirm", formOf("Please confirm", "ok", "boolean")).ToolResult(), nil
		}
		if state, ok := s.open(req.Params.RequestState); !ok || state != "confirm" {
			return refuseCall(ctx, errState)
		}
		return mcp.NewToolResultText("state-ok"), nil
	})
}

// rounds asks for one thing after another.
func (s sealed) rounds(ctx context.Context, req mcp.CallToolRequest) (*mcp.CallToolResult, error) {
	state, ok := s.open(req.Params.RequestState)
	_, first := req.Params.InputResponses["step1"]
	_, second := req.Params.InputResponses["step2"]
	switch {
	case req.Params.RequestState == "":
		return mcpserver.NewInputRequestBuilder(s.seal("step1")).Elicit("step1", formOf("Step 1: What is your name?", "name", "string")).ToolResult(), nil
	case ok && state == "step1" && first:
		return mcpserver.NewInputRequestBuilder(s.seal("step2")).Elicit("step2", formOf("Step 2: What is your favorite color?", "color", "string")).ToolResult(), nil
	case ok && state == "step2" && second:
		return mcp.NewToolResultText("All steps are done."), nil
	}
	return refuseCall(ctx, errState)
}

func prompt(name string, handler mcpserver.PromptHandlerFunc, arguments ...string) mcpserver.ServerPrompt {
	options := []mcp.PromptOption{mcp.WithPromptDescription("A prompt of the conformance suite.")}
	for _, argument := range arguments {
		options = append(options, mcp.WithArgument(argument, mcp.RequiredArgument()))
	}
	return mcpserver.ServerPrompt{Prompt: mcp.NewPrompt(name, options...), Handler: handler}
}

// promptOf is a prompt of the suite with what the person is to say.
func promptOf(name string, messages func(mcp.GetPromptParams) []mcp.Content, arguments ...string) mcpserver.ServerPrompt {
	return prompt(name, func(_ context.Context, req mcp.GetPromptRequest) (*mcp.GetPromptResult, error) {
		res := &mcp.GetPromptResult{Description: name}
		for _, content := range messages(req.Params) {
			res.Messages = append(res.Messages, mcp.NewPromptMessage(mcp.RoleUser, content))
		}
		return res, nil
	}, arguments...)
}

func promptSaying(name, text string) mcpserver.ServerPrompt {
	return promptOf(name, func(mcp.GetPromptParams) []mcp.Content { return []mcp.Content{mcp.NewTextContent(text)} })
}

func (s *Server) addPromptFixtures() {
	s.mcp.AddPrompts(
		promptSaying("test_simple_prompt", "This is a simple prompt for testing."),
		promptOf("test_prompt_with_arguments", func(p mcp.GetPromptParams) []mcp.Content {
			return []mcp.Content{mcp.NewTextContent(fmt.Sprintf("Prompt with arguments: arg1='%s', arg2='%s'", p.Arguments["arg1"], p.Arguments["arg2"]))}
		}, "arg1", "arg2"),
		promptOf("test_prompt_with_embedded_resource", func(p mcp.GetPromptParams) []mcp.Content {
			return []mcp.Content{
				mcp.NewEmbeddedResource(textResource(cmp.Or(p.Arguments["resourceUri"], "test://example-resource"), "text/plain", "Embedded resource content for testing.")),
				mcp.NewTextContent("Please process the embedded resource above."),
			}
		}, "resourceUri"),
		promptOf("test_prompt_with_image", func(mcp.GetPromptParams) []mcp.Content {
			return []mcp.Content{mcp.NewImageContent(fixturePNG, "image/png"), mcp.NewTextContent("Please analyze the image above.")}
		}),
		prompt("test_input_required_result_prompt", func(_ context.Context, req mcp.GetPromptRequest) (*mcp.GetPromptResult, error) {
			answer := mcpserver.ElicitationResponse(req.Params.InputResponses, "user_context")
			if answer == nil {
				return mcpserver.NewInputRequestBuilder("").Elicit("user_context", formOf("What context should the prompt use?", "context", "string")).PromptResult(), nil
			}
			content, _ := answer.Content.(map[string]any)
			return &mcp.GetPromptResult{Messages: []mcp.PromptMessage{
				mcp.NewPromptMessage(mcp.RoleUser, mcp.NewTextContent(fmt.Sprintf("The context is %v.", content["context"]))),
			}}, nil
		}),
	)
}
