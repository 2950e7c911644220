package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest"
	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest/leakscan"
)

// terminalVariable, if it is set, makes enlist use its terminal, which a script's
// ttyin gives it, for all standard streams. What it says there is for a person's
// eyes and is not kept for the leak scan.
const terminalVariable = "ENLIST_TEST_TERMINAL"

// inspectorVariable names the folder with the MCP Inspector's command line.
const inspectorVariable = "ENLIST_TEST_INSPECTOR"

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"enlist": enlist, "program": programOfAPerson})
}

// enlist is main, but that what it writes, what it was called with, and what its
// gateways issue, is kept for the leak scan.
func enlist() {
	record, err := leakscan.New(os.Getenv(leakscan.Variable))
	if err != nil {
		panic(err)
	}
	stdout, err := record.Output("stdout")
	if err != nil {
		panic(err)
	}
	stderr, err := record.Output("stderr")
	if err != nil {
		panic(err)
	}
	args, err := record.Output("args") // what ps shows
	if err != nil {
		panic(err)
	}
	fmt.Fprintf(args, "%q\n", os.Args)
	_ = args.Close()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	env, environ := takeEnvironment()
	p := &program{
		stdin:   os.Stdin,
		stdout:  io.MultiWriter(os.Stdout, stdout),
		stderr:  io.MultiWriter(os.Stderr, stderr),
		env:     env,
		environ: environ,
		now:     time.Now,
		wrapGateway: func(h http.Handler) http.Handler {
			return gatewaytest.Record(crashing(h), record.Issued)
		},
	}
	if os.Getenv(terminalVariable) != "" {
		tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
		if err != nil {
			panic(err)
		}
		p.stdin, p.stdout, p.stderr = tty, tty, tty
	}
	code := p.run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}

// crashVariable has the gateway inside the program crash the whole of it when a
// path is asked for, as a mistake in any of its goroutines would.
const crashVariable = "ENLIST_TEST_CRASH_AT"

func crashing(h http.Handler) http.Handler {
	path := os.Getenv(crashVariable)
	if path == "" {
		return h
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == path {
			go panic("a crash for a test")
			<-r.Context().Done()
		}
		h.ServeHTTP(w, r)
	})
}

// TestScripts runs the sessions in testdata/script, each in a folder of its own
// with an empty home.
func TestScripts(t *testing.T) {
	t.Parallel()
	runScripts(t, "testdata/script")
}

func runScripts(t *testing.T, dir string) {
	t.Helper()
	testscript.Run(t, scripts(dir))
}

// scripts is how the sessions in a folder are run.
func scripts(dir string) testscript.Params {
	return testscript.Params{
		Dir:                 dir,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup:               setUp,
		Condition:           condition,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"api":         apiCommand,
			"ask":         askCommand,
			"certificate": certificateCommand,
			"expired":     expiredCommand,
			"greet":       greet,
			"readdress":   readdress,
			"send":        sendCommand,
			"start":       start,
			"stop":        stopCommand,
			"token":       token,
		},
		UpdateScripts: os.Getenv("ENLIST_UPDATE_SCRIPTS") != "",
	}
}

type processesKey struct{}

func setUp(env *testscript.Env) error {
	home := filepath.Join(env.WorkDir, "home")
	if err := os.Mkdir(home, 0o700); err != nil {
		return err
	}
	leaks := os.Getenv(leakscan.Variable)
	inspector := os.Getenv(inspectorVariable)
	env.Setenv("GORACE", os.Getenv("GORACE"))
	env.Setenv("HOME", home)
	env.Setenv("LocalAppData", filepath.Join(home, "local"))
	env.Setenv("AppData", filepath.Join(home, "roaming"))
	env.Setenv("XDG_DATA_HOME", "")
	env.Setenv("XDG_CONFIG_HOME", "")
	env.Setenv("ENLIST_HOME", filepath.Join(home, "enlist"))
	env.Setenv("ENLIST_STORE", "file")
	env.Setenv("ENLIST_ADMIN_LISTEN", "off") // its default is one port for all
	env.Setenv("COLUMNS", "110")
	repository, err := filepath.Abs(root)
	if err != nil {
		return err
	}
	env.Setenv("REPOSITORY", repository)
	env.Setenv(leakscan.Variable, leaks)
	if inspector != "" {
		env.Setenv("PATH", env.Getenv("PATH")+string(filepath.ListSeparator)+inspector)
	}
	running := map[string]*process{}
	env.Values[processesKey{}] = running
	env.Defer(func() {
		for _, name := range slices.Sorted(maps.Keys(running)) {
			if err := running[name].stop(); err != nil {
				env.T().Fatal(fmt.Sprintf("stop %s: %v", name, err))
			}
		}
		record, err := leakscan.New(leaks)
		if err != nil {
			env.T().Fatal(err)
		}
		if err := record.Keep("work", env.WorkDir); err != nil {
			env.T().Fatal(err)
		}
	})
	return nil
}

// condition knows [inspector]: the MCP Inspector is installed.
func condition(name string) (bool, error) {
	if name == "inspector" {
		return os.Getenv(inspectorVariable) != "", nil
	}
	return false, fmt.Errorf("unknown condition %q", name)
}

// process is a server in the background.
type process struct {
	cmd    *exec.Cmd
	read   chan struct{} // closed when its standard error has ended
	cancel context.CancelFunc
}

