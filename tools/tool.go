package tools

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
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
			t, f := d.take(ctx, s, req)
			if f != nil {
				return failed(*f), nil
			}
			var in In
			if err := t.bind(req, &in); err != nil {
				return failed(badArguments(s.name, "The arguments cannot be read: "+unreadable(err)+".")), nil
			}
			ctx = t.context(ctx, req)
			out, err := handle(d.withProgress(ctx, req), in)
			if err == nil {
				return mcp.NewToolResultStructuredOnly(out), nil
			}
			return d.failed(ctx, s, t, err), nil
		},
	}
}

// failed returns the result for an error of a handler: a question, or a failure.
func (d Deps) failed(ctx context.Context, s spec, t turn, err error) *mcp.CallToolResult {
	res, err := d.ask(ctx, s, t, err)
	if res != nil {
		return res
	}
	if res := policed(s, err); res != nil {
		return res
	}
	f := d.explain(ctx, s, err)
	if renewed := new(renewedError); errors.As(err, &renewed) {
		f.WhatIsStored = "The credential, renewed: what it was before may have ended." + strings.TrimPrefix(strings.TrimPrefix(f.WhatIsStored, unchanged), asItWas)
	}
	// A code of ours that a protocol has no advice for is met with another's bug only.
	f.NextStep = cmp.Or(f.NextStep, "Tell the person what happened. Do not call "+s.name+" again for this, unless they tell you to.")
	f.NextStep = s.named(f.NextStep)
	if !strings.Contains(f.NextStep, "the person") && !d.namesTool(f.NextStep) {
		f.NextStep = "Tell the person. " + f.NextStep
	}
	f.NextStep += d.withheld(f.NextStep)
	return failed(f)
}

// namesTool reports whether a next step names a tool, offered or not.
func (d Deps) namesTool(step string) bool {
	return slices.ContainsFunc(d.allTools(), func(t server.ServerTool) bool { return strings.Contains(step, t.Tool.Name) })
}

// named returns a next step with the tool's name in the place of words for it: a
// protocol's advice does not know which tool it is for.
func (s spec) named(step string) string {
	return strings.NewReplacer(
		"make the same call again", "call "+s.name+" again", "Make the same call again", "Call "+s.name+" again",
		"Call the same tool again", "Call "+s.name+" again",
	).Replace(step)
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

// A result's schema says which properties there are, and which always: closing is
// what a generated one ends with. What else it says of the objects inside, and
// that there is nothing beside what a Go struct has, would be sent to the model
// with every list.
var (
	closing = wire.NewPattern(`(,"required":\[[^\]]*\])?,"additionalProperties":false}$`)
	closed  = wire.NewPattern(`,"additionalProperties":false`)
	inside  = wire.NewPattern(`,"required":\[[^\]]*\]|,"additionalProperties":(true|false|{"type":"array","items":{"type":"string"}})`)
)

// resultSchema returns the schema of a tool's structured content: its result,
// or a [Failure]. Some clients check the content of an error too.
func resultSchema(success json.RawMessage) json.RawMessage {
	// The type is said once, for both.
	success = bytes.Replace(success, []byte(`{"type":"object",`), []byte(`{`), 1)
	required := closing.FindString(string(success))
	success = []byte(inside.ReplaceAllString(strings.TrimSuffix(string(success), required), "") + closed.ReplaceAllString(required, ""))
	return json.RawMessage(fmt.Sprintf(`{"type":"object","anyOf":[%s,`+
		`{"required":["code","what_happened","what_is_stored","next_step"]}]}`, success))
}
