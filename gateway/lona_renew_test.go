package gateway_test

import (
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest"
	"github.com/enlist-mcp/enlist/gateway"
)

// clocked returns a client of a service, with the clock of both.
func clocked(t *testing.T, s *service) (*fixture, *gatewaytest.Clock) {
	t.Helper()
	clock := gatewaytest.NewClock(start)
	return newFixture(t, setup{env: map[string]string{"LONA_GATEWAY_URL": s.URL}, now: clock.Now}), clock
}

// takes has a route accept no token of an agent but the nth.
func (s *service) takes(path string, n int) {
	s.on(path, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Api-Key") != token("my-agent", n) {
			reply(401, `{"error":{"code":"unauthorized"}}`)(w, r)
			return
		}
		reply(200, `{"data":[]}`)(w, r)
	})
}

func TestLonaRenewsATokenThatItsOwnRouteRefuses(t *testing.T) {
	s := newService(t)
	f, clock := clocked(t, s)
	k := f.register(t, "my-agent").Key
	do := func(want, registrations int) {
		t.Helper()
		got, err := f.Lifecycle.Do(t.Context(), k, get("/x"))
		if err != nil || got.Status != want || len(s.seen(registerPath)) != registrations {
			t.Errorf("got %d (%v) after %d registrations, want %d after %d", got.Status, err, len(s.seen(registerPath)), want, registrations)
		}
	}

	s.on("/x", reply(401, `{"error":{"code":"unauthorized"}}`))
	do(401, 1) // a route that wants more: the token is as good as ever
	do(401, 1)

	s.takes(strategiesPath, 2)
	s.takes("/x", 2)
	do(200, 2) // somebody else has ended the token

	s.takes(strategiesPath, 3)
	s.takes("/x", 3)
	clock.Advance(59 * time.Minute)
	do(401, 2) // not twice within an hour
	if list, err := f.Lona.Strategies(t.Context(), k); err == nil {
		t.Errorf("got %s, want the refusal", list)
	}
	clock.Advance(2 * time.Minute)
	do(200, 3)
}

func TestLonaListsTheStrategiesWithARenewedToken(t *testing.T) {
	s := newService(t)
	f := at(t, s)
	k := f.register(t, "my-agent").Key
	s.takes(strategiesPath, 2)

	list, err := f.Lona.Strategies(t.Context(), k)

	if err != nil || string(list) != "[]" || len(s.seen(registerPath)) != 2 {
		t.Errorf("got %s (%v) after %d registrations, want the list after 2", list, err, len(s.seen(registerPath)))
	}
}

func TestLonaDoesNotRenewWhatWasRevoked(t *testing.T) {
	s := newService(t)
	s.takes(strategiesPath, 9)
	f := at(t, s)
	i := credstore.Info{Key: lonaKey(s.URL, "my-agent"), State: credstore.StateRevoked, ExpiresAt: start.Add(-time.Minute)}
	f.put(t, credstore.Credential{Info: i, Secret: credstore.NewSecret(token("my-agent", 1))})

	got, err := f.Lifecycle.Do(t.Context(), i.Key, get(strategiesPath))

	if err != nil || got.Status != 401 || len(s.seen(registerPath)) != 0 {
		t.Errorf("got %d (%v) after %d registrations, want 401 and none", got.Status, err, len(s.seen(registerPath)))
	}
	if due := f.Lona.Due(t.Context(), i, nil); !due.IsZero() {
		t.Errorf("it is due at %s", due)
	}
}

// What was registered for a week is not renewed for a month.
func TestLonaRenewsForAsLongAsWasAskedFor(t *testing.T) {
	s := newService(t)
	f, _ := clocked(t, s)
	k := lonaKey(s.URL, "my-agent")
	f.put(t, credstore.Credential{
		Info: credstore.Info{
			Key: k, CreatedAt: start.Add(-6 * 24 * time.Hour), ExpiresAt: start.Add(24*time.Hour - 3*time.Second),
			Attrs: map[string]string{"user_id": "user-7", "agent_name": "Bot", "source": "a-test"},
		},
		Secret: credstore.NewSecret(token("my-agent", 99)),
	})

	if got, err := f.Lifecycle.Do(t.Context(), k, get(strategiesPath)); err != nil || got.Status != 200 {
		t.Fatalf("got %d, %v", got.Status, err)
	}

	sent := s.seen(registerPath)
	if len(sent) != 1 {
		t.Fatalf("got %d registrations, want 1", len(sent))
	}
	if in := sent[0].fields(t); in["expires_in_days"] != 7.0 || in["agent_name"] != "Bot" || in["source"] != "a-test" {
		t.Errorf("it was registered again with %v", in)
	}
	if with := s.seen(strategiesPath)[0].Header; with.Get("X-User-Id") != "user-7" || with.Get("X-Api-Key") != token("my-agent", 1) {
		t.Error("the request was not made with the new token and the user id of before")
	}
	if open, err := f.Unfinished(t.Context()); err != nil || len(open) != 0 {
		t.Errorf("got %+v unfinished, %v", open, err)
	}
	var renewed []gateway.Event
	events, err := f.Lifecycle.Audit(t.Context(), time.Time{}, 100)
	for _, e := range events {
		if e.Action == gateway.ActRenew {
			renewed = append(renewed, e)
		}
	}
	if err != nil || len(renewed) != 1 || renewed[0].Client != "enlist" || renewed[0].Outcome != gateway.OutcomeDone {
		t.Errorf("the audit trail has %+v, %v", renewed, err)
	}
}

