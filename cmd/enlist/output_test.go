package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
)

// notForScripts are the commands without --json, and why.
func notForScripts() map[string]string {
	return map[string]string{
		"enlist exec":    "prints what the program prints",
		"enlist gateway": "a server",
		"enlist mcp":     "a server",
	}
}

// TestEveryCommandHasJSON: a command that prints something takes --json and says
// in its help what is in it.
func TestEveryCommandHasJSON(t *testing.T) {
	p := &program{env: func(string) string { return "" }, now: time.Now}
	excepted := notForScripts()
	var look func(*cobra.Command)
	look = func(cmd *cobra.Command) {
		path := cmd.CommandPath()
		_, is := excepted[path]
		delete(excepted, path)
		flag := cmd.Flags().Lookup("json")
		group := !cmd.Runnable() || cmd.HasSubCommands() && !is // it prints its help
		switch {
		case is && flag != nil:
			t.Errorf("%s has --json: take it out of the exceptions", path)
		case !is && !group && flag == nil:
			t.Errorf("%s has no --json: give it one with jsonFlag, or say in notForScripts why not", path)
		case flag != nil && !strings.Contains(cmd.Long, "With --json: "):
			t.Errorf("%s does not say what it prints with --json: register the flag with jsonFlag", path)
		}
		for _, sub := range cmd.Commands() {
			look(sub)
		}
	}
	look(p.root())
	for path := range excepted {
		t.Errorf("there is no %s any more: take it out of the exceptions", path)
	}
}

// person is somebody who gives commands, with a home and a clock of their own.
// Nothing is at a terminal.
type person struct {
	t              *testing.T
	home           string
	now            time.Time
	set            map[string]string
	stdout, stderr bytes.Buffer
}

func newPerson(t *testing.T) *person {
	home := filepath.Join(t.TempDir(), "home")
	return &person{t: t, home: home, now: time.Date(2026, 2, 6, 12, 0, 0, 0, time.UTC), set: map[string]string{
		"ENLIST_HOME": home, "ENLIST_STORE": "file", "HOME": home, "XDG_CONFIG_HOME": filepath.Join(home, "config"), "AppData": home,
	}}
}

func (p *person) program() *program {
	return &program{
		stdin: strings.NewReader(""), stdout: &p.stdout, stderr: &p.stderr,
		env: func(name string) string { return p.set[name] },
		now: func() time.Time { return p.now },
	}
}

// try gives a command and returns its exit code.
func (p *person) try(args ...string) int {
	p.t.Helper()
	p.stdout.Reset()
	p.stderr.Reset()
	return p.program().run(context.Background(), args)
}

// does gives a command that must succeed, and returns what it printed.
func (p *person) does(args ...string) string {
	p.t.Helper()
	if code := p.try(args...); code != exitOK {
		p.t.Fatalf("enlist %s: exit code %d\n%s%s", strings.Join(args, " "), code, &p.stdout, &p.stderr)
	}
	if p.stderr.Len() > 0 {
		p.t.Errorf("enlist %s: %s", strings.Join(args, " "), &p.stderr)
	}
	return p.stdout.String()
}

// livedIn is a person with credentials in every state that time brings about.
func livedIn(t *testing.T) *person {
	p := newPerson(t)
	call := func(tool, arguments string) { p.does("call", "--embedded", tool, arguments) }
	call("lona_register_agent", `{"agent_id":"old","agent_name":"Old"}`)
	p.now = p.now.AddDate(0, 0, 5)
	call("lona_register_agent", `{"agent_id":"my-agent","agent_name":"My Agent"}`)
	call("fluxra_register_agent", `{"agent_name":"weather-bot"}`)
	call("lumina_register_agent", `{"label":"spot-arb-1"}`)
	p.does("revoke", "--embedded", "lumina/spot-arb-1")
	p.now = p.now.AddDate(0, 0, 26)
	call("lona_register_agent", `{"agent_id":"new","agent_name":"New"}`)
	return p
}

