package tools

import (
	"encoding/json"
	"fmt"
	"net/mail"
	"net/url"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/enlist-mcp/enlist/gateway/wire"
)

// form is a question to the person for arguments that only they can say. What it
// says is ours, but for what a choice quotes and marks as the service's.
type form struct {
	message string
	fields  []field
	// done is what was done before it was asked, as a sentence; "": nothing. later
	// is how to go on if it comes to nothing, where that is not to be asked again.
	done, later string
}

// field is one argument that a form asks for.
type field struct {
	name  string // of the argument
	title string
	// wanted says what it is, as a part of a sentence: "who owns the agent".
	wanted string
	kind   fieldKind
	// choices are what a choice is made of, at least one.
	choices []option
}

// option is one of several that a person can choose.
type option struct{ value, title string }

// fieldKind is what can be answered.
type fieldKind int

const (
	aText   fieldKind = iota // on one line
	anEmail                  // an email address
	aLink                    // the address of a service
	aYes                     // the person agrees; no is to decline
	aChoice                  // the value of an option
	aNumber                  // a choice whose values are whole numbers
)

// maxFieldText is how long an answer may be, in characters: a link in a mail is
// the longest that is asked for.
const maxFieldText = 2048

// maxChoices is how many options a form may have: more are no choice any more.
const maxChoices = 50

// schema returns the form as the protocol has it: a flat object.
func (f form) schema() json.RawMessage {
	type property struct {
		Type        string   `json:"type"`
		Title       string   `json:"title"`
		Description string   `json:"description,omitzero"`
		Format      string   `json:"format,omitzero"`
		MinLength   int      `json:"minLength,omitzero"`
		MaxLength   int      `json:"maxLength,omitzero"`
		Enum        []string `json:"enum,omitzero"`
		// EnumNames is what every revision with forms takes, the newest too.
		EnumNames []string `json:"enumNames,omitzero"`
	}
	properties, required := map[string]property{}, []string{}
	for _, a := range f.fields {
		p := property{Type: "string", Title: a.title, Description: a.wanted}
		switch a.kind {
		case aText:
			p.MinLength, p.MaxLength = 1, maxFieldText
		case anEmail:
			p.Format, p.MaxLength = "email", maxFieldText
		case aLink:
			p.Format, p.MaxLength = "uri", maxFieldText
		case aYes:
			p.Type = "boolean"
		case aChoice, aNumber:
			for _, o := range a.choices {
				p.Enum, p.EnumNames = append(p.Enum, o.value), append(p.EnumNames, o.title)
			}
		}
		properties[a.name], required = p, append(required, a.name)
	}
	// Texts of ours, and of a service that were cleaned: it cannot fail.
	raw, _ := json.Marshal(map[string]any{"type": "object", "properties": properties, "required": required})
	return raw
}

// refusal is why an answer cannot be used; declined: it is a no.
type refusal struct {
	why      string
	declined bool
}

// read returns what a client says that the person filled in, by argument. It is
// whatever a client likes to send, so all of it is looked at, and none of it is
// repeated.
func (f form) read(content any) (map[string]json.RawMessage, *refusal) {
	var given map[string]any
	raw, err := json.Marshal(content)
	if err != nil || json.Unmarshal(raw, &given) != nil || given == nil {
		return nil, &refusal{why: "it is not an object"}
	}
	said := make(map[string]json.RawMessage)
	for _, a := range f.fields {
		value, ok := given[a.name]
		if !ok || value == nil {
			return nil, &refusal{why: a.name + " is missing"}
		}
		raw, bad := a.read(value)
		if bad != nil {
			return nil, bad
		}
		said[a.name] = raw
	}
	return said, nil
}

// read returns one value as it stands among the arguments.
func (a field) read(value any) (json.RawMessage, *refusal) {
	if a.kind == aYes {
		yes, ok := value.(bool)
		switch {
		case !ok:
			return nil, &refusal{why: a.name + " must be true or false"}
		case !yes:
			return nil, &refusal{declined: true}
		}
		return json.RawMessage("true"), nil
	}
	text, ok := value.(string)
	if !ok {
		return nil, &refusal{why: a.name + " must be a string"}
	}
	text = strings.TrimSpace(text)
	switch {
	case text == "":
		return nil, &refusal{why: a.name + " is empty"}
	case utf8.RuneCountInString(text) > maxFieldText:
		return nil, &refusal{why: fmt.Sprintf("%s is longer than %d characters", a.name, maxFieldText)}
	case !utf8.ValidString(text) || strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }):
		return nil, &refusal{why: a.name + " has characters that cannot be printed"}
	}
	switch a.kind {
	case anEmail:
		at, err := mail.ParseAddress(text)
		if err != nil || at.Address != text || !wire.CheckFluxraEmail(text) {
			return nil, &refusal{why: a.name + " must be an email address"}
		}
	case aLink:
		if u, err := url.Parse(text); err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
			return nil, &refusal{why: a.name + " must be an address, as in https://api.example.com"}
		}
	case aChoice, aNumber:
		if !slices.ContainsFunc(a.choices, func(o option) bool { return o.value == text }) {
			return nil, &refusal{why: a.name + " must be one of those that there are to choose from"}
		}
		if a.kind == aNumber {
			return json.RawMessage(text), nil // an option of ours
		}
	case aText, aYes:
	}
	raw, _ := json.Marshal(text) // a valid string
	return raw, nil
}

// names lists the arguments that a form asks for.
func (f form) names() string {
	var names []string
	for _, a := range f.fields {
		names = append(names, a.name)
	}
	return strings.Join(names, " and ")
}

// wanted lists what a form asks for, in words.
func (f form) wanted() string {
	var all []string
	for _, a := range f.fields {
		all = append(all, a.wanted)
	}
	return strings.Join(all, ", and ")
}

// missing is the error of a handler that lacks what only the person can say.
type missing struct {
	form
	// instead is what there is to say where nobody can be asked; nil: what is
	// missing.
	instead error
}

// Error implements error.
func (m *missing) Error() string { return m.names() + " is missing" }

// Unwrap returns the error that there would be without the question.
func (m *missing) Unwrap() error { return m.instead }
