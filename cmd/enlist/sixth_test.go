package main

import (
	"bytes"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// sixthLists says for each of the four lists what a new protocol adds to it,
// and behind which text. The list of the client half is a field and who makes it.
func sixthLists() map[string][][2]string {
	return map[string][][2]string{
		"gateway/wire/wire.go":        {{"return []Protocol{", "Nova()"}},
		"gateway/protocols.go":        {{"type Client struct {", "Nova *Nova"}, {"c := &Client{", "Nova: made(m, newNova)"}},
		"embeddedgateway/protocol.go": {{"return []maker{", "{wire.NovaName, newNova}"}},
		"tools/tools.go":              {{"return map[string]protocol{", "wire.NovaName: nova()"}},
	}
}

// sixthFiles says where the files of the new protocol go.
func sixthFiles() map[string]string {
	return map[string]string{
		"wire.go.txt":            "gateway/wire/nova.go",
		"register.txtar":         "gateway/wire/testdata/nova/register.txtar",
		"gateway.go.txt":         "gateway/nova.go",
		"gateway_test.go.txt":    "gateway/nova_test.go",
		"embeddedgateway.go.txt": "embeddedgateway/nova.go",
		"tools.go.txt":           "tools/nova.go",
	}
}

// TestASixthProtocolTouchesTheFourListsOnly adds one to a copy of the tree: its
// own files, and a line in each of the lists. The copy builds, both halves of
// the new protocol understand each other, and the tests over all protocols hold
// for it without a change in any other file.
func TestASixthProtocolTouchesTheFourListsOnly(t *testing.T) {
	t.Parallel()
	tree := t.TempDir()
	copyTree(t, root, tree)
	for from, to := range sixthFiles() {
		text, err := os.ReadFile(filepath.Join("testdata", "sixth", from))
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(tree, to), text)
	}
	for file, lines := range sixthLists() {
		path := filepath.Join(tree, file)
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range lines {
			text = addTo(t, file, text, l[0], l[1])
		}
		write(t, path, text)
	}
	before := contents(t, tree)

	inTree(t, tree, "build", "-o", os.DevNull, "./...")
	inTree(t, tree, "test", "-ldflags=-s -w", "-timeout", "100s", "-run", "TestNova|TestEvery|TestImports|TestWire", "./gateway", "./gateway/wire", "./embeddedgateway")
	inTree(t, tree, "test", "-ldflags=-s -w", "-timeout", "100s", "-run", "TestEvery|TestSchemas", "./tools", "-update")

	after := contents(t, tree)
	generated := []string{filepath.FromSlash("tools/testdata/tools/nova_register_agent.json"), filepath.FromSlash("tools/schemas.json")}
	for path, text := range after {
		if !slices.Contains(generated, path) && !bytes.Equal(text, before[path]) {
			t.Errorf("%s had to change, too", path)
		}
	}
}

// addTo adds an entry at the end of the braces that begin with opening.
func addTo(t *testing.T, file string, text []byte, opening, entry string) []byte {
	t.Helper()
	_, rest, ok := bytes.Cut(text, []byte(opening))
	if !ok {
		t.Fatalf("%s has no %q: where is the list?", file, opening)
	}
	depth, end := 1, 0
	for ; depth > 0; end++ {
		switch rest[end] {
		case '{':
			depth++
		case '}':
			depth--
		}
	}
	end-- // the closing brace
	list := strings.TrimRight(string(rest[:end]), " \t\n")
	separator := ",\n"
	if strings.HasSuffix(list, ",") || strings.HasPrefix(opening, "type ") {
		separator = "\n"
	}
	tail := ",\n"
	if strings.HasPrefix(opening, "type ") {
		tail = "\n"
	}
	head := text[:len(text)-len(rest)]
	return slices.Concat(head, []byte(list+separator+entry+tail), rest[end:])
}

// copyTree copies what belongs to the repository and a build needs.
func copyTree(t *testing.T, from, to string) {
	t.Helper()
	for path, text := range contents(t, from) {
		write(t, filepath.Join(to, path), text)
	}
}

// contents returns the files of a tree, but for what the tools of CI left there.
func contents(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	files := make(map[string][]byte)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && path != dir && (strings.HasPrefix(d.Name(), ".") || d.Name() == "node_modules") {
			return filepath.SkipDir
		}
		if !d.Type().IsRegular() {
			return nil
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		files[rel], err = os.ReadFile(path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func write(t *testing.T, path string, text []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

func inTree(t *testing.T, tree string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Dir = tree
	out, err := cmd.CombinedOutput()
	if err != nil || bytes.Contains(out, []byte("no tests to run")) {
		t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}
