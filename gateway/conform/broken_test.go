package conform_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/enlist-mcp/enlist/embeddedgateway"
	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest"
	"github.com/enlist-mcp/enlist/gateway/conform"
	"github.com/enlist-mcp/enlist/gateway/wire"
)

// answered is what a gateway answers, before somebody spoils it.
type answered struct {
	request *http.Request
	asked   []byte // the body of the request
	status  int
	header  http.Header
	body    []byte
}

func (a *answered) ok() bool { return a.status/100 == 2 }

func (a *answered) json(status int, body string) {
	a.status, a.body = status, []byte(body)
	a.header.Set("Content-Type", "application/json")
}

// each changes every member of the body, at any depth. What it returns false for
// is dropped.
func (a *answered) each(change func(name string, value any) (any, bool)) {
	var v any
	d := json.NewDecoder(bytes.NewReader(a.body))
	d.UseNumber()
	if d.Decode(&v) != nil {
		return
	}
	var walk func(any)
	walk = func(v any) {
		switch v := v.(type) {
		case []any:
			for _, e := range v {
				walk(e)
			}
		case map[string]any:
			for _, name := range slices.Sorted(maps.Keys(v)) {
				walk(v[name])
				next, keep := change(name, v[name])
				if !keep {
					delete(v, name)
					continue
				}
				v[name] = next
			}
		}
	}
	walk(v)
	a.body, _ = json.Marshal(v)
}

// spoiled is a gateway whose answers somebody spoils.
func spoiled(spoil func(*answered)) gatewaytest.Option {
	return gatewaytest.Config(func(c *embeddedgateway.Config) {
		c.Wrap = func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				asked, err := io.ReadAll(r.Body)
				if err != nil {
					return
				}
				r.Body = io.NopCloser(bytes.NewReader(asked))
				rec := httptest.NewRecorder()
				next.ServeHTTP(rec, r)
				a := &answered{request: r, asked: asked, status: rec.Code, header: rec.Header(), body: rec.Body.Bytes()}
				spoil(a)
				maps.Copy(w.Header(), a.header)
				w.WriteHeader(a.status)
				_, _ = w.Write(a.body)
			})
		}
	})
}

var (
	anyTime   = regexp.MustCompile(`^\d{4}-\d\d-\d\dT`)
	essential = regexp.MustCompile(`^(data|token|api_key|apiKey|keyId|keys|invite_code|recovery_key|access_token|agent_id|key_id|challenge|message|nonce|registration_endpoint|auth_endpoint|error|code|error_code|status)$`)
	codeNames = []string{"error", "code", "error_code"}
)

// mutation is one way to be wrong.
type mutation struct {
	name  string
	spoil func() func(*answered) // makes one for a gateway
	fails []string               // some of the checks that must fail, by what their ids end with
}

func always(spoil func(*answered)) func() func(*answered) {
	return func() func(*answered) { return spoil }
}

