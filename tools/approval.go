package tools

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"

	"github.com/mark3labs/mcp-go/mcp"

	"github.com/enlist-mcp/enlist/gateway"
)

// fingerprint tells apart the calls of tools by their arguments, however a client
// writes them down when it makes a call again.
func fingerprint(tool string, arguments map[string]json.RawMessage) string {
	plain := map[string]any{}
	for name, raw := range arguments {
		var value any
		dec := json.NewDecoder(bytes.NewReader(raw))
		dec.UseNumber()
		_ = dec.Decode(&value) // it was read before
		plain[name] = value
	}
	text, _ := json.Marshal([]any{tool, plain})
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// policed returns the result for what the policy refuses, or a person must agree
// to, or must say first; nil for any other error.
func policed(s spec, err error) *mcp.CallToolResult {
	var policy *gateway.PolicyError
	if errors.As(err, &policy) {
		return failed(Failure{
			Code: CodePolicy, WhatHappened: policy.Why + " Nothing was done.", WhatIsStored: s.kept,
			NextStep: "Tell the person. " + policy.Remedy,
		})
	}
	var m *missing
	if errors.As(err, &m) {
		return failed(*s.missing(m.form))
	}
	var ask *gateway.ApprovalError
	if !errors.As(err, &ask) {
		return nil
	}
	f := Failure{Code: ask.Code, WhatIsStored: s.kept}
	switch ask.Code {
	case gateway.ApprovalDeclined:
		f.WhatHappened = "The person was asked and did not agree. Nothing was done."
		f.NextStep = "Tell the person that nothing was done. Do not call " + s.name + " for this again, unless they tell you to."
	case gateway.ApprovalUnanswered:
		f.WhatHappened = "The person was asked and did not answer, or too late. Nothing was done."
		f.NextStep = "Ask the person whether they are there and agree, then " + s.again() + ": they are asked again."
	default:
		f.WhatHappened = "A person must agree to this first, and your client cannot ask them. Nothing was done."
		f.NextStep = "Ask the person to allow it, then " + s.again() + ". " + ask.Remedy
	}
	return failed(f)
}

// missing is the failure of a call that lacks what nobody can be asked for.
func (s spec) missing(f form) *Failure {
	return &Failure{
		Code:         CodeMissingArgument,
		WhatHappened: f.names() + " is missing, which only the person can say. " + f.before(),
		WhatIsStored: s.kept,
		NextStep:     "Ask the person for " + f.names() + " (" + f.wanted() + "), then " + s.again() + " with " + f.names() + ".",
	}
}

// declined is the failure of a call whose form the person did not want to fill in.
func (s spec) declined(f form) *Failure {
	return &Failure{
		Code:         CodeInputDeclined,
		WhatHappened: "The person was asked for " + f.names() + " and declined. " + f.before(),
		WhatIsStored: s.kept,
		NextStep:     "Tell the person that nothing was done. Do not call " + s.name + " for this again, unless they tell you to.",
	}
}

// unanswered is the failure of a call whose form nobody filled in.
func (s spec) unanswered(f form) *Failure {
	return &Failure{
		Code:         CodeInputUnanswered,
		WhatHappened: "The person was asked and did not answer, or too late. " + f.before(),
		WhatIsStored: s.kept,
		NextStep:     "Tell the person what you want to do. " + f.again(s, "When they are there,"),
	}
}

// refused is the failure of a call whose form came back with what it cannot hold.
func (s spec) refused(f form, why string) *Failure {
	return &Failure{
		Code:         CodeInvalidAnswer,
		WhatHappened: "What came back from the person cannot be used: " + why + ". " + f.before(),
		WhatIsStored: s.kept,
		NextStep:     "Tell the person what was wrong. " + f.again(s, "Then"),
	}
}

// before says what was done before a form was put to the person.
func (f form) before() string { return cmp.Or(f.done, "Nothing was done.") }

// again says how to go on after a form that came to nothing.
func (f form) again(s spec, when string) string {
	if f.later != "" {
		return f.later
	}
	return when + " call " + s.name + " again: they are asked again."
}
