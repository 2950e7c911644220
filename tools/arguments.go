package tools

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/mark3labs/mcp-go/mcp"
)

// property is the schema of one argument, as far as a tool uses it.
type property struct {
	Type                 kinds     `json:"type"`
	Enum                 []string  `json:"enum"`
	AdditionalProperties *property `json:"additionalProperties"`
}

// UnmarshalJSON implements [json.Unmarshaler]: a schema can be a boolean.
func (p *property) UnmarshalJSON(raw []byte) error {
	if string(raw) == "true" || string(raw) == "false" {
		return nil
	}
	type plain property
	return json.Unmarshal(raw, (*plain)(p))
}

// kinds is what a value may be: one type, or a list of them.
type kinds []string

// UnmarshalJSON implements [json.Unmarshaler].
func (k *kinds) UnmarshalJSON(raw []byte) error {
	var one string
	if json.Unmarshal(raw, &one) == nil {
		*k = kinds{one}
		return nil
	}
	return json.Unmarshal(raw, (*[]string)(k))
}

// take reports whether a value of a type may be given.
func (k kinds) take(kind string) bool {
	return len(k) == 0 || slices.Contains(k, kind) || kind == "integer" && slices.Contains(k, "number")
}

// String implements [fmt.Stringer].
func (k kinds) String() string { return strings.Join(k, " or ") }

// argument is one argument of a tool.
type argument struct {
	property
	name     string
	required bool
}

// argumentsOf lists the arguments of a tool, in the order of its schema.
func argumentsOf(t mcp.Tool) []argument {
	var schema struct {
		Properties json.RawMessage `json:"properties"`
		Required   []string        `json:"required"`
	}
	if err := json.Unmarshal(t.RawInputSchema, &schema); err != nil {
		return nil
	}
	var out []argument
	dec := json.NewDecoder(bytes.NewReader(schema.Properties))
	if _, err := dec.Token(); err != nil { // the opening brace
		return nil
	}
	for dec.More() {
		key, err := dec.Token()
		name, ok := key.(string)
		var p property
		if err != nil || !ok || dec.Decode(&p) != nil {
			return out
		}
		out = append(out, argument{property: p, name: name, required: slices.Contains(schema.Required, name)})
	}
	return out
}

// InvalidArguments returns the result for arguments that do not fit the input
// schema of a tool: it says which, and what they may be.
func InvalidArguments(t mcp.Tool, raw json.RawMessage) *mcp.CallToolResult {
	wrong := misfits(argumentsOf(t), raw)
	if len(wrong) == 0 {
		wrong = []string{"an argument does not fit the tool's input schema"}
	}
	f := badArguments(t.Name, "The arguments were refused: "+strings.Join(wrong, "; ")+".")
	f.NextStep = fmt.Sprintf("Call %s again with that put right. It takes %s.", t.Name, usage(argumentsOf(t)))
	return failed(f)
}

// badArguments is the failure of a call that was refused for its arguments.
func badArguments(tool, what string) Failure {
	return Failure{
		Code:         CodeInvalidArguments,
		WhatHappened: what,
		WhatIsStored: "Nothing changed: no request was made.",
		NextStep:     "Call " + tool + " again with that put right.",
	}
}

// misfits says what is wrong with arguments. It does not repeat their values.
func misfits(args []argument, raw json.RawMessage) []string {
	given := map[string]json.RawMessage{}
	if raw = bytes.TrimSpace(raw); len(raw) > 0 {
		if err := json.Unmarshal(raw, &given); err != nil {
			return []string{"they must be a JSON object"}
		}
	}
	var wrong []string
	for _, a := range args {
		value, ok := given[a.name]
		if !ok {
			if a.required {
				wrong = append(wrong, a.name+" is missing")
			}
			continue
		}
		delete(given, a.name)
		wrong = append(wrong, a.misfit(a.name, value)...)
	}
	for _, name := range slices.Sorted(maps.Keys(given)) {
		wrong = append(wrong, fmt.Sprintf("there is no argument %.40q", name))
	}
	return wrong
}

// misfit says what is wrong with one value.
func (p property) misfit(name string, value json.RawMessage) []string {
	got := kindOf(value)
	switch {
	case !p.Type.take(got):
		return []string{fmt.Sprintf("%s must be %s, not %s", name, article(p.Type.String()), article(got))}
	case len(p.Enum) > 0:
		var s string
		if json.Unmarshal(value, &s) != nil || !slices.Contains(p.Enum, s) {
			return []string{name + " must be one of " + strings.Join(p.Enum, ", ")}
		}
	case p.AdditionalProperties != nil:
		var wrong []string
		var inner map[string]json.RawMessage
		_ = json.Unmarshal(value, &inner) // it is an object
		for _, key := range slices.Sorted(maps.Keys(inner)) {
			wrong = append(wrong, p.AdditionalProperties.misfit(fmt.Sprintf("%s[%.40q]", name, key), inner[key])...)
		}
		return wrong
	}
	return nil
}

// kindOf returns the JSON schema type of a value.
func kindOf(value json.RawMessage) string {
	switch c := bytes.TrimSpace(value); {
	case len(c) == 0 || c[0] == 'n':
		return "null"
	case c[0] == '{':
		return "object"
	case c[0] == '[':
		return "array"
	case c[0] == '"':
		return "string"
	case c[0] == 't' || c[0] == 'f':
		return "boolean"
	case bytes.ContainsAny(c, ".eE"):
		return "number"
	}
	return "integer"
}

func article(kind string) string {
	switch kind {
	case "null":
		return "null (leave it out)"
	case "integer":
		return "an integer"
	}
	if strings.HasPrefix(kind, "array") || strings.HasPrefix(kind, "object") {
		return "an " + kind
	}
	return "a " + kind
}

// usage lists the arguments of a tool in words.
func usage(args []argument) string {
	if len(args) == 0 {
		return "no arguments"
	}
	var out []string
	for _, a := range args {
		kind := a.Type.String()
		if !a.required {
			kind += ", optional"
		}
		out = append(out, a.name+" ("+kind+")")
	}
	return strings.Join(out, ", ")
}
