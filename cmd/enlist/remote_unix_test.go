//go:build unix

package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/enlist-mcp/enlist/embeddedgateway"
	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest"
	"github.com/enlist-mcp/enlist/gateway/wire"
)

// held is a gateway that answers registrations when it is told to.
func held(t *testing.T) (gw *gatewaytest.Gateway, asked chan struct{}, release func()) {
	asked, answer := make(chan struct{}, 8), make(chan struct{})
	gw = gatewaytest.New(t, gatewaytest.Config(func(c *embeddedgateway.Config) {
		c.Wrap = func(h http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == wire.LonaRegisterPath {
					asked <- struct{}{}
					select {
					case <-answer:
					case <-r.Context().Done():
					}
				}
				h.ServeHTTP(w, r)
			})
		}
	}))
	return gw, asked, sync.OnceFunc(func() { close(answer) })
}

// TestASignalLetsCallsOverTLSBeAnswered tells the program to end while a call
// runs, over TLS and HTTP/2: the call is answered, another is refused, and what
// was issued is stored. A second signal ends the program at once.
func TestASignalLetsCallsOverTLSBeAnswered(t *testing.T) {
	t.Parallel()
	program := buildWith(t, nil)
	for _, signals := range []int{1, 2} {
		gw, asked, release := held(t)
		defer release()
		home := t.TempDir()
		t.Cleanup(func() { keepForScan(t, home) })
		cert, key, err := selfSigned()
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(home, "cert.pem"), cert)
		write(t, filepath.Join(home, "key.pem"), key)
		if err := os.Chmod(filepath.Join(home, "key.pem"), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), program, "mcp", "--http", "127.0.0.1:0", "--tls-cert", "cert.pem", "--tls-key", "key.pem")
		cmd.Dir = home
		cmd.Env = []string{"HOME=" + home, "ENLIST_HOME=" + filepath.Join(home, "enlist"), "ENLIST_STORE=file", "LONA_GATEWAY_URL=" + gw.URL}
		stderr, err := cmd.StderrPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(stderr)
		var url string
		for url == "" && lines.Scan() {
			if m := listening.FindStringSubmatch(lines.Text()); m != nil {
				url = m[1]
			}
		}
		logged := make(chan struct{})
		go func() {
			defer close(logged)
			for lines.Scan() {
				t.Log(lines.Text())
			}
		}()
		token, err := os.ReadFile(filepath.Join(home, "enlist", "mcp-token"))
		if err != nil {
			t.Fatal(err)
		}
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(cert)
		client := &http.Client{Transport: &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{RootCAs: roots}}}
		ctx, cancel := context.WithTimeout(t.Context(), stopTime)
		defer cancel()

		answered := make(chan map[string]any, 1)
		go func() { answered <- modernCall(ctx, client, url, string(token)) }()
		<-asked
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		for modernRequest(ctx, client, url, string(token), "tools/list", "{")["status"] != http.StatusServiceUnavailable {
			if ctx.Err() != nil {
				t.Fatal("new calls are not refused")
			}
		}
		if signals == 2 {
			if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			<-logged
			if err := cmd.Wait(); err == nil {
				t.Error("the program ended as if nothing had been under way")
			}
			<-answered
			continue
		}
		release()
		if got := <-answered; got["handle"] != "lona/my-agent" || got["state"] != "active" {
			t.Errorf("got %v, want the credential", got)
		}
		<-logged
		if err := cmd.Wait(); err != nil {
			t.Errorf("the program ended with %v", err)
		}
		audit := exec.CommandContext(t.Context(), program, "audit", "--client", "default", "--action", "register")
		audit.Env = cmd.Env
		if out, err := audit.CombinedOutput(); err != nil || !strings.Contains(string(out), "default: t 1") {
			t.Errorf("the audit trail does not name the token (%v):\n%s", err, out)
		}
	}
}

// modernCall registers an agent by one call of the stateless era and returns what
// came of it, or the status of the answer where that is another than 200.
func modernCall(ctx context.Context, client *http.Client, url, token string) map[string]any {
	return modernRequest(ctx, client, url, token, "tools/call", `{"name":"lona_register_agent","arguments":{"agent_id":"my-agent","agent_name":"My Agent"},`)
}

// modernRequest makes a request whose params begin as given, and returns what it
// answers, or the status of an answer that is none.
func modernRequest(ctx context.Context, client *http.Client, url, token, method, params string) map[string]any {
	body := `{"jsonrpc":"2.0","id":1,"method":"` + method + `","params":` + params + `
		"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"t","version":"1"},"io.modelcontextprotocol/clientCapabilities":{}}}}`
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/mcp", strings.NewReader(body))
	if err != nil {
		return map[string]any{"error": err.Error()}
	}
	for name, value := range map[string]string{
		"Authorization": "Bearer " + strings.TrimSpace(token), "Content-Type": "application/json", "Accept": "application/json, text/event-stream",
		"Mcp-Protocol-Version": "2026-07-28", "Mcp-Method": method,
	} {
		req.Header.Set(name, value)
	}
	if method == "tools/call" {
		req.Header.Set("Mcp-Name", "lona_register_agent")
	}
	resp, err := client.Do(req)
	if err != nil {
		return map[string]any{"error": err.Error()}
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK || resp.ProtoMajor != 2 {
		return map[string]any{"status": resp.StatusCode, "proto": resp.Proto}
	}
	var answer struct {
		Result struct {
			StructuredContent map[string]any
		}
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return map[string]any{"error": err.Error()}
	}
	return answer.Result.StructuredContent
}
