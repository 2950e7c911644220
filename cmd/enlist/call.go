package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	mcpclient "github.com/mark3labs/mcp-go/client"
	"github.com/mark3labs/mcp-go/mcp"
	"github.com/spf13/cobra"

	"github.com/enlist-mcp/enlist/gateway"
	"github.com/enlist-mcp/enlist/server"
	"github.com/enlist-mcp/enlist/tools"
)

// maxArguments is the most that `enlist call TOOL -` reads.
const maxArguments = 1 << 20

func (p *program) callCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "call TOOL [JSON | -]",
		Short: "Call one tool, as an agent would",
		Long: `Call one tool, as an agent would, and print its structured result as JSON.

The arguments are a JSON object, or "-" to read one from standard input. A tool
error is printed in the same way and ends with exit code 1.`,
		Example: `  enlist call list_credentials
  enlist call --embedded lona_register_agent '{"agent_id":"my-agent","agent_name":"My Agent"}'`,
		Args: cobra.RangeArgs(1, 2),
		RunE: run(func(cmd *cobra.Command, args []string) error {
			arguments, err := p.arguments(args[1:])
			if err != nil {
				return &usageError{err}
			}
			return p.withClient(cmd, func(ctx context.Context, c *client) error {
				return p.call(ctx, c, args[0], arguments)
			})
		}),
	}
	var asJSON bool // what it prints is JSON in any case
	jsonFlag(cmd, &asJSON, "the same, and what is wrong with the command line, too.")
	return cmd
}

// arguments reads the arguments of a tool.
func (p *program) arguments(args []string) (map[string]any, error) {
	if len(args) == 0 {
		return map[string]any{}, nil
	}
	text := []byte(args[0])
	if args[0] == "-" {
		var err error
		text, err = io.ReadAll(io.LimitReader(p.stdin, maxArguments+1))
		if err != nil {
			return nil, fmt.Errorf("read the arguments: %w", err)
		}
		if len(text) > maxArguments {
			return nil, fmt.Errorf("the arguments are larger than %d bytes", maxArguments)
		}
	}
	var arguments map[string]any
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&arguments); err != nil || arguments == nil {
		return nil, fmt.Errorf("the arguments are not a JSON object: %s", jsonMistake(err))
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, fmt.Errorf("the arguments are not one JSON object: something follows it")
	}
	return arguments, nil
}

// jsonMistake says what is wrong without repeating what was written.
func jsonMistake(err error) string {
	if err == nil {
		return "got null"
	}
	return err.Error()
}

func (p *program) call(ctx context.Context, c *client, tool string, arguments map[string]any) (err error) {
	s, err := p.newServer(c, gateway.CallerScript, tools.Selection{})
	if err != nil {
		return err
	}
	// What the settings ask for at the start of `enlist mcp` holds here, too.
	if err := c.Start(ctx); err != nil {
		p.logger().WarnContext(ctx, "start-up registration failed", "error", c.Scrubber.Own(err.Error()))
	}
	caller, err := mcpclient.NewInProcessClient(s.MCP())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, caller.Close()) }()
	if err := caller.Start(ctx); err != nil {
		return err
	}
	if _, err := caller.Initialize(ctx, initializeRequest("enlist call")); err != nil {
		return err
	}
	if err := knownTool(ctx, caller, tool); err != nil {
		return err
	}
	request := mcp.CallToolRequest{}
	request.Params.Name = tool
	request.Params.Arguments = arguments
	result, err := caller.CallTool(ctx, request)
	if err != nil {
		return err
	}
	if err := printJSON(p.stdout, structured(result)); err != nil {
		return err
	}
	if result.IsError {
		return &runError{err: fmt.Errorf("%s failed", tool), reported: true}
	}
	return nil
}

// knownTool makes a misspelt tool a mistake in the command line.
func knownTool(ctx context.Context, caller *mcpclient.Client, tool string) error {
	list, err := caller.ListTools(ctx, mcp.ListToolsRequest{})
	if err != nil {
		return err
	}
	var names []string
	for _, t := range list.Tools {
		if t.Name == tool {
			return nil
		}
		names = append(names, t.Name)
	}
	return &usageError{fmt.Errorf("there is no tool %q; there are %q", tool, names)}
}

// structured returns what a tool answered as data.
func structured(result *mcp.CallToolResult) any {
	if result.StructuredContent != nil {
		return result.StructuredContent
	}
	var text []string
	for _, content := range result.Content {
		if t, ok := content.(mcp.TextContent); ok {
			text = append(text, t.Text)
		}
	}
	return map[string]any{"text": text}
}

func initializeRequest(name string) mcp.InitializeRequest {
	request := mcp.InitializeRequest{}
	request.Params.ProtocolVersion = mcp.ProtocolVersion20251125
	request.Params.ClientInfo = mcp.Implementation{Name: name, Version: version()}
	return request
}

func (p *program) newServer(c *client, caller gateway.CallerKind, selection tools.Selection) (*server.Server, error) {
	return server.New(server.Config{
		Client:   c.Client,
		Caller:   caller,
		Tools:    selection,
		Version:  version(),
		Now:      p.now,
		StoredIn: c.store.Backend,
		Logger:   p.logger(),
	})
}
