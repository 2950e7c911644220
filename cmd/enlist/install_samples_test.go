package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/aymanbagabas/go-udiff"
	"github.com/pelletier/go-toml/v2"
	"github.com/tailscale/hujson"
)

// secretMark is in every secret of the samples.
const secretMark = "not-for-you"

// TestInstallSamples puts Enlist into files as clients have them, and takes it
// out again: as they are, with the line ends of Windows, and without the last.
func TestInstallSamples(t *testing.T) {
	files, err := filepath.Glob("testdata/install/*")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	for _, path := range files {
		id, _, _ := strings.Cut(filepath.Base(path), "_")
		seen[id]++
		c, err := clientNamed(id)
		if err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		text = bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n"))
		for variant, src := range map[string][]byte{
			"as it is":             text,
			"CRLF":                 bytes.ReplaceAll(text, []byte("\n"), []byte("\r\n")),
			"without the last end": bytes.TrimRight(text, "\n"),
		} {
			t.Run(filepath.Base(path)+" "+variant, func(t *testing.T) { checkSample(t, c, src) })
		}
	}
	for _, c := range mcpClients() {
		if c.id != "vscode-insiders" && seen[c.id] < 2 {
			t.Errorf("there are %d samples of %s, want two", seen[c.id], c.title)
		}
	}
}

func checkSample(t *testing.T, c mcpClient, src []byte) {
	at := place{c.key, "enlist"}
	want := entry{Type: c.kind, Command: "/opt/bin/enlist", Args: []string{"mcp"}}
	after, edits, err := c.format.put(src, at, want)
	if err != nil {
		t.Fatal(err)
	}
	// A reader of another kind finds what was there, and the entry.
	before := readAll(t, c, src)
	servers, _ := before[c.key].(map[string]any)
	servers = maps.Clone(servers)
	if servers == nil {
		servers = map[string]any{}
	}
	servers["enlist"] = asRead(want)
	before[c.key] = servers
	if got := readAll(t, c, after); !reflect.DeepEqual(got, before) {
		t.Errorf("the file says %v\nwant %v", got, before)
	}
	// The rest is there byte for byte, in one layout.
	if !isWithin(src, after) {
		t.Errorf("something of the file is gone:\n%s", after)
	}
	if bytes.Contains(src, []byte("\r\n")) && bytes.Count(after, []byte("\n")) != bytes.Count(after, []byte("\r\n")) {
		t.Errorf("not all lines end with CRLF:\n%q", after)
	}
	if len(src) > 0 && bytes.HasSuffix(src, []byte("\n")) != bytes.HasSuffix(after, []byte("\n")) {
		t.Errorf("the last line ends otherwise:\n%q", after)
	}
	checkUndo(t, c.format, at, src)
	checkHidden(t, c, src, edits, want)

	// Other settings change nothing but the arguments.
	want.Args = []string{"mcp", "--read-only"}
	changed, _, err := c.format.put(after, at, want)
	if err != nil {
		t.Fatal(err)
	}
	if again := bytes.Replace(changed, []byte(`["mcp", "--read-only"]`), []byte(`["mcp"]`), 1); !bytes.Equal(again, after) {
		if again = bytes.Replace(changed, []byte(`["mcp","--read-only"]`), []byte(`["mcp"]`), 1); !bytes.Equal(again, after) {
			t.Errorf("more than the arguments has changed:\n%s\nbefore:\n%s", changed, after)
		}
	}
	if back, _, err := c.format.remove(changed, at, [][]byte{after, src}); err != nil || !bytes.Equal(back, src) {
		t.Errorf("removed after a change: %q, %v; want %q", back, err, src)
	}
}

// checkHidden looks for what is secret, in what is shown of a change and in all
// that could be shown.
func checkHidden(t *testing.T, c mcpClient, src []byte, edits []udiff.Edit, want entry) {
	t.Helper()
	doc, err := c.format(src, place{c.key, "enlist"})
	if err != nil {
		t.Fatal(err)
	}
	diff, err := diffOf("file", true, true, doc, src, edits)
	if err != nil {
		t.Fatal(err)
	}
	all, _, err := rewrite(string(src), doc.masks(), nil)
	if err != nil {
		t.Fatal(err)
	}
	before := "" // the line before
	for line := range strings.Lines(diff) {
		if before != "" && before[0] == '-' && line == "+"+before[1:] {
			t.Errorf("a line that stays is shown as changed:\n%s", diff)
		}
		before = line
	}
	for _, shown := range []string{diff, all} {
		if strings.Contains(shown, secretMark) {
			t.Errorf("a secret is shown:\n%s", shown)
		}
	}
	if strings.Count(all, "\n") != bytes.Count(src, []byte("\n")) {
		t.Errorf("hiding changes how many lines there are:\n%s", all)
	}
	if !strings.Contains(diff, quoteJSON(want.Command)) {
		t.Errorf("the command is not shown:\n%s", diff)
	}
}

