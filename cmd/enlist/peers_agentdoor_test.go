package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest"
	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest/leakscan"
)

// TestAnAgentOfOthersRegistersHere: the protocol's own library makes the keys and
// the signatures.
func TestAnAgentOfOthersRegistersHere(t *testing.T) {
	gw := gatewaytest.New(t, gatewaytest.Env(map[string]string{
		"AGENTDOOR_SCOPES": `[{"id":"weather.read","description":"Read the weather"},{"id":"forecast.read","description":"Read the forecast"}]`,
	}))
	registersAtAgentDoor(t, gw.URL, "/whoami")
}

// TestRegisteringAtAServiceOfOthers registers at the protocol's own server with
// the program itself, and uses what it is issued.
func TestRegisteringAtAServiceOfOthers(t *testing.T) {
	url := peerServer(t, bundled+"agentdoor-server.cjs")
	home := t.TempDir()
	enlist := func(args ...string) []byte {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "enlist", args...)
		cmd.Env = append(os.Environ(), "ENLIST_STORE=file", "ENLIST_HOME="+filepath.Join(home, "enlist"),
			"HOME="+home, "XDG_CONFIG_HOME=", "AppData="+home, leakscan.Variable+"="+os.Getenv(leakscan.Variable))
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("enlist %v: %v\n%s", args, err, out)
		}
		return out
	}
	registration, err := json.Marshal(map[string]any{
		"service_url": url, "agent_name": "scout", "metadata": map[string]any{"framework": "enlist"},
	})
	if err != nil {
		t.Fatal(err)
	}

	var got struct {
		Handle  string
		Granted []string `json:"scopes_granted"`
		Reused  bool
	}
	if err := json.Unmarshal(enlist("call", "agentdoor_register_agent", string(registration)), &got); err != nil {
		t.Fatal(err)
	}
	slices.Sort(got.Granted)
	if free := []string{"forecast.read", "weather.read"}; got.Reused || !slices.Equal(got.Granted, free) {
		t.Errorf("got %+v, want the scopes that cost nothing: %v", got, free)
	}
	var who struct {
		AgentID string `json:"agent_id"`
		Scopes  []string
	}
	if err := json.Unmarshal(enlist("request", got.Handle, "GET", "/whoami"), &who); err != nil {
		t.Fatal(err)
	}
	if who.AgentID == "" || len(who.Scopes) != 2 {
		t.Errorf("the service takes it for %+v", who)
	}
	// Each of the two that a program gets is good there.
	for _, with := range []string{"agentdoor token", "agentdoor key"} {
		if out := enlist("exec", got.Handle, "--", "program", "use", with); string(out) != "200\n" {
			t.Errorf("%s: got %s", with, out)
		}
	}
	if err := json.Unmarshal(enlist("call", "agentdoor_register_agent", string(registration)), &got); err != nil || !got.Reused {
		t.Errorf("again: got %+v (%v), want what is stored", got, err)
	}
}
