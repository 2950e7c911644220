package embeddedgateway

import (
	"context"
	"testing"
)

// Letters opens the letters that wait, the oldest first.
func Letters(t testing.TB, g *Gateway) []Letter {
	t.Helper()
	sealed, err := g.store.Sealed(context.Background(), letterKind, 1000)
	if err != nil {
		t.Fatalf("read the letters: %v", err)
	}
	var list []Letter
	for _, s := range sealed {
		l, err := g.mail.unfold(s)
		if err != nil {
			t.Fatalf("open a letter: %v", err)
		}
		list = append(list, l)
	}
	return list
}

// PrefersHTML reports whether a client would rather have a page than JSON.
func PrefersHTML(accept ...string) bool { return prefersHTML(accept) }

// FluxraAddress returns the form of an email address in which it is compared.
func FluxraAddress(given string) (string, bool) { return fluxraAddress(given) }
