package tools_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/mark3labs/mcp-go/mcp"
)

// mostCalls is how many calls a reader makes before it gives up.
const mostCalls = 12

// wish is what a person wants: the answer of a path of a service.
type wish struct{ url, path string }

// reader is a client that is as simple as can be: it knows the list of the tools
// and does what next_step says, to the letter. It understands nothing: not the
// protocols, not the codes of errors, not the words around what it is to do.
type reader struct {
	t     *testing.T
	stage *stage
	tools map[string]mcp.Tool
	words vocabulary

	wish   wish
	last   map[string]map[string]any // the arguments of the last call of each tool
	known  map[string]any            // what each argument was last
	person map[string]any            // what the person said an argument is
	failed map[string]bool           // the calls that failed since anything else was done
	chosen int
}

func newReader(t *testing.T, s *stage, w wish) *reader {
	r := &reader{
		t: t, stage: s, wish: w, tools: map[string]mcp.Tool{}, words: vocabulary{},
		last: map[string]map[string]any{}, known: map[string]any{}, person: map[string]any{}, failed: map[string]bool{},
	}
	for _, tool := range s.listTools() {
		r.tools[tool.Name] = tool
		r.words[tool.Name] = slices.Sorted(maps.Keys(propertiesOf(t, tool)))
	}
	return r
}

// schema is what a reader sees of the arguments of a tool.
type schema struct {
	Properties map[string]struct {
		Type        any
		Enum        []string
		Description string
	}
	Required []string
}

func schemaOfTool(t *testing.T, tool mcp.Tool) (s schema) {
	t.Helper()
	text, err := json.Marshal(tool)
	if err != nil {
		t.Fatal(err)
	}
	var wire struct{ InputSchema json.RawMessage }
	if err := json.Unmarshal(text, &wire); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(wire.InputSchema, &s); err != nil {
		t.Fatal(err)
	}
	return s
}

func propertiesOf(t *testing.T, tool mcp.Tool) map[string]bool {
	names := map[string]bool{}
	for name := range schemaOfTool(t, tool).Properties {
		names[name] = true
	}
	return names
}

// begin returns what to do first: what the person says, or the tool that the
// descriptions say to call first.
func (r *reader) begin(asked string) []order {
	if asked != "" {
		r.stage.sayf("The person: %s", asked)
		s, err := r.words.read(asked)
		if err != nil {
			r.t.Fatal(err)
		}
		return s.orders
	}
	r.stage.sayf("The person: I would like to see GET %s of %s.", r.wish.path, r.wish.url)
	for name, tool := range r.tools {
		if strings.Contains(tool.Description, "Call it first") {
			return []order{{verb: "call", tool: name}}
		}
	}
	r.t.Fatal("no tool says that it is to be called first")
	return nil
}

// run does what it is told until a request with a credential was answered, and
// returns after how many calls.
// What a person asks for in the words of a next_step is done first; "": they
// want their path.
func (r *reader) run(asked string) int {
	todo := r.begin(asked)
	for calls := 0; calls < mostCalls; {
		if len(todo) == 0 {
			r.give("nothing is left to do")
		}
		o := todo[0]
		todo = todo[1:]
		switch o.verb {
		case "wait":
			r.stage.sayf("(waits %s)", o.pause)
			r.stage.pass(o.pause)
			continue
		case "ask":
			clear(r.failed)
			r.ask(o)
			continue
		case "tell":
			if other := r.tell(); other != nil {
				todo = other
			}
			continue
		case "follow":
			todo = append(r.nested(o.text), todo...)
			continue
		}
		calls++
		tool, in := o.tool, r.arguments(o)
		key := fmt.Sprint(tool, in)
		res := r.stage.call(tool, in)
		if r.stage.reached(res) {
			r.stage.sayf("The service answered a request with a credential: %d calls.", calls)
			return calls
		}
		switch next := res.next(); {
		case res.IsError: // what was to come after this call comes after all
			todo = append(r.follow(res, next, r.failed[key]), todo...)
			r.failed[key] = true
		case next != "":
			todo = r.follow(res, next, false)
		}
	}
	r.give(fmt.Sprintf("%d calls were not enough", mostCalls))
	return 0
}

// follow returns the orders of a next_step. again says that the very call has
// failed before, and nothing was done about it since.
func (r *reader) follow(res result, next string, again bool) []order {
	r.stage.seen = res
	s, err := r.words.read(next)
	switch {
	case err != nil:
		r.give(err.Error())
	case again && len(s.fallback) > 0:
		return s.fallback
	}
	return s.orders
}

// tell tells the person how things stand. A person who wanted what cannot be had
// may want something else then.
func (r *reader) tell() []order {
	r.stage.sayf("To the person: %s", r.stage.seen.summary())
	if r.stage.otherwise == "" {
		return nil
	}
	r.wish.path, r.stage.otherwise = r.stage.otherwise, ""
	r.stage.sayf("The person: Then GET %s.", r.wish.path)
	return []order{{verb: "call", tool: "send_request"}}
}

// nested returns the orders of what was found of a protocol.
func (r *reader) nested(protocol string) []order {
	for _, found := range r.stage.seen.found() {
		if found.Protocol != protocol {
			continue
		}
		s, err := r.words.read(found.NextStep)
		if err != nil {
			r.give(err.Error())
		}
		return s.orders
	}
	r.give("nothing is said of " + protocol)
	return nil
}

