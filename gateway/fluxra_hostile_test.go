package gateway_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/gateway"
)

// A service that refuses every API key at its token route gets one new key from
// us, and not one for each request.
func TestFluxraMakesNoKeysWithoutEnd(t *testing.T) {
	never := func(call string, w http.ResponseWriter, r *http.Request) bool {
		if call == tokenCall {
			reply(401, `{"error":{"code":"UNAUTHORIZED","message":"no"}}`)(w, r)
		}
		return call == tokenCall
	}
	t.Run("healing", func(t *testing.T) {
		s := newFluxra(t)
		f := s.client(nil)
		r := f.enrol(t)
		s.killTokens()
		s.do = never
		for range 5 {
			s.clock.advance(2 * time.Hour)
			if _, err := f.Lifecycle.Do(t.Context(), r.Key, get("/api/me")); err == nil {
				t.Error("want an error")
			}
		}
		if got := s.count(keyCall) - 1; got != 1 {
			t.Errorf("made %d keys in five requests, want one", got)
		}
		// What a person asks for is done, and what works heals again.
		s.do = nil
		if _, err := f.Lifecycle.Rotate(t.Context(), r.Key); err != nil {
			t.Fatal(err)
		}
		s.killKeys()
		s.clock.advance(time.Hour)
		if got := f.me(t, r.Key); got != 200 || s.count(keyCall)-1 != 3 {
			t.Errorf("got the status %d and %d keys", got, s.count(keyCall)-1)
		}
	})
	t.Run("registering", func(t *testing.T) {
		s := newFluxra(t)
		f := s.client(nil)
		s.do = never
		for range 5 {
			s.clock.advance(time.Minute)
			if _, err := f.Fluxra.Register(t.Context(), weather()); err == nil {
				t.Error("want an error")
			}
		}
		if got := s.count(keyCall); got != 1 {
			t.Errorf("made %d keys in five registrations, want one", got)
		}
	})
	t.Run("answers that are lost", func(t *testing.T) {
		s := newFluxra(t)
		f := s.client(nil)
		r := f.enrol(t)
		s.killKeys()
		s.loses(keyCall, 1000)
		for range 40 {
			s.clock.advance(2 * time.Hour)
			if _, err := f.Lifecycle.Do(t.Context(), r.Key, get("/api/me")); err == nil {
				t.Error("want an error")
			}
		}
		if got := s.count(keyCall) - 1; got > 5 {
			t.Errorf("asked for %d keys in 40 requests", got)
		}
	})
}

// Nothing but a 401 leads to the recovery key.
func TestFluxraOnlyA401LeadsToTheRecoveryKey(t *testing.T) {
	for _, status := range []int{400, 402, 403, 404, 407, 409, 429, 500, 502, 503, 504} {
		for _, call := range []string{refreshCall, tokenCall, "both"} {
			t.Run(fmt.Sprint(status, " ", call), func(t *testing.T) {
				s := newFluxra(t)
				f := s.client(nil)
				r := f.enrol(t)
				s.do = func(c string, w http.ResponseWriter, r *http.Request) bool {
					hit := c == call || call == "both" && (c == refreshCall || c == tokenCall)
					if hit {
						reply(status, `{"error":{"code":"SOMETHING","message":"no"}}`)(w, r)
					}
					return hit
				}
				for _, d := range []time.Duration{50 * time.Minute, time.Hour, time.Hour} {
					s.clock.advance(d)
					_, _ = f.Lifecycle.Do(t.Context(), r.Key, get("/api/me"))
				}
				if s.count(keyCall) != 1 || s.count(deleteCall) != 0 {
					t.Errorf("got %v", s.calls)
				}
				if c := f.item(t, r.Key, credstore.KindRecovery); c.State != credstore.StateActive {
					t.Errorf("the recovery key is %s", c.State)
				}
			})
		}
	}
}

// A service that repeats what it was sent, and what it issues, in whatever
// place, shows a model none of it.
func TestFluxraEchoes(t *testing.T) {
	s := newFluxra(t)
	f := s.client(nil)
	r := f.enrol(t)
	var basics []string
	echo := func(w http.ResponseWriter, r *http.Request) {
		a := r.Header.Get("Authorization")
		plain, _ := base64.StdEncoding.DecodeString(strings.TrimPrefix(a, "Basic "))
		basics = append(basics, strings.TrimPrefix(strings.TrimPrefix(a, "Basic "), "Bearer "))
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(403)
		_ = json.NewEncoder(w).Encode(map[string]any{"error": map[string]any{
			"code": "FORBIDDEN", "message": "you sent " + a + " that is " + string(plain),
		}})
	}
	s.do = func(call string, w http.ResponseWriter, r *http.Request) bool {
		switch call {
		case refreshCall, tokenCall, keyCall, deleteCall, "GET /api/me":
			echo(w, r)
			return true
		}
		return false
	}
	var said []string
	note := func(err error) {
		var e *gateway.Error
		if errors.As(err, &e) {
			said = append(said, e.Error(), e.Code, e.Message)
		} else if err != nil {
			said = append(said, err.Error())
		}
	}
	res, err := f.Lifecycle.Do(t.Context(), r.Key, get("/api/me"))
	note(err)
	said = append(said, string(res.Body))
	s.clock.advance(2 * time.Hour)
	_, err = f.Lifecycle.Do(t.Context(), r.Key, get("/api/me"))
	note(err)
	_, err = f.Lifecycle.Rotate(t.Context(), r.Key)
	note(err)
	note(f.Lifecycle.Revoke(t.Context(), r.Key))
	if len(basics) < 4 {
		t.Fatalf("only %d requests", len(basics))
	}
	for _, text := range said {
		noSecret(t, "what was said", text, s.issued()...)
		for _, b := range basics {
			if strings.Contains(text, b) {
				t.Errorf("%q holds a header that was sent", text)
			}
		}
	}
}

// A key that never arrived is the newest, and so on the last page of a list.
func TestFluxraFindsALostKeyOnTheLastPage(t *testing.T) {
	s := newFluxra(t)
	f := s.client(nil)
	r := f.enrol(t)
	s.clock.advance(time.Minute)
	s.loses(keyCall, 1)
	if _, err := f.Lifecycle.Rotate(t.Context(), r.Key); err == nil {
		t.Fatal("want an error")
	}
	s.clock.advance(time.Minute)
	endless := 0
	s.do = func(call string, w http.ResponseWriter, r *http.Request) bool {
		if call != "GET agent" || r.URL.Query().Get("cursor") == "the last&one" {
			return false
		}
		endless++
		next := fmt.Sprintf("page %d", endless)
		if endless == 3 {
			next = "the last&one"
		}
		reply(200, `{"keys":[{"key_id":"aky_old","name":"old","revoked_at":"2026-02-06T13:00:00Z"}],"next_cursor":"`+next+`","has_more":true}`)(w, r)
		return true
	}
	info, err := f.Lifecycle.Rotate(t.Context(), r.Key)
	if err != nil {
		t.Fatal(err)
	}
	if got := s.alive(); len(got) != 1 || got[0] != info.KeyID {
		t.Errorf("the keys %v live, want %s", got, info.KeyID)
	}
	// A list that does not end is not read for ever.
	s.loses(keyCall, 1)
	_, _ = f.Lifecycle.Rotate(t.Context(), r.Key)
	before := s.count("GET agent")
	s.clock.advance(time.Minute)
	endless = 3
	if _, err := f.Lifecycle.Rotate(t.Context(), r.Key); err != nil {
		t.Error(err)
	}
	if got := s.count("GET agent") - before; got > 50 {
		t.Errorf("read %d pages", got)
	}
}
