package main

import (
	"bytes"
	"database/sql"
	"fmt"
	"go/ast"
	"go/parser"
	gotoken "go/token"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/enlist-mcp/enlist/embeddedgateway"
	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest"
	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest/leakscan"
)

// evidence is everything that a process and those that it starts leave in a
// place where a secret could be found.
type evidence struct {
	dir    string
	record *leakscan.Recorder
}

func newEvidence(t *testing.T) *evidence {
	t.Helper()
	e := &evidence{dir: t.TempDir()}
	var err error
	if e.record, err = leakscan.New(e.dir); err != nil {
		t.Fatal(err)
	}
	return e
}

// output is what one stream of a process goes to.
func (e *evidence) output(t *testing.T, name string) *os.File {
	t.Helper()
	w, err := e.record.Output(name)
	if err != nil {
		t.Fatal(err)
	}
	f := w.(*os.File)
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// files keeps what lies in the folders of a process: its home and its temporary
// one.
func (e *evidence) files(t *testing.T, dirs ...string) {
	t.Helper()
	for _, dir := range dirs {
		if err := e.record.Keep(filepath.Base(dir), dir); err != nil {
			t.Error(err)
		}
	}
}

// processes keeps the arguments and the environment of a process and of those
// below it, and what ps shows of all.
func (e *evidence) processes(t *testing.T, pid int) {
	t.Helper()
	for _, id := range below(t, pid) {
		for _, what := range []string{"cmdline", "environ"} {
			text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", id, what))
			if err != nil {
				continue // it has ended
			}
			if _, err := e.output(t, what).Write(text); err != nil {
				t.Error(err)
			}
		}
	}
	if path, err := exec.LookPath("ps"); err == nil {
		out, err := exec.CommandContext(t.Context(), path, "-ww", "-ef").Output()
		if err != nil {
			t.Error(err)
		}
		if _, err := e.output(t, "ps").Write(out); err != nil {
			t.Error(err)
		}
	}
}

// below returns a process and all that descend from it.
func below(t *testing.T, pid int) []int {
	t.Helper()
	parents := map[int]int{}
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		var id, parent int
		var state string
		_, rest, _ := strings.Cut(string(text), ") ")
		_, _ = fmt.Sscan(string(text), &id)
		_, _ = fmt.Sscan(rest, &state, &parent)
		parents[id] = parent
	}
	list := []int{pid}
	for i := 0; i < len(list); i++ {
		for id, parent := range parents {
			if parent == list[i] {
				list = append(list, id)
			}
		}
	}
	return list
}

// found scans it all. It fails the test unless each of the places was looked at.
func (e *evidence) found(t *testing.T, places ...string) []leakscan.Finding {
	t.Helper()
	files, err := os.ReadDir(filepath.Join(e.dir, "written"))
	if err != nil {
		t.Fatal(err)
	}
	for _, place := range places {
		if !slices.ContainsFunc(files, func(f os.DirEntry) bool { return strings.Contains(f.Name(), place) }) {
			t.Errorf("nothing was kept of %s", place)
		}
	}
	report, err := leakscan.Scan(e.dir)
	if err != nil {
		t.Fatal(err)
	}
	if report.Secrets == 0 {
		t.Error("no secret was looked for")
	}
	return report.Found
}

// kept are the places that every process leaves something in.
var kept = []string{"stdout", "stderr", "cmdline", "environ", "journal.db", "journal.db-wal", "index", "tmp"}

// watched returns an agent's processes all of which is kept.
func watched(t *testing.T, p soakProtocol, session bool) (*victim, *evidence) {
	t.Helper()
	e := newEvidence(t)
	v := newVictim(t, p, session, &trigger{})
	v.leaks, v.stderr, v.env = e.dir, e.output(t, "stderr"), []string{"GOTRACEBACK=system"}
	if err := os.WriteFile(filepath.Join(v.temp(), "tmp"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	v.seen = func(pid int) {
		if pid == 0 {
			return
		}
		e.processes(t, pid)
		e.files(t, v.home)
	}
	return v, e
}

// TestNoProcessLeavesASecret does everything at each protocol, by a session and
// by single calls, and looks at all that is there at each request and at the end.
func TestNoProcessLeavesASecret(t *testing.T) {
	t.Parallel()
	for i, p := range soakProtocols() {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			v, e := watched(t, p, i%2 == 0)
			v.script(t)
			v.end()
			e.files(t, v.home)
			for _, secret := range v.gw.Secrets() {
				e.record.Issued(secret)
			}
			for _, f := range e.found(t, kept...) {
				t.Error(f)
			}
		})
	}
}

