package tools_test

import (
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/tools"
)

// A credential that is not usable has a way out that names the tool and whom to
// register, at the service that it is of.
func TestTheListSaysTheWayOut(t *testing.T) {
	const origin = "http://127.0.0.1:1"
	for name, tt := range map[string]struct {
		key   credstore.Key
		state credstore.State
		want  string
	}{
		"ended at Lona":            {credstore.Key{Protocol: "lona", Origin: origin, Agent: "scout", Kind: credstore.KindToken}, credstore.StateRevoked, "Call lona_register_agent with agent_id scout."},
		"ended at another Lona":    {credstore.Key{Protocol: "lona", Origin: "https://lona.example", Agent: "scout", Kind: credstore.KindToken}, credstore.StateRevoked, "Ask the person to set LONA_GATEWAY_URL=https://lona.example in Enlist's environment and to restart Enlist. Then call lona_register_agent with agent_id scout."},
		"ended at Lithtrix":        {credstore.Key{Protocol: "lithtrix", Origin: "https://lithtrix.ai", Agent: "scout", Kind: credstore.KindToken}, credstore.StateRevoked, "Call lithtrix_register_agent with another agent_name."},
		"ended at some AgentDoor":  {credstore.Key{Protocol: "agentdoor", Origin: "https://door.example", Agent: "scout", Kind: credstore.KindKeyPair}, credstore.StateRevoked, "Call agentdoor_register_agent with agent_name scout and service_url https://door.example."},
		"ended, with a label":      {credstore.Key{Protocol: "fluxra", Origin: "https://chat.tryfluxra.com", Agent: "scout", Label: "two", Kind: credstore.KindAPIKey}, credstore.StateRevoked, "Call fluxra_register_agent with agent_name scout and label two."},
		"pending":                  {credstore.Key{Protocol: "lona", Origin: origin, Agent: "scout", Kind: credstore.KindToken}, credstore.StatePending, "Call lona_register_agent with agent_id scout."},
		"of a protocol of a later": {credstore.Key{Protocol: "nova", Origin: origin, Agent: "scout", Kind: credstore.KindToken}, credstore.StateRevoked, "Ask the person to update Enlist: this version does not know what nova/scout@127.0.0.1:1 is for."},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, origin, options{})
			err := r.store.Put(t.Context(), credstore.Credential{
				Secret: credstore.NewSecret("a-key-of-the-agents-0123456789"),
				Info:   credstore.Info{Key: tt.key, State: tt.state, CreatedAt: r.clock.Now().Add(-time.Hour)},
			})
			if err != nil {
				t.Fatal(err)
			}
			if got := call[tools.CredentialList](r, "list_credentials", args{}).NextStep; got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}
