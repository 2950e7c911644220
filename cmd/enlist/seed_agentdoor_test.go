package main

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"slices"
	"strings"
	"testing"

	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest"
)

// TestTheCommandsOfAgentDoorsPage: with the key and the signature that the page
// prints, which have the wrong sizes, they are refused; with real ones they work.
func TestTheCommandsOfAgentDoorsPage(t *testing.T) {
	const host = "https://api.example.com"
	p := seedOf(t, "agentdoor")
	gw := gatewaytest.New(t, gatewaytest.Env(map[string]string{
		"AGENTDOOR_SCOPES":    `[{"id":"weather.read","description":"Read the weather"},{"id":"forecast.read","description":"Read the forecast"}]`,
		"AGENTDOOR_TEST_KEYS": "false",
	}))
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	printedKey, printedID := "cXVpY2sgYnJvd24gZm94IGp1bXBzIG92ZXIgdGhlIGxhenk=", textAt(t, []byte(p["register.json"]), "agent_id")
	const printedSignature = "dGhlIHF1aWNrIGJyb3duIGZveCBqdW1wcyBvdmVyIHRoZSBsYXp5IGRvZw=="

	status, body := curl(t, p["register.sh"], nil, host, gw.URL)
	wantStatus(t, status, 400, body)
	if got := textAt(t, body, "error"); got != "invalid_request" {
		t.Errorf("the printed key: got %s", got)
	}
	status, body = curl(t, p["register.sh"], nil, host, gw.URL, printedKey, base64.StdEncoding.EncodeToString(public))
	wantStatus(t, status, 201, body)
	sameFields(t, body, p["register.json"])
	id := textAt(t, body, "agent_id")
	signature := base64.StdEncoding.EncodeToString(ed25519.Sign(private, []byte(textAt(t, body, "challenge", "message"))))

	for name, replace := range map[string][]string{
		"as it is printed":         {host, gw.URL},
		"with the agent_id of now": {host, gw.URL, printedID, id},
	} {
		status, body = curl(t, p["verify.sh"], nil, replace...)
		wantStatus(t, status, 400, body)
		if got := textAt(t, body, "error"); got != "invalid_request" {
			t.Errorf("the printed signature %s: got %s", name, got)
		}
	}
	status, body = curl(t, p["verify.sh"], nil, host, gw.URL, printedID, id, printedSignature, signature)
	wantStatus(t, status, 200, body)
	// How an agent pays is there only where it must bring a wallet of its own,
	// which the page's command does not.
	want := slices.DeleteFunc(fieldsOf(t, []byte(p["verify.json"])), func(f string) bool { return strings.HasPrefix(f, "/x402/") })
	if got := fieldsOf(t, body); !slices.Equal(got, want) {
		t.Errorf("the answer has %v, the page shows %v", got, want)
	}
}