// readAll reads a file with the library that programs use.
func readAll(t *testing.T, c mcpClient, src []byte) map[string]any {
	t.Helper()
	all := map[string]any{}
	if c.id == "codex" {
		if err := toml.Unmarshal(src, &all); err != nil {
			t.Fatalf("%v\n%s", err, src)
		}
		return all
	}
	if len(bytes.TrimSpace(src)) == 0 {
		return all
	}
	plain, err := hujson.Standardize(append(bytes.Clone(src), '\n'))
	if err != nil {
		t.Fatalf("%v\n%s", err, src)
	}
	if err := json.Unmarshal(plain, &all); err != nil {
		t.Fatalf("%v\n%s", err, src)
	}
	return all
}

// asRead is an entry as readAll reads it.
func asRead(e entry) map[string]any {
	args := make([]any, len(e.Args))
	for i := range e.Args {
		args[i] = e.Args[i]
	}
	m := map[string]any{"command": e.Command, "args": args}
	if e.Type != "" {
		m["type"] = e.Type
	}
	return m
}

// isWithin reports whether all bytes of one text are in another in order, but
// for white space.
func isWithin(part, whole []byte) bool {
	for _, b := range part {
		i := bytes.IndexByte(whole, b)
		if i < 0 && !strings.ContainsRune(jsonSpace, rune(b)) {
			return false
		}
		whole = whole[i+1:]
	}
	return true
}

// TestInstallOverAnother replaces an entry that starts something else, when that
// is wanted, and shows nothing of it.
func TestInstallOverAnother(t *testing.T) {
	for name, c := range map[string]struct{ id, src, want string }{
		"JSON": {
			"cursor",
			`{"mcpServers": {"enlist": {"command": "x", "env": {"K": "not-for-you"}}, "b": {}}}`,
			`{"mcpServers": {"enlist": {"command": "/e", "args": ["mcp"]}, "b": {}}}`,
		},
		"TOML": {
			"codex",
			"a = 1\n\n[mcp_servers.enlist]\ncommand = 'x' # not-for-you\n\n[mcp_servers.enlist.env]\nK = \"not-for-you\"\n\n[b]\n",
			"a = 1\n\n[b]\n\n[mcp_servers.enlist]\ncommand = \"/e\"\nargs = [\"mcp\"]\n",
		},
		"dotted TOML": {
			"codex",
			"mcp_servers.enlist.command = 'not-for-you'\na = 1\nmcp_servers.enlist.args = []\n",
			"a = 1\n\n[mcp_servers.enlist]\ncommand = \"/e\"\nargs = [\"mcp\"]\n",
		},
		"inline TOML": {
			"codex",
			"mcp_servers = { a = {}, enlist = { command = \"not-for-you\" } }\n",
			"mcp_servers = { a = {}, enlist = { command = \"/e\", args = [\"mcp\"] } }\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			client, err := clientNamed(c.id)
			if err != nil {
				t.Fatal(err)
			}
			want := entry{Command: "/e", Args: []string{"mcp"}}
			got, edits, err := client.format.put([]byte(c.src), place{client.key, "enlist"}, want)
			if err != nil || string(got) != c.want {
				t.Fatalf("got\n%s\nwant\n%s\nerror: %v", got, c.want, err)
			}
			checkHidden(t, client, []byte(c.src), edits, want)
		})
	}
}

// TestInstallKeepsWhatIsAdded leaves alone what a person has added to the entry.
func TestInstallKeepsWhatIsAdded(t *testing.T) {
	const src = `{"mcpServers": {
  "enlist": { // mine
    "args": ["mcp"], "env": {"LONA_API_KEY": "not-for-you"}, "command": "enlist", /* x */ "disabled": true
  }
}}`
	want := strings.Replace(strings.Replace(src, `["mcp"]`, `["mcp", "--embedded"]`, 1), `"enlist", /`, `"/e", /`, 1)
	e := entry{Command: "/e", Args: []string{"mcp", "--embedded"}}
	got, edits, err := format(parseJSON).put([]byte(src), place{"mcpServers", "enlist"}, e)
	if err != nil || string(got) != want {
		t.Errorf("got\n%s\nwant\n%s\nerror: %v", got, want, err)
	}
	cursor, err := clientNamed("cursor")
	if err != nil {
		t.Fatal(err)
	}
	checkHidden(t, cursor, []byte(src), edits, e)
}

