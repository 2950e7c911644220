package main

import (
	"bytes"
	"crypto/tls"
	"encoding/pem"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/embeddedgateway"
)

// TestChildrenInheritNoSecretOfTheGateway: a program that Enlist starts gets the
// process's own environment.
func TestChildrenInheritNoSecretOfTheGateway(t *testing.T) {
	t.Setenv("ENLIST_SERVER_KEY", "the server key")
	t.Setenv("ENLIST_SMTP_URL", "smtp://user:password@host")
	t.Setenv("ENLIST_LISTEN", "127.0.0.1:1")
	env, _ := takeEnvironment()
	for name, want := range map[string]string{
		"ENLIST_SERVER_KEY": "the server key", "ENLIST_SMTP_URL": "smtp://user:password@host",
		"ENLIST_LISTEN": "127.0.0.1:1", "ENLIST_NO_SUCH_THING": "",
	} {
		if got := env(name); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	if slices.ContainsFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "ENLIST_SERVER_KEY=") || strings.HasPrefix(v, "ENLIST_SMTP_URL=")
	}) {
		t.Error("they are still in the environment of the process")
	}
}

func TestCertificatesOfTheMailServer(t *testing.T) {
	s := httptest.NewTLSServer(nil)
	defer s.Close()
	path := filepath.Join(t.TempDir(), "ca.pem")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	p := &program{env: func(name string) string { return map[string]string{"ENLIST_SMTP_CA_FILE": path}[name] }}
	settings, problems := p.readSettings(nil)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	config, err := settings.smtpTLS()
	if err != nil {
		t.Fatal(err)
	}
	config.ServerName = "example.com" // one that the certificate is for
	conn, err := tls.Dial("tcp", s.Listener.Addr().String(), config)
	if err != nil {
		t.Fatalf("a certificate of the file is not trusted: %v", err)
	}
	conn.Close()
}

func TestLinksBeginWithAnAddressThatOpens(t *testing.T) {
	for addr, want := range map[string]string{
		"127.0.0.1:8420": "127.0.0.1:8420", "[::1]:8420": "[::1]:8420",
		"0.0.0.0:8420": "localhost:8420", "[::]:8420": "localhost:8420",
	} {
		tcp, err := net.ResolveTCPAddr("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		if got := reachable(tcp); got != want {
			t.Errorf("%s: got %s, want %s", addr, got, want)
		}
	}
}

func TestOutboxIsPrinted(t *testing.T) {
	at := time.Date(2026, 2, 6, 12, 0, 0, 0, time.UTC)
	list := []embeddedgateway.Mail{
		{Name: "abcdefghijkl", To: "ada@example.org", Subject: "Verify", Text: "Open\n\nhttp://127.0.0.1:8420/v?token=t&x=1\n", Created: at, Expires: at.Add(time.Hour), Tries: 2},
		{Name: "mnopqrstuvwx", To: "eve\x1b[2J@example.org", Subject: "Code", Text: "123456\n", Created: at, Expires: at.Add(time.Minute)},
	}
	var out bytes.Buffer
	if err := (&screen{out: &out}).outbox(list, false); err != nil {
		t.Fatal(err)
	}
	const want = `Letter:   abcdefghijkl, of 2026-02-06T12:00:00Z, tries so far: 2
Expires:  2026-02-06T13:00:00Z
To:       ada@example.org
Subject:  Verify

Open

http://127.0.0.1:8420/v?token=t&x=1

------------------------------------------------------------------------
Letter:   mnopqrstuvwx, of 2026-02-06T12:00:00Z, tries so far: 0
Expires:  2026-02-06T12:01:00Z
To:       eve?[2J@example.org
Subject:  Code

123456
`
	if out.String() != want {
		t.Errorf("got:\n%s\nwant:\n%s", out.String(), want)
	}
	out.Reset()
	if err := (&screen{out: &out}).outbox(list[:1], true); err != nil {
		t.Fatal(err)
	}
	for _, field := range []string{
		`"letter": "abcdefghijkl"`, `"to": "ada@example.org"`, `"subject": "Verify"`, `token=t&x=1\n"`,
		`"created_at": "2026-02-06T12:00:00Z"`, `"expires_at": "2026-02-06T13:00:00Z"`, `"tries": 2`,
	} {
		if !strings.Contains(out.String(), field) {
			t.Errorf("the JSON lacks %s:\n%s", field, out.String())
		}
	}
}
