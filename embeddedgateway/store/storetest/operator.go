package storetest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/embeddedgateway/store"
)

func operatorTests() map[string]func(*testing.T, *suite) {
	return map[string]func(*testing.T, *suite){
		"pages through agents, the newest first":     operatorPages,
		"chooses agents by protocol and state":       operatorChooses,
		"searches for what names begin with":         operatorSearches,
		"finds an agent once, page by page":          operatorSearchPages,
		"finds an agent by what it is called now":    operatorRenamed,
		"refuses a cursor that it did not give out":  operatorCursors,
		"resumes an agent without its keys":          operatorResumes,
		"lists keys, rather active ones than others": operatorKeys,
		"pages through invites, the newest first":    operatorInvites,
		"counts what there is":                       operatorCounts,
		"counts what happened, by the minute":        operatorMinutes,
		"pages through events":                       operatorEvents,
	}
}

// enrol stores agents: "protocol/name" or "protocol/name=display name".
func (s *suite) enrol(names ...string) {
	s.t.Helper()
	s.tx(func(tx *store.Tx) error {
		for _, text := range names {
			text, display, _ := strings.Cut(text, "=")
			protocol, name, _ := strings.Cut(text, "/")
			if _, _, err := tx.EnsureAgent(store.Agent{Protocol: protocol, Name: name, DisplayName: display}); err != nil {
				return err
			}
		}
		return nil
	})
}

// list returns all agents of a query as "protocol/name", page by page.
func (s *suite) list(q store.AgentQuery) (all []string) {
	s.t.Helper()
	for pages := 0; ; pages++ {
		page, err := s.Agents(s.ctx(), q)
		if err != nil {
			s.t.Fatalf("Agents: %v", err)
		}
		if q.Limit > 0 && len(page.Agents) > q.Limit || pages > 100 {
			s.t.Fatalf("got %d agents on page %d, want at most %d", len(page.Agents), pages, q.Limit)
		}
		for _, a := range page.Agents {
			all = append(all, a.Protocol+"/"+a.Name)
		}
		if page.Next == "" {
			return all
		}
		q.After = page.Next
	}
}

func (s *suite) wantList(q store.AgentQuery, want ...string) {
	s.t.Helper()
	if got := s.list(q); !slices.Equal(got, want) {
		s.t.Errorf("%+v: got %q, want %q", q, got, want)
	}
}

func operatorPages(t *testing.T, s *suite) {
	var want []string
	for i := range 25 {
		name := fmt.Sprintf("lona/agent-%02d", i)
		s.enrol(name)
		want = append([]string{name}, want...)
	}
	for _, limit := range []int{1, 7, 24, 25, 26, 0} {
		s.wantList(store.AgentQuery{Limit: limit}, want...)
		s.wantList(store.AgentQuery{Limit: limit, Protocol: "lona"}, want...)
		s.wantList(store.AgentQuery{Limit: limit, Suspension: store.Active}, want...)
	}
	// What comes and goes between two pages shifts nothing.
	page, err := s.Agents(s.ctx(), store.AgentQuery{Limit: 5})
	if err != nil {
		t.Fatal(err)
	}
	s.enrol("lona/late")
	gone := page.Agents[4]
	s.tx(func(tx *store.Tx) error { return tx.DeleteAgent(gone.ID) })
	s.wantList(store.AgentQuery{Limit: 5, After: page.Next}, want[5:]...)
}

func operatorChooses(t *testing.T, s *suite) {
	s.enrol("lona/a", "lumina/b", "lona/c", "lumina/d", "lona/e")
	for _, name := range []string{"c", "e"} {
		a, err := s.Agent(s.ctx(), "lona", name)
		if err != nil {
			t.Fatal(err)
		}
		s.tx(func(tx *store.Tx) error { _, err := tx.Suspend(a.ID); return err })
	}
	for _, limit := range []int{1, 2, 10} {
		s.wantList(store.AgentQuery{Limit: limit, Protocol: "lumina"}, "lumina/d", "lumina/b")
		s.wantList(store.AgentQuery{Limit: limit, Suspension: store.Suspended}, "lona/e", "lona/c")
		s.wantList(store.AgentQuery{Limit: limit, Suspension: store.Suspended, Protocol: "lona", Prefix: "C"}, "lona/c")
		s.wantList(store.AgentQuery{Limit: limit, Suspension: store.Suspended, Protocol: "lumina"})
		s.wantList(store.AgentQuery{Limit: limit, Suspension: store.Active}, "lumina/d", "lumina/b", "lona/a")
		s.wantList(store.AgentQuery{Limit: limit, Suspension: store.Active, Protocol: "lona"}, "lona/a")
		s.wantList(store.AgentQuery{Limit: limit, Suspension: store.Active, Prefix: "c"})
		s.wantList(store.AgentQuery{Limit: limit, Protocol: "fluxra"})
	}
	if got, err := s.Protocols(s.ctx()); err != nil || !slices.Equal(got, []string{"lona", "lumina"}) {
		t.Errorf("got the protocols %q, %v", got, err)
	}
}

