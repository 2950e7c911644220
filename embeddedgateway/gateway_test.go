package embeddedgateway_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptrace"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/embeddedgateway"
	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest"
	"github.com/enlist-mcp/enlist/embeddedgateway/store"
)

// config is enough to run a gateway.
func config(t *testing.T) embeddedgateway.Config {
	return embeddedgateway.Config{
		Database: "sqlite:" + filepath.Join(t.TempDir(), "gateway.db"),
		Now:      gatewaytest.NewClock(docTime).Now,
	}
}

func start(t *testing.T) *embeddedgateway.Gateway {
	t.Helper()
	g, err := embeddedgateway.New(t.Context(), config(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.Close() })
	return g
}

func TestNewSaysWhatIsWrong(t *testing.T) {
	env := func(name, value string) func(*embeddedgateway.Config) {
		return func(c *embeddedgateway.Config) {
			c.Env = func(n string) string {
				if n == name {
					return value
				}
				return ""
			}
		}
	}
	const secret = "hunter2hunter2"
	for name, tt := range map[string]struct {
		change func(*embeddedgateway.Config)
		want   []string
	}{
		"no clock":                   {func(c *embeddedgateway.Config) { c.Now = nil }, []string{"Now"}},
		"no database":                {func(c *embeddedgateway.Config) { c.Database = "" }, []string{"sqlite:PATH"}},
		"a database without a path":  {func(c *embeddedgateway.Config) { c.Database = "sqlite:" }, []string{"sqlite:PATH"}},
		"a database not known":       {func(c *embeddedgateway.Config) { c.Database = "mysql://u:" + secret + "@h" }, []string{"sqlite:PATH"}},
		"a database out of reach":    {func(c *embeddedgateway.Config) { c.Database = "sqlite:/no/such/folder/x.db" }, []string{"/no/such/folder/x.db"}},
		"a protocol not known":       {func(c *embeddedgateway.Config) { c.Protocols = []string{"lona", "loan"} }, []string{`"loan"`, "known are", "lona"}},
		"a switch that is no switch": {env("AGENT_INVITE_ENABLED", "off"), []string{"AGENT_INVITE_ENABLED", `"off"`}},
		"days that are no number":    {env("AGENT_TOKEN_TTL_DAYS", "30d"), []string{"AGENT_TOKEN_TTL_DAYS", `"30d"`}},
		"no days":                    {env("AGENT_TOKEN_TTL_DAYS", "0"), []string{"AGENT_TOKEN_TTL_DAYS"}},
		"too many days":              {env("AGENT_TOKEN_MAX_TTL_DAYS", "9999999"), []string{"AGENT_TOKEN_MAX_TTL_DAYS"}},
		"no permission":              {env("AGENT_DEFAULT_PERMISSIONS", "a,,b"), []string{"AGENT_DEFAULT_PERMISSIONS"}},
		"a rebind not known":         {env("AGENT_INVITE_REBIND", "yes"), []string{"AGENT_INVITE_REBIND", "proof or open"}},
		"terms that are no switch":   {env("LITHTRIX_REQUIRE_TERMS", "perhaps"), []string{"lithtrix", "LITHTRIX_REQUIRE_TERMS", `"perhaps"`}},
		"an empty secret in a list":  {env("AGENT_REGISTRATION_SECRET", secret+","), []string{"AGENT_REGISTRATION_SECRET"}},
		"several variables": {
			func(c *embeddedgateway.Config) { c.Env = func(string) string { return "," } },
			[]string{"AGENT_REGISTRATION_SECRET", "AGENT_INVITE_ENABLED", "AGENT_TOKEN_TTL_DAYS", "AGENT_TOKEN_MAX_TTL_DAYS", "AGENT_DEFAULT_PERMISSIONS", "AGENT_INVITE_REBIND"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := config(t)
			tt.change(&cfg)
			g, err := embeddedgateway.New(t.Context(), cfg)
			if err == nil {
				g.Close()
				t.Fatal("got no error")
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("got %q, want %q in it", err, want)
				}
			}
			wantNone(t, "the error", []byte(err.Error()), secret)
		})
	}
}

func TestNewServesTheProtocolsThatAreNamed(t *testing.T) {
	cfg := config(t)
	cfg.Protocols = []string{"lona", "lona"}
	g, err := embeddedgateway.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Close(); err != nil {
		t.Error(err)
	}
	if err := g.Close(); err != nil {
		t.Errorf("closing again: %v", err)
	}
}

