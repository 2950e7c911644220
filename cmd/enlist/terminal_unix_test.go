//go:build unix

package main

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/clipperhouse/displaywidth"
	"github.com/creack/pty"

	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest/leakscan"
)

// teletype is a terminal with somebody who reads all that is printed on it.
type teletype struct {
	tty    *os.File // where a program prints
	master *os.File

	mu    sync.Mutex
	text  bytes.Buffer
	more  *sync.Cond
	ended bool
}

func newTeletype(t *testing.T, columns uint16) *teletype {
	t.Helper()
	master, tty, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	if err := pty.Setsize(tty, &pty.Winsize{Rows: 24, Cols: columns}); err != nil {
		t.Fatal(err)
	}
	y := &teletype{tty: tty, master: master}
	y.more = sync.NewCond(&y.mu)
	go func() {
		_, _ = io.Copy(y, master) // ends with an error when nobody has the terminal open any more
		y.mu.Lock()
		defer y.mu.Unlock()
		y.ended = true
		y.more.Broadcast()
	}()
	t.Cleanup(func() { _, _ = tty.Close(), master.Close() })
	return y
}

// Write takes what was printed.
func (y *teletype) Write(p []byte) (int, error) {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.more.Broadcast()
	return y.text.Write(p)
}

// sees waits until a text was printed, and reports whether it was.
func (y *teletype) sees(text string) bool {
	y.mu.Lock()
	defer y.mu.Unlock()
	for !strings.Contains(y.text.String(), text) && !y.ended {
		y.more.Wait()
	}
	return strings.Contains(y.text.String(), text)
}

// all closes the terminal and returns everything that was printed.
func (y *teletype) all() string {
	_ = y.tty.Close()
	y.mu.Lock()
	defer y.mu.Unlock()
	for !y.ended {
		y.more.Wait()
	}
	return strings.ReplaceAll(y.text.String(), "\r\n", "\n")
}

// atTerminal gives a command at a terminal and returns what it printed there.
func (p *person) atTerminal(columns uint16, args ...string) string {
	p.t.Helper()
	y := newTeletype(p.t, columns)
	program := p.program()
	program.stdin, program.stdout, program.stderr = y.tty, y.tty, y.tty
	program.run(context.Background(), args)
	return spinnerLine.ReplaceAllString(y.all(), "") // on a slow machine there is one
}

// TestTerminalOutput: what people see at terminals of three widths.
func TestTerminalOutput(t *testing.T) {
	p := livedIn(t)
	p.set["TERM"] = "xterm-256color"
	for name, command := range map[string]string{
		"list": "list --embedded", "show": "show --embedded lona/my-agent", "audit": "audit --embedded",
		"wallets": "wallet list --embedded", "policy": "policy show",
	} {
		for _, width := range []uint16{40, 80, 120} {
			got := p.atTerminal(width, strings.Fields(command)...)
			for line := range strings.Lines(unpainted(got)) {
				if w := displaywidth.String(strings.TrimSuffix(line, "\n")); w > int(width) && !strings.Contains(line, p.home) && !strings.Contains(line, "0x") {
					t.Errorf("%s at %d columns: a line has %d: %s", command, width, w, line)
				}
			}
			if name == "list" || width == 40 && name == "audit" {
				checkGolden(t, name+map[uint16]string{40: "_40", 80: "_80", 120: "_120"}[width], strings.ReplaceAll(got, "\x1b", "ESC"))
			}
		}
	}
	// Terminals without colours have everything else.
	want := unpainted(p.atTerminal(80, "list", "--embedded"))
	for name, value := range map[string]string{"NO_COLOR": "1", "CLICOLOR": "0", "TERM": "dumb"} {
		former := p.set[name]
		p.set[name] = value
		if got := p.atTerminal(80, "list", "--embedded"); got != want {
			t.Errorf("%s=%s: got %q", name, value, got)
		}
		p.set[name] = former
	}
	if got := p.atTerminal(80, "list", "--embedded", "--color=never"); got != want {
		t.Errorf("--color=never: got %q", got)
	}
	if got := p.atTerminal(80, "list", "--embedded", "--json"); strings.Contains(got, "\x1b") || strings.Contains(got, "in 4 days") {
		t.Errorf("--json: got %q", got)
	}
}

// slow is a service that does not answer before it is told to.
func slow(t *testing.T) (url string, answer func()) {
	t.Helper()
	told := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-told:
		case <-r.Context().Done():
		}
		_, _ = io.WriteString(w, "{}")
	}))
	t.Cleanup(srv.Close)
	answer = sync.OnceFunc(func() { close(told) })
	t.Cleanup(answer)
	return srv.URL, answer
}

// spinnerLine is one picture of the spinner, or its end.
var spinnerLine = regexp.MustCompile(`\r\x1b\[K([` + frames + `] [^\r\n\x1b]*)?`)

