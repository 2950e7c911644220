//go:build unix

package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/coder/websocket"

	"github.com/enlist-mcp/enlist/gateway/wire"
)

// signalled is the program as a gateway in front of an API, that signals are
// sent to.
type signalled struct {
	cmd    *exec.Cmd
	url    string
	client *http.Client
	key    string
	logged chan struct{} // closed when it has ended

	mu   sync.Mutex
	said strings.Builder
}

// slowAPI is an API that talks by WebSocket at /talk, and answers anything else when
// it is told to.
func slowAPI(t *testing.T) (api *httptest.Server, asked <-chan struct{}, release func()) {
	t.Helper()
	asks, answer := make(chan struct{}, 8), make(chan struct{})
	release = sync.OnceFunc(func() { close(answer) })
	api = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/talk" {
			asks <- struct{}{}
			select {
			case <-answer:
				_, _ = io.WriteString(w, "answered")
			case <-r.Context().Done():
			}
			return
		}
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer func() { _ = c.CloseNow() }()
		for {
			kind, message, err := c.Read(r.Context())
			if err != nil || c.Write(r.Context(), kind, message) != nil {
				return
			}
		}
	}))
	t.Cleanup(func() {
		release()
		api.Close()
	})
	return api, asks, release
}

// startSignalled starts the program with settings, and registers an agent at it.
func startSignalled(t *testing.T, program, settings string) *signalled {
	t.Helper()
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
	write(t, filepath.Join(home, "gateway.toml"), []byte("listen = \"127.0.0.1:0\"\nadmin_listen = \"127.0.0.1:0\"\n"+
		settings+"\n[tls]\ncert = \"cert.pem\"\nkey = \"key.pem\"\n"))
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(cert)
	g := &signalled{
		cmd:    exec.Command(program, "gateway", "--config", filepath.Join(home, "gateway.toml")),
		client: &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}},
		logged: make(chan struct{}),
	}
	g.cmd.Env = []string{"HOME=" + home, "ENLIST_HOME=" + filepath.Join(home, "enlist")}
	stderr, err := g.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	// Or the program would ignore SIGHUP where the tests do: under nohup.
	hangUps := make(chan os.Signal, 1)
	signal.Notify(hangUps, syscall.SIGHUP)
	defer signal.Stop(hangUps)
	if err := g.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = g.cmd.Process.Kill() }) // it has ended, unless the test failed
	lines := bufio.NewScanner(stderr)
	for g.url == "" && lines.Scan() {
		if m := listening.FindStringSubmatch(lines.Text()); m != nil {
			g.url = m[1]
		}
	}
	go func() {
		defer close(g.logged)
		for lines.Scan() {
			g.mu.Lock()
			g.said.WriteString(lines.Text() + "\n")
			g.mu.Unlock()
		}
	}()
	body, err := json.Marshal(wire.LithtrixRegisterRequest{AgentName: "scout", OwnerIdentifier: "signals"})
	if err != nil {
		t.Fatal(err)
	}
	resp, err := g.client.Post(g.url+wire.LithtrixRegisterPath, "application/json", bytes.NewReader(body))
	if err != nil {
		t.Fatalf("%v\n%s", err, g.log())
	}
	defer resp.Body.Close()
	var registered wire.LithtrixKey
	if err := json.NewDecoder(resp.Body).Decode(&registered); err != nil || registered.APIKey == "" {
		t.Fatalf("register: got %d, %v", resp.StatusCode, err)
	}
	g.key = registered.APIKey
	return g
}

func (g *signalled) log() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.said.String()
}

func (g *signalled) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	if err := g.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// ended returns how the program ended.
func (g *signalled) ended() error {
	<-g.logged
	return g.cmd.Wait()
}

// get returns the status of an answer, and what it says; 0 for none.
func (g *signalled) get(ctx context.Context, path string) (status int, says string) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, g.url+path, nil)
	if err != nil {
		return 0, err.Error()
	}
	req.Header.Set("Authorization", "Bearer "+g.key)
	resp, err := g.client.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(body)
}