// TestInstallRefuses leaves a file alone that it cannot read, and says nothing
// of what is in it.
func TestInstallRefuses(t *testing.T) {
	for name, c := range map[string]struct{ id, src, want string }{
		"not JSON":           {"cursor", "{\n \"a\": not-for-you}", "not valid JSON: line 2, column"},
		"a wrong string":     {"cursor", `{"not-for-you\q": 1}`, "not valid JSON: line 1, column 2"},
		"too short":          {"cursor", `{"a": {"b": 1}`, "not valid JSON"},
		"too deep":           {"cursor", strings.Repeat("[", 1<<20), "nested deeper"},
		"a list":             {"cursor", `["not-for-you"]`, "not a JSON object"},
		"servers as a list":  {"cursor", `{"mcpServers": ["not-for-you"]}`, `"mcpServers" in it is not a JSON object`},
		"servers twice":      {"cursor", `{"mcpServers": {}, "mcp\u0053ervers": {}}`, `"mcpServers" is in it twice`},
		"the entry twice":    {"cursor", `{"mcpServers": {"enlist": {}, "enlist": {}}}`, `"enlist" is in it twice`},
		"not TOML":           {"codex", "a = 1\nnot-for-you", "not valid TOML: line 2"},
		"a key twice":        {"codex", "a = 'not-for-you'\na = 1\n", "not valid TOML"},
		"servers as a value": {"codex", "mcp_servers = 'not-for-you'\n", `"mcp_servers" in it is not a table`},
		"servers as tables":  {"codex", "[[mcp_servers]]\na = 1\n", `"mcp_servers" in it is not a table`},
	} {
		t.Run(name, func(t *testing.T) {
			client, err := clientNamed(c.id)
			if err != nil {
				t.Fatal(err)
			}
			_, _, err = client.format.put([]byte(c.src), place{client.key, "enlist"}, testEntry)
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), secretMark) {
				t.Errorf("got error %v, want one with %q", err, c.want)
			}
		})
	}
}

// TestInstallDropsItsTable takes the table out that was made for the entry, when
// the rest of the file has changed since, and leaves one that was there before.
func TestInstallDropsItsTable(t *testing.T) {
	at := place{"mcpServers", "enlist"}
	for name, c := range map[string]struct{ before, want string }{
		"made for it":  {"{\n  \"a\": 1\n}\n", "{\n  \"a\": 2\n}\n"},
		"there before": {"{\n  \"a\": 1,\n  \"mcpServers\": {\n  }\n}\n", "{\n  \"a\": 2,\n  \"mcpServers\": {}\n}\n"},
	} {
		t.Run(name, func(t *testing.T) {
			parse := format(parseJSON)
			after, _, err := parse.put([]byte(c.before), at, testEntry)
			if err != nil {
				t.Fatal(err)
			}
			other := testEntry
			other.Args = []string{"mcp"}
			changed, _, err := parse.put(after, at, other)
			if err != nil {
				t.Fatal(err)
			}
			now := bytes.Replace(changed, []byte(`"a": 1`), []byte(`"a": 2`), 1)
			got, _, err := parse.remove(now, at, [][]byte{after, []byte(c.before)})
			if err != nil || string(got) != c.want {
				t.Errorf("got %q, %v; want %q", got, err, c.want)
			}
		})
	}
}

// TestInstallDiffIsShort shows little of a file of one long line, and nothing
// that a terminal obeys.
func TestInstallDiffIsShort(t *testing.T) {
	others := `"ä": {"command": "x"}, ` + strings.TrimSuffix(manyServers(5000), ", ")
	src := []byte(`{"mcpServers": {` + others + `}, "\u001b[2J": 1, "` + "\u202e" + `": "b", "c": [` + strings.Repeat("1, ", 10000) + `2]}`)
	cursor, err := clientNamed("cursor")
	if err != nil {
		t.Fatal(err)
	}
	_, edits, err := cursor.format.put(src, place{cursor.key, "enlist"}, testEntry)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := cursor.format(src, place{cursor.key, "enlist"})
	if err != nil {
		t.Fatal(err)
	}
	diff, err := diffOf("file", true, true, doc, src, edits)
	if err != nil {
		t.Fatal(err)
	}
	if len(diff) > 2000 || strings.Contains(diff, "\u202e") || strings.Contains(diff, "u001b") {
		t.Errorf("shown are %d bytes:\n%.3000q", len(diff), diff)
	}
	if !strings.Contains(diff, `"command": "/usr/local/bin/enlist"`) {
		t.Errorf("the change is not shown:\n%s", diff)
	}
	checkHidden(t, cursor, src, edits, testEntry)
}