// broken is a source of randomness that fails, with a secret in its words.
type broken struct{ panics bool }

const leaked = "lona_partner_my-agent_abcdefabcdef_leakedleakedleaked"

func (b broken) Read([]byte) (int, error) {
	if b.panics {
		panic("no randomness for " + leaked)
	}
	return 0, errors.New("no randomness for " + leaked)
}

func TestFaultsAreLoggedUnderAnIDAndTheClientLearnsTheIDOnly(t *testing.T) {
	for name, panics := range map[string]bool{"an error": false, "a panic": true} {
		t.Run(name, func(t *testing.T) {
			log := &syncBuffer{}
			gw := gatewaytest.New(t, gatewaytest.SQLite(), partner(), gatewaytest.Logger(log.logger()),
				gatewaytest.Config(func(c *embeddedgateway.Config) { c.Rand = broken{panics} }))
			a := withSecret(t, gw, "my-agent", partnerSecret, nil)
			wantStatus(t, a, http.StatusInternalServerError, "internal")
			id, ok := strings.CutPrefix(a.at("error", "message"), "internal error ")
			if !ok || strings.ContainsAny(id, " ") {
				t.Errorf("got the message %q, want an id and nothing else", a.at("error", "message"))
			}
			if !bytes.Contains(log.bytes(), []byte("id="+id)) {
				t.Errorf("the log has no %s:\n%s", id, log.bytes())
			}
			if got := bytes.Contains(log.bytes(), []byte("newToken")); got != panics {
				t.Errorf("the log names the function: %v, want %v", got, panics)
			}
			wantNone(t, "the log", log.bytes(), leaked, partnerSecret)
			other := withSecret(t, gw, "my-agent", partnerSecret, nil)
			if bytes.Equal(other.body, a.body) {
				t.Errorf("two faults have the same id: %s", a.body)
			}
			wantNothingStored(t, gw)
		})
	}
}

func TestARefusalIsAuditedWhenTheClientHasLeft(t *testing.T) {
	g := start(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodDelete, registerPath, nil)
	if err != nil {
		t.Fatal(err)
	}
	g.Handler().ServeHTTP(&answerWriter{header: http.Header{}}, r)
	events, err := g.Audit(t.Context(), store.EventQuery{})
	if err != nil || len(events) != 1 || events[0].Name != "refused:method" {
		t.Errorf("got the audit trail %+v, %v, want the refusal", events, err)
	}
}

func TestAClosedDatabaseIsA503(t *testing.T) {
	g := start(t)
	g.Close()
	r, err := http.NewRequest(http.MethodPost, registerPath, strings.NewReader(`{"agent_id":"my-agent","agent_name":"A","invite_code":"x"}`))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	w := &answerWriter{header: http.Header{}}
	g.Handler().ServeHTTP(w, r)
	a := answer{w.status, w.header, w.body.Bytes()}
	wantStatus(t, a, http.StatusServiceUnavailable, "internal")
	if got, want := a.header.Get("Retry-After"), "1"; got != want {
		t.Errorf("got Retry-After %q, want %q", got, want)
	}
}

func TestInProcessConnectionsReachTheGateway(t *testing.T) {
	g := start(t)
	client := &http.Client{Transport: &http.Transport{DialContext: g.DialContext}}
	resp, err := client.Post(embeddedgateway.Origin+invitePath, "application/json", strings.NewReader(`{"agent_id":"my-agent","agent_name":"A"}`))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusCreated {
		t.Errorf("got status %d, want 201", resp.StatusCode)
	}
	events, err := g.Audit(t.Context(), store.EventQuery{})
	if err != nil || len(events) != 1 || events[0].IP != "127.0.0.1" {
		t.Errorf("got the audit trail %+v, %v, want one event of 127.0.0.1", events, err)
	}
	// The answer to what is too large comes while the client still writes.
	resp, err = client.Post(embeddedgateway.Origin+invitePath, "application/json", strings.NewReader(strings.Repeat(" ", 1<<20)))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("got status %d, want 413", resp.StatusCode)
	}
}

