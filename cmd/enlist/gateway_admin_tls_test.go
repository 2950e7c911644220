package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestTheOperatorsPageSpeaksTLS: with a certificate of its own, by whose names it
// goes, and with cookies that no plain HTTP gets; and not without its key, or with
// a certificate that is over.
func TestTheOperatorsPageSpeaksTLS(t *testing.T) {
	dir := t.TempDir()
	cert, key, err := selfSigned("127.0.0.1", "operator.example.com")
	if err != nil {
		t.Fatal(err)
	}
	files := [2]string{filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")}
	for i, text := range [][]byte{cert, key} {
		if err := os.WriteFile(files[i], text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	env := map[string]string{"ENLIST_HOME": dir, "ENLIST_ADMIN_TLS_CERT": files[0], "ENLIST_ADMIN_TLS_KEY": files[1], "ENLIST_ADMIN_TOKEN": strings.Repeat("t", 40)}
	stderr, said := io.Pipe()
	p := &program{stdin: strings.NewReader(""), stdout: io.Discard, stderr: said, now: time.Now, env: func(name string) string { return env[name] }}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan int, 1)
	go func() {
		ended <- p.run(ctx, []string{"gateway", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"})
		_ = said.Close()
	}()
	page := make(chan string, 1)
	go func() {
		defer close(page)
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			if m := regexp.MustCompile(`page is at (\S+),`).FindStringSubmatch(lines.Text()); m != nil {
				page <- m[1]
			}
		}
	}()
	base := <-page
	if !strings.HasPrefix(base, "https://127.0.0.1:") {
		t.Fatalf("the page is at %q", base)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(cert)
	client := &http.Client{
		Transport:     &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: "127.0.0.1"}},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	for host, want := range map[string]int{"": 303, "operator.example.com": 303, "other.example.com": 421} {
		req, err := http.NewRequest(http.MethodPost, base+"/sign-in", strings.NewReader(url.Values{"token": {env["ENLIST_ADMIN_TOKEN"]}}.Encode()))
		if err != nil {
			t.Fatal(err)
		}
		req.Host = host
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("as %q: got %d, want %d", host, resp.StatusCode, want)
		}
		for _, c := range resp.Cookies() {
			if c.Name != "__Host-enlist-admin" || !c.Secure || !c.HttpOnly {
				t.Errorf("got the cookie %v", c)
			}
		}
	}
	client.CloseIdleConnections()
	stop()
	if code := <-ended; code != exitOK {
		t.Errorf("it ended with %d", code)
	}
}

func TestAWrongCertificateOfTheOperatorsPageIsSaid(t *testing.T) {
	dir := t.TempDir()
	cert, key, err := selfSigned("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"cert.pem": string(cert), "key.pem": string(key),
		"half.toml": "[admin_tls]\ncert = \"cert.pem\"\n", "none.toml": "[admin_tls]\ncert = \"key.pem\"\nkey = \"cert.pem\"\n",
		"good.toml": "[admin_tls]\ncert = \"cert.pem\"\nkey = \"key.pem\"\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		file  string
		later time.Duration
		want  string
	}{
		{"half.toml", 0, `half.toml:2: admin_tls.cert: it goes with admin_tls.key, which is not set`},
		{"none.toml", 0, `none.toml:2: admin_tls.cert .* are no certificate chain and its key`},
		{"good.toml", 100 * 365 * 24 * time.Hour, `good.toml:2: admin_tls.cert: the certificate in .* expired on`},
	} {
		for _, command := range [][]string{{"gateway"}, {"gateway", "check"}} {
			var said strings.Builder
			p := &program{
				stdin: strings.NewReader(""), stdout: &said, stderr: &said, now: func() time.Time { return time.Now().Add(tt.later) },
				env: func(name string) string { return map[string]string{"ENLIST_HOME": dir}[name] },
			}
			code := p.run(t.Context(), append(command, "--config", filepath.Join(dir, tt.file), "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"))
			if code == exitOK || !regexp.MustCompile(tt.want).MatchString(said.String()) {
				t.Errorf("%v with %s: got %d, %s", command, tt.file, code, &said)
			}
		}
	}
}