func (g *signalled) talk(t *testing.T) *websocket.Conn {
	t.Helper()
	c, _, err := websocket.Dial(t.Context(), g.url+"/talk", &websocket.DialOptions{
		HTTPClient: g.client, HTTPHeader: http.Header{"Authorization": {"Bearer " + g.key}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.CloseNow() })
	heard(t, c)
	return c
}

// heard has a message echoed.
func heard(t *testing.T, c *websocket.Conn) {
	t.Helper()
	if err := c.Write(t.Context(), websocket.MessageText, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	if _, got, err := c.Read(t.Context()); err != nil || string(got) != "hello" {
		t.Fatalf("got %q, %v", got, err)
	}
}

// TestSignalsToAGateway tells the program to end, to hang up and to end at once,
// while a request and a WebSocket are under way.
func TestSignalsToAGateway(t *testing.T) {
	t.Parallel()
	program := buildWith(t, nil)
	ctx, cancel := context.WithTimeout(t.Context(), stopTime)
	defer cancel()
	type outcome struct {
		status int
		says   string
	}
	begin := func(g *signalled, asked <-chan struct{}) <-chan outcome {
		over := make(chan outcome, 1)
		go func() {
			status, says := g.get(ctx, "/slow")
			over <- outcome{status, says}
		}()
		<-asked
		return over
	}

	t.Run("SIGTERM answers the request and ends the WebSocket", func(t *testing.T) {
		api, asked, release := slowAPI(t)
		g := startSignalled(t, program, "[drain]\ntimeout = \"1m\"\n[upstream]\nurl = \""+api.URL+"\"")
		c := g.talk(t)
		over := begin(g, asked)
		g.signal(t, syscall.SIGTERM)
		if _, _, err := c.Read(ctx); err == nil || ctx.Err() != nil {
			t.Errorf("the WebSocket goes on (%v)", err)
		}
		release()
		if got := <-over; got != (outcome{http.StatusOK, "answered"}) {
			t.Errorf("got %v, want that it is answered", got)
		}
		if err := g.ended(); err != nil {
			t.Errorf("the program ended with %v:\n%s", err, g.log())
		}
	})

	t.Run("a delay keeps everything, and a second signal ends it at once", func(t *testing.T) {
		for _, second := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
			api, asked, _ := slowAPI(t)
			g := startSignalled(t, program, "[drain]\ndelay = \"1h\"\n[upstream]\nurl = \""+api.URL+"\"")
			c := g.talk(t)
			over := begin(g, asked)
			g.signal(t, syscall.SIGINT)
			for status := 0; status != http.StatusServiceUnavailable; {
				if status, _ = g.get(ctx, "/readyz"); ctx.Err() != nil {
					t.Fatalf("/readyz does not say that it drains:\n%s", g.log())
				}
			}
			heard(t, c)
			heard(t, g.talk(t)) // who has not seen it yet is served
			g.signal(t, second)
			err := g.ended()
			if status, ok := g.cmd.ProcessState.Sys().(syscall.WaitStatus); err == nil || !ok || status.Signal() != second {
				t.Errorf("the program ended with %v, want by the signal", err)
			}
			<-over
		}
	})

	t.Run("SIGHUP ends nothing", func(t *testing.T) {
		api, asked, release := slowAPI(t)
		g := startSignalled(t, program, "[upstream]\nurl = \""+api.URL+"\"")
		c := g.talk(t)
		over := begin(g, asked)
		g.signal(t, syscall.SIGHUP)
		for !strings.Contains(g.log(), "stay as they are until a restart") {
			if heard(t, c); ctx.Err() != nil {
				t.Fatal("it does not say what it did")
			}
		}
		if !strings.Contains(g.log(), "the certificate was read again") {
			t.Errorf("the certificate was not:\n%s", g.log())
		}
		release()
		if got := <-over; got != (outcome{http.StatusOK, "answered"}) {
			t.Errorf("got %v, want that it is answered", got)
		}
		if status, says := g.get(ctx, "/readyz"); status != http.StatusOK {
			t.Errorf("/readyz: got %d %s", status, says)
		}
		g.signal(t, syscall.SIGTERM)
		if err := g.ended(); err != nil {
			t.Errorf("the program ended with %v:\n%s", err, g.log())
		}
	})
}