// TestACrashTellsNoSecret has a program die while a request with the credential
// is under way: of a panic in one of its goroutines, and of the signal that has
// Go write down them all.
func TestACrashTellsNoSecret(t *testing.T) {
	lona := soakProtocols()[3]
	t.Run("panic", func(t *testing.T) {
		v, e := watched(t, lona, true)
		v.global = []string{"--embedded"}
		v.env = append(v.env, crashVariable+"="+lona.path)
		if a, ok := v.tool(t, "lona_register_agent", lona.register); !ok || a.failed {
			t.Fatalf("register: %s", v.last)
		}
		if _, ok := v.use(t, lona.handle); ok {
			t.Fatalf("it did not crash: %s", v.last)
		}
		v.end()
		e.files(t, v.home)
		dumped(t, e, v, "panic: a crash for a test")
	})
	t.Run("SIGQUIT", func(t *testing.T) {
		v, e := watched(t, lona, true)
		if a, ok := v.tool(t, "lona_register_agent", lona.register); !ok || a.failed {
			t.Fatalf("register: %s", v.last)
		}
		v.seen = func(int) {
			v.mu.Lock()
			c := v.running
			v.mu.Unlock()
			_ = c.cmd.Process.Signal(syscall.SIGQUIT) // it may come again, and have ended
			<-c.ended
		}
		v.trigger.begin(v)
		if _, ok := v.use(t, lona.handle); ok {
			t.Fatalf("it did not end: %s", v.last)
		}
		for _, secret := range v.gw.Secrets() {
			e.record.Issued(secret)
		}
		dumped(t, e, v, "SIGQUIT")
	})
}

// dumped checks that a program has written down its goroutines, the one with
// the request among them, and no secret.
func dumped(t *testing.T, e *evidence, v *victim, cause string) {
	t.Helper()
	text, err := os.ReadFile(v.stderr.(*os.File).Name())
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{cause, "goroutine ", "gateway.(*Lifecycle)"} {
		if !bytes.Contains(text, []byte(want)) {
			t.Errorf("the dump has no %q:\n%s", want, text)
		}
	}
	for _, f := range e.found(t, "stderr") {
		t.Error(f)
	}
}

// TestTheScanFindsWhatIsPlanted puts a secret into each place that is looked at:
// a scan that passes because it looks elsewhere would be worth nothing.
func TestTheScanFindsWhatIsPlanted(t *testing.T) {
	const secret = "lona_partner_my-agent_abc123xyz456_PlantedSecret000000000"
	echo := func(t *testing.T, e *evidence, args, env []string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "program", args...)
		cmd.Env = append(os.Environ(), env...)
		stdin, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		e.processes(t, os.Getpid()) // it is a child of this one
		_ = stdin.Close()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}
	insert := func(t *testing.T, path, text string) {
		t.Helper()
		db, err := sql.Open("sqlite", path+"?_pragma=journal_mode(wal)")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = db.Close() }) // what is new is in the log until then
		db.SetMaxOpenConns(1)
		if _, err := db.ExecContext(t.Context(), text, secret); err != nil {
			t.Fatal(err)
		}
	}
	file := func(name string) func(*testing.T, *evidence, *victim) {
		return func(t *testing.T, e *evidence, v *victim) {
			if err := os.WriteFile(filepath.Join(v.home, name), []byte("# "+secret), 0o600); err != nil {
				t.Fatal(err)
			}
			e.files(t, v.home)
		}
	}
	for place, plant := range map[string]func(*testing.T, *evidence, *victim){
		"a command line": func(t *testing.T, e *evidence, _ *victim) { echo(t, e, []string{"echo", secret}, nil) },
		"an environment": func(t *testing.T, e *evidence, _ *victim) { echo(t, e, []string{"echo"}, []string{"A_KEY=" + secret}) },
		"the journal": func(t *testing.T, e *evidence, v *victim) {
			insert(t, filepath.Join(v.home, "enlist", "journal.db"), `UPDATE events SET path = $1`)
			e.files(t, v.home)
		},
		"the index": func(t *testing.T, e *evidence, v *victim) {
			insert(t, filepath.Join(v.home, "enlist", "index.db"), `CREATE TABLE planted AS SELECT $1 AS secret`)
			e.files(t, v.home)
		},
		"the policy":          file("enlist/policy.toml"),
		"a temporary file":    file("tmp/enlist-1"),
		"the encrypted store": file("enlist/credentials.enc"),
		"standard output":     func(t *testing.T, e *evidence, _ *victim) { fmt.Fprint(e.output(t, "stdout"), `{"text":"`+secret+`"}`) },
		"the log, or a panic": func(_ *testing.T, _ *evidence, v *victim) {
			fmt.Fprintf(v.stderr, "panic: %s\n\ngoroutine 1 [running]:\n", secret)
		},
	} {
		t.Run(place, func(t *testing.T) {
			v, e := watched(t, soakProtocols()[3], true)
			v.trigger.begin(v)
			if a, ok := v.tool(t, "lona_register_agent", v.register); !ok || a.failed {
				t.Fatalf("register: %s", v.last)
			}
			v.end()
			e.record.Issued(secret)
			if found := e.found(t, kept...); len(found) != 0 {
				t.Errorf("found %v before it was planted", found)
			}
			plant(t, e, v)
			if found := e.found(t); len(found) == 0 {
				t.Error("it was not found")
			}
		})
	}
}

