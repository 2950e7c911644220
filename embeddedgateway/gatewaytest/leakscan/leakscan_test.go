package leakscan_test

import (
	"encoding/base64"
	"encoding/hex"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest/leakscan"
)

const secret = "lona_partner_my-agent_abc123xyz456_NotARealSecretAtAll0000000000000000000"

func TestScanFindsEveryForm(t *testing.T) {
	std, raw := base64.StdEncoding, base64.RawURLEncoding
	tests := map[string]string{
		"plain":               "x" + secret + "y",
		"inside JSON":         `{"token":"` + secret + `"}`,
		"hex":                 hex.EncodeToString([]byte("ab" + secret)),
		"upper-case hex":      strings.ToUpper(hex.EncodeToString([]byte(secret))),
		"base64":              std.EncodeToString([]byte(secret + "and more")),
		"base64, shifted 1":   std.EncodeToString([]byte("a" + secret)),
		"base64, shifted 2":   std.EncodeToString([]byte("ab" + secret + "c")),
		"base64url, basic":    raw.EncodeToString([]byte("my-agent:" + secret)),
		"percent-encoded":     "q=" + percent(secret),
		"reversed":            reverse(secret),
		"in a binary garbage": "\x00\xff\xfe" + secret + "\x00",
	}
	for name, text := range tests {
		t.Run(name, func(t *testing.T) {
			report := scan(t, []string{secret}, text)
			if len(report.Found) == 0 {
				t.Errorf("nothing found in %q", text)
			}
			for _, f := range report.Found {
				if strings.Contains(f.String(), secret) {
					t.Errorf("the finding itself leaks: %s", f)
				}
			}
		})
	}
}

func TestScanPassesWhatIsPublic(t *testing.T) {
	tests := map[string]string{
		"nothing":         "",
		"the masked form": "lona_partner_my-agent_…",
		"another token":   "lona_partner_my-agent_abc123xyz456_NotARealSecretAtAll1111111111111111111",
	}
	for name, text := range tests {
		t.Run(name, func(t *testing.T) {
			if report := scan(t, []string{secret}, text); len(report.Found) > 0 {
				t.Errorf("found %v in %q", report.Found, text)
			}
		})
	}
}

func TestNilRecorderKeepsNothing(t *testing.T) {
	r, err := leakscan.New("")
	if err != nil || r != nil {
		t.Fatalf("New(\"\") = %v, %v; want nil, nil", r, err)
	}
	r.Issued(secret)
	w, err := r.Output("stdout")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, secret); err != nil {
		t.Error(err)
	}
	if err := r.Keep("folder", t.TempDir()); err != nil {
		t.Error(err)
	}
}

func TestKeepCopiesAFolder(t *testing.T) {
	dir, kept := t.TempDir(), t.TempDir()
	if err := os.MkdirAll(filepath.Join(kept, "a", "b"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(kept, "a", "b", "gateway.db"), []byte(secret), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := leakscan.New(dir)
	if err != nil {
		t.Fatal(err)
	}
	r.Issued(secret)
	if err := r.Keep("home", kept); err != nil {
		t.Fatal(err)
	}
	report, err := leakscan.Scan(dir)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := len(report.Found), 1; got != want || !strings.Contains(report.Found[0].File, "gateway.db") {
		t.Errorf("found %v, want one in gateway.db", report.Found)
	}
}

func scan(t *testing.T, secrets []string, text string) leakscan.Report {
	t.Helper()
	dir := t.TempDir()
	r, err := leakscan.New(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range secrets {
		r.Issued(s)
	}
	w, err := r.Output("stdout of a/test")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	report, err := leakscan.Scan(dir)
	if err != nil {
		t.Fatal(err)
	}
	if report.Secrets != len(secrets) || report.Files != 1 || report.Bytes != int64(len(text)) {
		t.Errorf("looked at %d secrets, %d files, %d bytes; want %d, 1, %d", report.Secrets, report.Files, report.Bytes, len(secrets), len(text))
	}
	return report
}

func percent(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		b.WriteString("%" + hex.EncodeToString([]byte{c}))
	}
	return b.String()
}

func reverse(s string) string {
	b := []byte(s)
	for i := range len(b) / 2 {
		b[i], b[len(b)-1-i] = b[len(b)-1-i], b[i]
	}
	return string(b)
}