func (r *reader) ask(o order) {
	if o.want == "" {
		r.stage.sayf("To the person: Please %s. (%s)", strings.Replace(strings.TrimPrefix(o.text, "to "), "whether", "say whether", 1), r.stage.seen.summary())
		if !r.stage.person.does(o.text) {
			r.give(fmt.Sprintf("the person does not know how to %q", o.text))
		}
		return
	}
	r.stage.sayf("To the person: What is %s? %s (%s)", o.want, o.text, r.stage.seen.summary())
	said, ok := r.stage.person.says(o.want, r.stage.seen)
	if !ok {
		r.give("the person has no answer for " + o.want)
	}
	r.stage.sayf("The person: %s", r.stage.person.aloud(o.want, said))
	r.person[o.want] = said
}

// arguments returns the arguments of a call: what the step says, else what is
// required: what the person wants, what it was the last time, or a new choice.
func (r *reader) arguments(o order) map[string]any {
	in := map[string]any{}
	if o.again || slices.ContainsFunc(o.given, func(g given) bool { return g.how == "all" }) {
		maps.Copy(in, r.last[o.tool])
	}
	for _, g := range o.given {
		switch g.how {
		case "same":
			in[g.name] = r.known[g.name]
		case "another":
			in[g.name] = r.another()
		case "without":
			delete(in, g.name)
		case "alone":
			in = map[string]any{g.name: r.personal(g.name)}
		case "right":
			r.give("somebody must understand what to put right")
		case "value":
			in[g.name] = r.typed(o.tool, g.name, g.value)
		case "person":
			in[g.name] = r.personal(g.name)
		}
	}
	for _, name := range schemaOfTool(r.t, r.tools[o.tool]).Required {
		if _, ok := in[name]; !ok {
			in[name] = r.required(name)
		}
	}
	maps.Copy(r.known, in)
	r.last[o.tool] = in
	return in
}

// required returns the value of an argument that nobody gave.
func (r *reader) required(name string) any {
	switch {
	case name == "method":
		return "GET"
	case name == "path":
		return r.wish.path
	case name == "url":
		return r.wish.url
	case r.known[name] != nil:
		return r.known[name]
	case strings.HasSuffix(name, "name") || strings.HasSuffix(name, "_id"):
		return "scout"
	}
	return r.personal(name)
}

// another returns a name that was not given before.
func (r *reader) another() string {
	r.chosen++
	return fmt.Sprintf("scout-%d", r.chosen+1)
}

// personal returns what only the person knows.
func (r *reader) personal(name string) any {
	if said, ok := r.person[name]; ok {
		return said
	}
	if name == "url" {
		return r.wish.url
	}
	said, ok := r.stage.person.says(name, r.stage.seen)
	if !ok {
		r.give("the person has no answer for " + name)
	}
	r.stage.sayf("To the person: What is %s?", name)
	r.stage.sayf("The person: %s", r.stage.person.aloud(name, said))
	r.person[name] = said
	return said
}

// typed returns a value of a step as the schema wants it.
func (r *reader) typed(tool, name, value string) any {
	if kind := fmt.Sprint(schemaOfTool(r.t, r.tools[tool]).Properties[name].Type); kind != "string" {
		var out any
		if json.Unmarshal([]byte(value), &out) == nil {
			return out
		}
	}
	return strings.Trim(value, `"`)
}

// give gives up: what was said did not lead there.
func (r *reader) give(why string) {
	r.t.Helper()
	r.t.Fatalf("the reader gave up: %s\n%s", why, r.stage.transcript())
}

// result is what a tool returned.
type result struct {
	*mcp.CallToolResult
	content map[string]any
}

func (r result) text(name string) string {
	s, _ := r.content[name].(string)
	return s
}

func (r result) next() string { return r.text("next_step") }

// summary is what a client can tell its person of an error without
// understanding it.
func (r result) summary() string {
	said := r.text("what_happened")
	if stored := r.text("what_is_stored"); stored != "" {
		said += " Stored: " + stored
	}
	if status, ok := r.content["status"]; ok && said == "" {
		said = fmt.Sprintf("the service answered %v.", status)
	}
	return strings.TrimSpace(said)
}

// foundProtocol is one of what discover_service found.
type foundProtocol struct {
	Protocol string `json:"protocol"`
	NextStep string `json:"next_step"`
}

func (r result) found() []foundProtocol {
	var out struct{ Found []foundProtocol }
	text, _ := json.Marshal(r.content)
	_ = json.Unmarshal(text, &out)
	return out.Found
}

// person is who a client asks. They can do few things, and know few.
type principal struct {
	deeds []deed
	facts map[string]func(result) any
	// secrets are facts that are not written down.
	secrets map[string]bool
}

// deed is something that a person does when words ask them to.
type deed struct {
	words string
	do    func()
}

// does does what a text asks for, if the person knows how to.
func (p *principal) does(text string) bool {
	for _, d := range p.deeds {
		if strings.Contains(text, d.words) {
			d.do()
			return true
		}
	}
	return false
}

func (p *principal) says(name string, seen result) (any, bool) {
	fact, ok := p.facts[name]
	if !ok {
		return nil, false
	}
	return fact(seen), true
}

// aloud is what a person says, as far as it may be written down.
func (p *principal) aloud(name string, said any) string {
	if p.secrets[name] {
		return "(what the mail says)"
	}
	return fmt.Sprint(said)
}

// agreeable is a person who agrees, and says who they are.
func agreeable() *principal {
	fixed := func(v any) func(result) any { return func(result) any { return v } }
	return &principal{
		deeds: []deed{{"whether to register another agent", func() {}}, {"whether this is the service", func() {}}},
		facts: map[string]func(result) any{
			"owner_identifier": fixed("ada@example.com"), "email": fixed("ada@example.com"), "agree_to_terms": fixed(true),
		},
		secrets: map[string]bool{"code": true, "token": true},
	}
}
