package tools

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/mark3labs/mcp-go/mcp"
	"github.com/mark3labs/mcp-go/server"

	"github.com/enlist-mcp/enlist/gateway/wire"
)

// spec describes a tool. All four hints are written out for each tool, because
// a client takes one that is missing for the worst.
type spec struct {
	name        string
	title       string
	description string

	readOnly    bool
	destructive bool
	idempotent  bool
	openWorld   bool

	// kept says what is stored after a failure: of a call that the service
	// did nothing about, and, in lost, of one whose answer was lost.
	kept, lost string
	// lostStep says what to do after the answer was lost, and moved after a
	// redirect, where that is not the usual thing. {again} in it is the call
	// itself.
	lostStep, moved string
}

// tool makes a tool of its description and a typed handler. An error of the
// handler becomes a result that says what to do next.
func tool[In, Out any](d Deps, s spec, handle func(context.Context, In) (Out, error)) server.ServerTool {
	return server.ServerTool{
		Tool: mcp.NewTool(s.name,
			mcp.WithToolTitle(s.title),
			mcp.WithDescription(s.description),
			mcp.WithReadOnlyHintAnnotation(s.readOnly),
			mcp.WithDestructiveHintAnnotation(s.destructive),
			mcp.WithIdempotentHintAnnotation(s.idempotent),
			mcp.WithOpenWorldHintAnnotation(s.openWorld),
			func(t *mcp.Tool) {
				t.InputSchema.Type = "" // it must not stand beside a raw one
				made, ok := d.schemas[s.name]
				if !ok {
					made = schemas{Input: schemaOf[In](anyArgument), Output: resultSchema(schemaOf[Out](anyResult))}
				}
				t.RawInputSchema, t.RawOutputSchema = made.Input, made.Output
			},
		),
		Handler: func(ctx context.Context, req mcp.CallToolRequest) (*mcp.CallToolResult, error) {
			var in In
			if err := bind(req, &in); err != nil {
				return failed(badArguments(s.name, "The arguments cannot be read: "+unreadable(err)+".")), nil
			}
			out, err := handle(d.withProgress(answered(ctx, req), req), in)
			if err != nil {
				if res := policed(s, err); res != nil {
					return res, nil
				}
				f := d.explain(ctx, s, err)
				if renewed := new(renewedError); errors.As(err, &renewed) {
					f.WhatIsStored = "The credential, renewed: what it was before may have ended." + strings.TrimPrefix(strings.TrimPrefix(f.WhatIsStored, unchanged), asItWas)
				}
				f.NextStep += d.withheld(f.NextStep)
				return failed(f), nil
			}
			return mcp.NewToolResultStructuredOnly(out), nil
		},
	}
}

// bind reads the arguments. A number in an argument of any type keeps all its
// digits.
func bind(req mcp.CallToolRequest, in any) error {
	raw, ok := req.GetRawArguments().(json.RawMessage)
	if !ok {
		var err error
		if raw, err = json.Marshal(req.Params.Arguments); err != nil {
			return err
		}
	}
	if raw = bytes.TrimSpace(raw); len(raw) == 0 || string(raw) == "null" {
		raw = json.RawMessage("{}")
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	return dec.Decode(in)
}

// unreadable says what is wrong with arguments that passed their schema, and
// does not repeat them: 7.0 and 1e30 are integers in JSON.
func unreadable(err error) string {
	var wrong *json.UnmarshalTypeError
	if errors.As(err, &wrong) {
		return wrong.Field + " is not a number without a point and of a usual size"
	}
	return "they are not a JSON object"
}

// orNull matches the type of a pointer or slice in a generated schema. Some
// clients take one type only, and to leave an argument out says the same.
var orNull = wire.NewPattern(`"type":\["null","(\w+)"\]`)

// The types of an interface in a schema: of an argument, whose JSON can also
// be given as a string, and in a result. What is generated for one says
// nothing at all, which some clients do not take.
const (
	anyArgument = `"type":["array","object","string"]`
	anyResult   = `"type":["array","boolean","null","number","object","string"]`
)

// schemaOf returns the JSON schema of a struct. anything is the type of an
// interface in it.
func schemaOf[T any](anything string) json.RawMessage {
	schema := []byte(orNull.ReplaceAllString(string(mcp.NewTool("", mcp.WithInputSchema[T]()).RawInputSchema), `"type":"$1"`))
	schema = bytes.ReplaceAll(schema, []byte(`":true`), []byte(`":{`+anything+`}`))
	// A map takes anything, numbers too: nobody chooses its type by the schema.
	schema = bytes.ReplaceAll(schema, []byte(`"additionalProperties":{`+anything+`}`), []byte(`"additionalProperties":true`))
	schema = bytes.ReplaceAll(schema, []byte(`":{"description"`), []byte(`":{`+anything+`,"description"`))
	if !bytes.Contains(schema, []byte(`"properties":`)) {
		schema = bytes.Replace(schema, []byte(`{"type":"object"`), []byte(`{"type":"object","properties":{}`), 1)
	}
	return schema
}

// resultSchema returns the schema of a tool's structured content: its result,
// or a [Failure]. Some clients check the content of an error too.
func resultSchema(success json.RawMessage) json.RawMessage {
	return json.RawMessage(fmt.Sprintf(`{"type":"object","anyOf":[%s,`+
		`{"required":["code","next_step"]}]}`, success))
}
