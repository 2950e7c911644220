package storetest

import (
	"errors"
	"reflect"
	"strconv"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/embeddedgateway/store"
)

func credentialTests() map[string]func(*testing.T, *suite) {
	return map[string]func(*testing.T, *suite){
		"is issued with another one, or neither is":        issuesBoth,
		"is issued and authenticates":                      issues,
		"does not authenticate elsewhere":                  unknown,
		"does not authenticate once expired":               expires,
		"does not authenticate once revoked":               revokes,
		"is not issued to nobody":                          nobody,
		"is not issued twice":                              twice,
		"is not issued over the cap":                       caps,
		"makes room under the cap when it ends":            capsActive,
		"is found by its public part":                      byID,
		"is listed while it is active":                     lists,
		"is listed for good, a page at a time":             pages,
		"keeps its last use":                               touches,
		"rotates in one Tx":                                rotates,
		"that was ever issued is remembered":               remembers,
		"is not revoked by a Tx that fails":                notRevoked,
		"that was revoked does not authenticate on return": revokedOnReturn,
	}
}

func issues(t *testing.T, s *suite) {
	a := s.agent("scout")
	want := store.Credential{
		AgentID: a.ID, Kind: "token", KeyID: "k1", Hash: hash("one"), Scopes: []string{"read", "write"}, Label: "bot 1",
		ExpiresAt: s.clock.Now().Add(time.Hour + 999*time.Nanosecond),
	}
	got := s.issue(want)
	want.ID, want.Protocol, want.AgentName = got.ID, "lona", "scout"
	want.CreatedAt, want.ExpiresAt = s.clock.Now(), s.clock.Now().Add(time.Hour)
	if got.ID == 0 || !reflect.DeepEqual(got, want) {
		t.Errorf("issued: got %+v, want %+v", got, want)
	}
	found, err := s.Authenticate(s.ctx(), "lona", hash("one"))
	if err != nil || !reflect.DeepEqual(found, want) {
		t.Errorf("authenticated: got %+v, %v, want %+v", found, err, want)
	}
	s.tx(func(tx *store.Tx) error {
		found, err := tx.Credential("lona", hash("one"))
		if !reflect.DeepEqual(found, want) {
			t.Errorf("in a Tx: got %+v, want %+v", found, want)
		}
		return err
	})
}

// wantRefused fails the test if the credential authenticates.
func (s *suite) wantRefused(protocol, name string) {
	s.t.Helper()
	if c, err := s.Authenticate(s.ctx(), protocol, hash(name)); !errors.Is(err, store.ErrNotFound) {
		s.t.Errorf("%s: got %+v, error %v, want %v", name, c, err, store.ErrNotFound)
	}
}

// wantAccepted fails the test unless the credential authenticates.
func (s *suite) wantAccepted(name string) {
	s.t.Helper()
	if _, err := s.Authenticate(s.ctx(), "lona", hash(name)); err != nil {
		s.t.Errorf("%s: got error %v", name, err)
	}
}

func unknown(_ *testing.T, s *suite) {
	s.issue(store.Credential{AgentID: s.agent("scout").ID, Kind: "token", Hash: hash("one")})
	s.wantAccepted("one")
	s.wantRefused("lona", "two")
	s.wantRefused("agentdoor", "one")
}

func expires(t *testing.T, s *suite) {
	a := s.agent("scout")
	s.issue(store.Credential{AgentID: a.ID, Hash: hash("hour"), ExpiresAt: s.clock.Now().Add(time.Hour)})
	s.issue(store.Credential{AgentID: a.ID, Hash: hash("ever")})
	s.clock.advance(time.Hour - time.Microsecond)
	s.wantAccepted("hour")
	s.clock.advance(time.Microsecond)
	s.wantRefused("lona", "hour")
	s.clock.advance(100 * 365 * 24 * time.Hour)
	s.wantAccepted("ever")
	s.tx(func(tx *store.Tx) error { // still there for whoever asks for any state
		c, err := tx.Credential("lona", hash("hour"))
		if c.ActiveAt(tx.Now()) {
			t.Error("an expired credential is active")
		}
		return err
	})
	if c, err := s.Credential(s.ctx(), "lona", hash("hour")); err != nil || c.ActiveAt(s.clock.Now()) {
		t.Errorf("an expired credential: got %+v, error %v, want it, not active", c, err)
	}
}

