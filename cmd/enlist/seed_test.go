package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest"
	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest/leakscan"
	"github.com/enlist-mcp/enlist/gateway/eip191"
)

// seedOf returns what a service's own page shows, word for word.
func seedOf(t *testing.T, protocol string) map[string]string {
	t.Helper()
	a, err := txtar.ParseFile(filepath.Join(root, "gateway", "wire", "testdata", protocol, "seed.txt"))
	if err != nil {
		t.Fatal(err)
	}
	sections := make(map[string]string)
	for _, f := range a.Files {
		sections[f.Name] = string(f.Data)
	}
	return sections
}

// curl runs a command of a page in a shell, as whoever reads the page does, with
// what must be another thing here replaced: each old string must be there. What
// the answer was comes from a configuration file, so that the command is as
// the page has it.
func curl(t *testing.T, command string, env []string, replace ...string) (status int, body []byte) {
	t.Helper()
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("curl is not installed; .ci/run installs it")
	}
	if !strings.HasPrefix(command, "curl ") {
		t.Fatalf("the page has no such command: %q", command)
	}
	for i := 0; i < len(replace); i += 2 {
		if !strings.Contains(command, replace[i]) {
			t.Fatalf("the command has no %s:\n%s", replace[i], command)
		}
	}
	dir := t.TempDir()
	config := "silent\nshow-error\nnoproxy = \"*\"\nwrite-out = \"\\n%{http_code}\"\n"
	if err := os.WriteFile(filepath.Join(dir, ".curlrc"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "sh", "-c", strings.NewReplacer(replace...).Replace(command))
	cmd.Env = append(append(os.Environ(), "CURL_HOME="+dir, "HOME="+dir, "XDG_CONFIG_HOME="), env...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("curl: %v: %s", err, stderr.String())
	}
	out := stdout.Bytes()
	end := bytes.LastIndexByte(out, '\n')
	status, err := strconv.Atoi(string(out[end+1:]))
	if err != nil {
		t.Fatal(err)
	}
	return status, out[:end]
}

// textAt returns what is in JSON at a path.
func textAt(t *testing.T, body []byte, path ...string) string {
	t.Helper()
	var v any
	if err := json.Unmarshal(body, &v); err != nil {
		t.Fatalf("%v in %d bytes", err, len(body))
	}
	for _, name := range path {
		m, ok := v.(map[string]any)
		if !ok {
			t.Fatalf("nothing at %v", path)
		}
		v = m[name]
	}
	s, ok := v.(string)
	if !ok {
		t.Fatalf("no text at %v", path)
	}
	return s
}

// sameFields fails the test unless an answer has the fields that a page shows,
// each of the same type, and no other.
func sameFields(t *testing.T, got []byte, shown string) {
	t.Helper()
	if got, want := fieldsOf(t, got), fieldsOf(t, []byte(shown)); !slices.Equal(got, want) {
		t.Errorf("the answer has %v, the page shows %v", got, want)
	}
}

func fieldsOf(t *testing.T, body []byte) []string {
	t.Helper()
	var v any
	if err := json.Unmarshal(body, &v); err != nil {
		t.Fatalf("%v in %d bytes", err, len(body))
	}
	var fields []string
	var walk func(path string, v any)
	walk = func(path string, v any) {
		if m, ok := v.(map[string]any); ok {
			for _, name := range slices.Sorted(maps.Keys(m)) {
				walk(path+"/"+name, m[name])
			}
			return
		}
		fields = append(fields, fmt.Sprintf("%s %T", path, v))
	}
	walk("", v)
	return fields
}

func wantStatus(t *testing.T, got, want int, body []byte) {
	t.Helper()
	if got == want {
		return
	}
	if got < 400 {
		body = nil // it may hold a secret
	}
	t.Fatalf("got HTTP %d, want %d: %s", got, want, body)
}

