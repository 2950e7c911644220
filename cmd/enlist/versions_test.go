package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest"
)

// TestTwoVersionsShareAHome builds a later version of the program, which writes
// one thing in a later form, and this one, and has them share a home: this one
// says that it must be updated, asks no service for anything, and leaves what the
// other has as it is.
func TestTwoVersionsShareAHome(t *testing.T) {
	this := buildWith(t, nil)
	for name, later := range map[string]struct{ file, was, is string }{
		"the index":   {"credstore/index.go", "indexVersion = 1", "indexVersion = 2"},
		"an item":     {"credstore/envelope.go", "const envelopeVersion = 1", "const envelopeVersion = 2"},
		"the journal": {"gateway/journal.go", "journalVersion = 1", "journalVersion = 2"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			next := buildWith(t, map[string][2]string{later.file: {later.was, later.is}})
			gw := gatewaytest.New(t)
			home := t.TempDir()
			t.Cleanup(func() { keepForScan(t, home) })
			enlist := func(program string, args ...string) (string, bool) {
				cmd := exec.CommandContext(t.Context(), program, args...)
				cmd.Env = []string{"HOME=" + home, "ENLIST_HOME=" + filepath.Join(home, "enlist"), "ENLIST_STORE=file", "LONA_GATEWAY_URL=" + gw.URL}
				var out bytes.Buffer
				cmd.Stdout, cmd.Stderr = &out, &out
				err := cmd.Run()
				return out.String(), err == nil
			}
			register := []string{"call", "lona_register_agent", `{"agent_id":"my-agent","agent_name":"My Agent"}`}
			if out, ok := enlist(next, register...); !ok {
				t.Fatal(out)
			}
			issued := len(gw.Secrets())

			if out, ok := enlist(this, register...); ok || !strings.Contains(strings.ToLower(out), "update enlist") {
				t.Errorf("registering again: got %s, want to be told to update", out)
			}
			if out, ok := enlist(this, "rotate", "lona/my-agent"); ok || !strings.Contains(strings.ToLower(out), "update enlist") {
				t.Errorf("rotating: got %s, want to be told to update", out)
			}
			if got := len(gw.Secrets()); got != issued {
				t.Errorf("the service issued %d secrets to the older version", got-issued)
			}
			if out, ok := enlist(next, "request", "lona/my-agent", "GET", "/api/v1/strategies"); !ok {
				t.Errorf("the later version cannot go on: %s", out)
			}
		})
	}
}

// buildWith builds the program with some texts of its files replaced.
func buildWith(t *testing.T, changes map[string][2]string) string {
	t.Helper()
	root, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	overlay := struct{ Replace map[string]string }{map[string]string{}}
	for file, change := range changes {
		path := filepath.Join(root, filepath.FromSlash(file))
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Contains(text, []byte(change[0])) {
			t.Fatalf("%s has no %q: where is its version?", file, change[0])
		}
		overlay.Replace[path] = filepath.Join(dir, filepath.Base(file))
		write(t, overlay.Replace[path], bytes.Replace(text, []byte(change[0]), []byte(change[1]), 1))
	}
	data, err := json.Marshal(overlay)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "overlay.json"), data)
	program := filepath.Join(dir, "enlist.exe") // Windows wants the ending, others do not mind it
	inTree(t, root, "build", "-overlay", filepath.Join(dir, "overlay.json"), "-o", program, "./cmd/enlist")
	return program
}