func revokes(t *testing.T, s *suite) {
	a := s.agent("scout")
	c := s.issue(store.Credential{AgentID: a.ID, Hash: hash("one")})
	at := s.clock.Now()
	for _, want := range []bool{true, false} {
		s.tx(func(tx *store.Tx) error {
			got, err := tx.Revoke(c.ID)
			if got != want {
				t.Errorf("revoked: got %v, want %v", got, want)
			}
			return err
		})
		s.clock.advance(time.Minute)
	}
	s.wantRefused("lona", "one")
	s.tx(func(tx *store.Tx) error {
		c, err := tx.Credential("lona", hash("one"))
		if c.RevokedAt != at {
			t.Errorf("revoked at: got %v, want %v", c.RevokedAt, at)
		}
		return err
	})
	if c, err := s.Credential(s.ctx(), "lona", hash("one")); err != nil || c.RevokedAt != at {
		t.Errorf("a revoked credential: got %+v, error %v, want it", c, err)
	}
	if _, err := s.Credential(s.ctx(), "lona", hash("two")); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("an unknown credential: got error %v, want %v", err, store.ErrNotFound)
	}
}

func nobody(t *testing.T, s *suite) {
	s.tx(func(tx *store.Tx) error {
		if _, err := tx.Issue(store.Credential{AgentID: 12345, Hash: hash("one")}, 0); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("got error %v, want %v", err, store.ErrNotFound)
		}
		return note(tx, "went on")
	})
	s.wantRefused("lona", "one")
}

func twice(t *testing.T, s *suite) {
	a, b := s.agent("a"), s.agent("b")
	s.issue(store.Credential{AgentID: a.ID, Hash: hash("one")})
	s.tx(func(tx *store.Tx) error {
		for _, limit := range []int{0, 5} {
			if _, err := tx.Issue(store.Credential{AgentID: b.ID, Hash: hash("one")}, limit); !errors.Is(err, store.ErrExists) {
				t.Errorf("cap %d: got error %v, want %v", limit, err, store.ErrExists)
			}
		}
		return note(tx, "went on")
	})
	c, err := s.Authenticate(s.ctx(), "lona", hash("one"))
	if err != nil || c.AgentName != "a" {
		t.Errorf("got %+v, %v, want that of a", c, err)
	}
}

func caps(t *testing.T, s *suite) {
	a, b := s.agent("a"), s.agent("b")
	s.tx(func(tx *store.Tx) error {
		issue := func(agent store.Agent, kind, name string, want error) {
			_, err := tx.Issue(store.Credential{AgentID: agent.ID, Kind: kind, Hash: hash(name)}, 2)
			if !errors.Is(err, want) {
				t.Errorf("%s: got error %v, want %v", name, err, want)
			}
		}
		issue(a, "token", "one", nil)
		issue(a, "token", "two", nil)
		issue(a, "token", "three", store.ErrCap)
		issue(a, "key", "another kind", nil)
		issue(b, "token", "another agent", nil)
		return nil
	})
	s.wantAccepted("two")
	s.wantRefused("lona", "three")
	s.issue(store.Credential{AgentID: a.ID, Kind: "token", Hash: hash("no cap")})
	s.wantAccepted("no cap")
}

func capsActive(t *testing.T, s *suite) {
	a := s.agent("a")
	s.issue(store.Credential{AgentID: a.ID, Kind: "token", Hash: hash("hour"), ExpiresAt: s.clock.Now().Add(time.Hour)})
	ever := s.issue(store.Credential{AgentID: a.ID, Kind: "token", Hash: hash("ever")})
	try := func(name string, want error) {
		err := s.Tx(s.ctx(), func(tx *store.Tx) error {
			_, err := tx.Issue(store.Credential{AgentID: a.ID, Kind: "token", Hash: hash(name)}, 2)
			return err
		})
		if !errors.Is(err, want) {
			t.Errorf("%s: got error %v, want %v", name, err, want)
		}
	}
	try("too early", store.ErrCap)
	s.clock.advance(time.Hour)
	try("after one expired", nil)
	try("too many", store.ErrCap)
	s.tx(func(tx *store.Tx) error {
		_, err := tx.Revoke(ever.ID)
		return err
	})
	try("after one was revoked", nil)
}

