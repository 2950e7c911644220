package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mark3labs/mcp-go/mcp"

	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest"
	"github.com/enlist-mcp/enlist/gateway"
	"github.com/enlist-mcp/enlist/gateway/wire"
)

var (
	routeRow    = regexp.MustCompile("(?m)^\\| `([A-Z]+) (/[^` ]+)`")
	placeholder = regexp.MustCompile(`\{[^}]*\}`)
)

// The routes on a protocol's page are those that both halves know, and a gateway
// answers to each.
func TestRoutesInTheManualExist(t *testing.T) {
	gw := gatewaytest.New(t)
	for _, p := range wire.Protocols() {
		var paths []string
		for _, row := range routeRow.FindAllStringSubmatch(manual(p.Name), -1) {
			paths = append(paths, row[2])
			req, err := http.NewRequestWithContext(t.Context(), row[1], gw.URL+placeholder.ReplaceAllString(row[2], "1"), nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusNotFound || resp.StatusCode == http.StatusMethodNotAllowed {
				t.Errorf("%s: %s %s is answered with %s", p.Name, row[1], row[2], resp.Status)
			}
		}
		known := wirePaths(t, p.Name)
		for name, path := range known {
			if !slices.ContainsFunc(paths, func(s string) bool { return s == path || strings.HasPrefix(s, path+"/{") }) {
				t.Errorf("the page of %s does not have %s (%s)", p.Name, path, name)
			}
		}
		for _, path := range paths {
			base, _, _ := strings.Cut(path, "/{")
			if !slices.Contains(slices.Collect(maps.Values(known)), base) {
				t.Errorf("the page of %s has %s, which package wire does not", p.Name, path)
			}
		}
		if len(paths) < 3 {
			t.Errorf("the page of %s has %d routes", p.Name, len(paths))
		}
	}
}

// wirePaths returns the constants of a protocol that are paths.
func wirePaths(t *testing.T, protocol string) map[string]string {
	t.Helper()
	found := map[string]string{}
	for name := range sources(t, "gateway/wire", regexp.MustCompile(`(?m)^\t([A-Z][A-Za-z]+Path) +=`)) {
		value := constants(parsed(t, "gateway/wire"), "")[name]
		if strings.HasPrefix(strings.ToLower(name), protocol) {
			found[name] = value
		}
	}
	if len(found) == 0 {
		t.Fatalf("package wire has no paths of %s", protocol)
	}
	return found
}

// stage is a gateway, a server and a client, as the demo has them, and what moves
// their clock.
func stage(t *testing.T) (d *demo, later func()) {
	t.Helper()
	var passed atomic.Int64
	now := func() time.Time { return time.Now().Add(time.Duration(passed.Load())) }
	p := &program{stdout: io.Discard, stderr: io.Discard, env: noEnvironment, now: now}
	d = &demo{page: newPage(p.screen(), defaultColumns), wire: &wiretap{next: gateway.NewTransport(nil)}}
	stop, err := d.serve(t.Context(), p, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	hangUp, err := d.connect(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := hangUp(); err != nil {
			t.Error(err)
		}
	})
	// What signs the time signs another.
	return d, func() { passed.Add(int64(2 * time.Second)) }
}

// registering says with which arguments the first tool of a page's diagram is
// called.
func registering() map[string]map[string]any {
	return map[string]map[string]any{
		wire.AgentDoorName: {"agent_name": "scout"},
		wire.FluxraName:    {"agent_name": "weather-bot", "email": "bot@example.com"},
		wire.LithtrixName:  {"agent_name": "scout", "owner_identifier": "me@example.com"},
		wire.LonaName:      {"agent_id": "my-agent", "agent_name": "My Agent"},
		wire.LuminaName:    {"label": "trader"},
	}
}

// The diagrams are played: each call of a tool is made, and what then goes over
// the wire is what the diagram has, in its order.
func TestSequenceDiagramsAreWhatHappens(t *testing.T) {
	for _, p := range wire.Protocols() {
		t.Run(p.Name, func(t *testing.T) {
			blocks, _ := fences(t, manual(p.Name))
			at := slices.IndexFunc(blocks, func(b fenced) bool { return b.info == "mermaid" })
			if at < 0 {
				t.Fatal("the page has no diagram")
			}
			who, messages, bad := readSequence(strings.Split(strings.TrimSpace(blocks[at].text), "\n"))
			if len(who) != 3 || who[0] != "Agent" || who[1] != "Enlist" || len(bad) > 0 {
				t.Fatalf("the diagram is between %q, and cannot be read in %q", who, bad)
			}
			d, later := stage(t)
			saw := map[string]any{}
			for _, scene := range scenes(messages) {
				later()
				saw = play(t, d, p.Name, scene, saw)
			}
		})
	}
}

// scenes takes a diagram apart: each begins with the call of a tool.
func scenes(messages []message) [][]message {
	var list [][]message
	for _, m := range messages {
		if m.note {
			continue
		}
		if m.from == "Agent" {
			list = append(list, nil)
		}
		list[len(list)-1] = append(list[len(list)-1], m)
	}
	return list
}

// play makes the call that a scene begins with, compares what it led to, and
// returns what is known of the registered agent.
func play(t *testing.T, d *demo, protocol string, scene []message, saw map[string]any) map[string]any {
	t.Helper()
	if last := scene[len(scene)-1]; last.to != "Agent" || !last.answer {
		t.Errorf("%s is not answered", scene[0].text)
	}
	var want []string
	for _, m := range scene[1 : len(scene)-1] {
		text := m.text
		if m.answer {
			text, _, _ = strings.Cut(text, " ")
		}
		want = append(want, text)
	}
	arguments := map[string]any{"credential": saw["handle"]}
	switch scene[0].text {
	case "send_request":
		arguments["method"], arguments["path"], _ = strings.Cut(want[0], " ")
		arguments["path"] = strings.ReplaceAll(arguments["path"].(string), "{agent_id}", fmt.Sprint(saw["agent_id"]))
	case "fluxra_verify_email":
		arguments["token"] = verification(t.Context(), t, d)
	case "rotate_credential", "revoke_credential", "lona_list_strategies":
	default:
		arguments = registering()[protocol]
	}
	d.wire.forget()
	request := mcp.CallToolRequest{}
	request.Params.Name, request.Params.Arguments = scene[0].text, arguments
	result, err := d.caller.CallTool(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	answer, _ := structured(result).(map[string]any)
	if result.IsError {
		t.Fatalf("%s failed: %v", scene[0].text, answer)
	}
	if len(saw) == 0 {
		saw = answer
	}
	var got []string
	for _, x := range d.wire.exchanges {
		status, _, _ := strings.Cut(x.status, " ")
		got = append(got, x.method+" "+x.path, status)
	}
	same := len(got) == len(want)
	for i := range got {
		same = same && like(want[i], got[i])
	}
	if !same {
		t.Errorf("%s: the diagram has %q; over the wire went %q", scene[0].text, want, got)
	}
	return saw
}

// like reports whether a path is one of those that a path with placeholders
// stands for.
func like(pattern, text string) bool {
	parts := placeholder.Split(pattern, -1)
	for i := range parts {
		parts[i] = regexp.QuoteMeta(parts[i])
	}
	return regexp.MustCompile("^" + strings.Join(parts, "[^/]+") + "$").MatchString(text)
}

// verification returns the token of the letter that the gateway wrote.
func verification(ctx context.Context, t *testing.T, d *demo) string {
	t.Helper()
	letters, err := d.gateway.Outbox(ctx)
	if err != nil || len(letters) != 1 {
		t.Fatalf("%d letters, %v", len(letters), err)
	}
	token := mailedToken.FindStringSubmatch(letters[0].Text)
	if token == nil {
		t.Fatal("there is no link in the letter")
	}
	return token[1]
}

// manualAddress is where the examples of the manual have a gateway.
const manualAddress = "127.0.0.1:8420"

// TestExamplesOfTheManual runs the blocks that begin with ```sh offline, each
// page's one after the other in a home of its own. A ```text block behind such a
// block is what it prints, with … for what is left out.
func TestExamplesOfTheManual(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, text := range manualPages(t) {
		if script := exampleScript(t, text); script != "" {
			write(t, filepath.Join(dir, "manual-"+name+".txtar"), []byte(script))
		}
	}
	written, err := filepath.Glob(filepath.Join(dir, "*.txtar"))
	if err != nil || len(written) < 3 {
		t.Fatalf("%d pages have examples, %v", len(written), err)
	}
	runScripts(t, dir)
}

// exampleScript makes a script of the examples of a page; "": there are none.
func exampleScript(t *testing.T, text string) string {
	t.Helper()
	var script, files strings.Builder
	blocks, _ := fences(t, text)
	ran := false
	for i, b := range blocks {
		switch {
		case b.info == "text" && ran:
			for line := range strings.Lines(b.text) {
				pattern := strings.ReplaceAll(regexp.QuoteMeta(strings.TrimSpace(line)), "…", ".*")
				fmt.Fprintf(&script, "stdout '%s'\n", strings.ReplaceAll(pattern, "'", "''"))
			}
			ran = false
			continue
		case b.info != "sh offline":
			ran = false
			continue
		case strings.Contains(b.text, "--listen "+manualAddress):
			command := strings.TrimPrefix(strings.TrimSpace(b.text), "enlist ")
			fmt.Fprintf(&script, "start gateway %s --admin-listen 127.0.0.1:0\n", strings.Replace(command, manualAddress, "127.0.0.1:0", 1)) // the page makes its token
			continue
		}
		fmt.Fprintf(&script, "readdress block%d.sh\nexec sh -eu block%d.sh\n", i, i)
		fmt.Fprintf(&files, "-- block%d.sh --\n%s", i, b.text)
		ran = true
	}
	if script.Len() == 0 {
		return ""
	}
	return "[!exec:sh] skip 'there is no sh, which the examples are written for'\n" + script.String() + files.String()
}
