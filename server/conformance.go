//go:build conformance

package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/mark3labs/mcp-go/mcp"
	mcpserver "github.com/mark3labs/mcp-go/server"
)

// With the build tag "conformance" a server also offers the tools, resources
// and prompts that the scenarios of the official conformance suite ask for by
// name. They do nothing but what the suite wants to see, behind the same guard,
// middlewares and writers as the tools of Enlist, which are what it tests.

// The smallest picture and the shortest sound.
const (
	fixturePNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg=="
	fixtureWAV = "UklGRiQAAABXQVZFZm10IBAAAAABAAEAQB8AAIA+AAACABAAZGF0YQAAAAA="
)

// fixtures returns the outermost middleware of a server for the suite.
func (*Server) fixtures() []mcpserver.ServerOption {
	return []mcpserver.ServerOption{mcpserver.WithToolHandlerMiddleware(refusing)}
}

// refusalKey is the context key of the *error with which a call is refused by
// an error of the protocol.
type refusalKey struct{}

// refusing lets a tool of the suite answer with an error of the protocol. No
// tool of Enlist does: the model hears of those, and what it can do next.
func refusing(next mcpserver.ToolHandlerFunc) mcpserver.ToolHandlerFunc {
	return func(ctx context.Context, req mcp.CallToolRequest) (*mcp.CallToolResult, error) {
		var refusal error
		res, err := next(context.WithValue(ctx, refusalKey{}, &refusal), req)
		if refusal != nil {
			return nil, refusal
		}
		return res, err
	}
}

// refuseCall has a call answered with an error of the protocol.
func refuseCall(ctx context.Context, err error) (*mcp.CallToolResult, error) {
	if refusal, ok := ctx.Value(refusalKey{}).(*error); ok {
		*refusal = err
	}
	return mcp.NewToolResultText("refused"), nil
}

// addFixtures adds the tools, resources and prompts of the suite, and declares
// everything that it tries; tools of the suite change the lists.
func (s *Server) addFixtures() {
	for _, declare := range []mcpserver.ServerOption{
		mcpserver.WithToolCapabilities(true),
		mcpserver.WithCompletions(),
		mcpserver.WithLogging(),
		mcpserver.WithPromptCapabilities(true),
		mcpserver.WithResourceCapabilities(true, true),
	} {
		declare(s.mcp)
	}
	s.mcp.AddTools(s.contentFixtures()...)
	s.mcp.AddTools(s.notifyingFixtures()...)
	s.mcp.AddTools(s.askingFixtures()...)
	s.mcp.AddTools(s.roundTripFixtures()...)
	s.addResourceFixtures()
	s.addPromptFixtures()
}

const noArguments = `{"type":"object","properties":{}}`

// fixture is a tool of the suite.
func fixture(name, schema string, handler mcpserver.ToolHandlerFunc) mcpserver.ServerTool {
	return mcpserver.ServerTool{
		Tool:    mcp.NewToolWithRawSchema(name, "A tool of the conformance suite.", json.RawMessage(schema)),
		Handler: handler,
	}
}

// saying is a fixture that takes nothing and always returns the same.
func saying(name string, content ...mcp.Content) mcpserver.ServerTool {
	return fixture(name, noArguments, func(context.Context, mcp.CallToolRequest) (*mcp.CallToolResult, error) {
		return &mcp.CallToolResult{Content: content}, nil
	})
}

func textResource(uri, mime, text string) mcp.TextResourceContents {
	return mcp.TextResourceContents{URI: uri, MIMEType: mime, Text: text}
}

// contentFixtures return every kind of content there is.
func (s *Server) contentFixtures() []mcpserver.ServerTool {
	return []mcpserver.ServerTool{
		saying("test_simple_text", mcp.NewTextContent("This is a simple text response for testing.")),
		saying("test_image_content", mcp.NewImageContent(fixturePNG, "image/png")),
		saying("test_audio_content", mcp.NewAudioContent(fixtureWAV, "audio/wav")),
		saying("test_embedded_resource", mcp.NewEmbeddedResource(
			textResource("test://embedded-resource", "text/plain", "This is an embedded resource content."))),
		saying("test_multiple_content_types",
			mcp.NewTextContent("Multiple content types test:"),
			mcp.NewImageContent(fixturePNG, "image/png"),
			mcp.NewEmbeddedResource(textResource("test://mixed-content-resource", "application/json", `{"test":"data","value":123}`))),
		fixture("test_error_handling", noArguments, func(context.Context, mcp.CallToolRequest) (*mcp.CallToolResult, error) {
			// As every error of a tool here it also says it in a form.
			res := mcp.NewToolResultError("This tool intentionally returns an error for testing")
			res.StructuredContent = map[string]any{"code": "intended"}
			return res, nil
		}),
		fixture("json_schema_2020_12_tool", `{"$schema":"https://json-schema.org/draft/2020-12/schema","type":"object",
			"$defs":{"address":{"$anchor":"addressDef","type":"object","properties":{"street":{"type":"string"},"city":{"type":"string"}}}},
			"properties":{"name":{"type":"string"},"address":{"$ref":"#/$defs/address"},
				"contactMethod":{"type":"string","enum":["phone","email"]},"phone":{"type":"string"},"email":{"type":"string"}},
			"allOf":[{"anyOf":[{"required":["phone"]},{"required":["email"]}]}],
			"if":{"properties":{"contactMethod":{"const":"phone"}},"required":["contactMethod"]},
			"then":{"required":["phone"]},"else":{"required":["email"]},"additionalProperties":false}`,
			func(context.Context, mcp.CallToolRequest) (*mcp.CallToolResult, error) {
				return mcp.NewToolResultText("done"), nil
			}),
		fixture("test_header_parameter", `{"type":"object","properties":{"region":{"type":"string","x-mcp-header":"Region"}},"required":["region"]}`,
			func(_ context.Context, req mcp.CallToolRequest) (*mcp.CallToolResult, error) {
				return mcp.NewToolResultText("The region is " + req.GetString("region", "")), nil
			}),
	}
}