func TestDialContextEndsWithItsContextAndWithTheGateway(t *testing.T) {
	g := start(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for { // whether there was somebody to take it is a matter of chance
		if _, err := g.DialContext(ctx, "tcp", "enlist.localhost:80"); errors.Is(err, context.Canceled) {
			break
		}
	}
	unused, err := g.DialContext(t.Context(), "tcp", "enlist.localhost:80")
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	if _, err := unused.Read(make([]byte, 1)); err == nil {
		t.Error("a connection that asked for nothing outlived the gateway")
	}
	if _, err := g.DialContext(t.Context(), "tcp", "enlist.localhost:80"); !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v, want net.ErrClosed", err)
	}
}

func TestCloseAnswersWhatIsUnderWay(t *testing.T) {
	g := start(t)
	client := &http.Client{Transport: &http.Transport{DialContext: g.DialContext, ExpectContinueTimeout: time.Minute}}
	status, body := slowPost(t, client, embeddedgateway.Origin)
	closed := make(chan error, 1)
	go func() { closed <- g.Close() }()
	for { // until it takes no more
		conn, err := g.DialContext(t.Context(), "tcp", "")
		if err != nil {
			break
		}
		conn.Close()
	}
	io.WriteString(body, `{"agent_id":"my-agent","agent_name":"A"}`)
	body.Close()
	if got := <-status; got != http.StatusCreated {
		t.Errorf("got status %d, want 201", got)
	}
	if err := <-closed; err != nil {
		t.Errorf("close: %v", err)
	}
}

func TestServeAnswersWhatIsUnderWayAndEndsWithItsContext(t *testing.T) {
	g := start(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- g.Serve(ctx, ln) }()
	client := &http.Client{Transport: &http.Transport{ExpectContinueTimeout: time.Minute}}
	status, body := slowPost(t, client, "http://"+ln.Addr().String())
	unused, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer unused.Close()
	cancel()
	for { // until it takes no more
		conn, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			break
		}
		conn.Close()
	}
	io.WriteString(body, `{"agent_id":"my-agent","agent_name":"A"}`)
	body.Close()
	if got := <-status; got != http.StatusCreated {
		t.Errorf("got status %d, want 201", got)
	}
	if err := <-ended; err != nil {
		t.Errorf("got %v, want no error", err)
	}
	if err := g.Serve(t.Context(), ln); err == nil {
		t.Error("serving on a closed listener gave no error")
	}
}

func TestServeCutsOffWhatHangsAndSaysSo(t *testing.T) {
	var said syncBuffer
	cfg := config(t)
	cfg.Logger = said.logger()
	g, err := embeddedgateway.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.Close() })
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- embeddedgateway.ServeFor(ctx, g, ln, 20*time.Millisecond) }()
	conn, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99\r\nExpect: 100-continue\r\n\r\n", invitePath)
	if _, err := conn.Read(make([]byte, 1)); err != nil { // the gateway waits for the body, which never comes
		t.Fatal(err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("got %v, want no error: nothing is lost", err)
	}
	if log := string(said.bytes()); !strings.Contains(log, "level=WARN") || !strings.Contains(log, "cut off") {
		t.Errorf("the log says %s", log)
	}
}

// slowPost begins to ask for an invite and returns when the gateway waits for
// the body.
func slowPost(t *testing.T, client *http.Client, origin string) (status <-chan int, body io.WriteCloser) {
	t.Helper()
	r, w := io.Pipe()
	reading := make(chan struct{})
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got100Continue: func() { close(reading) }})
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, origin+invitePath, r)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Expect", "100-continue")
	got := make(chan int, 1)
	go func() {
		resp, err := client.Do(req)
		if err != nil {
			t.Error(err)
			got <- 0
			return
		}
		resp.Body.Close()
		got <- resp.StatusCode
	}()
	<-reading
	return got, w
}

// answerWriter is an http.ResponseWriter that keeps what is written.
type answerWriter struct {
	status int
	header http.Header
	body   bytes.Buffer
}

func (w *answerWriter) Header() http.Header         { return w.header }
func (w *answerWriter) WriteHeader(status int)      { w.status = status }
func (w *answerWriter) Write(b []byte) (int, error) { return w.body.Write(b) }

// syncBuffer is a log that may be read while it is written.
type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) bytes() []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	return bytes.Clone(b.buf.Bytes())
}

// logger logs everything there is into the buffer.
func (b *syncBuffer) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(b, &slog.HandlerOptions{Level: slog.LevelDebug - 100}))
}