// TestSpinnerIsGoneBeforeTheAnswer runs the program itself on a terminal of its
// own, at a service that does not answer before the spinner was seen.
func TestSpinnerIsGoneBeforeTheAnswer(t *testing.T) {
	for _, width := range []uint16{120, 80, 40} {
		url, answer := slow(t)
		path, err := exec.LookPath("enlist")
		if err != nil {
			t.Fatal(err)
		}
		y := newTeletype(t, width)
		home := t.TempDir()
		cmd := exec.Command(path, "doctor")
		cmd.Env = []string{
			"HOME=" + home, "ENLIST_HOME=" + filepath.Join(home, "enlist"), "ENLIST_STORE=file", "TERM=xterm", "LONA_GATEWAY_URL=" + url,
			terminalVariable + "=yes", "GORACE=" + os.Getenv("GORACE"), leakscan.Variable + "=" + os.Getenv(leakscan.Variable),
		}
		cmd.Stdin, cmd.Stdout, cmd.Stderr = y.tty, y.tty, y.tty
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		_ = y.tty.Close() // the program has it: what is to be seen ends with it
		saw := y.sees("waiting for 127.0.0.1:")
		answer()
		err = cmd.Wait()
		got := y.all()
		if !saw || err != nil {
			t.Fatalf("at %d columns: saw the spinner: %v, %v\n%s", width, saw, err, got)
		}
		drawn := spinnerLine.FindAllString(got, -1)
		if last := drawn[len(drawn)-1]; last != clearLine {
			t.Errorf("the spinner ends with %q", last)
		}
		for _, line := range drawn {
			if w := displaywidth.String(strings.TrimPrefix(line, clearLine)); w >= int(width) {
				t.Errorf("at %d columns the spinner has %d: %q", width, w, line)
			}
		}
		rest := spinnerLine.ReplaceAllString(got, "")
		if strings.ContainsAny(rest, frames+"\r") || !strings.HasSuffix(rest, "All is well.\x1b[0m\n") || !strings.Contains(rest, "\x1b[32m✓ ok\x1b[0m") {
			t.Errorf("at %d columns: got %q", width, rest)
		}
		if strings.Index(got, "ok\x1b") < strings.LastIndex(got, drawn[len(drawn)-1]) {
			t.Errorf("it was drawn after the answer: %q", got)
		}
	}
}

// TestSpinnerStaysOutOfOtherStreams: what is piped is the same while a person at
// the terminal is told what is waited for.
func TestSpinnerStaysOutOfOtherStreams(t *testing.T) {
	for name, test := range map[string]struct {
		set   map[string]string
		drawn bool
	}{
		"a terminal":           {map[string]string{"TERM": "xterm"}, true},
		"one without colours":  {map[string]string{"TERM": "xterm", "NO_COLOR": "1"}, true},
		"one that obeys none":  {map[string]string{"TERM": "dumb"}, false},
		"one of unknown kinds": {nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			url, answer := slow(t)
			p := newPerson(t)
			p.now = time.Now() // that of the service
			p.set["LONA_GATEWAY_URL"] = url
			for name, value := range test.set {
				p.set[name] = value
			}
			y := newTeletype(t, 80)
			program := p.program()
			program.stderr = y.tty
			done := make(chan int, 1)
			go func() {
				code := program.run(context.Background(), []string{"doctor", "--json"})
				_ = y.tty.Close()
				done <- code
			}()
			if test.drawn && !y.sees("waiting for 127.0.0.1:") {
				t.Error("there is no spinner")
			}
			answer()
			if code := <-done; code != exitOK {
				t.Errorf("exit code %d", code)
			}
			if got := spinnerLine.ReplaceAllString(y.all(), ""); got != "" {
				t.Errorf("the terminal has %q", got)
			}
			if names := fields(t, p.stdout.Bytes()); !slices.Contains(names, "findings") || strings.Contains(p.stdout.String(), "\x1b") {
				t.Errorf("got %s", &p.stdout)
			}
		})
	}
}

// TestDemoAtATerminal: two columns in colour, every secret masked, and a verdict.
func TestDemoAtATerminal(t *testing.T) {
	p := newPerson(t)
	p.set["TERM"] = "xterm-256color"
	for _, width := range []uint16{120, 80, 40} {
		got := p.atTerminal(width, "demo")
		for _, want := range []string{
			"\x1b[1;36m━━ Lona: ", "\x1b[1m1. The agent signs itself up\x1b[0m", "\x1b[1m→ lona_register_agent\x1b[0m {",
			"\x1b[32m← 201 Created\x1b[0m", "\x1b[31m← 401 Unauthorized\x1b[0m", "\x1b[33mlona_invite_…\x1b[0m", "\x1b[32m✓ The gateway issued",
		} {
			if !strings.Contains(got, want) {
				t.Errorf("at %d columns: %q is missing", width, want)
			}
		}
		if two := strings.Contains(unpainted(got), "─┼─"); two != (width >= twoColumns) {
			t.Errorf("at %d columns: two columns: %v", width, two)
		}
		for line := range strings.Lines(unpainted(got)) {
			if w := displaywidth.String(strings.TrimSuffix(line, "\n")); w > int(width) {
				t.Errorf("at %d columns a line has %d: %s", width, w, line)
			}
		}
	}
}
