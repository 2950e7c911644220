package gateway_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/gateway"
)

// disguises are ways of writing a secret down that whoever reads it sees
// through at once.
var disguises = map[string]func(string) string{
	"plain":               func(s string) string { return s },
	"base64":              func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) },
	"base64 after 1 byte": func(s string) string { return base64.StdEncoding.EncodeToString([]byte(":" + s + "!")) },
	"base64 of Basic":     func(s string) string { return base64.StdEncoding.EncodeToString([]byte("me:" + s)) },
	"base64url":           func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte("??" + s + "??>")) },
	"base64 in lines": func(s string) string {
		b := base64.StdEncoding.EncodeToString([]byte(s))
		return b[:20] + "\n  " + b[20:]
	},
	"hex":            func(s string) string { return hex.EncodeToString([]byte(s)) },
	"HEX":            func(s string) string { return strings.ToUpper(hex.EncodeToString([]byte(s))) },
	"URL":            url.QueryEscape,
	"every % escape": func(s string) string { return each(s, `%%%02x`) },
	"% escapes twice": func(s string) string {
		return strings.ReplaceAll(each(s, `%%%02X`), "%", "%25")
	},
	"every JSON escape": func(s string) string { return each(s, `\u%04x`) },
	"JSON in JSON":      func(s string) string { return strings.ReplaceAll(each(s, `\u%04X`), `\`, `\\`) },
	"one JSON escape":   func(s string) string { return s[:5] + fmt.Sprintf(`\u%04x`, s[5]) + s[6:] },
	"HTML":              func(s string) string { return each(s, `&#%d;`) },
	"HTML in hex":       func(s string) string { return each(s, `&#x%x;`) },
	"invisible":         func(s string) string { return s[:9] + "\u200b" + s[9:20] + "\u2060" + s[20:] },
	"a soft line break": func(s string) string { return s[:30] + "\r\n\t" + s[30:] },
	"its end only":      func(s string) string { return s[strings.LastIndex(s, "_")+1:] },
}

func each(s, format string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		fmt.Fprintf(&b, format, c)
	}
	return b.String()
}

// opaque is a token that no shape matches, with characters that get escaped.
const opaque = `tok+en/&<9>=~"_Zm9vYmFyYmF6cXV4cXV1eA==`

func TestScrubFindsEveryDisguise(t *testing.T) {
	for _, secret := range []string{token("my-agent", 1), opaque, "0123456789abcdef"} {
		f := newFixture(t, setup{})
		f.put(t, credstore.Credential{
			Info: credstore.Info{Key: lonaKey("https://example.com", "my-agent")}, Secret: credstore.NewSecret(secret),
		})
		for name, disguise := range disguises {
			if len(secret) < 40 && (strings.Contains(name, "line") || name == "its end only" || name == "invisible") {
				continue
			}
			t.Run(name+" of "+secret[:5], func(t *testing.T) {
				hidden := disguise(secret)
				got, err := f.Scrubber.Scrub(t.Context(), "before "+hidden+" after")
				if err != nil {
					t.Fatal(err)
				}
				if leaks(got, secret) || leaks(got, hidden) {
					t.Errorf("got %q", got)
				}
				if !strings.HasPrefix(got, "before ") || !strings.HasSuffix(got, " after") {
					t.Errorf("got %q, want what is around it unharmed", got)
				}
			})
		}
	}
}

// leaks reports whether a text has most of a secret in it.
func leaks(text, secret string) bool {
	half := len(secret) / 2
	return strings.Contains(text, secret[:half]) && strings.Contains(text, secret[half:])
}

