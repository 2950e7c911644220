package tools_test

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/tools"
)

// The grammar of next_step, as far as a mechanical reader understands it. A
// reader knows the names of the tools and of their arguments, and nothing else.
//
//	step     = sentence { " " sentence }
//	sentence = ["If it fails again, "] order { ", then " order } words
//	         | words                                 a statement: nothing to do
//	order    = "Call" TOOL ["again"] ["without" ARGUMENT] ["with" given { ("," | "and") given }]
//	         | "Wait" ("a minute" | "an hour" | DURATION)
//	         | "Ask the person to" DEED
//	         | "Ask the person whether" QUESTION     they see to it, or agree
//	         | "Ask the person for" ARGUMENT words   they say what it is
//	         | "Tell the person" words
//	         | "Do what next_step says of" PROTOCOL
//	given    = "the same arguments" | "the same" ARGUMENT | "another" ARGUMENT
//	         | ARGUMENT VALUE | ARGUMENT             what the person said it is
//	         | ARGUMENT "alone"                      and no other argument
//	         | words "put right"                     for those who understand
//
// A sentence with any other condition is for those who understand it, and is
// left out. So what a reader does is what stands there first.

// order is one thing to do.
type order struct {
	verb  string // call, wait, ask, tell, follow
	tool  string
	again bool
	given []given
	pause time.Duration
	text  string // what to ask, tell or follow
	want  string // the argument that the person is asked for
}

// given is one argument of a call as a step names it.
type given struct{ how, name, value string }

// step is what a next_step says: what to do, and what if that fails again.
type step struct{ orders, fallback []order }

// vocabulary is what a reader knows of the tools: their arguments, by name.
type vocabulary map[string][]string

var (
	sentenceEnd = regexp.MustCompile(`\. |\.$`)
	thenWord    = regexp.MustCompile(`(?:, |; | )(?:and )?then `)
	argument    = regexp.MustCompile(`^[a-z][a-z0-9_]*$`)
	argsEnd     = regexp.MustCompile(`[:;](?: |$)|, (?:or|which|if|once|within|as|unless)\b| (?:or|if|once|unless) |\.$`)
	argsBetween = regexp.MustCompile(`, and |, | and `)
)

// allWords returns the vocabulary of the whole list of tools.
func allWords(t *testing.T) vocabulary {
	t.Helper()
	v := vocabulary{}
	for _, tool := range tools.All(tools.Deps{}) {
		v[tool.Tool.Name] = slices.Sorted(maps.Keys(schemaOfTool(t, tool.Tool).Properties))
	}
	return v
}

// Every next step of a protocol names tools and arguments that there are, or what
// a person can do.
func TestEveryNextStepCanBeFollowed(t *testing.T) {
	v := allWords(t)
	for of, text := range tools.Steps() {
		if _, err := v.read(text); err != nil {
			t.Errorf("%s: %v", of, err)
		}
	}
}

// What is vague is not followed: a reader that made sense of it would show
// nothing.
func TestVagueWordsAreNotFollowed(t *testing.T) {
	v := allWords(t)
	for _, text := range []string{
		"", "Try again later.", "Use it.", "Call the other tool.", "Call lona_register.", "Register first.",
		"Call lona_register_agent with another agent_name_of_yours.", "Call send_request with one of these.",
		"Call lona_register_agent with email.", "Wait a while, then call list_credentials.",
		"Ask the person.", "Ask the person for advice.", "If that fails, call list_credentials.",
		"Make the same call again.", "Do it, then call list_credentials.",
	} {
		if got, err := v.read(text); err == nil {
			t.Errorf("%q: got %+v, want that it is vague", text, got)
		}
	}
}

// read returns what a next_step says. An error says which words are vague.
func (v vocabulary) read(text string) (step, error) {
	var s step
	for _, sentence := range sentenceEnd.Split(text, -1) {
		into := &s.orders
		if rest, ok := strings.CutPrefix(sentence, "If it fails again, "); ok {
			sentence, into = rest, &s.fallback
		}
		orders, err := v.sentence(sentence)
		if err != nil {
			return s, err
		}
		*into = append(*into, orders...)
	}
	if len(s.orders) == 0 {
		return s, fmt.Errorf("there is nothing to do in %q", text)
	}
	return s, nil
}

// sentence returns the orders of a sentence; none for a statement.
func (v vocabulary) sentence(text string) ([]order, error) {
	var orders []order
	text = strings.TrimPrefix(text, "Then ")
	for _, clause := range thenWord.Split(text, -1) {
		o, ok, err := v.clause(clause)
		if err != nil {
			return nil, err
		}
		if !ok {
			break
		}
		orders = append(orders, o)
	}
	return orders, nil
}

