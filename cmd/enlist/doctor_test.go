package main

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// patient is the program with a home of its own and the encrypted file, at a
// clock that is off.
func patient(t *testing.T, off time.Duration, env map[string]string) func(args ...string) (diagnosis, int) {
	t.Helper()
	home := t.TempDir()
	return func(args ...string) (diagnosis, int) {
		t.Helper()
		var out bytes.Buffer
		p := &program{
			stdin: strings.NewReader(""), stdout: &out, stderr: io.Discard,
			env: func(name string) string {
				if value, ok := env[name]; ok {
					return value
				}
				return map[string]string{"ENLIST_HOME": home, "HOME": home, "ENLIST_STORE": "file"}[name]
			},
			environ: func() []string { return nil },
			now:     func() time.Time { return time.Now().Add(off) },
		}
		code := p.run(t.Context(), args)
		var d diagnosis
		if err := json.Unmarshal(out.Bytes(), &d); err != nil {
			t.Fatalf("%v: %v in %s", args, err, out.String())
		}
		return d, code
	}
}

// TestDoctorComparesClocks: what is signed at the wrong time is refused.
func TestDoctorComparesClocks(t *testing.T) {
	service := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(service.Close)
	for off, want := range map[time.Duration]string{
		0: "has the same time", time.Hour: "behind this one", -time.Hour: "ahead of this one",
	} {
		d, code := patient(t, off, map[string]string{"LONA_GATEWAY_URL": service.URL})("doctor", "--json")
		n := slices.IndexFunc(d.Findings, func(f finding) bool { return f.Subject == service.URL })
		if n < 0 || !strings.Contains(d.Findings[n].Text, want) || d.Well != (off == 0) || (code == exitOK) != d.Well {
			t.Errorf("%s off: got %+v and the exit code %d, want %q", off, d, code, want)
		}
	}
}

// TestDoctorFinishesWhatWasLeftHalfDone: only when it
// is told to, and it shows no credential to who is only looked at.
func TestDoctorFinishesWhatWasLeftHalfDone(t *testing.T) {
	var answers atomic.Bool
	presented := make(chan string, 8)
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/":
			presented <- r.Header.Get("X-API-Key") + r.Header.Get("Authorization")
			http.NotFound(w, r)
		case !answers.Load():
			panic(http.ErrAbortHandler) // it has acted, and nobody hears of it
		default:
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusCreated)
			_, _ = io.WriteString(w, `{"data":{"token":"lona_partner_my-agent_abc123xyz456_NotARealSecretAtAll","permissions":["*"],"expires_at":"2099-03-08T12:34:56.789Z"}}`)
		}
	}))
	t.Cleanup(service.Close)
	enlist := patient(t, 0, map[string]string{"LONA_GATEWAY_URL": service.URL, "LONA_AGENT_REGISTRATION_SECRET": "registration-secret-1234"})
	if _, code := enlist("call", "lona_register_agent", `{"agent_id":"my-agent","agent_name":"My Agent"}`); code != exitFailure {
		t.Fatalf("a registration without an answer: got the exit code %d", code)
	}
	answers.Store(true)

	d, code := enlist("doctor", "--json")

	pending := func(f finding) bool {
		return f.Area == "credential" && f.Level == levelProblem && f.Repairable && strings.Contains(f.Text, "pending")
	}
	if code != exitFailure || !slices.ContainsFunc(d.Findings, pending) {
		t.Errorf("got %+v and the exit code %d, want the credential pending", d, code)
	}
	if d, code = enlist("doctor", "--json", "--repair", "--offline"); code != exitFailure {
		t.Errorf("offline: got %+v and the exit code %d, want it pending still", d, code)
	}
	d, code = enlist("doctor", "--json", "--repair")
	if code != exitOK || !slices.ContainsFunc(d.Repaired, func(s string) bool { return strings.Contains(s, "half-done: finished") }) {
		t.Errorf("got %+v and the exit code %d, want it finished", d, code)
	}
	if len(presented) != 2 || <-presented+<-presented != "" {
		t.Error("the first page was not asked for twice, or with a credential")
	}
}