func mutations() []mutation {
	return []mutation{
		{"refuses nothing", always(func(a *answered) {
			if a.status >= 400 {
				a.json(200, `{}`)
			}
		}), []string{".single-use", ".race", "old-ends", ".not-json", ".methods"}},
		{"has other codes", always(func(a *answered) {
			if a.status < 400 {
				return
			}
			a.each(func(name string, value any) (any, bool) {
				if _, text := value.(string); text && slices.Contains(codeNames, name) {
					return "other", true
				}
				return value, true
			})
		}), []string{".wrong-type", ".path", "limit"}},
		{"has other statuses of success", always(func(a *answered) {
			if a.ok() {
				a.status = http.StatusAccepted
			}
		}), []string{".created"}},
		{"answers refusals with a page", always(func(a *answered) {
			if a.status >= 400 {
				a.header.Set("Content-Type", "text/html; charset=utf-8")
				a.body = []byte("<!DOCTYPE html><title>Error</title>")
			}
		}), []string{"all.json", ".not-json"}},
		{"answers with a page", always(func(a *answered) {
			if a.ok() && len(a.body) > 0 {
				a.header.Set("Content-Type", "text/html")
			}
		}), []string{"all.json", ".issued"}},
		{"breaks down at what is wrong", always(func(a *answered) {
			if a.status == 400 {
				a.status = 500
			}
		}), []string{"all.answered", ".not-json"}},
		{"has bare headers", always(func(a *answered) {
			maps.DeleteFunc(a.header, func(name string, _ []string) bool { return name != "Content-Type" })
		}), []string{"limits.retry-after", ".methods", "secrets.no-store", "all.challenge"}},
		{"has wrong headers", always(func(a *answered) {
			a.header.Set("Cache-Control", "max-age=60")
			if a.header.Get("Retry-After") != "" {
				a.header.Set("Retry-After", "Fri, 06 Feb 2026 14:00:00 GMT")
			}
		}), []string{"limits.retry-after", "secrets.no-store"}},
		{"has other times", always(func(a *answered) {
			a.each(func(_ string, value any) (any, bool) {
				if text, is := value.(string); is && anyTime.MatchString(text) {
					return strings.Replace(strings.TrimSuffix(text, "Z"), "T", " ", 1), true
				}
				return value, true
			})
		}), nil},
		{"says the least", always(func(a *answered) {
			if a.ok() {
				a.each(func(name string, value any) (any, bool) { return value, essential.MatchString(name) })
			}
		}), nil},
		{"says the least when it refuses", always(func(a *answered) {
			if a.status >= 400 {
				a.each(func(name string, value any) (any, bool) {
					return value, slices.Contains(codeNames, name) || name == "status"
				})
			}
		}), nil},
		{"issues what has another form", always(func(a *answered) {
			if a.ok() {
				a.body = regexp.MustCompile(`lona_invite_|lona_partner_|ltx_|agk_live_|rk_|sk_|lk_|aky_|eyJ|"keyId":`).
					ReplaceAllFunc(a.body, func(found []byte) []byte {
						if bytes.HasPrefix(found, []byte(`"`)) {
							return append(found, '-')
						}
						return append([]byte("x"), found...)
					})
			}
		}), []string{".issued"}},
		{"repeats secrets", func() func(*answered) {
			var mu sync.Mutex
			var last string
			return func(a *answered) {
				mu.Lock()
				defer mu.Unlock()
				said := strings.TrimSuffix(string(a.body), "}")
				if last != "" && len(said) < len(a.body) && len(said) > 1 {
					a.body = []byte(said + `,"echo":"` + last + `"}`)
				}
				for _, p := range wire.Protocols() {
					for _, s := range p.Shapes {
						if found := s.Pattern.FindString(said); found != "" {
							last = found
						}
					}
				}
			}
		}, []string{"secrets.once"}},
		{"repeats what was sent", always(func(a *answered) {
			if a.status == 401 {
				sent := a.request.Header.Get("X-Api-Key") + strings.TrimPrefix(a.request.Header.Get("Authorization"), "Bearer ")
				a.json(401, fmt.Sprintf(`{"error":%q,"code":%q,"error_code":%q,"status":"error"}`, sent, sent, sent))
			}
		}), nil},
		{"reads out secrets", always(func(a *answered) {
			if a.ok() && a.request.Method == http.MethodGet && len(a.body) > 2 {
				a.body = []byte(strings.TrimSuffix(string(a.body), "}") + `,"echo":"ltx_neverseenbefore` + fmt.Sprint(len(a.asked)) + `"}`)
			}
		}), []string{"secrets.not-by-get"}},
		{"takes what has ended", always(func(a *answered) {
			if a.status == 401 && a.request.Method == http.MethodGet {
				a.json(200, `{}`)
			}
		}), []string{"revoke.instant", "rotate.old-ends", "refresh.old-ends", "logout.ends", "token.expires"}},
		{"takes an invite again", always(func(a *answered) {
			if a.status == 401 && a.request.Method == http.MethodPost {
				a.json(201, `{}`)
			}
		}), []string{"invite.single-use", "invite.race", "invite.expires"}},
		{"keeps no room, and speaks of mail", func() func(*answered) {
			var mu sync.Mutex
			ended := false
			return func(a *answered) {
				mu.Lock()
				defer mu.Unlock()
				ended = ended || a.ok() && a.request.Method == http.MethodDelete
				switch {
				case a.ok() && ended && a.request.URL.Path == wire.LuminaOnboardPath:
					a.json(409, `{"error":"cap_reached","code":"cap_reached"}`)
				case a.ok() && a.request.URL.Path == wire.FluxraRegisterPath:
					a.body = append(bytes.TrimSuffix(a.body, []byte("}")), `,"email_verification_sent":true}`...)
				}
			}
		}, []string{"cap.freed", "register.no-email"}},
		{"forbids nothing", always(func(a *answered) {
			if a.status == 403 {
				a.json(200, `{}`)
			}
		}), []string{"suspended.forbidden", "suspended.auth", "scope.missing"}},
		{"lets nobody read", always(func(a *answered) {
			if a.ok() && a.request.Method != http.MethodPost {
				a.json(403, `{"error":"forbidden"}`)
			}
		}), []string{".head"}},
		{"lets nobody write twice", func() func(*answered) {
			var mu sync.Mutex
			seen := map[string]bool{}
			return func(a *answered) {
				mu.Lock()
				defer mu.Unlock()
				if !a.ok() || a.request.Method == http.MethodGet {
					return
				}
				if seen[a.request.URL.Path] {
					a.json(403, `{"error":"forbidden"}`)
				}
				seen[a.request.URL.Path] = true
			}
		}, nil},
		{"tells requests apart", always(func(a *answered) {
			if a.ok() && bytes.Contains(a.asked, []byte(`"email"`)) {
				a.body = []byte(strings.TrimSuffix(string(a.body), "}") + fmt.Sprintf(`,"x":%q}`, regexp.MustCompile(`[^a-z]`).ReplaceAll(a.asked, nil)))
			}
		}), nil},
		{"says the same of everybody", always(func(a *answered) {
			if !a.ok() {
				return
			}
			a.each(func(name string, value any) (any, bool) {
				_, text := value.(string)
				switch {
				case text && slices.Contains([]string{
					"partner_id", "partner_name", "agent_name", "wallet", "label", "tier", "agent_id", "key_id", "name", "status", "scope", "message", "id", "email", "token_type",
				}, name):
					return "", true
				case name == "permissions" || name == "scopes" || name == "scopes_granted" || name == "ok" || name == "data" && len(a.body) < 400:
					return 7, true
				}
				return value, true
			})
		}), nil},
	}
}