// TestOnlyExecStartsPrograms keeps it so that exec's is the only child of ours
// that may have a secret: whoever starts another must see to its environment,
// and then name its file here.
func TestOnlyExecStartsPrograms(t *testing.T) {
	// The others are a server of tests, which has no secret of ours.
	may := []string{
		"cmd/enlist/exec.go", "embeddedgateway/store/pgtest/pgtest.go",
		"embeddedgateway/store/pgtest/process_unix.go", "embeddedgateway/store/pgtest/process_windows.go",
	}
	err := fs.WalkDir(os.DirFS(root), ".", func(path string, d fs.DirEntry, err error) error {
		if d != nil && d.IsDir() && path != "." && strings.HasPrefix(d.Name(), ".") {
			return fs.SkipDir
		}
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") || slices.Contains(may, path) {
			return err
		}
		file, err := parser.ParseFile(gotoken.NewFileSet(), filepath.Join(root, path), nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if s, ok := n.(*ast.SelectorExpr); ok && slices.Contains([]string{"Command", "CommandContext", "Cmd", "StartProcess", "ForkExec", "Exec"}, s.Sel.Name) {
				if x, ok := s.X.(*ast.Ident); ok && slices.Contains([]string{"exec", "os", "syscall"}, x.Name) {
					t.Errorf("%s starts programs (%s.%s), want %v only", path, x.Name, s.Sel.Name, may)
				}
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestNoSecretIsInherited starts the one program that Enlist's libraries start,
// to find the keyring's bus, with all secrets that a person can set.
func TestNoSecretIsInherited(t *testing.T) {
	if _, err := os.Stat(fmt.Sprintf("/run/user/%d/bus", os.Getuid())); err == nil {
		return // a session bus is found without it, and the person's own keyring
	}
	secrets := map[string]string{}
	for i, name := range []string{
		"ENLIST_SERVER_KEY", "ENLIST_SMTP_URL", "ENLIST_PASSPHRASE",
		"AGENT_REGISTRATION_SECRET", "LONA_AGENT_REGISTRATION_SECRET", "LONA_API_KEY",
	} {
		secrets[name] = fmt.Sprintf("a-secret-of-the-environment-%d", i)
	}
	e, dir, home := newEvidence(t), t.TempDir(), t.TempDir()
	script := "#!/bin/sh\n/usr/bin/env >" + dir + "/environ\necho \"$@\" >" + dir + "/cmdline\nexit 1\n"
	if err := os.WriteFile(filepath.Join(dir, "dbus-launch"), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	path, err := exec.LookPath("enlist")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), path, "--store", "keyring", "call", "lithtrix_register_agent",
		`{"agent_name":"scout","owner_identifier":"me@example.com"}`)
	cmd.Env = []string{
		"PATH=" + dir, "HOME=" + home, "ENLIST_HOME=" + home, "XDG_RUNTIME_DIR=" + home, "LITHTRIX_API_URL=http://127.0.0.1:1",
		leakscan.Variable + "=" + e.dir, "GORACE=" + os.Getenv("GORACE"),
		"LONA_USER_ID=my-agent", "LONA_GATEWAY_URL=http://127.0.0.1:1",
	}
	for name, value := range secrets {
		cmd.Env = append(cmd.Env, name+"="+value)
		e.record.Issued(value)
	}
	if out, err := cmd.CombinedOutput(); err == nil {
		t.Errorf("there is no keyring, and it went well: %s", out)
	}
	e.files(t, dir, home)
	for _, f := range e.found(t, "environ", "cmdline") {
		t.Error(f)
	}
}

// TestWhatComesBehindAnAnswerIsNotLogged has a service send the key once more,
// behind the end of its answer, on a connection that is kept.
func TestWhatComesBehindAnAnswerIsNotLogged(t *testing.T) {
	v, e := watched(t, soakProtocols()[3], true)
	v.gw.Restart(t, gatewaytest.Config(func(c *embeddedgateway.Config) {
		c.Wrap = func(h http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				key := r.Header.Get("X-API-Key")
				if key == "" {
					h.ServeHTTP(w, r)
					return
				}
				conn, rw, err := http.NewResponseController(w).Hijack()
				if err != nil {
					t.Error(err)
					return
				}
				_, _ = rw.WriteString("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")
				_ = rw.Flush()
				_, _ = rw.WriteString(key + strings.Repeat(" ", 100))
				_ = rw.Flush()
				_, _ = io.Copy(io.Discard, conn) // until the client has had enough
				_ = conn.Close()
			})
		}
	}))
	if a, ok := v.tool(t, "lona_register_agent", v.register); !ok || a.failed {
		t.Fatalf("register: %s", v.last)
	}
	for range 5 {
		if _, ok := v.use(t, v.handle); !ok {
			t.Fatalf("use: %s", v.last)
		}
	}
	v.end()
	for _, secret := range v.gw.Secrets() {
		e.record.Issued(secret)
	}
	for _, f := range e.found(t, "stderr") {
		t.Error(f)
	}
}