// TestLonaSendsWhatIsGoodWhereItCannotBeRenewed has a request go out with what
// has not expired, and no other renewal for a minute.
func TestLonaSendsWhatIsGoodWhereItCannotBeRenewed(t *testing.T) {
	s := newService(t)
	f, clock := clocked(t, s)
	k := f.register(t, "my-agent").Key
	clock.Advance(27 * 24 * time.Hour)
	s.on(invitePath, reply(403, `{"error":{"code":"invites_disabled","message":"not now"}}`))

	for range 3 {
		if !f.works(t, k) {
			t.Error("what has not expired was not sent")
		}
	}
	if got := len(s.seen(invitePath)); got != 2 {
		t.Errorf("the service was asked %d times for an invite, want 2: one of them in vain", got)
	}

	clock.Advance(4 * 24 * time.Hour)
	_, err := f.Lifecycle.Do(t.Context(), k, gateway.Request{Method: "POST", Path: "/x"})
	var refusal *gateway.Error
	if !errors.As(err, &refusal) || refusal.Code != "invites_disabled" || refusal.Sent || len(s.seen("/x")) != 0 {
		t.Errorf("got %v, want why it could not be renewed, and no request", err)
	}
	s.on(invitePath, s.lona)
	if !f.works(t, k) {
		t.Error("it was not renewed when the service was willing again")
	}
}

func TestWhatExpiresSaysWhetherItIsRenewed(t *testing.T) {
	for _, tt := range []struct {
		name  string
		after time.Duration
		state credstore.State
		want  string
	}{
		{"active", 0, credstore.StateActive, ""},
		{"expiring", 25 * 24 * time.Hour, credstore.StateExpiring, "Nothing need be done: it is renewed when it is used."},
		{"expired", 31 * 24 * time.Hour, credstore.StateExpired, "Name it and use it: it is renewed then, if the service agrees."},
	} {
		s := newService(t)
		f, clock := clocked(t, s)
		i := f.register(t, "my-agent").Info
		clock.Advance(tt.after)
		all, err := f.Lifecycle.Standings(t.Context())
		one := f.Lifecycle.Standing(t.Context(), i)
		if err != nil || len(all) != 1 || all[0].Now != tt.state || all[0].Remedy != tt.want || one.Remedy != tt.want {
			t.Errorf("%s: got %+v and %+v (%v)", tt.name, all, one, err)
		}
	}
}

// A service that refuses every token has one of them replaced, and not one for
// each process that asks it.
func TestLonaReplacesARefusedTokenOnceForAllProcesses(t *testing.T) {
	s := newService(t)
	first, clock := clocked(t, s)
	k := first.register(t, "my-agent").Key
	s.on(strategiesPath, reply(401, `{"error":{"code":"unauthorized"}}`))
	use := func(want int) {
		t.Helper()
		for range 5 {
			f := newFixture(t, setup{env: map[string]string{"LONA_GATEWAY_URL": s.URL}, now: clock.Now, store: first.store})
			if got, err := f.Lifecycle.Do(t.Context(), k, get(strategiesPath)); err != nil || got.Status != 401 {
				t.Errorf("got %d, %v", got.Status, err)
			}
		}
		if got := len(s.seen(registerPath)); got != want {
			t.Errorf("got %d registrations, want %d", got, want)
		}
	}

	use(2)
	clock.Advance(59 * time.Minute)
	use(2)
	clock.Advance(2 * time.Minute)
	use(3)
}

// A token that comes expired, because the clocks differ, is not replaced with
// each request: the next one would be no better.
func TestLonaDoesNotReplaceATokenThatCameExpired(t *testing.T) {
	s := newService(t)
	clock := gatewaytest.NewClock(start.AddDate(20, 0, 0)) // what the service issues ends before
	f := newFixture(t, setup{env: map[string]string{"LONA_GATEWAY_URL": s.URL}, now: clock.Now})
	k := f.register(t, "my-agent").Key

	for range 5 {
		if got, err := f.Lifecycle.Do(t.Context(), k, get(strategiesPath)); err != nil || got.Status != 200 {
			t.Errorf("got %d, %v", got.Status, err)
		}
	}

	if got := len(s.seen(registerPath)); got != 1 {
		t.Errorf("got %d registrations, want 1", got)
	}
}