func manyServers(count int) string {
	var b strings.Builder
	for i := range count {
		fmt.Fprintf(&b, `"server-%d": {"command": "not-for-you-%d"}, `, i, i)
	}
	return b.String()
}

// TestClientFiles finds where each client looks, on each system.
func TestClientFiles(t *testing.T) {
	windows := map[string]string{"USERPROFILE": "/u", "AppData": "/u/Roaming", "LocalAppData": "/u/Local"}
	home := map[string]string{"HOME": "/h"}
	for name, c := range map[string]struct {
		id, goos string
		env      map[string]string
		want     string
	}{
		"Claude Desktop, macOS":         {"claude-desktop", "darwin", home, "/h/Library/Application Support/Claude/claude_desktop_config.json"},
		"Claude Desktop, Windows":       {"claude-desktop", "windows", windows, "/u/Roaming/Claude/claude_desktop_config.json"},
		"Claude Desktop, Linux":         {"claude-desktop", "linux", home, "/h/.config/Claude/claude_desktop_config.json"},
		"Claude Code":                   {"claude-code", "linux", home, "/h/.claude.json"},
		"Claude Code, Windows":          {"claude-code", "windows", windows, "/u/.claude.json"},
		"Claude Code, another folder":   {"claude-code", "darwin", map[string]string{"HOME": "/h", "CLAUDE_CONFIG_DIR": "/c"}, "/c/.claude.json"},
		"Cursor":                        {"cursor", "darwin", home, "/h/.cursor/mcp.json"},
		"Cursor, Windows":               {"cursor", "windows", windows, "/u/.cursor/mcp.json"},
		"VS Code, macOS":                {"vscode", "darwin", home, "/h/Library/Application Support/Code/User/mcp.json"},
		"VS Code, Windows":              {"vscode", "windows", windows, "/u/Roaming/Code/User/mcp.json"},
		"VS Code, Linux":                {"vscode", "linux", map[string]string{"HOME": "/h", "XDG_CONFIG_HOME": "/x"}, "/x/Code/User/mcp.json"},
		"VS Code Insiders":              {"vscode-insiders", "linux", home, "/h/.config/Code - Insiders/User/mcp.json"},
		"Codex":                         {"codex", "linux", home, "/h/.codex/config.toml"},
		"Codex, another folder":         {"codex", "windows", map[string]string{"USERPROFILE": "/u", "CODEX_HOME": "/c"}, "/c/config.toml"},
		"nobody's":                      {"codex", "linux", nil, ""},
		"nobody's, Claude Code":         {"claude-code", "linux", nil, ""},
		"nobody's, with windows":        {"vscode", "windows", nil, ""},
		"nobody's, Claude on a desktop": {"claude-desktop", "darwin", nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			client, err := clientNamed(c.id)
			if err != nil {
				t.Fatal(err)
			}
			got, signs, err := client.file(machine{c.goos, func(name string) string { return c.env[name] }})
			if filepath.ToSlash(got) != c.want || (err != nil) != (c.want == "") || err == nil && len(signs) == 0 {
				t.Errorf("got %q, %q, %v; want %q", got, signs, err, c.want)
			}
		})
	}
}

// TestClaudeDesktopAsPackage prefers the folder that Windows gives a package,
// and takes none of two.
func TestClaudeDesktopAsPackage(t *testing.T) {
	local := t.TempDir()
	m := machine{"windows", func(name string) string {
		return map[string]string{"AppData": "/u/Roaming", "LocalAppData": local}[name]
	}}
	var dirs []string
	for _, name := range []string{"Claude_pzs8sxrjxfjjc", "Claude_other"} {
		dirs = append(dirs, filepath.Join(local, "Packages", name, "LocalCache", "Roaming", "Claude"))
	}
	if err := os.MkdirAll(dirs[0], 0o700); err != nil {
		t.Fatal(err)
	}
	got, signs, err := m.claudeDesktop()
	if err != nil || got != filepath.Join(dirs[0], "claude_desktop_config.json") || !slices.Equal(signs, dirs[:1]) {
		t.Errorf("got %q, %q, %v", got, signs, err)
	}
	if err := os.MkdirAll(dirs[1], 0o700); err != nil {
		t.Fatal(err)
	}
	if got, _, err := m.claudeDesktop(); err == nil || !strings.Contains(err.Error(), "--config") {
		t.Errorf("of two packages: %q, %v", got, err)
	}
}
