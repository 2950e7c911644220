package main

import (
	"bufio"
	"bytes"
	"database/sql"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/embeddedgateway"
	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest"
	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest/leakscan"
)

// soakPatience is how long anything may take that would else hang.
const soakPatience = 60 * time.Second

// victim is an agent's enlist processes, one after another: a session of `enlist
// mcp`, or an `enlist call` for each step.
type victim struct {
	soakProtocol
	session bool
	trigger *trigger
	gw      *gatewaytest.Gateway
	home    string
	global  []string      // before the command
	env     []string      // beside the usual
	leaks   string        // where what is written is kept for a leak scan
	stderr  io.Writer     // nil: nobody's
	seen    func(pid int) // hears of each request at the gateway; nil: nobody

	during, acknowledged string
	agentID              string
	last                 string // what was answered last

	mu      sync.Mutex
	running *child
	killed  bool // from now on nothing is started
}

func (v *victim) temp() string { return filepath.Join(v.home, "tmp") }

// child is one process.
type child struct {
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	stdout *bufio.Reader
	id     int
	ended  chan struct{} // closed when it has been waited for
}

// start starts a process. It returns nil once the victim was killed.
func (v *victim) start(t *testing.T, args ...string) *child {
	t.Helper()
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.killed {
		return nil
	}
	cmd := exec.CommandContext(t.Context(), "enlist", append(slices.Clone(v.global), args...)...)
	cmd.Env = append(append(os.Environ(), v.env...),
		"ENLIST_HOME="+filepath.Join(v.home, "enlist"), "HOME="+v.home, "XDG_CONFIG_HOME=", "AppData="+v.home, "TMPDIR="+v.temp(),
		"ENLIST_STORE=file", v.setting+"="+v.gw.URL, leakscan.Variable+"="+v.leaks)
	c := &child{cmd: cmd, ended: make(chan struct{})}
	var err error
	if c.stdin, err = cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, into, err := os.Pipe() // it stays readable when the process has been waited for
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = into, v.stderr
	c.stdout = bufio.NewReaderSize(out, 1<<20)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = into.Close()
	go func() {
		defer close(c.ended)
		_ = cmd.Wait() // how it ended shows in what it wrote
	}()
	t.Cleanup(func() { _ = out.Close() })
	v.running = c
	return c
}

// kill kills the process that runs, with SIGKILL, and returns when it has gone.
func (v *victim) kill() {
	v.mu.Lock()
	v.killed = true
	c := v.running
	v.mu.Unlock()
	if c != nil {
		_ = c.cmd.Process.Kill() // it may have ended
		<-c.ended
	}
}

// pid is the process that runs.
func (v *victim) pid() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.running == nil {
		return 0
	}
	return v.running.cmd.Process.Pid
}

// end lets a session come to its end.
func (v *victim) end() {
	v.mu.Lock()
	c := v.running
	v.running = nil
	v.mu.Unlock()
	if c != nil {
		_ = c.stdin.Close()
		late := time.AfterFunc(soakPatience, func() { _ = c.cmd.Process.Kill() })
		<-c.ended
		late.Stop()
	}
}

// restart has the next step start a new session, which is not killed. The
// function that it returns ends it.
func (v *victim) restart() func() {
	v.trigger.rest()
	v.mu.Lock()
	v.running, v.killed, v.session = nil, false, true
	v.mu.Unlock()
	return v.end
}

// told is what a tool answered.
type told struct {
	failed bool
	said   map[string]any
}

func (a told) status() int {
	n, _ := a.said["status"].(float64)
	return int(n)
}

// state returns the state of a credential in a list.
func (a told) state(handle string) string {
	list, _ := a.said["credentials"].([]any)
	for _, item := range list {
		c, _ := item.(map[string]any)
		if c["handle"] == handle {
			return fmt.Sprint(c["state"])
		}
	}
	return "nothing"
}

// tool calls a tool. It reports false when the process ended before it answered.
func (v *victim) tool(t *testing.T, name string, arguments map[string]any) (told, bool) {
	t.Helper()
	v.last = name + ": no answer"
	a, ok := v.inSession, v.session
	if !ok {
		a = v.inCall
	}
	got, ok := a(t, name, arguments)
	if ok {
		text, _ := json.Marshal(got.said)
		v.last = name + ": " + string(text)
		if id, _ := got.said["agent_id"].(string); id != "" {
			v.agentID = id
		}
	}
	return got, ok
}

// inCall calls a tool with `enlist call`.
func (v *victim) inCall(t *testing.T, name string, arguments map[string]any) (a told, ok bool) {
	t.Helper()
	text, err := json.Marshal(arguments)
	if err != nil {
		t.Fatal(err)
	}
	c := v.start(t, "call", name, string(text))
	if c == nil {
		return a, false
	}
	out, err := io.ReadAll(c.stdout)
	if err != nil {
		t.Fatal(err)
	}
	<-c.ended
	if json.Unmarshal(bytes.TrimSpace(out), &a.said) != nil {
		return a, false
	}
	a.failed = a.said["code"] != nil
	return a, true
}

