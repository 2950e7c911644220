package main

import (
	"bytes"
	"testing"
)

var testEntry = entry{Command: "/usr/local/bin/enlist", Args: []string{"mcp", "--services", "lona,fluxra"}}

func FuzzInstallJSON(f *testing.F) {
	for _, s := range []string{
		"", " \n", "{}", "{\n}", `{"mcpServers":{}}`, `{"mcpServers":{"a":{"command":"x"}}}`,
		"{\n  // c\n  \"mcpServers\": { // s\n    \"a\": {} // t\n  }\n}\n// end",
		"{\r\n\t\"mcpServers\": {\r\n\t\t\"a\": {}, // x\r\n\t},\r\n}\r\n",
		"{\"mcpServers\": {\"a\":1 /*x*/}}", "{\"mcpServers\": {\n// c\n}}", "{\"mcpServers\": {\n\"a\":1\n, \"b\":2\n, }}",
		"{\"mcpServers\": {// c\r\r\n\"a\":1// d\r\r\n}}",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, src []byte) { checkUndo(t, parseJSON, place{"mcpServers", "enlist"}, src) })
}

func FuzzInstallTOML(f *testing.F) {
	for _, s := range []string{
		"", "\n", "a = 1", "a = 1\n", "a = 1\r\n[b]\r\n", "[mcp_servers.x]\ncommand = \"y\"\n# end",
		"mcp_servers = {}", "mcp_servers = { a = { command = \"b\" } }\n[x]\n", "mcp_servers.a.command = 'b'\n",
		"[mcp_servers]\na = { command = \"b\" }\n[[c]]\nd = [1, # e\n 2]\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, src []byte) { checkUndo(t, parseTOML, place{"mcp_servers", "enlist"}, src) })
}

// checkUndo installs into a file, and takes out again.
func checkUndo(t *testing.T, parse format, at place, src []byte) {
	doc, err := parse(src, at)
	if err != nil {
		return
	}
	if _, there := doc.lookup(); there {
		return
	}
	after, edits, err := parse.put(src, at, testEntry)
	if err != nil {
		t.Fatalf("put into %q: %v", src, err)
	}
	// Outside what was inserted every byte is the same: an edit replaces nothing
	// but the white space in an empty object.
	for _, e := range edits {
		if len(bytes.TrimSpace(src[e.Start:e.End])) > 0 {
			t.Errorf("%q in %q is replaced", src[e.Start:e.End], src)
		}
	}
	if _, again, err := parse.put(after, at, testEntry); err != nil || len(again) > 0 {
		t.Errorf("put again into %q: edits %q, error %v", after, again, err)
	}
	before, _, err := parse.remove(after, at, [][]byte{src})
	if err != nil || !bytes.Equal(before, src) {
		t.Fatalf("remove from %q: %q, %v; want %q", after, before, err, src)
	}
	// Without what was kept, where there was another entry or setting.
	alone, _, err := parse.remove(after, at, nil)
	if err != nil {
		t.Fatalf("remove alone from %q: %v", after, err)
	}
	made, _, err := parse.put(nil, at, testEntry)
	if err != nil {
		t.Fatal(err)
	}
	if full(t, parse, at, src) && !bytes.Equal(alone, src) && !bytes.Equal(made, after) {
		t.Fatalf("remove alone from %q: %q; want %q", after, alone, src)
	}
	if _, err := diffOf("file", true, true, doc, src, edits); err != nil {
		t.Fatalf("diff of %q: %v", src, err)
	}
}

// full reports whether the table of servers has an entry of another server.
func full(t *testing.T, parse format, at place, src []byte) bool {
	doc, err := parse(src, at)
	if err != nil {
		t.Fatal(err)
	}
	if j, ok := doc.(*jsonDocument); ok {
		return j.servers != nil && len(j.servers.Members) > 0
	}
	d := doc.(*tomlDocument)
	return d.inline == nil || len(d.inline.members) > 0
}
