package tools_test

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/enlist-mcp/enlist/tools"
)

// What is too long for a result is in a file, whole and without the secret; the
// result says where.
func TestSendRequestPutsWhatIsLongIntoAFile(t *testing.T) {
	const token = "lona_partner_my-agent_abc123xyz456_SecretKeyHere123"
	words := strings.Repeat("a few words of ", 40_000)
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/json":
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write([]byte(`{"a":"` + words + r.Header.Get("X-API-Key") + `"}`))
		case "/picture":
			_, _ = w.Write([]byte("\x89PNG\r\n\x1a\n" + strings.Repeat("\x00", 300_000)))
		case "/mirror":
			_, _ = w.Write([]byte("\x89PNG\r\n\x1a\n" + strings.Repeat("\x00", 300_000) + r.Header.Get("X-API-Key")))
		}
	}))
	t.Cleanup(service.Close)
	home := t.TempDir()
	r := newRig(t, service.URL, options{home: home, env: map[string]string{"LONA_API_KEY": token, "LONA_USER_ID": "my-agent"}})
	defer func() { r.saysNone(token, token[30:]) }()
	if err := r.client.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	send := func(path string) tools.Answer {
		t.Helper()
		return call[tools.Answer](r, "send_request", args{"method": "GET", "path": path})
	}

	got := send("/json")
	if got.File == nil || !got.Truncated || len(got.Body.(string)) != 256<<10 || filepath.Ext(got.File.Path) != ".json" {
		t.Fatalf("got %+v and %d bytes, want a file and the first 256 KiB", got.File, len(got.Body.(string)))
	}
	want := `{"a":"` + words + `lona_partner_my-agent_…"}`
	if text, err := os.ReadFile(got.File.Path); err != nil || string(text) != want || int64(len(text)) != got.File.Bytes {
		t.Errorf("got %d bytes in the file (%v), want %d", len(text), err, len(want))
	}
	if got := send("/picture"); got.File == nil || got.Binary != "image/png, 300008 bytes" || got.Body != nil || got.Truncated {
		t.Errorf("a picture: got %+v", got)
	}
	if got := send("/mirror"); got.File != nil || got.Body != nil || !strings.Contains(got.NextStep, "withheld") {
		t.Errorf("a picture with the key in it: got %+v", got)
	}
	if err := os.RemoveAll(home); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(home, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := send("/json"); got.File != nil || !got.Truncated || !strings.Contains(got.NextStep, "could not be written") {
		t.Errorf("no folder: got %q", got.NextStep)
	}
}