func TestScrubLeavesOtherTextAlone(t *testing.T) {
	f := newFixture(t, setup{})
	f.put(t, credstore.Credential{
		Info: credstore.Info{Key: lonaKey("https://example.com", "my-agent")}, Secret: credstore.NewSecret(token("my-agent", 1)),
	})
	for _, text := range []string{
		"", "hello", "100% \\ \\u00e9 %zz &#x; \r\n\t\x1b[1m end\\", "{\n  \"a\": \"\\n\\\"\"\n}",
		"the prefix lona_partner_my-agent_ is public", strings.Repeat(`\`, 100), "emoji 👩‍💻 and ناظم",
	} {
		got, err := f.Scrubber.Scrub(t.Context(), text)
		if err != nil {
			t.Fatal(err)
		}
		if got != text {
			t.Errorf("got %q, want %q", got, text)
		}
	}
}

func TestScrubMasksByShape(t *testing.T) {
	f := newFixture(t, setup{})
	for give, want := range map[string]string{
		"token " + token("other-agent", 1) + ".": "token lona_partner_other-agent_….",
		"code " + inviteCode:                     "code lona_invite_…",
	} {
		got, err := f.Scrubber.Scrub(t.Context(), give)
		if err != nil {
			t.Fatal(err)
		}
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestScrubKeepsJSONValid(t *testing.T) {
	f := newFixture(t, setup{})
	f.put(t, credstore.Credential{Info: credstore.Info{Key: lonaKey("https://example.com", "a1")}, Secret: credstore.NewSecret(opaque)})
	quoted, err := json.Marshal(map[string]string{"plain": opaque, opaque: "key", "path": `C:\new`, "text": "a\nb\u202e\"<&>"})
	if err != nil {
		t.Fatal(err)
	}
	escaped := `{"a":"` + each(opaque, `\u%04x`) + `","b":"\\n\\\"\u005c\u0022\t"}`

	for _, text := range []string{string(quoted), escaped} {
		got, err := f.Scrubber.Scrub(t.Context(), text)
		if err != nil {
			t.Fatal(err)
		}
		if !json.Valid([]byte(got)) {
			t.Errorf("got %s, want valid JSON", got)
		}
		if leaks(got, "Zm9vYmFyYmF6cXV4cXV1eA==") {
			t.Errorf("got %s, want the secret masked", got)
		}
	}
}

func TestScrubNeverFailsOpen(t *testing.T) {
	s := newService(t)
	store := &failing{Store: credstore.NewMemory(frozen)}
	f := newFixture(t, setup{env: map[string]string{"LONA_GATEWAY_URL": s.URL}, store: store})
	r := f.register(t, "my-agent")
	before := len(s.seen(""))

	store.list = errLocked
	if got, err := f.Scrubber.Scrub(t.Context(), "text"); got != "" || !errors.Is(err, credstore.ErrUnavailable) {
		t.Errorf("got %q and %v, want nothing and the store's error", got, err)
	}
	if got := f.Scrubber.Said(t.Context(), "my "+token("x1", 1)); !strings.HasPrefix(got, "[withheld") {
		t.Errorf("got %q, want it withheld", got)
	}
	if _, err := f.Lifecycle.Do(t.Context(), r.Key, gateway.Request{Method: "POST", Path: "/x"}); !errors.Is(err, credstore.ErrUnavailable) {
		t.Errorf("got %v, want the store's error", err)
	}
	if got := len(s.seen("")) - before; got != 0 {
		t.Errorf("got %d requests, want none", got)
	}

	// The list works again, but an entry that is in it cannot be read.
	store.list, store.get = nil, errLocked
	f.put(t, credstore.Credential{Info: credstore.Info{Key: lonaKey(s.URL, "another")}, Secret: credstore.NewSecret(opaque)})
	if _, err := f.Scrubber.Scrub(t.Context(), opaque); err == nil || !strings.Contains(err.Error(), "lona/another") {
		t.Errorf("got %v, want an error that names the entry", err)
	}

	// An entry whose secret is gone has nothing to hide.
	store.get = credstore.ErrNotFound
	if _, err := f.Scrubber.Scrub(t.Context(), "text"); err != nil {
		t.Errorf("got %v, want none", err)
	}
}

func TestAStoreThatFailsAfterTheAnswer(t *testing.T) {
	s := newService(t)
	store := &failing{Store: credstore.NewMemory(frozen)}
	f := newFixture(t, setup{env: map[string]string{"LONA_GATEWAY_URL": s.URL}, store: store})
	r := f.register(t, "my-agent")
	s.on("/x", func(w http.ResponseWriter, req *http.Request) {
		store.list = errLocked
		reply(200, token("my-agent", 1))(w, req)
	})

	got, err := f.Lifecycle.Do(t.Context(), r.Key, gateway.Request{Method: "POST", Path: "/x"})

	e := wantError(t, err, gateway.CodeWithheld)
	if e.Status != 200 || !e.Sent || got.Body != nil {
		t.Errorf("got %+v and %+v, want a withheld answer to a request that was sent", got, e)
	}
}

func TestScrubKnowsWhatAnotherProcessStored(t *testing.T) {
	store := credstore.NewMemory(frozen)
	mine, other := newFixture(t, setup{store: store}), newFixture(t, setup{store: store})
	if _, err := mine.Scrubber.Scrub(t.Context(), "x"); err != nil {
		t.Fatal(err)
	}
	other.put(t, credstore.Credential{Info: credstore.Info{Key: lonaKey("https://example.com", "a1")}, Secret: credstore.NewSecret(opaque)})

	got, err := mine.Scrubber.Scrub(t.Context(), opaque)
	if err != nil || got != "[redacted]" {
		t.Errorf("got %q (%v), want [redacted]", got, err)
	}
}

func TestSaid(t *testing.T) {
	f := newFixture(t, setup{})
	secret := token("my-agent", 1)
	f.put(t, credstore.Credential{Info: credstore.Info{Key: lonaKey("https://example.com", "my-agent")}, Secret: credstore.NewSecret(secret)})
	for _, tt := range []struct{ name, give, want string }{
		{"plain", "hello", "hello"},
		{"lines", "a\r\nb\tc  d\u2028e", "a b c d e"},
		{"escape sequences", "\x1b[31;1mred\x1b[0m \x1b]8;;http://x\x07link\x1b]8;;\x07 \u009b1m", "red link 1m"},
		{"bidi and invisible", "\u202eab\u200bc\u2066\ufeff", "abc"},
		{"invalid UTF-8", "a\xff\xfeb", "ab"},
		{"a secret in invisible characters", secret[:45] + "\u200b\x00" + secret[45:], "lona_partner_my-agent_…"},
		{"a secret behind half an escape", "\x1b[" + secret, "\x1b["},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := f.Scrubber.Said(t.Context(), tt.give)
			if strings.HasPrefix(tt.want, "\x1b") {
				if leaks(got, secret[len(secret)-20:]) || strings.Contains(got, "\x1b") {
					t.Errorf("got %q", got)
				}
				return
			}
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
	long := f.Scrubber.Said(t.Context(), strings.Repeat("ä", 495)+secret)
	if got := len([]rune(long)); got != 500 || !strings.HasSuffix(long, "…") || strings.Contains(long, "abc123") {
		t.Errorf("got %d characters ending in %q", got, long[len(long)-20:])
	}
}

// TestAServiceThatEchoes registers at services that put the token into
// everything that comes back.
func TestAServiceThatEchoes(t *testing.T) {
	for name, disguise := range disguises {
		t.Run(name, func(t *testing.T) {
			s := newService(t)
			f := at(t, s)
			secret := token("my-agent", 1)
			hidden := disguise(secret)
			quoted := strings.NewReplacer("\n", `\n`, "\r", `\r`, "\t", `\t`).Replace(hidden)
			s.on(registerPath, reply(201, `{"data":{"token":"`+secret+`","partner_id":"`+quoted+`","permissions":["`+quoted+`","b"]}}`))
			var out bytes.Buffer
			note := func(what string, v any, err error) {
				fmt.Fprintf(&out, "%s: %+v %v\n", what, v, err)
				if e := (*gateway.Error)(nil); errors.As(err, &e) {
					fmt.Fprintf(&out, "%+v\n", *e)
				}
			}

			r := f.register(t, "my-agent")
			note("register", r, nil)
			header := strings.Join(strings.Fields(hidden), "")
			for _, status := range []int{200, 400, 401, 500} {
				body := `{"error":{"code":"` + quoted + `","message":"bad token ` + quoted + `"},"data":["` + quoted + `"]}`
				answer := reply(status, body, "Content-Type", "text/plain; x="+header, "Etag", header, "X-RateLimit-"+token("x", 1), header,
					"Www-Authenticate", "Bearer "+header, "Retry-After", header)
				s.on("/echo", answer).on(strategiesPath, answer).on(invitePath, answer)
				resp, err := f.Lifecycle.Do(t.Context(), r.Key, gateway.Request{Method: "GET", Path: "/echo"})
				note("do", resp, err)
				fmt.Fprintf(&out, "%s\n", resp.Body)
				list, err := f.Lona.Strategies(t.Context(), r.Key)
				note("strategies", string(list), err)
				_, err = f.Lona.Register(t.Context(), named("my-agent"))
				note("register again", nil, err)
			}
			s.on("/echo", raw("HTTP/1.1 200 OK "+header+"\r\nBad "+header+" Header\r\n\r\n"))
			resp, err := f.Lifecycle.Do(t.Context(), r.Key, gateway.Request{Method: "GET", Path: "/echo"})
			note("broken", resp, err)
			s.on("/echo", reply(302, "", "Location", "https://"+url.PathEscape(header)+".example.com/"+header))
			resp, err = f.Lifecycle.Do(t.Context(), r.Key, gateway.Request{Method: "GET", Path: "/echo"})
			note("redirect", resp, err)

			for what, text := range map[string]string{"the results": out.String(), "the log": f.log.String()} {
				if leaks(text, secret) || leaks(text, hidden) || leaks(text, quoted) {
					t.Errorf("%s hold the token:\n%s", what, text)
				}
			}
		})
	}
}
