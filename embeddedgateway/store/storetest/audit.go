package storetest

import (
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/embeddedgateway/store"
)

func auditTests() map[string]func(*testing.T, *suite) {
	return map[string]func(*testing.T, *suite){
		"keeps each success":                 auditsSuccess,
		"counts refusals by the minute":      auditsRefusals,
		"keeps what refusals have in common": auditsCommon,
		"is not filled by a flood":           auditsFlood,
		"is asked for a part":                auditQuery,
	}
}

func (s *suite) audit(events ...store.Event) {
	s.t.Helper()
	s.tx(func(tx *store.Tx) error {
		for _, e := range events {
			if err := tx.Audit(e); err != nil {
				return err
			}
		}
		return nil
	})
}

func auditsSuccess(t *testing.T, s *suite) {
	want := store.Event{Protocol: "lona", Name: "token_issued", Agent: "scout", KeyID: "k1", IP: "192.0.2.1", Detail: "by invite"}
	s.audit(want, want)
	want.At, want.Count = s.clock.Now(), 1
	got := s.events()
	if len(got) != 2 || got[0].ID <= got[1].ID {
		t.Fatalf("got %+v, want two, the newest first", got)
	}
	for _, e := range got {
		want.ID = e.ID
		if !reflect.DeepEqual(e, want) {
			t.Errorf("got %+v, want %+v", e, want)
		}
	}
}

func refusal(name, ip, agent string) store.Event {
	return store.Event{Protocol: "lona", Name: name, IP: ip, Agent: agent, Refusal: true}
}

func auditsRefusals(t *testing.T, s *suite) {
	first := s.clock.Now() // 14:00:00.123456
	for range 3 {
		s.audit(refusal("invite_refused", "192.0.2.1", "scout"))
		s.clock.advance(10 * time.Second)
	}
	other := refusal("invite_refused", "192.0.2.1", "scout")
	other.Protocol = "agentdoor"
	s.audit(refusal("invite_refused", "192.0.2.2", "scout"), refusal("token_refused", "192.0.2.1", "scout"), other)
	s.clock.advance(30 * time.Second) // 14:01
	s.audit(refusal("invite_refused", "192.0.2.1", "scout"))
	var got []string
	for _, e := range s.events() {
		got = append(got, fmt.Sprint(e.Protocol, " ", e.Name, " ", e.IP, " ", e.Agent, " ", e.At.Sub(first), " ", e.Refusal, " ", e.Count))
	}
	want := []string{
		"lona invite_refused 192.0.2.1 scout 1m0s true 1",
		"agentdoor invite_refused 192.0.2.1 scout 30s true 1",
		"lona token_refused 192.0.2.1 scout 30s true 1",
		"lona invite_refused 192.0.2.2 scout 30s true 1",
		"lona invite_refused 192.0.2.1 scout 0s true 3",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got:\n%q\nwant:\n%q", got, want)
	}
}

func auditsCommon(t *testing.T, s *suite) {
	a := store.Event{Protocol: "lona", Name: "refused", IP: "192.0.2.1", Agent: "a", KeyID: "k", Detail: "x", Refusal: true}
	b := a
	b.Agent, b.Detail = "b", "y"
	s.audit(a, b, a)
	got := s.events()
	want := []store.Event{{
		ID: got[0].ID, At: s.clock.Now(), Protocol: "lona", Name: "refused", IP: "192.0.2.1", KeyID: "k", Refusal: true, Count: 3,
	}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func auditsFlood(t *testing.T, s *suite) {
	const n = 300
	s.tx(func(tx *store.Tx) error {
		for i := range n {
			if err := tx.Audit(refusal("token_refused", "192.0.2.1", fmt.Sprint("agent ", i))); err != nil {
				return err
			}
		}
		return nil
	})
	got := s.events()
	if len(got) != 1 || got[0].Count != n {
		t.Errorf("got %d events, the first %+v, want one of %d", len(got), got[0], n)
	}
}

func auditQuery(t *testing.T, s *suite) {
	var events []store.Event
	for i := range 150 {
		protocol, agent := "lona", "scout"
		if i%2 == 1 {
			protocol = "agentdoor"
		}
		if i%3 == 0 {
			agent = "ranger"
		}
		events = append(events, store.Event{Protocol: protocol, Agent: agent, Name: fmt.Sprint(i)})
	}
	s.audit(events...)
	for _, c := range []struct {
		name  string
		query store.EventQuery
		want  int
		first string
	}{
		{"everything, a hundred", store.EventQuery{}, 100, "149"},
		{"as many as asked for", store.EventQuery{Limit: 2}, 2, "149"},
		{"more than there are", store.EventQuery{Limit: 1000}, 150, "149"},
		{"of a protocol", store.EventQuery{Protocol: "lona", Limit: 1000}, 75, "148"},
		{"of an agent", store.EventQuery{Agent: "ranger", Limit: 1000}, 50, "147"},
		{"of an agent of a protocol", store.EventQuery{Protocol: "lona", Agent: "ranger", Limit: 1000}, 25, "144"},
		{"of nobody", store.EventQuery{Agent: "nobody"}, 0, ""},
	} {
		got, err := s.Events(s.ctx(), c.query)
		if err != nil || len(got) != c.want || c.want > 0 && got[0].Name != c.first {
			t.Errorf("%s: got %d events, %v, want %d from %q", c.name, len(got), err, c.want, c.first)
		}
	}
}