// misses are those that a mutation must have made fail, and has not; those that
// the protocol has.
func (m mutation) misses(protocol string, ids []string) (missed []string) {
	for _, end := range m.fails {
		has := slices.ContainsFunc(conform.Checks(protocol), func(c conform.Check) bool { return strings.HasSuffix(c.ID, end) })
		if has && !slices.ContainsFunc(ids, func(id string) bool { return strings.HasSuffix(id, end) }) {
			missed = append(missed, end)
		}
	}
	return missed
}

func TestMutationsNameChecks(t *testing.T) {
	for _, m := range mutations() {
		for _, end := range m.fails {
			if !slices.ContainsFunc(conform.Protocols(), func(p string) bool {
				return slices.ContainsFunc(conform.Checks(p), func(c conform.Check) bool { return strings.HasSuffix(c.ID, end) })
			}) {
				t.Errorf("%s: no check is called %s", m.name, end)
			}
		}
	}
}

// TestNoCheckIsUnableToFail: each check of each protocol fails at a gateway that
// is wrong in one of these ways.
func TestNoCheckIsUnableToFail(t *testing.T) {
	for _, protocol := range conform.Protocols() {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			failed := map[string]bool{}
			for _, m := range mutations() {
				gw := gateway(t, spoiled(m.spoil()))
				report := run(t, whole(t, gw, protocol))
				ids := outcomes(report, conform.Fail)
				for _, id := range ids {
					failed[id] = true
				}
				if missed := m.misses(protocol, ids); len(missed) > 0 {
					t.Errorf("a gateway that %s passes %q; it fails %q", m.name, missed, ids)
				}
			}
			for _, c := range conform.Checks(protocol) {
				if !failed[c.ID] {
					t.Errorf("nothing makes %s fail: %s", c.ID, c.Expect)
				}
			}
		})
	}
}
