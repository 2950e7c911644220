package embeddedgateway_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest"
)

// The secrets in the documentation's examples.
const (
	docInvite = "lona_invite_AbCdEf123456..."
	docToken  = "lona_partner_my-agent_abc123xyz456_SecretKeyHere123"
	docSecret = "$AGENT_REGISTRATION_SECRET"
)

// docTime is when the examples of registering were made, if their tokens live
// for 30 days.
var docTime = time.Date(2026, 2, 6, 12, 34, 56, 789_000_000, time.UTC)

// The transcripts are replayed over a bare connection and read without the wire
// types, so that a wrong name in those cannot hide.
func TestLonaAnswersAsItsDocumentationShows(t *testing.T) {
	t.Run("request-invite", func(t *testing.T) {
		gw := gatewaytest.New(t, gatewaytest.At(time.Date(2026, 2, 6, 13, 0, 0, 0, time.UTC)))
		replay(t, gw, "request-invite", nil)
	})
	t.Run("register-invite and strategies", func(t *testing.T) {
		gw := gatewaytest.New(t, gatewaytest.At(docTime))
		registered := replay(t, gw, "register-invite", strings.NewReplacer(docInvite, invited(t, gw, "my-agent")))
		replay(t, gw, "strategies", strings.NewReplacer(docToken, registered.at("data", "token")))
	})
	t.Run("register-secret", func(t *testing.T) {
		gw := gatewaytest.New(t, gatewaytest.At(docTime), partner())
		replay(t, gw, "register-secret", strings.NewReplacer(docSecret, partnerSecret))
	})
}

// replay sends the request of a transcript, its secrets replaced, and checks
// that the answer is the transcript's but for the secrets.
func replay(t *testing.T, gw *gatewaytest.Gateway, name string, secrets *strings.Replacer) answer {
	t.Helper()
	return replayAt(t, gw, "lona", name, "gateway.lona.agency", secrets)
}

// replayAt is replay for a protocol whose service is at a host.
func replayAt(t *testing.T, gw *gatewaytest.Gateway, protocol, name, of string, secrets *strings.Replacer) answer {
	t.Helper()
	request, response := transcript(t, protocol, name)
	if secrets != nil {
		request = secrets.Replace(request)
	}
	host := strings.TrimPrefix(gw.URL, "http://")
	head, body, _ := strings.Cut(request, "\n\n")
	head = strings.Replace(head, "Host: "+of, "Host: "+host, 1)
	head += "\nConnection: close"
	if body != "" {
		head += fmt.Sprintf("\nContent-Length: %d", len(body))
	}
	conn, err := net.Dial("tcp", host)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, strings.ReplaceAll(head, "\n", "\r\n")+"\r\n\r\n"+body); err != nil {
		t.Fatal(err)
	}
	got := readAnswer(t, conn)
	want := readAnswer(t, strings.NewReader(response))
	if got.status != want.status {
		t.Errorf("got status %d (%s), want %d", got.status, got.body, want.status)
	}
	if g, w := got.header.Get("Content-Type"), want.header.Get("Content-Type"); g != w {
		t.Errorf("got Content-Type %q, want %q", g, w)
	}
	var g, w any
	if err := json.Unmarshal(got.body, &g); err != nil {
		t.Fatalf("the body %q is not JSON: %v", got.body, err)
	}
	if err := json.Unmarshal(want.body, &w); err != nil {
		t.Fatal(err)
	}
	alike(t, "body", g, w)
	return got
}

func transcript(t *testing.T, protocol, name string) (request, response string) {
	t.Helper()
	a, err := txtar.ParseFile(filepath.FromSlash("../gateway/wire/testdata/" + protocol + "/" + name + ".txtar"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range a.Files {
		text := string(bytes.ReplaceAll(f.Data, []byte("\r\n"), []byte("\n")))
		switch f.Name {
		case "request.http":
			request = text
		case "response.http":
			response = text
		}
	}
	if request == "" || response == "" {
		t.Fatalf("the transcript %s has no request or no response", name)
	}
	return request, response
}

func readAnswer(t *testing.T, r io.Reader) answer {
	t.Helper()
	resp, err := http.ReadResponse(bufio.NewReader(r), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, body}
}

// like says how a secret of an answer must look, for each of the documentation's.
var like = map[string]*regexp.Regexp{
	docInvite:                              regexp.MustCompile(`^lona_invite_[a-zA-Z0-9]{43,}$`),
	docToken:                               regexp.MustCompile(`^lona_partner_my-agent_[a-zA-Z0-9]{12}_[a-zA-Z0-9]{43,}$`),
	"ltx_a3f9b2c1...":                      ltxLike,
	"ltx_d4e8c7b6...":                      ltxLike,
	"550e8400-e29b-41d4-a716-446655440000": uuidLike,
	"ag_V1StGXR8_Z5jdHi6B":                 doorIDLike,
	"abc123...":                            doorNonceLike,
	"agk_live_abc123...":                   doorLiveLike,
	"eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9...":                       jwtLike,
	"agentdoor:register:ag_V1StGXR8_Z5jdHi6B:1704067200:abc123...":  regexp.MustCompile(`^agentdoor:register:ag_[A-Za-z0-9_-]{21}:1704067200:[A-Za-z0-9_-]{32}$`),
	"lona_partner_moltbook-agent-123_abc123xyz456_SecretKeyHere123": regexp.MustCompile(`^lona_partner_moltbook-agent-123_[a-zA-Z0-9]{12}_[a-zA-Z0-9]{43,}$`),
}

// alike checks that two JSON values have the same names and, but for secrets,
// the same values: times too, because the clock is where it was.
func alike(t *testing.T, where string, got, want any) {
	t.Helper()
	switch want := want.(type) {
	case map[string]any:
		got, _ := got.(map[string]any)
		if g, w := slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want)); !slices.Equal(g, w) {
			t.Errorf("got %s with %v, want %v", where, g, w)
		}
		for name := range want {
			alike(t, where+"."+name, got[name], want[name])
		}
	case []any:
		got, ok := got.([]any)
		if !ok || len(got) != len(want) {
			t.Fatalf("got %s %v, want %v", where, got, want)
		}
		for i := range want {
			alike(t, fmt.Sprintf("%s[%d]", where, i), got[i], want[i])
		}
	case string:
		if pattern := like[want]; pattern != nil {
			if got, _ := got.(string); !pattern.MatchString(got) {
				t.Errorf("got %s %q, want one like %s", where, got, pattern)
			}
		} else if got != want {
			t.Errorf("got %s %q, want %q", where, got, want)
		}
	default:
		if got != want {
			t.Errorf("got %s %v, want %v", where, got, want)
		}
	}
}
