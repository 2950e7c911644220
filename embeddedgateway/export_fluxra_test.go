package embeddedgateway

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/enlist-mcp/enlist/embeddedgateway/store"
	"github.com/enlist-mcp/enlist/gateway/wire"
)

// Letter is a mail to one person.
type Letter = letter

// Letters opens the letters that wait, the oldest first.
func Letters(t testing.TB, g *Gateway) []Letter {
	t.Helper()
	sealed, err := g.store.Sealed(context.Background(), letterKind, 1000)
	if err != nil {
		t.Fatalf("read the letters: %v", err)
	}
	var list []Letter
	for _, s := range sealed {
		text, err := g.signer.vault.open(s.Kind, s.Name, s.Data)
		if err != nil {
			t.Fatalf("open a letter: %v", err)
		}
		var l Letter
		if err := json.Unmarshal(text, &l); err != nil {
			t.Fatalf("read a letter: %v", err)
		}
		list = append(list, l)
	}
	return list
}

// Suspend suspends an agent.
func Suspend(t testing.TB, g *Gateway, protocol, name string) {
	t.Helper()
	change(t, g, protocol, name, func(tx *store.Tx, id int64) error {
		_, err := tx.Suspend(id)
		return err
	})
}

// DeleteAgent deletes an agent.
func DeleteAgent(t testing.TB, g *Gateway, protocol, name string) {
	t.Helper()
	change(t, g, protocol, name, (*store.Tx).DeleteAgent)
}

func change(t testing.TB, g *Gateway, protocol, name string, do func(*store.Tx, int64) error) {
	t.Helper()
	err := g.store.Tx(context.Background(), func(tx *store.Tx) error {
		agent, err := tx.Agent(protocol, name)
		if err != nil {
			return err
		}
		return do(tx, agent.ID)
	})
	if err != nil {
		t.Fatalf("change the agent: %v", err)
	}
}

// PrefersHTML reports whether a client would rather have a page than JSON.
func PrefersHTML(accept ...string) bool { return prefersHTML(accept) }

// FluxraAddress returns the form of an email address in which it is compared.
func FluxraAddress(given string) (string, bool) { return fluxraAddress(given) }

// Deliver has the gateway believe that a mail server is configured.
func Deliver(t testing.TB, g *Gateway) {
	t.Helper()
	h, _ := g.handler.(*router).mux.Handler(httptest.NewRequest(http.MethodPost, wire.FluxraRegisterPath, nil))
	h.(*endpoint).protocol.(*fluxra).mail.smtp = true
}
