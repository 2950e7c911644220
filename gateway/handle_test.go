package gateway_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/embeddedgateway"
	"github.com/enlist-mcp/enlist/gateway"
)

const lonaOrigin = "https://gateway.lona.agency"

// holding returns a client with default origins whose store has credentials.
func holding(t *testing.T, infos ...credstore.Info) *fixture {
	t.Helper()
	f := newFixture(t, setup{})
	for _, i := range infos {
		f.put(t, credstore.Credential{Info: i, Secret: credstore.NewSecret(token(i.Agent, 1))})
	}
	return f
}

func info(origin, agent string) credstore.Info {
	return credstore.Info{Key: lonaKey(origin, agent), State: credstore.StateActive, CreatedAt: start}
}

func TestHandle(t *testing.T) {
	f := holding(t)
	labelled := lonaKey(lonaOrigin, "my-agent")
	labelled.Label = "bot 7/ü"
	other := lonaKey(lonaOrigin, "my-agent")
	other.Protocol = "gopher"
	for want, k := range map[string]credstore.Key{
		"lona/my-agent":                           lonaKey(lonaOrigin, "my-agent"),
		"lona/my-agent@example.com":               lonaKey("https://example.com", "my-agent"),
		"lona/my-agent@127.0.0.1:8080":            lonaKey("http://127.0.0.1:8080", "my-agent"),
		"lona/my-agent@[::1]:8080":                lonaKey("http://[::1]:8080", "my-agent"),
		"lona/0x52908400098527886E0F7030069857D2": lonaKey(lonaOrigin, "0x52908400098527886E0F7030069857D2"),
		"lona/bot-7--":                            labelled,
		"lona/" + strings.Repeat("a", 100):        lonaKey(lonaOrigin, strings.Repeat("a", 300)),
		"gopher/my-agent@gateway.lona.agency":     other,
		"lona/-":                                  lonaKey(lonaOrigin, ""),
	} {
		if got := f.Lifecycle.Handle(k); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestResolve(t *testing.T) {
	own, there := info(lonaOrigin, "my-agent"), info("https://example.com:8443", "my-agent")
	elsewhere, local := info("https://example.com", "scout"), info("http://localhost:80", "local")
	local.Origin = "http://localhost"
	f := holding(t, own, there, elsewhere, local)
	for handle, want := range map[string]credstore.Info{
		"lona/my-agent":                     own, // exactly that one's handle
		"lona/my-agent@example.com:8443":    there,
		"lona/my-agent@EXAMPLE.com:8443":    there,
		"lona/scout":                        elsewhere,
		"lona/scout@example.com":            elsewhere,
		"lona/scout@example.com:443":        elsewhere,
		"lona/local@localhost":              local,
		"lona/my-agent@gateway.lona.agency": own,
	} {
		got, err := f.Lifecycle.Resolve(t.Context(), handle)
		if err != nil || got.Key != want.Key {
			t.Errorf("%q: got %+v (%v), want %+v", handle, got.Key, err, want.Key)
		}
	}
}

func TestResolveEveryHandle(t *testing.T) {
	f := holding(t, info(lonaOrigin, "a1"), info("https://example.com", "a1"), info("http://[::1]:8080", "a1"), info("http://127.0.0.1:8080", "a1"))
	infos, err := f.Lifecycle.List(t.Context())
	if err != nil || len(infos) != 4 {
		t.Fatalf("got %v (%v), want four", infos, err)
	}
	for _, want := range infos {
		got, err := f.Lifecycle.Resolve(t.Context(), f.Lifecycle.Handle(want.Key))
		if err != nil || got.Key != want.Key {
			t.Errorf("got %+v (%v), want %+v", got.Key, err, want.Key)
		}
	}
}

func TestResolveNamesTheCandidates(t *testing.T) {
	expired := info(lonaOrigin, "old")
	expired.ExpiresAt = start.Add(-time.Minute)
	one, two := info("https://one.example", "a1"), info("https://two.example", "a1")
	both := []string{"lona/a1@one.example", "lona/a1@two.example"}
	for _, tt := range []struct {
		name, handle string
		stored       []credstore.Info
		want         []string
	}{
		{"nothing stored", "", nil, nil},
		{"nothing usable", "", []credstore.Info{expired}, []string{"lona/old"}},
		{"more than one usable", "", []credstore.Info{one, expired, two}, both},
		{"more than one match", "lona/a1", []credstore.Info{one, two}, both},
		{"no match", "lona/a2", []credstore.Info{one, two}, both},
		{"no match at that host", "lona/a1@three.example", []credstore.Info{one, two}, both},
		{"another protocol", "gopher/a1", []credstore.Info{one}, nil},
		{"no protocol", "a1", []credstore.Info{one}, nil},
		{"no agent", "lona/", []credstore.Info{one}, nil},
		{"a slash", "lona/a/1", []credstore.Info{one}, nil},
		{"another script", "lona/агент", []credstore.Info{one}, nil},
		{"no host", "lona/a1@", []credstore.Info{one}, nil},
		{"a host with a path", "lona/a1@one.example/x", []credstore.Info{one}, nil},
		{"a host with a user", "lona/a1@u@one.example", []credstore.Info{one}, nil},
		{"a newline", "lona/a1\n", []credstore.Info{one}, nil},
		{"very long", "lona/" + strings.Repeat("a", 10_000), []credstore.Info{one}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := holding(t, tt.stored...)

			_, err := f.Lifecycle.Resolve(t.Context(), tt.handle)

			var e *gateway.ResolveError
			if !errors.As(err, &e) {
				t.Fatalf("got %v, want a ResolveError", err)
			}
			if !slices.Equal(e.Candidates, tt.want) {
				t.Errorf("got the candidates %v, want %v", e.Candidates, tt.want)
			}
			for _, c := range tt.want {
				if !strings.Contains(e.Error(), c) {
					t.Errorf("got %q, want it to name %s", e, c)
				}
			}
			if len(e.Error()) > 400 || strings.ContainsAny(e.Error(), "\n") {
				t.Errorf("got %q, want a short line", e)
			}
		})
	}
}

func TestResolveTheOnlyUsable(t *testing.T) {
	expired, revoked := info(lonaOrigin, "old"), info(lonaOrigin, "dead")
	expired.ExpiresAt = start.Add(-time.Minute)
	revoked.State = credstore.StateRevoked
	want := info(lonaOrigin, "scout")
	f := holding(t, expired, revoked, want, info("https://example.com", "elsewhere"))

	got, err := f.Lifecycle.Resolve(t.Context(), "")

	if err != nil || got.Key != want.Key {
		t.Errorf("got %+v (%v), want %+v", got.Key, err, want.Key)
	}
}

func TestAnotherOriginIsNeverChosenUnnamed(t *testing.T) {
	there := info("https://example.com", "scout")
	f := holding(t, there, info(embeddedgateway.Origin, "local"))
	for _, resolve := range []func() (credstore.Info, error){
		func() (credstore.Info, error) { return f.Lifecycle.Resolve(t.Context(), "") },
		func() (credstore.Info, error) { return f.Lifecycle.ResolveOf(t.Context(), "lona", "") },
	} {
		got, err := resolve()
		var e *gateway.ResolveError
		if !errors.As(err, &e) || !slices.Equal(e.Candidates, []string{"lona/local@enlist.localhost", "lona/scout@example.com"}) {
			t.Errorf("got %+v (%v), want the others as candidates", got.Key, err)
		}
	}
	// Named, it is; but the embedded gateway only in full.
	if got, err := f.Lifecycle.Resolve(t.Context(), "lona/scout"); err != nil || got.Key != there.Key {
		t.Errorf("lona/scout: got %+v (%v)", got.Key, err)
	}
	if got, err := f.Lifecycle.Resolve(t.Context(), "lona/local"); err == nil {
		t.Errorf("lona/local: got %+v, want an error", got.Key)
	}
	if got, err := f.Lifecycle.Resolve(t.Context(), "lona/local@enlist.localhost"); err != nil || got.Origin != embeddedgateway.Origin {
		t.Errorf("lona/local@enlist.localhost: got %+v (%v)", got.Key, err)
	}
}

func TestTheCurrentOriginGoesFirst(t *testing.T) {
	own := info(lonaOrigin, "my-agent")
	f := holding(t, own, info("https://example.com", "my-agent"), info("https://other.example", "scout"))
	for _, handle := range []string{"", "lona/my-agent"} {
		got, err := f.Lifecycle.ResolveOf(t.Context(), "lona", handle)
		if err != nil || got.Key != own.Key {
			t.Errorf("%q: got %+v (%v), want %+v", handle, got.Key, err, own.Key)
		}
	}
	var e *gateway.ResolveError
	if got, err := f.Lifecycle.ResolveOf(t.Context(), "gopher", "lona/my-agent"); !errors.As(err, &e) {
		t.Errorf("of another protocol: got %+v (%v)", got.Key, err)
	}
}

// TestResolveAmongSomeProtocols: credentials of others do not exist for it.
func TestResolveAmongSomeProtocols(t *testing.T) {
	own, other := info(lonaOrigin, "my-agent"), info(lonaOrigin, "my-agent")
	other.Protocol, other.Agent, other.Origin = "lithtrix", "scout", "https://lithtrix.ai"
	f := holding(t, own, other)
	for _, tt := range []struct {
		among  []string
		handle string
		want   string // the protocol; "": none
	}{
		{nil, "", ""},
		{[]string{"lona"}, "", "lona"},
		{[]string{"lona", "agentdoor"}, "", "lona"},
		{[]string{"lona", "lithtrix"}, "", ""},
		{[]string{"fluxra"}, "", ""},
		{[]string{"lona"}, "lona/my-agent", "lona"},
		{[]string{"lona"}, "lithtrix/scout", ""},
		{nil, "lithtrix/scout", "lithtrix"},
	} {
		got, err := f.Lifecycle.ResolveAmong(t.Context(), tt.among, tt.handle)
		if got.Protocol != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("%v, %q: got %+v (%v), want %q", tt.among, tt.handle, got.Key, err, tt.want)
		}
		var e *gateway.ResolveError
		if errors.As(err, &e) && len(tt.among) == 1 && slices.Contains(e.Candidates, "lithtrix/scout") {
			t.Errorf("%v, %q: got the candidates %v, want none of another service", tt.among, tt.handle, e.Candidates)
		}
	}
}

// emptyList is a store whose list was lost.
type emptyList struct{ credstore.Store }

func (emptyList) List(context.Context, string) ([]credstore.Info, error) { return nil, nil }

func TestResolveFindsWhatTheListHasLost(t *testing.T) {
	store := &failing{Store: &emptyList{credstore.NewMemory(frozen)}}
	f := newFixture(t, setup{store: store})
	for _, i := range []credstore.Info{info(lonaOrigin, "my-agent"), info("http://127.0.0.1:8080", "local")} {
		f.put(t, credstore.Credential{Info: i, Secret: credstore.NewSecret(token(i.Agent, 1))})
	}

	for _, handle := range []string{"lona/my-agent", "lona/local@127.0.0.1:8080"} {
		got, err := f.Lifecycle.Resolve(t.Context(), handle)
		if err != nil || f.Lifecycle.Handle(got.Key) != handle {
			t.Errorf("%q: got %+v (%v)", handle, got, err)
		}
	}

	store.get = errLocked
	if _, err := f.Lifecycle.Resolve(t.Context(), "lona/my-agent"); !errors.Is(err, credstore.ErrUnavailable) {
		t.Errorf("got %v, want the store's error, not that there is none", err)
	}
}