// sameEverywhere takes out what is another in every run.
func (p *person) sameEverywhere(text string) string {
	text = strings.ReplaceAll(strings.ReplaceAll(text, p.home, "HOME"), string(filepath.Separator), "/")
	text = regexp.MustCompile(`0x[0-9a-fA-F]{40}`).ReplaceAllString(text, "0xADDRESS")
	text = regexp.MustCompile(`(key id +|"key_id": ")[a-z0-9]+`).ReplaceAllString(text, "${1}ID")
	text = regexp.MustCompile(`agt_[0-9a-f]{32}`).ReplaceAllString(text, "agt_ID")
	text = regexp.MustCompile(`\b[a-z2-7]{12}(  token|  127\.0\.0\.1)`).ReplaceAllString(text, "KEY_ID_OF_12$1")
	return regexp.MustCompile(`(ok|note|problem) +keyring: .*`).ReplaceAllString(text, "as is     keyring: AS IT IS")
}

// checkGolden compares a text with a file in testdata/output.
func checkGolden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", "output", name+".txt")
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s is another (go test ./cmd/enlist -run %s -update). Got:\n%s\nwant:\n%s", path, t.Name(), got, want)
	}
}

// TestPipedOutput: what is printed into a pipe is what scripts rely on.
func TestPipedOutput(t *testing.T) {
	p := livedIn(t)
	for name, command := range map[string]string{
		"list": "list --embedded", "show": "show --embedded lona/my-agent", "audit": "audit --embedded",
		"wallets": "wallet list --embedded", "policy": "policy show",
		"agents": "gateway agents list --embedded", "agent": "gateway agents show --embedded lona/my-agent",
		"invites": "gateway invites --embedded",
	} {
		got := p.sameEverywhere(p.does(strings.Fields(command)...))
		if strings.Contains(got, "\x1b") {
			t.Errorf("%s has colours", command)
		}
		checkGolden(t, name+"_piped", got)
	}
	if code := p.try("doctor", "--offline", "--embedded"); code != exitFailure {
		t.Errorf("doctor: exit code %d", code)
	}
	checkGolden(t, "doctor_piped", p.sameEverywhere(p.stdout.String()))

	// A width that somebody has set is for terminals.
	list := p.does("list", "--embedded")
	for name, value := range map[string]string{"COLUMNS": "30", "TERM": "xterm-256color", "CLICOLOR": "1"} {
		p.set[name] = value
	}
	if got := p.does("list", "--embedded"); got != list {
		t.Errorf("got:\n%s\nwant:\n%s", got, list)
	}
	// Colours are there if they are asked for, and nothing else is.
	p.set["CLICOLOR_FORCE"] = "1"
	for _, args := range [][]string{{"list", "--embedded"}, {"list", "--embedded", "--color", "always"}, {"list", "--embedded", "--color=always"}} {
		got := p.does(args...)
		if !strings.Contains(got, "\x1b[33mexpiring\x1b[0m") || unpainted(got) != list {
			t.Errorf("%q: got %q", args, got)
		}
	}
	if got := p.does("list", "--embedded", "--color", "never"); got != list {
		t.Errorf("--color never: got %q", got)
	}
	p.set["NO_COLOR"] = "1"
	if got := p.does("list", "--embedded"); got != list {
		t.Errorf("NO_COLOR: got %q", got)
	}
	if code := p.try("list", "--color", "sometimes"); code != exitUsage || !strings.Contains(p.stderr.String(), "want auto, always or never") {
		t.Errorf("exit code %d, %s", code, &p.stderr)
	}
}

// unpainted is a text without colours.
func unpainted(text string) string {
	return regexp.MustCompile(`\x1b\[[0-9;]*m`).ReplaceAllString(text, "")
}