func (v vocabulary) clause(text string) (order, bool, error) {
	text = strings.TrimSpace(text)
	if text == "" {
		return order{}, false, nil
	}
	text = strings.ToUpper(text[:1]) + text[1:]
	switch {
	case strings.HasPrefix(text, "Call "):
		o, err := v.call(strings.TrimPrefix(text, "Call "))
		return o, true, err
	case strings.HasPrefix(text, "Wait "):
		pause, err := pauseOf(strings.TrimPrefix(text, "Wait "))
		return order{verb: "wait", pause: pause}, true, err
	case strings.HasPrefix(text, "Ask the person for "):
		want, rest, _ := strings.Cut(strings.TrimPrefix(text, "Ask the person for "), " ")
		want = strings.TrimRight(want, ",:")
		if !slices.ContainsFunc(v.all(), func(name string) bool { return name == want }) {
			return order{}, false, fmt.Errorf("the person is asked for %q, which is no argument, in %q", want, text)
		}
		return order{verb: "ask", want: want, text: rest}, true, nil
	case strings.HasPrefix(text, "Ask the person to "), strings.HasPrefix(text, "Ask the person whether "):
		return order{verb: "ask", text: strings.TrimPrefix(text, "Ask the person ")}, true, nil
	case strings.HasPrefix(text, "Ask the person"):
		return order{}, false, fmt.Errorf("nobody can do what %q says", text)
	case strings.HasPrefix(text, "Tell the person"):
		return order{verb: "tell", text: strings.TrimPrefix(text, "Tell the person")}, true, nil
	case strings.HasPrefix(text, "Do what next_step says of "):
		of, _, _ := strings.Cut(strings.TrimPrefix(text, "Do what next_step says of "), ",")
		return order{verb: "follow", text: of}, true, nil
	}
	return order{}, false, nil
}

// all lists every argument of every tool.
func (v vocabulary) all() []string {
	var names []string
	for _, args := range v {
		names = append(names, args...)
	}
	return names
}

func (v vocabulary) call(text string) (order, error) {
	whole := text
	end := strings.IndexAny(text, " ,:;")
	if end < 0 {
		end = len(text)
	}
	o := order{verb: "call", tool: text[:end]}
	known, ok := v[o.tool]
	if !ok {
		return o, fmt.Errorf("there is no tool %q, in %q", o.tool, whole)
	}
	text = text[end:]
	if rest, ok := strings.CutPrefix(text, " again"); ok {
		o.again, text = true, rest
	}
	if cut := argsEnd.FindStringIndex(text); cut != nil {
		text = text[:cut[0]]
	}
	if name, ok := strings.CutPrefix(text, " without "); ok {
		if !slices.Contains(known, name) {
			return o, fmt.Errorf("the tool has no argument %q, in %q", name, whole)
		}
		o.given = append(o.given, given{how: "without", name: name})
		return o, nil
	}
	if strings.HasSuffix(text, " put right") {
		o.given = append(o.given, given{how: "right"})
		return o, nil
	}
	text, ok = strings.CutPrefix(text, " with ")
	if !ok {
		return o, nil
	}
	for _, item := range argsBetween.Split(text, -1) {
		g, err := oneGiven(item, known)
		if err != nil {
			return o, fmt.Errorf("%w, in %q", err, whole)
		}
		o.given = append(o.given, g)
	}
	return o, nil
}

func oneGiven(item string, known []string) (given, error) {
	words := strings.Fields(item)
	switch {
	case item == "the same arguments":
		return given{how: "all"}, nil
	case len(words) == 3 && words[0] == "the" && words[1] == "same":
		words = []string{"same", words[2]}
	case len(words) == 2 && words[0] == "another":
	case len(words) == 2 && words[1] == "alone":
		words = []string{"alone", words[0]}
	case len(words) == 2 && argument.MatchString(words[0]):
		words = []string{"value", words[0], words[1]}
	case len(words) == 1:
		words = []string{"person", words[0]}
	default:
		return given{}, fmt.Errorf("%q is no argument", item)
	}
	g := given{how: words[0], name: words[1]}
	if len(words) == 3 {
		g.value = words[2]
	}
	if !slices.Contains(known, g.name) {
		return given{}, fmt.Errorf("the tool has no argument %q", g.name)
	}
	return g, nil
}

// pauseOf reads how long to wait.
func pauseOf(text string) (time.Duration, error) {
	text, _, _ = strings.Cut(text, ",")
	switch text {
	case "a minute":
		return time.Minute, nil
	case "an hour":
		return time.Hour, nil
	}
	pause, err := time.ParseDuration(text)
	if err != nil {
		return 0, fmt.Errorf("nobody knows how long %q is", text)
	}
	return pause, nil
}