func TestTheCommandsOfLonasPage(t *testing.T) {
	const (
		host = "https://gateway.lona.agency"
		code = "lona_invite_AbCdEf123456..."
	)
	p := seedOf(t, "lona")
	secret := strings.Repeat("5e1ec7ed", 8) // as openssl rand -hex 32 makes one
	gw := gatewaytest.New(t, gatewaytest.Env(map[string]string{"AGENT_REGISTRATION_SECRET": secret}))

	status, body := curl(t, p["request-invite.sh"], nil, host, gw.URL)
	wantStatus(t, status, 201, body)
	sameFields(t, body, p["request-invite.json"])

	status, body = curl(t, p["register-invite.sh"], nil, host, gw.URL, code, textAt(t, body, "data", "invite_code"))
	wantStatus(t, status, 201, body)
	sameFields(t, body, p["register.json"])
	token := textAt(t, body, "data", "token")

	status, body = curl(t, p["strategies.sh"], nil, host, gw.URL, textAt(t, []byte(p["register.json"]), "data", "token"), token)
	wantStatus(t, status, 200, body)

	// The shell puts the secret in, as it does on the page.
	status, body = curl(t, p["register-secret.sh"], []string{"AGENT_REGISTRATION_SECRET=" + secret}, host, gw.URL)
	wantStatus(t, status, 201, body)
	sameFields(t, body, p["register.json"])

	// As they are printed, the code and the token are nobody's.
	status, body = curl(t, p["register-invite.sh"], nil, host, gw.URL)
	wantStatus(t, status, 401, body)
	status, body = curl(t, p["strategies.sh"], nil, host, gw.URL)
	wantStatus(t, status, 401, body)
}

// TestTheToolCallOfLonasPage makes the call that the page shows for its own MCP
// server, with the secret and without.
func TestTheToolCallOfLonasPage(t *testing.T) {
	secret := strings.Repeat("5e1ec7ed", 8)
	for name, env := range map[string]string{"with the secret": "LONA_AGENT_REGISTRATION_SECRET=" + secret, "without it": "LONA_AGENT_REGISTRATION_SECRET="} {
		t.Run(name, func(t *testing.T) {
			gw := gatewaytest.New(t, gatewaytest.Env(map[string]string{"AGENT_REGISTRATION_SECRET": secret}))
			home := t.TempDir()
			cmd := exec.CommandContext(t.Context(), "enlist", "call", "lona_register_agent", seedOf(t, "lona")["lona_register_agent.json"])
			cmd.Env = append(os.Environ(), env, "LONA_GATEWAY_URL="+gw.URL, "ENLIST_STORE=file",
				"ENLIST_HOME="+filepath.Join(home, "enlist"), "HOME="+home, "XDG_CONFIG_HOME=", "AppData="+home,
				leakscan.Variable+"="+os.Getenv(leakscan.Variable))
			out, err := cmd.Output()
			if err != nil || textAt(t, out, "handle") != "lona/moltbook-agent-123" {
				t.Errorf("got %s (%v)", out, err)
			}
		})
	}
}

func TestTheCommandOfLithtrixsPage(t *testing.T) {
	const host = "https://lithtrix.ai"
	p := seedOf(t, "lithtrix")
	gw := gatewaytest.New(t)

	status, body := curl(t, p["register.sh"], nil, host, gw.URL)
	wantStatus(t, status, 201, body)
	shown := fieldsOf(t, []byte(p["register.json"]))
	for _, field := range shown {
		if !slices.Contains(fieldsOf(t, body), field) {
			t.Errorf("the answer has no %s", field)
		}
	}
	if got, want := textAt(t, body, "message"), textAt(t, []byte(p["register.json"]), "message"); got != want {
		t.Errorf("got the message %q, want %q", got, want)
	}

	status, body = curl(t, p["register.sh"], nil, host, gw.URL)
	row := regexp.MustCompile(`(?m)^(\d{3})([A-Z_]+[A-Z])An `).FindStringSubmatch(p["errors.txt"])
	if row == nil || row[1] != strconv.Itoa(status) || !bytes.Contains(body, []byte(`"`+row[2]+`"`)) {
		t.Errorf("got HTTP %d %s, want what the page says: %v", status, body, row)
	}
}

// lumina is a wallet that onboards by what Lumina's page says.
type lumina struct {
	page    map[string]string
	url     string
	wallet  eip191.Wallet
	at      int64
	message string   // as the page has it
	fields  []string // of the body, in the order of the page
	path    string
}

func newLumina(t *testing.T, gw *gatewaytest.Gateway) *lumina {
	t.Helper()
	w, err := eip191.New(strings.NewReader(strings.Repeat("a wallet that nobody has money in", 9)))
	if err != nil {
		t.Fatal(err)
	}
	p := seedOf(t, "lumina")
	m := regexp.MustCompile(`(?m)^(Lumina .+ at \{timestamp\})`).FindStringSubmatch(p["flow.txt"])
	b := regexp.MustCompile(`POST \{([^}]+)\}\s*to\s*(/[a-z0-9/]+)`).FindStringSubmatch(p["flow.txt"])
	if m == nil || b == nil {
		t.Fatal("the page does not say what is signed, or what is sent")
	}
	return &lumina{
		page: p, url: gw.URL, wallet: w, at: gw.Clock.Now().Unix(),
		message: m[1], fields: strings.Split(b[1], ", "), path: b[2],
	}
}