func rotates(t *testing.T, s *suite) {
	a := s.agent("a")
	s.issue(store.Credential{AgentID: a.ID, Kind: "token", Hash: hash("expired"), ExpiresAt: s.clock.Now().Add(time.Minute)})
	s.issue(store.Credential{AgentID: a.ID, Kind: "token", Hash: hash("active")})
	s.issue(store.Credential{AgentID: a.ID, Kind: "key", Hash: hash("another kind")})
	s.issue(store.Credential{AgentID: s.agent("b").ID, Kind: "token", Hash: hash("another agent")})
	s.clock.advance(time.Hour)
	s.tx(func(tx *store.Tx) error {
		n, err := tx.RevokeAll(a.ID, "token")
		if err != nil || n != 2 {
			t.Errorf("revoked: got %d, %v, want 2", n, err)
		}
		if n, err := tx.RevokeAll(a.ID, "token"); err != nil || n != 0 {
			t.Errorf("revoked again: got %d, %v, want 0", n, err)
		}
		_, err = tx.Issue(store.Credential{AgentID: a.ID, Kind: "token", Hash: hash("new")}, 1)
		return err
	})
	s.wantRefused("lona", "expired")
	s.wantRefused("lona", "active")
	s.wantAccepted("new")
	s.wantAccepted("another kind")
	s.wantAccepted("another agent")
}

func remembers(t *testing.T, s *suite) {
	a := s.agent("a")
	has := func(kind string) (has bool) {
		s.tx(func(tx *store.Tx) (err error) {
			has, err = tx.HasCredential(a.ID, kind)
			return err
		})
		return has
	}
	if has("token") {
		t.Error("has one before any was issued")
	}
	c := s.issue(store.Credential{AgentID: a.ID, Kind: "token", Hash: hash("one"), ExpiresAt: s.clock.Now().Add(time.Minute)})
	if !has("token") || has("key") {
		t.Errorf("token: got %v, want true; key: got %v, want false", has("token"), has("key"))
	}
	s.clock.advance(time.Hour)
	s.tx(func(tx *store.Tx) error {
		_, err := tx.Revoke(c.ID)
		return err
	})
	if !has("token") {
		t.Error("an expired and revoked one was forgotten")
	}
}

func notRevoked(_ *testing.T, s *suite) {
	c := s.issue(store.Credential{AgentID: s.agent("a").ID, Kind: "token", Hash: hash("one")})
	_ = s.Tx(s.ctx(), func(tx *store.Tx) error {
		if _, err := tx.Revoke(c.ID); err != nil {
			return err
		}
		return errors.New("changed my mind")
	})
	s.wantAccepted("one")
}

func revokedOnReturn(t *testing.T, s *suite) {
	a := s.agent("a")
	for i := range 10 {
		name := string(rune('A' + i))
		c := s.issue(store.Credential{AgentID: a.ID, Hash: hash(name)})
		done := make(chan struct{})
		go func() { // a reader that is busy with the same row
			defer close(done)
			for {
				if _, err := s.Authenticate(s.ctx(), "lona", hash(name)); err != nil {
					return
				}
			}
		}()
		s.tx(func(tx *store.Tx) error {
			_, err := tx.Revoke(c.ID)
			return err
		})
		s.wantRefused("lona", name)
		<-done
		if t.Failed() {
			return
		}
	}
}

func byID(t *testing.T, s *suite) {
	a, b := s.agent("scout"), s.agent("other")
	want := s.issue(store.Credential{AgentID: a.ID, Kind: "token", KeyID: "7", Hash: hash("one")})
	s.issue(store.Credential{AgentID: b.ID, Kind: "token", KeyID: "8", Hash: hash("two")})
	s.tx(func(tx *store.Tx) error {
		for _, kind := range []string{"token", "api"} {
			for _, id := range []string{"7", "8", "", "07"} {
				got, err := tx.CredentialByID(a.ID, kind, id)
				if kind == "token" && id == "7" {
					if err != nil || !reflect.DeepEqual(got, want) {
						t.Errorf("got %+v, %v, want %+v", got, err, want)
					}
				} else if !errors.Is(err, store.ErrNotFound) {
					t.Errorf("%s %q: got %+v, %v, want %v", kind, id, got, err, store.ErrNotFound)
				}
			}
		}
		_, err := tx.Revoke(want.ID)
		return err
	})
	s.tx(func(tx *store.Tx) error {
		got, err := tx.CredentialByID(a.ID, "token", "7")
		if got.RevokedAt.IsZero() {
			t.Errorf("got %+v, want it revoked", got)
		}
		return err
	})
}

func lists(t *testing.T, s *suite) {
	a, b := s.agent("scout"), s.agent("other")
	one := s.issue(store.Credential{AgentID: a.ID, Kind: "token", KeyID: "1", Hash: hash("one"), Label: "first"})
	two := s.issue(store.Credential{AgentID: a.ID, Kind: "token", KeyID: "2", Hash: hash("two"), ExpiresAt: s.clock.Now().Add(time.Hour)})
	gone := s.issue(store.Credential{AgentID: a.ID, Kind: "token", KeyID: "3", Hash: hash("three")})
	s.issue(store.Credential{AgentID: a.ID, Kind: "api", KeyID: "4", Hash: hash("four")})
	s.issue(store.Credential{AgentID: b.ID, Kind: "token", KeyID: "5", Hash: hash("five")})
	s.tx(func(tx *store.Tx) error {
		_, err := tx.Revoke(gone.ID)
		return err
	})
	want := func(limit int, want ...store.Credential) {
		t.Helper()
		if got, err := s.Credentials(s.ctx(), a.ID, "token", limit); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, %v, want %+v", got, err, want)
		}
	}
	want(10, one, two)
	want(1, one)
	s.clock.advance(time.Hour)
	want(10, one)
}

