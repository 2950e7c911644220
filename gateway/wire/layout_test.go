package wire_test

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/enlist-mcp/enlist/gateway/wire"
)

const (
	root   = "../.."
	module = "github.com/enlist-mcp/enlist"
)

// layers says for each layer, which is a folder and those below it that are not
// listed themselves, which other layers its non-test files may import.
func layers() map[string][]string {
	return map[string][]string{
		// The leaves: both halves and both stores meet in them, so that they
		// need not know each other.
		"gateway/wire":          nil,
		"gateway/eip191":        nil,
		"credstore":             nil,
		"embeddedgateway/store": nil,
		// The client half. It must never link a server.
		"gateway":         {"credstore", "gateway/wire", "gateway/eip191"},
		"gateway/conform": {"gateway/wire", "gateway/eip191"}, // it registers wallets, and knows no client
		// The server half. It must never link a client, nor the place where
		// clients keep credentials.
		"embeddedgateway":             {"embeddedgateway/store", "gateway/wire", "gateway/eip191"},
		"embeddedgateway/gatewaytest": {"embeddedgateway", "embeddedgateway/store", "gateway/wire"},
		// What the model sees: it names credentials and holds none.
		"tools":  {"gateway", "gateway/wire", "credstore"},
		"server": {"tools", "gateway"},
		"cmd":    {"*"},
	}
}

func TestImportsPointOneWay(t *testing.T) {
	rules := layers()
	layerOf := func(dir string) string {
		for dir != "." {
			if _, ok := rules[dir]; ok {
				return dir
			}
			dir = path.Dir(dir)
		}
		return ""
	}
	for _, file := range goFiles(t) {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		layer := layerOf(path.Dir(file))
		if layer == "" {
			t.Errorf("%s: no layer has this folder; add it to layers with the reason", file)
			continue
		}
		for _, imported := range ownImports(t, file) {
			to := layerOf(imported)
			if to != layer && !slices.Contains(rules[layer], to) && !slices.Contains(rules[layer], "*") {
				t.Errorf("%s imports %s; %s may import only itself and %v", file, imported, layer, rules[layer])
			}
		}
	}
}

// TestWireIsStandardLibraryOnly keeps what both halves share free of whatever
// else could make them depend on each other.
func TestWireIsStandardLibraryOnly(t *testing.T) {
	for _, file := range goFiles(t) {
		if path.Dir(file) != "gateway/wire" || strings.HasSuffix(file, "_test.go") {
			continue
		}
		for _, imported := range imports(t, file) {
			if first, _, _ := strings.Cut(imported, "/"); strings.Contains(first, ".") {
				t.Errorf("%s imports %s; package wire imports the standard library only", file, imported)
			}
		}
	}
}

// TestOnlyPeopleAreGivenSecrets keeps the ways out of package gateway that hand a
// secret to a person, or to a person's program, from what a model can call.
func TestOnlyPeopleAreGivenSecrets(t *testing.T) {
	ways := map[string][]string{
		"Environ":  {"cmd/enlist/exec.go", "cmd/enlist/config.go"}, // and os.Environ
		"Export":   {"cmd/enlist/export.go"},
		"RevealTo": {"cmd/enlist/show.go"},
	}
	found := map[string]bool{}
	for _, file := range goFiles(t) {
		if strings.HasSuffix(file, "_test.go") || path.Dir(file) == "gateway" {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, file), nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(parsed, func(n ast.Node) bool {
			s, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			if files, way := ways[s.Sel.Name]; way {
				found[s.Sel.Name] = true
				if !slices.Contains(files, file) {
					t.Errorf("%s uses %s: a secret is handed to a person only, by %v", file, s.Sel.Name, files)
				}
			}
			return true
		})
	}
	for way := range ways {
		if !found[way] {
			t.Errorf("nobody uses %s: the test looks for the wrong name", way)
		}
	}
}

func TestEveryProtocolHasItsFourFiles(t *testing.T) {
	protocols := wire.Protocols()
	if !slices.IsSortedFunc(protocols, func(a, b wire.Protocol) int { return strings.Compare(a.Name, b.Name) }) {
		t.Error("wire.Protocols is not sorted by name")
	}
	for _, p := range protocols {
		for _, dir := range []string{"tools", "gateway", "gateway/wire", "embeddedgateway"} {
			file := path.Join(dir, p.Name+".go")
			if _, err := os.Stat(filepath.Join(root, file)); err != nil {
				t.Errorf("protocol %s: %v", p.Name, err)
			}
		}
		transcripts, err := filepath.Glob(filepath.Join("testdata", p.Name, "*.txtar"))
		if err != nil || len(transcripts) == 0 {
			t.Errorf("protocol %s has no transcripts in gateway/wire/testdata/%s (%v)", p.Name, p.Name, err)
		}
	}
}

func TestTopLevelIsFixed(t *testing.T) {
	want := []string{"cmd", "credstore", "embeddedgateway", "gateway", "server", "tools"}
	var got []string
	entries, err := os.ReadDir(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.IsDir() && !strings.HasPrefix(e.Name(), ".") {
			got = append(got, e.Name())
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("folders at the top level: got %v, want %v", got, want)
	}
}

func TestFilesStayReadable(t *testing.T) {
	for _, file := range goFiles(t) {
		text, err := os.ReadFile(filepath.Join(root, file))
		if err != nil {
			t.Fatal(err)
		}
		limit := 500
		if strings.HasSuffix(file, "_test.go") {
			limit = 800
		}
		if lines := bytes.Count(text, []byte("\n")); lines > limit {
			t.Errorf("%s has %d lines, more than %d: it is about more than one thing", file, lines, limit)
		}
	}
}

// goFiles lists the module's Go files, slash-separated from its root.
func goFiles(t *testing.T) []string {
	t.Helper()
	var files []string
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() && p != root && (strings.HasPrefix(name, ".") || name == "testdata" || name == "node_modules") {
			return filepath.SkipDir
		}
		if strings.HasSuffix(name, ".go") {
			rel, err := filepath.Rel(root, p)
			if err != nil {
				return err
			}
			files = append(files, filepath.ToSlash(rel))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Fatal("no Go files found: the test looks in the wrong place")
	}
	return files
}

func imports(t *testing.T, file string) []string {
	t.Helper()
	parsed, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, file), nil, parser.ImportsOnly)
	if err != nil {
		t.Fatal(err)
	}
	var paths []string
	for _, spec := range parsed.Imports {
		p, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			t.Fatal(err)
		}
		paths = append(paths, p)
	}
	return paths
}

func ownImports(t *testing.T, file string) []string {
	t.Helper()
	var own []string
	for _, p := range imports(t, file) {
		if rest, ok := strings.CutPrefix(p, module+"/"); ok {
			own = append(own, rest)
		}
	}
	return own
}