// notifyingFixtures send notifications before they return.
func (s *Server) notifyingFixtures() []mcpserver.ServerTool {
	return []mcpserver.ServerTool{
		fixture("test_tool_with_logging", noArguments, s.logging),
		fixture("test_logging_tool", noArguments, s.logging),
		fixture("test_tool_with_progress", noArguments, func(ctx context.Context, req mcp.CallToolRequest) (*mcp.CallToolResult, error) {
			if req.Params.Meta == nil || req.Params.Meta.ProgressToken == nil {
				return mcp.NewToolResultText("nobody asks for progress"), nil
			}
			for _, progress := range []int{0, 50, 100} {
				pause(ctx)
				err := s.mcp.SendNotificationToClient(ctx, "notifications/progress", map[string]any{
					"progressToken": req.Params.Meta.ProgressToken, "progress": progress, "total": 100, "message": fmt.Sprintf("step %d of 100", progress),
				})
				if err != nil {
					return nil, err
				}
			}
			settle(ctx)
			return mcp.NewToolResultText("done"), nil
		}),
		saying("test_reconnection", mcp.NewTextContent("The stream was not closed before this answer.")),
		fixture("test_trigger_tool_change", noArguments, func(context.Context, mcp.CallToolRequest) (*mcp.CallToolResult, error) {
			s.mcp.AddTools(saying("test_changed", mcp.NewTextContent("new")))
			s.mcp.DeleteTools("test_changed")
			return mcp.NewToolResultText("The list of tools changed."), nil
		}),
		fixture("test_trigger_prompt_change", noArguments, func(context.Context, mcp.CallToolRequest) (*mcp.CallToolResult, error) {
			s.mcp.AddPrompts(promptSaying("test_changed", "new"))
			s.mcp.DeletePrompts("test_changed")
			return mcp.NewToolResultText("The list of prompts changed."), nil
		}),
	}
}

// pause waits for as long as the suite says between what a call sends: without
// that it can overtake itself, since a session of streamable HTTP has two streams.
func pause(ctx context.Context) { wait(ctx, 50*time.Millisecond) }

// settle lets what was sent last arrive before the result, for the same reason:
// mcp-go may send it on the other stream, after which the client does not listen.
func settle(ctx context.Context) { wait(ctx, time.Second) }

// wait does not, in the stateless era, which has one stream a call.
func wait(ctx context.Context, d time.Duration) {
	if mcpserver.IsModernRequest(ctx) {
		return
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// logging sends three lines of a log to the client, if it wants them.
func (s *Server) logging(ctx context.Context, _ mcp.CallToolRequest) (*mcp.CallToolResult, error) {
	for _, line := range []string{"Tool execution started", "Tool processing data", "Tool execution completed"} {
		pause(ctx)
		err := s.mcp.SendLogMessageToClient(ctx, mcp.NewLoggingMessageNotification(mcp.LoggingLevelInfo, "conformance", line))
		if err != nil && !errors.Is(err, mcpserver.ErrSessionDoesNotSupportLogging) {
			return nil, err
		}
	}
	settle(ctx)
	return mcp.NewToolResultText("done"), nil
}

func (s *Server) addResourceFixtures() {
	s.mcp.AddResource(mcp.NewResource("test://static-text", "static text", mcp.WithMIMEType("text/plain"), mcp.WithResourceDescription("A text.")),
		func(_ context.Context, req mcp.ReadResourceRequest) ([]mcp.ResourceContents, error) {
			return []mcp.ResourceContents{textResource(req.Params.URI, "text/plain", "This is the content of the static text resource.")}, nil
		})
	s.mcp.AddResource(mcp.NewResource("test://static-binary", "static binary", mcp.WithMIMEType("image/png"), mcp.WithResourceDescription("A picture.")),
		func(_ context.Context, req mcp.ReadResourceRequest) ([]mcp.ResourceContents, error) {
			return []mcp.ResourceContents{mcp.BlobResourceContents{URI: req.Params.URI, MIMEType: "image/png", Blob: fixturePNG}}, nil
		})
	s.mcp.AddResource(mcp.NewResource("test://watched-resource", "watched", mcp.WithMIMEType("text/plain"), mcp.WithResourceDescription("A text that may change.")),
		func(_ context.Context, req mcp.ReadResourceRequest) ([]mcp.ResourceContents, error) {
			return []mcp.ResourceContents{textResource(req.Params.URI, "text/plain", "It has not changed.")}, nil
		})
	s.mcp.AddResourceTemplate(mcp.NewResourceTemplate("test://template/{id}/data", "template", mcp.WithTemplateMIMEType("application/json"), mcp.WithTemplateDescription("Data by its id.")),
		func(_ context.Context, req mcp.ReadResourceRequest) ([]mcp.ResourceContents, error) {
			var id string
			if _, err := fmt.Sscanf(req.Params.URI, "test://template/%3s/data", &id); err != nil {
				return nil, err
			}
			text, err := json.Marshal(map[string]any{"id": id, "templateTest": true, "data": "Data for ID: " + id})
			return []mcp.ResourceContents{textResource(req.Params.URI, "application/json", string(text))}, err
		})
}

// ofTheSuite reports whether a resource or a prompt is one of the suite's, by its
// address or its name.
func ofTheSuite(name string) bool {
	return strings.HasPrefix(name, "test://") || strings.HasPrefix(name, "test_")
}