func touches(t *testing.T, s *suite) {
	c := s.issue(store.Credential{AgentID: s.agent("scout").ID, Kind: "token", KeyID: "1", Hash: hash("one")})
	later := s.clock.Now().Add(time.Minute)
	for _, at := range []time.Time{s.clock.Now(), later, s.clock.Now()} {
		s.tx(func(tx *store.Tx) error { return tx.Touch(c.ID, at) })
	}
	s.tx(func(tx *store.Tx) error { return tx.Touch(c.ID+1, later) }) // nobody's
	if got, err := s.Authenticate(s.ctx(), "lona", hash("one")); err != nil || !got.LastUsedAt.Equal(later) {
		t.Errorf("got the last use %v, %v, want %v", got.LastUsedAt, err, later)
	}
}

func pages(t *testing.T, s *suite) {
	a, b := s.agent("scout"), s.agent("other")
	var all []store.Credential
	for _, name := range []string{"one", "two", "three"} {
		all = append(all, s.issue(store.Credential{AgentID: a.ID, Kind: "token", KeyID: name, Hash: hash(name), ExpiresAt: s.clock.Now().Add(time.Hour)}))
		s.issue(store.Credential{AgentID: a.ID, Kind: "key", KeyID: name, Hash: hash("key " + name)})
		s.issue(store.Credential{AgentID: b.ID, Kind: "token", KeyID: name, Hash: hash("other " + name)})
	}
	s.tx(func(tx *store.Tx) error {
		_, err := tx.Revoke(all[1].ID)
		return err
	})
	all[1].RevokedAt = s.clock.Now()
	s.clock.advance(2 * time.Hour) // all of them have expired
	want := func(after int64, limit int, want ...store.Credential) {
		t.Helper()
		got, err := s.Issued(s.ctx(), a.ID, "token", after, limit)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("after %d: got %+v, %v, want %+v", after, got, err, want)
		}
	}
	want(0, 10, all...)
	want(0, 2, all[:2]...)
	want(all[1].ID, 2, all[2])
	want(all[2].ID, 2)
}

func issuesBoth(t *testing.T, s *suite) {
	a, b := s.agent("scout"), s.agent("ranger")
	both := func(agent int64, first, second string) error {
		return s.Tx(s.ctx(), func(tx *store.Tx) error {
			return tx.IssueBoth(agent,
				store.Credential{Kind: "claim", KeyID: first, Hash: hash(first)},
				store.Credential{Kind: "token", KeyID: second, Hash: hash(second), Scopes: []string{"a", `b"`}, Label: "l", ExpiresAt: s.clock.Now().Add(time.Hour)})
		})
	}
	if err := both(a.ID, "one", "two"); err != nil {
		t.Fatalf("issue: %v", err)
	}
	c, err := s.Authenticate(s.ctx(), "lona", hash("two"))
	want := store.Credential{
		ID: c.ID, AgentID: a.ID, Protocol: "lona", AgentName: "scout", Kind: "token", KeyID: "two", Hash: hash("two"),
		Scopes: []string{"a", `b"`}, Label: "l", CreatedAt: s.clock.Now(), ExpiresAt: s.clock.Now().Add(time.Hour),
	}
	if err != nil || !reflect.DeepEqual(c, want) {
		t.Errorf("got %+v, %v, want %+v", c, err, want)
	}
	s.wantAccepted("one")
	for _, taken := range [][2]string{{"one", "three"}, {"three", "two"}} {
		if err := both(b.ID, taken[0], taken[1]); !errors.Is(err, store.ErrExists) {
			t.Errorf("%v: got error %v, want %v", taken, err, store.ErrExists)
		}
		s.wantRefused("lona", "three")
	}
	if err := both(b.ID+100, "four", "five"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("no such agent: got error %v, want %v", err, store.ErrNotFound)
	}
	if won := s.race(16, store.ErrExists, func(i int) error { return both(b.ID, "six", "of six "+strconv.Itoa(i)) }); won != 1 {
		t.Errorf("%d have claimed it, want one", won)
	}
}
