package main

import (
	"go/ast"
	"go/parser"
	gotoken "go/token"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/enlist-mcp/enlist/gateway/wire"
	"github.com/enlist-mcp/enlist/tools"
)

// parsed returns the files of a folder of the repository that are no tests.
func parsed(t *testing.T, folder string) []*ast.File {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(root, folder, "*.go"))
	if err != nil || len(names) == 0 {
		t.Fatalf("%s: %v, %d files", folder, err, len(names))
	}
	var files []*ast.File
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(gotoken.NewFileSet(), name, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	return files
}

// constants returns the names and values of the string constants of files, those
// of blocks whose comment has some words.
func constants(files []*ast.File, comment string) map[string]string {
	found := map[string]string{}
	for _, f := range files {
		for _, d := range f.Decls {
			group, ok := d.(*ast.GenDecl)
			if !ok || group.Tok != gotoken.CONST || !strings.Contains(group.Doc.Text(), comment) {
				continue
			}
			for _, s := range group.Specs {
				spec := s.(*ast.ValueSpec)
				for i, name := range spec.Names {
					if i >= len(spec.Values) {
						continue
					}
					if value, ok := literal(spec.Values[i]); ok {
						found[name.Name] = value
					}
				}
			}
		}
	}
	return found
}

func literal(e ast.Expr) (string, bool) {
	lit, ok := e.(*ast.BasicLit)
	if !ok || lit.Kind != gotoken.STRING {
		return "", false
	}
	value, err := strconv.Unquote(lit.Value)
	return value, err == nil
}

// literals returns the strings of the program's source that are no tests'.
func literals(t *testing.T, folders ...string) map[string]bool {
	t.Helper()
	found := map[string]bool{}
	for _, folder := range folders {
		for _, f := range parsed(t, folder) {
			ast.Inspect(f, func(n ast.Node) bool {
				if e, ok := n.(ast.Expr); ok {
					if value, ok := literal(e); ok {
						found[value] = true
					}
				}
				return true
			})
		}
	}
	return found
}