// inSession calls a tool of `enlist mcp`, which is started where none runs.
func (v *victim) inSession(t *testing.T, name string, arguments map[string]any) (a told, ok bool) {
	t.Helper()
	v.mu.Lock()
	c := v.running
	v.mu.Unlock()
	if c == nil {
		if c = v.start(t, "mcp"); c == nil {
			return a, false
		}
		_, ok := c.ask("initialize", map[string]any{
			"protocolVersion": "2025-06-18", "capabilities": map[string]any{}, "clientInfo": map[string]any{"name": "soak", "version": "1"},
		})
		if !ok {
			return a, false
		}
	}
	raw, ok := c.ask("tools/call", map[string]any{"name": name, "arguments": arguments})
	if !ok {
		return a, false
	}
	var result struct {
		IsError           bool           `json:"isError"`
		StructuredContent map[string]any `json:"structuredContent"`
	}
	if err := json.Unmarshal(raw, &result); err != nil || result.StructuredContent == nil {
		t.Fatalf("%s: got %s (%v)", name, raw, err)
	}
	return told{failed: result.IsError, said: result.StructuredContent}, true
}

// ask sends a request and reads until its answer comes.
func (c *child) ask(method string, params any) (json.RawMessage, bool) {
	c.id++
	text, err := json.Marshal(map[string]any{"jsonrpc": "2.0", "id": c.id, "method": method, "params": params})
	if err != nil {
		return nil, false
	}
	if _, err := c.stdin.Write(append(text, '\n')); err != nil {
		return nil, false
	}
	late := time.AfterFunc(soakPatience, func() { _ = c.cmd.Process.Kill() })
	defer late.Stop()
	for {
		line, err := c.stdout.ReadBytes('\n')
		if err != nil {
			return nil, false
		}
		var m struct {
			ID     int             `json:"id"`
			Result json.RawMessage `json:"result"`
		}
		if json.Unmarshal(line, &m) == nil && m.ID == c.id && m.Result != nil {
			return m.Result, true
		}
	}
}

// live counts the live credentials at the gateway.
func (v *victim) live(t *testing.T) (n int) {
	t.Helper()
	err := query(t, v.gw.Database, `SELECT count(*) FROM credentials WHERE protocol = $1 AND kind = $2 AND revoked_at = 0`,
		v.name, v.kind).Scan(&n)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// unfinished counts what the journal has.
func (v *victim) unfinished(t *testing.T) (n int) {
	t.Helper()
	path := filepath.Join(v.home, "enlist", "journal.db")
	if _, err := os.Stat(path); err != nil {
		return 0
	}
	err := query(t, path, `SELECT count(*) FROM operations`).Scan(&n)
	if err != nil && !strings.Contains(err.Error(), "no such table") { // killed before there was one
		t.Fatal(err)
	}
	return n
}

func query(t *testing.T, path, text string, args ...any) *sql.Row {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db.QueryRowContext(t.Context(), text, args...)
}

// trigger stands around a gateway and kills whoever makes the nth request.
type trigger struct {
	at    int // 0: none
	how   string
	delay time.Duration
	dead  chan struct{} // closed when it was killed

	mu      sync.Mutex
	victim  *victim
	n       int
	off     bool
	has     bool
	expired bool
	timer   *time.Timer
}

// String implements [fmt.Stringer].
func (tr *trigger) String() string {
	if tr.at == 0 {
		return fmt.Sprintf("%s (%s)", tr.how, tr.delay)
	}
	return fmt.Sprintf("%s (request %d, %s)", tr.how, tr.at, tr.delay)
}

// begin begins to count.
func (tr *trigger) begin(v *victim) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.victim = v
	if tr.dead != nil && tr.at == 0 {
		tr.timer = time.AfterFunc(tr.delay, tr.fire)
	}
}

func (tr *trigger) fire() {
	tr.mu.Lock()
	fire := !tr.off && !tr.has
	tr.has = tr.has || fire
	tr.mu.Unlock()
	if fire {
		tr.victim.kill()
		close(tr.dead)
	}
}

// rest ends it: nothing is killed any more. It returns when nothing is being killed.
func (tr *trigger) rest() {
	tr.mu.Lock()
	tr.off, tr.expired = true, false
	has := tr.has
	if tr.timer != nil {
		tr.timer.Stop()
	}
	tr.mu.Unlock()
	if has {
		<-tr.dead
	}
}

func (tr *trigger) fired() bool {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return tr.has
}

func (tr *trigger) requests() int {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return tr.n
}

// expire has the gateway refuse the next request as if its token had expired.
func (tr *trigger) expire() {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.expired = true
}

// stand puts the trigger around a gateway.
//
// The gateway's clock is the processes' own and goes on with theirs: when a key was
// made is what tells one that was lost from others.
func (tr *trigger) stand(c *embeddedgateway.Config) {
	c.Now = time.Now
	c.Wrap = func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			tr.mu.Lock()
			tr.n++
			now := tr.dead != nil && tr.n == tr.at && !tr.off
			expired := tr.expired
			tr.expired = false
			tr.mu.Unlock()
			if tr.victim != nil && tr.victim.seen != nil {
				tr.victim.seen(tr.victim.pid())
			}
			answer := h
			if expired {
				answer = http.HandlerFunc(refuseOnce)
			}
			if !now {
				answer.ServeHTTP(w, r)
				return
			}
			switch tr.how {
			case "before a request reached the gateway":
				tr.fire()
			case "before the gateway's answer left it":
				answer.ServeHTTP(httptest.NewRecorder(), r)
				tr.fire()
			default:
				answer.ServeHTTP(w, r)
				tr.mu.Lock()
				tr.timer = time.AfterFunc(tr.delay, tr.fire)
				tr.mu.Unlock()
			}
		})
	}
}

func refuseOnce(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusUnauthorized)
	_, _ = io.WriteString(w, `{"error":{"code":"INVALID_TOKEN","message":"the token has expired"}}`)
}