// stopTime is how long a server may take to end.
const stopTime = 20 * time.Second

func (p *process) stop() error {
	defer p.cancel()
	if err := p.cmd.Process.Signal(os.Interrupt); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	late := time.AfterFunc(stopTime, p.cancel)
	defer late.Stop()
	<-p.read
	return p.cmd.Wait()
}

var listening = regexp.MustCompile(`listening on (https?://[a-z0-9.:]+)`)

// start runs `enlist ARGS` in the background until the script ends. It waits
// for the line that says where the server listens and sets NAME_URL to it; what
// the server writes to standard error is in the file NAME.err once it has ended.
//
//	start NAME ARGS...
func start(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: start NAME ARGS...")
	}
	running := ts.Value(processesKey{}).(map[string]*process)
	ctx, cancel := context.WithCancel(context.Background())
	path, err := lookPath(ts.Getenv("PATH"), "enlist")
	ts.Check(err)
	cmd := exec.CommandContext(ctx, path, args[1:]...)
	cmd.Env = environment(ts)
	cmd.Dir = ts.MkAbs(".")
	stderr, err := cmd.StderrPipe()
	ts.Check(err)
	ts.Check(cmd.Start())
	p := &process{cmd: cmd, read: make(chan struct{}), cancel: cancel}
	running[args[0]] = p

	said, err := os.Create(ts.MkAbs(args[0] + ".err"))
	ts.Check(err)
	url := make(chan string, 1)
	go func() {
		defer close(p.read)
		defer close(url)
		defer said.Close()
		lines := bufio.NewScanner(stderr)
		for lines.Scan() {
			fmt.Fprintln(said, lines.Text())
			if m := listening.FindStringSubmatch(lines.Text()); m != nil && len(url) == 0 {
				select {
				case url <- m[1]:
				default:
				}
			}
		}
	}()
	got, ok := <-url
	if !ok {
		ts.Fatalf("%s ended before it was listening: %v", args[0], cmd.Wait())
	}
	ts.Setenv(args[0]+"_URL", got)
}

// stopCommand ends a server that start began, and fails unless it ends well.
func stopCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: stop NAME")
	}
	running := ts.Value(processesKey{}).(map[string]*process)
	p, ok := running[args[0]]
	if !ok {
		ts.Fatalf("%s is not running", args[0])
	}
	delete(running, args[0])
	ts.Check(p.stop())
}

// readdress has an example of the manual talk to the gateway that the script
// started, and not to the address that the manual has.
//
//	readdress FILE
func readdress(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: readdress FILE")
	}
	text := strings.ReplaceAll(ts.ReadFile(args[0]), "http://"+manualAddress, ts.Getenv("gateway_URL"))
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(text), 0o600))
}

// token sets a variable to the first line of a file, or to what the group of a
// pattern matches first in it, so that a script can use a token without showing it.
//
//	token VARIABLE FILE [PATTERN]
func token(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 && len(args) != 3 {
		ts.Fatalf("usage: token VARIABLE FILE [PATTERN]")
	}
	found, _, _ := strings.Cut(ts.ReadFile(args[1]), "\n")
	if len(args) == 3 {
		pattern, err := regexp.Compile(args[2])
		ts.Check(err)
		match := pattern.FindStringSubmatch(ts.ReadFile(args[1]))
		if len(match) != 2 {
			ts.Fatalf("there is no %s with one group in %s", args[2], args[1])
		}
		found = match[1]
	}
	ts.Setenv(args[0], found)
}

// environment is what the script's own commands get.
func environment(ts *testscript.TestScript) []string {
	var env []string
	for _, name := range []string{
		"PATH", "GORACE", "HOME", "ENLIST_HOME", "ENLIST_STORE", "LocalAppData", "AppData", "SystemRoot", "TMPDIR", "TMP",
		"DBUS_SESSION_BUS_ADDRESS", "XDG_RUNTIME_DIR", "COLUMNS", leakscan.Variable,
		"AGENT_REGISTRATION_SECRET", "AGENT_INVITE_ENABLED", "AGENT_INVITE_REBIND", "AGENT_TOKEN_TTL_DAYS",
		"LONA_GATEWAY_URL", "LITHTRIX_API_URL", "LUMINA_API_URL", "AGENTDOOR_URL", "FLUXRA_API_URL", "LONA_AGENT_ID", "LONA_AGENT_REGISTRATION_SECRET", "ENLIST_PASSPHRASE",
		"ENLIST_SERVER_KEY", "ENLIST_SERVER_KEY_FILE", "ENLIST_SMTP_URL", "ENLIST_SMTP_CA_FILE", "ENLIST_PUBLIC_URL", "ENLIST_TRUSTED_PROXIES",
		"ENLIST_DATABASE_URL",
	} {
		if v := ts.Getenv(name); v != "" {
			env = append(env, name+"="+v)
		}
	}
	return env
}

// lookPath is [exec.LookPath] in the script's own PATH.
func lookPath(path, name string) (string, error) {
	for _, dir := range filepath.SplitList(path) {
		for _, suffix := range []string{"", ".exe"} {
			file := filepath.Join(dir, name+suffix)
			if info, err := os.Stat(file); err == nil && !info.IsDir() {
				return file, nil
			}
		}
	}
	return "", fmt.Errorf("no %s in %s", name, path)
}