// errorCodes returns the codes that there are, by who gives them: Enlist, or a
// service under the name that its page has.
func errorCodes(t *testing.T) map[string][]string {
	t.Helper()
	codes := map[string][]string{}
	for name, value := range constants(append(parsed(t, "tools"), parsed(t, "gateway")...), "") {
		if regexp.MustCompile(`^(Code|Approval)[A-Z]`).MatchString(name) {
			codes["Enlist"] = append(codes["Enlist"], value)
		}
	}
	reused := constants(parsed(t, "gateway/wire"), "idempotency key")
	for _, p := range wire.Protocols() {
		f, err := parser.ParseFile(gotoken.NewFileSet(), filepath.Join(root, "gateway/wire", p.Name+".go"), nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		title, _, _ := strings.Cut(strings.TrimPrefix(manual(p.Name), "# "), "\n")
		list := slices.Collect(maps.Values(constants([]*ast.File{f}, "error codes")))
		if len(list) == 0 {
			t.Errorf("%s has no error codes", p.Name)
		}
		if code := reused[title+"KeyReused"]; code != "" {
			list = append(list, code)
		}
		codes[title] = list
	}
	return codes
}

// documentedCodes returns the codes that the manual explains, by the heading that
// they stand under.
func documentedCodes(t *testing.T) map[string][]string {
	t.Helper()
	codes := map[string][]string{}
	group := ""
	lines := strings.Split(manual(codesPage), "\n")
	for i, line := range lines {
		if title, ok := strings.CutPrefix(line, "## "); ok {
			group = title
		}
		if !strings.HasPrefix(line, "### ") {
			continue
		}
		codes[group] = append(codes[group], codesOf(line)...)
		if i+2 >= len(lines) || len(lines[i+2]) < 20 {
			t.Errorf("%s: nothing is said of it", line)
		}
	}
	return codes
}

func TestTheManualHasEveryErrorCode(t *testing.T) {
	want, got := errorCodes(t), documentedCodes(t)
	if len(want) != 6 || len(want["Enlist"]) < 25 {
		t.Fatalf("the source has the codes %v", want)
	}
	for _, group := range slices.Sorted(maps.Keys(want)) {
		slices.Sort(want[group])
		slices.Sort(got[group])
		if !slices.Equal(got[group], want[group]) {
			t.Errorf("%s: the manual has %q, the source %q", group, got[group], want[group])
		}
		for _, code := range want[group] {
			if text := codeSections(code); !strings.Contains(text, "## "+group+"\n") {
				t.Errorf("enlist help %s says nothing of %s", code, group)
			}
		}
	}
	for group := range got {
		if want[group] == nil {
			t.Errorf("the manual has codes of %q, which has none", group)
		}
	}
}

var variableName = regexp.MustCompile(`^(ENLIST|LONA|AGENT|AGENTDOOR|LITHTRIX|FLUXRA|LUMINA)_[A-Z0-9_]+$`)

// variables returns the variables that the program reads or sets.
func variables(t *testing.T) []string {
	t.Helper()
	var names []string
	for value := range literals(t, "cmd/enlist", "gateway", "embeddedgateway", "credstore", "server", "tools") {
		if variableName.MatchString(value) && value != wire.LithtrixAgentExists {
			names = append(names, value)
		}
	}
	slices.Sort(names)
	return names
}

func TestTheManualHasEveryVariable(t *testing.T) {
	var got []string
	for _, span := range spans(t, manual("environment")) {
		if variableName.MatchString(span) {
			got = append(got, span)
		}
	}
	slices.Sort(got)
	want := variables(t)
	if got = slices.Compact(got); !slices.Equal(got, want) || len(want) < 40 {
		t.Errorf("the manual has the variables\n%q, the source\n%q", got, want)
	}
	for path, text := range writings(t) {
		for _, name := range regexp.MustCompile(`\b[A-Z]+_[A-Z0-9_]+\b`).FindAllString(text, -1) {
			if variableName.MatchString(name) && !slices.Contains(want, name) &&
				name != wire.LithtrixAgentExists && name != "AGENT_ID" && name != "AGENT_NAME" {
				t.Errorf("%s names %s, which nothing reads", path, name)
			}
		}
	}
	// What is read directly, such as HOME, is there too.
	read := regexp.MustCompile(`\.env\("([A-Za-z_]+)"\)`)
	for name := range sources(t, "cmd/enlist", read) {
		if !slices.Contains(spans(t, manual("environment")), name) {
			t.Errorf("the manual does not have %s, which the program reads", name)
		}
	}
}

// sources returns what the group of a pattern finds in the source of a folder.
func sources(t *testing.T, folder string, pattern *regexp.Regexp) map[string]bool {
	t.Helper()
	found := map[string]bool{}
	names, err := filepath.Glob(filepath.Join(root, folder, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range pattern.FindAllStringSubmatch(string(text), -1) {
			found[m[1]] = true
		}
	}
	if len(found) == 0 {
		t.Fatalf("%s finds nothing in %s", pattern, folder)
	}
	return found
}

// What looks like a name of the program's, in backquotes, is one: of a tool, of
// an argument, of a code, of a field.
func TestNamesInTheManualExist(t *testing.T) {
	known := map[string]bool{}
	for _, folder := range []string{"tools", "gateway", "gateway/wire", "embeddedgateway", "embeddedgateway/store", "server", "cmd/enlist", "credstore"} {
		maps.Copy(known, sources(t, folder, regexp.MustCompile("[\"` ,\n\t]([a-z0-9]+(?:_[a-z0-9]+)+)\\b")))
	}
	names := map[string]bool{}
	for _, m := range toolInTable.FindAllStringSubmatch(tools.Markdown(), -1) {
		names[m[1]] = true
	}
	snake := regexp.MustCompile(`^[a-z0-9]+(_[a-z0-9]+)+$`)
	toolLike := regexp.MustCompile(`^(lona|lithtrix|agentdoor|fluxra|lumina)_|^(list|rotate|revoke|forget|send|discover)_(credentials?|request|service)$`)
	seen := 0
	for path, text := range writings(t) {
		for _, span := range spans(t, text) {
			if !snake.MatchString(span) {
				continue
			}
			seen++
			if !known[span] || toolLike.MatchString(span) && !names[span] {
				t.Errorf("%s names `%s`, which is nothing", path, span)
			}
		}
		for _, name := range regexp.MustCompile(`\b(?:lona|lithtrix|agentdoor|fluxra|lumina)_(?:register|list|verify|recover)_[a-z_]+\b`).FindAllString(text, -1) {
			if !names[name] {
				t.Errorf("%s names the tool %s, which there is not", path, name)
			}
		}
	}
	if seen < 50 {
		t.Errorf("only %d names were found", seen)
	}
}