// TestJSONIsDocumented: the help of a command names every field of its JSON.
func TestJSONIsDocumented(t *testing.T) {
	t.Parallel()
	p := livedIn(t)
	secret := filepath.Join(t.TempDir(), "passphrase")
	if err := os.WriteFile(secret, []byte("correct horse battery\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	wallet := filepath.Join(t.TempDir(), "wallet")
	if err := os.WriteFile(wallet, []byte(strings.Repeat("4a", 32)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	archive := filepath.Join(t.TempDir(), "all.age")
	for _, args := range [][]string{
		{"list", "--embedded"},
		{"show", "--embedded", "lona/my-agent"},
		{"audit", "--embedded"},
		{"policy", "show"},
		{"policy", "check"},
		{"policy", "init"},
		{"version"},
		{"demo"},
		{"export", archive, "--passphrase-file", secret},
		{"import", archive, "--passphrase-file", secret},
		{"wallet", "import", "--embedded", "trading", wallet},
		{"wallet", "list"},
		{"wallet", "delete", "--embedded", "trading", "--force"},
		{"request", "--embedded", "lona/new", "GET", "/api/v1/strategies"},
		{"rotate", "--embedded", "lona/my-agent"},
		{"revoke", "--embedded", "fluxra/weather-bot"},
		{"forget", "--embedded", "--local-only", "lona/new"},
		{"gateway", "keys", "rotate", "--embedded"},
		{"gateway", "keys", "list", "--embedded"},
		{"gateway", "outbox", "--embedded"},
		{"gateway", "agents", "list", "--embedded"},
		{"gateway", "agents", "show", "--embedded", "lona/my-agent"},
		{"gateway", "agents", "suspend", "--embedded", "lona/my-agent"},
		{"gateway", "agents", "resume", "--embedded", "lona/my-agent"},
		{"gateway", "agents", "delete", "--embedded", "--yes", "lona/my-agent"},
		{"gateway", "invites", "--embedded"},
		{"doctor", "--offline"},
	} {
		command := strings.Join(args, " ")
		code := p.try(append(args, "--json")...)
		if wantCode := map[bool]int{true: exitFailure}[args[0] == "doctor"]; code != wantCode || p.stderr.Len() > 0 {
			t.Errorf("%s: exit code %d, %s%s", command, code, &p.stdout, &p.stderr)
			continue
		}
		names := fields(t, p.stdout.Bytes())
		if len(names) == 0 && args[len(args)-2] != "outbox" {
			t.Errorf("%s: no fields in %s", command, &p.stdout)
		}
		cmd, _, err := p.program().root().Find(args)
		if err != nil {
			t.Fatal(err)
		}
		_, said, _ := strings.Cut(cmd.Long, "With --json: ")
		for _, name := range names {
			if !regexp.MustCompile(`\b` + name + `\b`).MatchString(said) {
				t.Errorf("the help of %s does not name the field %s: %s", cmd.CommandPath(), name, said)
			}
		}
	}
}

// fields returns the names in a JSON text: of objects in arrays, too, but not
// those that services or people gave.
func fields(t *testing.T, text []byte) []string {
	t.Helper()
	var names []string
	var look func(any)
	look = func(v any) {
		switch v := v.(type) {
		case []any:
			for _, e := range v {
				look(e)
			}
		case map[string]any:
			for name, e := range v {
				names = append(names, name)
				if _, array := e.([]any); array {
					look(e)
				}
			}
		}
	}
	d := json.NewDecoder(bytes.NewReader(text))
	for d.More() {
		var v any
		if err := d.Decode(&v); err != nil {
			t.Fatalf("%v in %s", err, text)
		}
		look(v)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// TestFailuresAsJSON: whoever asks for JSON gets JSON, whatever happens.
func TestFailuresAsJSON(t *testing.T) {
	p := newPerson(t)
	p.does("call", "--embedded", "lona_register_agent", `{"agent_id":"my-agent","agent_name":"My Agent"}`)
	for command, want := range map[string]struct {
		exit int
		code string
	}{
		"show lona/nobody --json":                {exitFailure, "no_such_credential"},
		"show nonsense --json":                   {exitUsage, "usage"},
		"show --json":                            {exitUsage, "usage"},
		"list --no-such-flag --json":             {exitUsage, "usage"},
		"revoke lona/my-agent --embedded --json": {exitFailure, "unsupported"},
		"forget lona/my-agent --embedded --json": {exitFailure, "unsupported"},
		"request lona/my-agent@enlist.localhost GET /api/v1/strategies --json": {exitFailure, "local_failure"}, // without --embedded
		"list --store keyring --json":                                          {exitFailure, "store_unavailable"},
		"import no-such-file --json":                                           {exitFailure, "local_failure"},
		"gateway outbox --database sqlite:none.db --json":                      {exitFailure, "local_failure"},
		"gateway agents show lona/nobody --embedded --json":                    {exitFailure, "local_failure"},
		"gateway agents show nobody --embedded --json":                         {exitUsage, "usage"},
		"gateway agents delete lona/my-agent --embedded --json":                {exitFailure, "local_failure"},
		"gateway agents revoke-key lona/my-agent none --embedded --json":       {exitFailure, "local_failure"},
		"gateway agents list --limit 0 --embedded --json":                      {exitUsage, "usage"},
		"gateway agents list --state asleep --embedded --json":                 {exitUsage, "usage"},
		"gateway agents list --after nonsense --embedded --json":               {exitUsage, "usage"},
		"gateway invites --after nonsense --embedded --json":                   {exitUsage, "usage"},
		"demo --embedded --json":                                               {exitUsage, "usage"},
	} {
		code := p.try(strings.Fields(command)...)
		var said struct {
			Error *failure `json:"error"`
		}
		if err := json.Unmarshal(p.stdout.Bytes(), &said); err != nil || said.Error == nil {
			t.Errorf("%s: %v, %s%s", command, err, &p.stdout, &p.stderr)
			continue
		}
		if code != want.exit || said.Error.Code != want.code || said.Error.WhatHappened == "" || p.stderr.Len() > 0 {
			t.Errorf("%s: exit code %d, %+v, %s", command, code, said.Error, &p.stderr)
		}
		// Without --json it is words, and nothing on standard output.
		if again := p.try(strings.Fields(strings.TrimSuffix(command, " --json"))...); again != want.exit ||
			p.stdout.Len() > 0 || !strings.HasPrefix(p.stderr.String(), "enlist: ") {
			t.Errorf("%s without --json: exit code %d, %s%s", command, again, &p.stdout, &p.stderr)
		}
	}
	// What is behind -- is for another program.
	if p.try("exec", "lona/nobody", "--", "true", "--json"); p.stdout.Len() > 0 {
		t.Errorf("exec: %s", &p.stdout)
	}
}

// TestNothingSteersTheTerminal: what a service, a file or a stranger wrote is
// printed without what a terminal would obey, and as JSON without losing any of it.
func TestNothingSteersTheTerminal(t *testing.T) {
	const evil = "a\x1b]0;title\x07b\u009b31mc\u202ed\x7f\U000e0041e"
	var out bytes.Buffer
	d := credential{Handle: "lona/x", Label: evil, Reason: evil, Remedy: evil, KeyID: evil, Attrs: map[string]string{"name" + evil: evil}}
	s := &screen{out: &out, person: true, width: 60}
	if err := s.credential(d); err != nil {
		t.Fatal(err)
	}
	if err := s.credentials([]credential{d}); err != nil {
		t.Fatal(err)
	}
	if err := s.diagnosis(diagnosis{Findings: []finding{{Level: levelNote, Area: "service", Subject: evil, Text: evil, Remedy: evil}}, Repaired: []string{evil}}); err != nil {
		t.Fatal(err)
	}
	if bad := strings.ContainsAny(out.String(), "\x1b\x07\u009b\u202e\x7f\U000e0041"); bad {
		t.Errorf("got %q", &out)
	}
	out.Reset()
	if err := printJSON(&out, d); err != nil {
		t.Fatal(err)
	}
	if strings.ContainsAny(out.String(), "\x1b\x07\u009b\u202e\x7f\U000e0041") {
		t.Errorf("got %q", &out)
	}
	var back credential
	if err := json.Unmarshal(out.Bytes(), &back); err != nil || back.Label != evil || back.Attrs["name"+evil] != evil {
		t.Errorf("got %+v, %v", back, err)
	}
}