func operatorSearches(t *testing.T, s *suite) {
	long := strings.Repeat("ü", 400)
	s.enrol("lona/Scout=Élan vital", "lona/ranger=ΣΊΣΥΦΟΣ", "lona/50%=under_score", "lona/back=a\\b", "lona/wide=\U0010FFFE",
		"lona/long="+long, "lumina/0xABC=", "lona/spaces=  two   words ")
	for search, want := range map[string][]string{
		"scout": {"lona/Scout"}, "SCO": {"lona/Scout"}, "éL": {"lona/Scout"}, "vital": nil, "cout": nil,
		"σίσυφος": {"lona/ranger"}, "50%": {"lona/50%"}, "%": nil, "_": nil, "under_": {"lona/50%"}, "under.": nil, "undera": nil,
		`A\`: {"lona/back"}, "\U0010FFFE": {"lona/wide"}, long: {"lona/long"}, "Ü": {"lona/long"}, "0xaB": {"lumina/0xABC"},
		"TWO words": {"lona/spaces"}, "two  w": {"lona/spaces"}, "'": nil, "nobody": nil, "\xff\x00scout": {"lona/Scout"},
	} {
		s.wantList(store.AgentQuery{Prefix: search}, want...)
		if len(want) > 0 {
			protocol, _, _ := strings.Cut(want[0], "/")
			s.wantList(store.AgentQuery{Prefix: search, Protocol: protocol}, want...)
		}
		s.wantList(store.AgentQuery{Prefix: search, Protocol: "fluxra"})
	}
	if got := s.list(store.AgentQuery{Prefix: " "}); len(got) != 8 {
		t.Errorf("a blank search found %q, want all", got)
	}
}

func operatorSearchPages(t *testing.T, s *suite) {
	var want []string
	for i := range 20 {
		// Found by its id and by its name, which come far apart.
		s.enrol(fmt.Sprintf("lona/s%02d=s-%02d", i, 99-i), fmt.Sprintf("lumina/s%02d=other", i), fmt.Sprintf("agentdoor/t%02d", i))
		want = append(want, fmt.Sprintf("lona/s%02d", i), fmt.Sprintf("lumina/s%02d", i))
	}
	slices.Sort(want)
	for _, limit := range []int{1, 3, 20, 39, 40, 41} {
		got := s.list(store.AgentQuery{Prefix: "S", Limit: limit})
		if slices.Sort(got); !slices.Equal(got, want) {
			t.Errorf("%d at a time: got %q, want %q", limit, got, want)
		}
	}
	// In the order of what they are found by.
	s.wantList(store.AgentQuery{Prefix: "s0", Protocol: "lumina", Limit: 4}, "lumina/s00", "lumina/s01", "lumina/s02", "lumina/s03",
		"lumina/s04", "lumina/s05", "lumina/s06", "lumina/s07", "lumina/s08", "lumina/s09")
}

func operatorRenamed(t *testing.T, s *suite) {
	s.enrol("lona/scout=Before", "lona/scout=After", "lona/scout=After")
	s.wantList(store.AgentQuery{Prefix: "before"})
	s.wantList(store.AgentQuery{Prefix: "after"}, "lona/scout")
	a, err := s.Agent(s.ctx(), "lona", "scout")
	if err != nil {
		t.Fatal(err)
	}
	s.tx(func(tx *store.Tx) error { return tx.DeleteAgent(a.ID) })
	s.wantList(store.AgentQuery{Prefix: "after"})
	s.enrol("lona/heir=After") // it may get the same id
	s.wantList(store.AgentQuery{Prefix: "scout"})
	s.wantList(store.AgentQuery{Prefix: "after"}, "lona/heir")
	if n, err := s.MakeUpTerms(s.ctx(), 10); n != 0 || err != nil {
		t.Errorf("made up for %d agents, %v, want none", n, err)
	}
}

func operatorCursors(t *testing.T, s *suite) {
	s.enrol("lona/scout")
	for _, after := range []string{"x", "!", "e30", "bnVsbA", "eyJpIjotMX0", strings.Repeat("A", 10_000)} {
		for _, q := range []store.AgentQuery{{After: after}, {After: after, Prefix: "s"}} {
			if _, err := s.Agents(s.ctx(), q); !errors.Is(err, store.ErrCursor) {
				t.Errorf("%.20q: got error %v, want %v", after, err, store.ErrCursor)
			}
		}
		if _, _, err := s.Invites(s.ctx(), after, 10); !errors.Is(err, store.ErrCursor) {
			t.Errorf("%.20q: got error %v, want %v", after, err, store.ErrCursor)
		}
	}
}

func operatorResumes(t *testing.T, s *suite) {
	a := s.agent("scout")
	s.issue(store.Credential{AgentID: a.ID, Kind: "token", KeyID: "t", Hash: hash("token")})
	s.issue(store.Credential{AgentID: a.ID, Kind: "claim", KeyID: "c1", Hash: hash("old claim")})
	s.tx(func(tx *store.Tx) error { _, err := tx.RevokeAll(a.ID, "claim"); return err })
	s.clock.advance(time.Minute)
	s.issue(store.Credential{AgentID: a.ID, Kind: "claim", KeyID: "c2", Hash: hash("claim")})
	resume := func() (did bool) {
		s.tx(func(tx *store.Tx) error {
			a, err := tx.Agent("lona", "scout")
			if err == nil {
				did, err = tx.Resume(a, "claim")
			}
			return err
		})
		return did
	}
	if resume() {
		t.Error("an agent that was not suspended was resumed")
	}
	s.tx(func(tx *store.Tx) error { _, err := tx.Suspend(a.ID); return err })
	s.clock.advance(time.Hour)
	if !resume() || resume() {
		t.Error("resumed: want true the first time and false the second time")
	}
	for name, want := range map[string]bool{"token": false, "old claim": false, "claim": true} {
		if _, err := s.Authenticate(s.ctx(), "lona", hash(name)); (err == nil) != want {
			t.Errorf("the %s: got error %v, want it active: %v", name, err, want)
		}
	}
	got, err := s.Agent(s.ctx(), "lona", "scout")
	if err != nil || !got.DisabledAt.IsZero() || got.TokensEnded != 1 {
		t.Errorf("agent: got %+v, %v, want it active, its tokens ended once", got, err)
	}
	s.tx(func(tx *store.Tx) error { return tx.EndTokens(a.ID) })
	if got, err = s.Agent(s.ctx(), "lona", "scout"); err != nil || got.TokensEnded != 2 {
		t.Errorf("agent: got %+v, %v, want its tokens ended twice", got, err)
	}
}

func operatorKeys(t *testing.T, s *suite) {
	a, b := s.agent("scout"), s.agent("ranger")
	for i := range 6 {
		id := fmt.Sprintf("k%d", i)
		c := s.issue(store.Credential{AgentID: a.ID, Kind: "kind-" + id, KeyID: id, Hash: hash(id)})
		if i >= 2 {
			s.tx(func(tx *store.Tx) error { _, err := tx.Revoke(c.ID); return err })
		}
	}
	s.issue(store.Credential{AgentID: b.ID, Kind: "key", KeyID: "k9", Hash: hash("k9")})
	for limit, want := range map[int]string{1: "k1", 2: "k1 k0", 4: "k5 k4 k1 k0", 9: "k5 k4 k3 k2 k1 k0"} {
		list, err := s.CredentialsOf(s.ctx(), a.ID, limit)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, c := range list {
			got = append(got, c.KeyID)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%d: got %q, want %q", limit, got, want)
		}
	}
	s.tx(func(tx *store.Tx) error {
		if c, err := tx.CredentialOf(a.ID, "k3"); err != nil || c.Kind != "kind-k3" || c.RevokedAt.IsZero() {
			t.Errorf("got %+v, %v, want k3", c, err)
		}
		if c, err := tx.CredentialOf(a.ID, "k9"); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("got %+v, %v, want another's key not found", c, err)
		}
		return nil
	})
}

func operatorInvites(t *testing.T, s *suite) {
	var want []string
	for i := range 7 {
		name := fmt.Sprintf("agent-%d", i)
		if err := s.open(s.invite(name, name), false); err != nil {
			t.Fatal(err)
		}
		other := s.invite("c"+name, name)
		other.Kind = "challenge"
		if err := s.open(other, false); err != nil {
			t.Fatal(err)
		}
		want = append([]string{name}, want...)
	}
	for _, limit := range []int{1, 3, 7, 8} {
		var got []string
		for after := ""; ; {
			list, next, err := s.Invites(s.ctx(), after, limit)
			if err != nil {
				t.Fatal(err)
			}
			for _, k := range list {
				got = append(got, k.Subject)
			}
			if after = next; after == "" {
				break
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%d at a time: got %q, want %q", limit, got, want)
		}
	}
}

func operatorCounts(t *testing.T, s *suite) {
	if agents, err := s.CountAgents(s.ctx()); err != nil || len(agents) > 0 {
		t.Errorf("got %+v, %v, want none", agents, err)
	}
	a := s.agent("scout")
	s.enrol("lona/ranger", "lumina/trader")
	s.issue(store.Credential{AgentID: a.ID, Kind: "key", KeyID: "1", Hash: hash("1")})
	s.issue(store.Credential{AgentID: a.ID, Kind: "key", KeyID: "2", Hash: hash("2"), ExpiresAt: s.clock.Now().Add(time.Hour)})
	s.issue(store.Credential{AgentID: a.ID, Kind: "claim", KeyID: "3", Hash: hash("3")})
	keys, err := s.CountKeys(s.ctx())
	slices.SortFunc(keys, func(a, b store.KeyCount) int { return strings.Compare(a.Kind, b.Kind) })
	if want := []store.KeyCount{{Protocol: "lona", Kind: "claim", Active: 1}, {Protocol: "lona", Kind: "key", Active: 2}}; err != nil || !slices.Equal(keys, want) {
		t.Errorf("got %+v, %v, want %+v", keys, err, want)
	}
	s.clock.advance(2 * time.Hour)
	s.tx(func(tx *store.Tx) error { _, err := tx.Suspend(a.ID); return err })
	if keys, err = s.CountKeys(s.ctx()); err != nil || len(keys) > 0 {
		t.Errorf("got %+v, %v, want none", keys, err)
	}
	agents, err := s.CountAgents(s.ctx())
	slices.SortFunc(agents, func(a, b store.AgentCount) int { return strings.Compare(a.Protocol, b.Protocol) })
	if want := []store.AgentCount{{Protocol: "lona", All: 2, Suspended: 1}, {Protocol: "lumina", All: 1}}; err != nil || !slices.Equal(agents, want) {
		t.Errorf("got %+v, %v, want %+v", agents, err, want)
	}
}

func operatorMinutes(t *testing.T, s *suite) {
	begin := s.clock.Now()
	s.audit(store.Event{Protocol: "lona", Name: "token_issued"}, store.Event{Protocol: "lona", Name: "token_issued"})
	refused := store.Event{Protocol: "lona", Name: "refused:x", IP: "192.0.2.1", Refusal: true}
	s.audit(refused, refused, refused)
	s.clock.advance(time.Minute)
	s.audit(store.Event{Protocol: "lumina", Name: "key_issued"})
	got, err := s.CountEvents(s.ctx(), begin.Truncate(time.Minute), begin.Truncate(time.Minute).Add(2*time.Minute))
	slices.SortFunc(got, func(a, b store.EventCount) int { return strings.Compare(a.Protocol+a.Name, b.Protocol+b.Name) })
	first := begin.Truncate(time.Minute)
	want := []store.EventCount{
		{Minute: first, Protocol: "lona", Name: "refused:x", Refusal: true, N: 3},
		{Minute: first, Protocol: "lona", Name: "token_issued", N: 2},
		{Minute: first.Add(time.Minute), Protocol: "lumina", Name: "key_issued", N: 1},
	}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	got, err = s.CountEvents(s.ctx(), first.Add(time.Minute), first.Add(2*time.Minute))
	if err != nil || len(got) != 1 {
		t.Errorf("the second minute: got %+v, %v", got, err)
	}
	if n, err := s.CountSealed(s.ctx(), "mail", 10); n != 0 || err != nil {
		t.Errorf("got %d letters, %v", n, err)
	}
}

func operatorEvents(t *testing.T, s *suite) {
	for i := range 6 {
		s.audit(store.Event{Protocol: "lona", Name: fmt.Sprint(i), Agent: []string{"scout", "ranger"}[i%2]})
	}
	var got []string
	for before := int64(0); ; {
		list, err := s.Events(s.ctx(), store.EventQuery{Protocol: "lona", Agent: "scout", Before: before, Limit: 2})
		if err != nil {
			t.Fatal(err)
		}
		if len(list) == 0 {
			break
		}
		for _, e := range list {
			got, before = append(got, e.Name), e.ID
		}
	}
	if !slices.Equal(got, []string{"4", "2", "0"}) {
		t.Errorf("got %q", got)
	}
}