// onboard sends the page's fields. sign changes the text that is signed.
func (l *lumina) onboard(t *testing.T, label string, sign func(string) string) (int, []byte) {
	t.Helper()
	l.at++ // so that no signature comes twice
	text := strings.NewReplacer("{address}", l.wallet.Address(), "{timestamp}", strconv.FormatInt(l.at, 10)).Replace(l.message)
	if sign != nil {
		text = sign(text)
	}
	signature, err := l.wallet.Sign(text)
	if err != nil {
		t.Fatal(err)
	}
	var pairs []string
	for _, name := range l.fields {
		value, ok := map[string]any{
			"walletAddress": l.wallet.Address(), "signature": signature, "timestamp": l.at, "label": label,
		}[name]
		if !ok {
			t.Fatalf("the page has a field %q", name)
		}
		v, err := json.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		pairs = append(pairs, fmt.Sprintf("%q: %s", name, v))
	}
	return l.post(t, "{"+strings.Join(pairs, ", ")+"}")
}

func (l *lumina) post(t *testing.T, body string) (int, []byte) {
	t.Helper()
	return curl(t, "curl -X POST "+l.url+l.path+` -H "Content-Type: application/json" -d '`+body+`'`, nil)
}

func TestTheBodiesOfLuminasPage(t *testing.T) {
	gw := gatewaytest.New(t)
	l := newLumina(t, gw)

	status, body := l.onboard(t, "spot-arb-1", nil)
	wantStatus(t, status, 201, body)
	key := textAt(t, body, "apiKey")
	if !strings.HasPrefix(key, "lk_") {
		t.Error("the key does not begin with lk_, as the page says")
	}
	m := regexp.MustCompile(`\(([^)]+)\)[^/]*\s(/[a-z0-9/]+)\.`).FindStringSubmatch(l.page["keys.txt"])
	if m == nil {
		t.Fatal("the page does not say how keys are listed")
	}
	status, body = curl(t, `curl `+l.url+m[2]+` -H "x-api-key: $KEY"`, []string{"KEY=" + key})
	wantStatus(t, status, 200, body)
	for _, field := range strings.Split(m[1], ", ") {
		if !bytes.Contains(body, []byte(`"`+field+`"`)) {
			t.Errorf("the list of keys has no %s", field)
		}
	}
}

// TestTheErrorsOfLuminasPage goes through the page's table.
func TestTheErrorsOfLuminasPage(t *testing.T) {
	provoke := map[string]func(t *testing.T, l *lumina) (int, []byte){
		"invalid_body": func(t *testing.T, l *lumina) (int, []byte) { return l.post(t, `{"walletAddress": 7}`) },
		"stale_timestamp": func(t *testing.T, l *lumina) (int, []byte) {
			l.at -= 400
			return l.onboard(t, "", nil)
		},
		"invalid_signature": func(t *testing.T, l *lumina) (int, []byte) {
			return l.onboard(t, "", func(string) string { return "another text" })
		},
		"cap_reached": func(t *testing.T, l *lumina) (int, []byte) {
			for range 3 {
				status, body := l.onboard(t, "", nil)
				wantStatus(t, status, 201, body)
			}
			return l.onboard(t, "", nil)
		},
		"rate_limit": func(t *testing.T, l *lumina) (int, []byte) {
			for range 10 {
				l.onboard(t, "", func(string) string { return "another text" })
			}
			return l.onboard(t, "", nil)
		},
	}
	rows := regexp.MustCompile(`(?m)^\| (\d{3}) \| (\w+) \|`).FindAllStringSubmatch(seedOf(t, "lumina")["errors.txt"], -1)
	if len(rows) != len(provoke) {
		t.Fatalf("the page has %d errors, the test %d", len(rows), len(provoke))
	}
	for _, row := range rows {
		t.Run(row[2], func(t *testing.T) {
			f, ok := provoke[row[2]]
			if !ok {
				t.Fatal("nobody knows how to provoke it")
			}
			gw := gatewaytest.New(t, gatewaytest.At(time.Date(2026, 2, 6, 12, 0, 0, 0, time.UTC)))
			status, body := f(t, newLumina(t, gw))
			want, err := strconv.Atoi(row[1])
			if err != nil {
				t.Fatal(err)
			}
			wantStatus(t, status, want, body)
			if textAt(t, body, "code") != row[2] {
				t.Errorf("got %s, want the code %s", body, row[2])
			}
		})
	}
}
