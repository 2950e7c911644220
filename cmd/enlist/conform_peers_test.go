package main

import (
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/gateway/conform"
)

// othersFail is what the AgentDoor service of .ci/peers, the protocol's own
// server for Express, does not do, by the end of each check's id, and why. One
// that it does after all is a failure, too: then it is to be taken out.
func othersFail() map[string]string {
	const parser = "Express' parser of JSON answers with a page of its own"
	const lenient = "Express' parser takes it"
	const unparsed = "the server breaks down (500) where there is no parsed body"
	const routed = "Express' router answers for the routes that there are not, with a page"
	return map[string]string{
		"register.short-key":     "it finds out when the challenge is verified only",
		"register.weak-key":      "it does not look at the point",
		"register.metadata":      "it takes whatever there is",
		"verify.short-signature": "it looks at the signature after it has looked for the challenge",
		"auth.short-signature":   "it has one answer for every wrong signature",
		"auth.replay":            "it remembers no signature",
		"verify.tries":           "it counts no tries",
		"register.not-json":      parser, "verify.not-json": parser, "auth.not-json": parser,
		"register.trailing": parser, "verify.trailing": parser, "auth.trailing": parser,
		"register.too-large": parser, "verify.too-large": parser, "auth.too-large": parser,
		"register.duplicate": lenient, "verify.duplicate": lenient, "auth.duplicate": lenient,
		"register.utf8": lenient, "verify.utf8": lenient, "auth.utf8": lenient,
		"register.text": unparsed, "verify.text": unparsed, "auth.text": unparsed,
		"register.untyped": unparsed, "verify.untyped": unparsed, "auth.untyped": unparsed,
		"register.methods": routed, "verify.methods": routed, "auth.methods": routed, "unknown.path": routed,
		"all.answered":     unparsed,
		"all.json":         parser,
		"all.challenge":    "its own example does not",
		"secrets.no-store": "it sends no Cache-Control",
		"register.limit":   "the limit is advertised and not kept",
	}
}

// TestTheAgentDoorOfOthersIsGraded: what it fails in is known, each with its
// reason, and it is nothing else.
func TestTheAgentDoorOfOthersIsGraded(t *testing.T) {
	t.Parallel()
	report, err := conform.Run(t.Context(), conform.Options{
		URL: peerServer(t, bundled+"agentdoor-server.cjs"), Protocol: "agentdoor", Now: time.Now, Exhaust: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	expected := othersFail()
	for _, r := range report.Results {
		_, known := expected[r.ID]
		delete(expected, r.ID)
		if failed := r.Outcome == conform.Fail; failed != known {
			t.Errorf("%s: %s (%s) %v", r.ID, r.Outcome, r.Reason, r.Evidence)
		}
	}
	for id := range expected {
		t.Errorf("there is no check %s", id)
	}
}
