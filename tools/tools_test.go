package tools_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/mark3labs/mcp-go/mcp"

	"github.com/enlist-mcp/enlist/gateway/wire"
	"github.com/enlist-mcp/enlist/tools"
)

var update = flag.Bool("update", false, "rewrite the snapshots in testdata")

// TestSchemasAreMadeBeforehand keeps the file of schemas that the program has in
// step with the types: go test ./tools -update.
func TestSchemasAreMadeBeforehand(t *testing.T) {
	type schemas struct {
		Input  json.RawMessage `json:"input"`
		Output json.RawMessage `json:"output"`
	}
	all := map[string]schemas{}
	for _, tool := range tools.Made(tools.Deps{}) {
		all[tool.Tool.Name] = schemas{tool.Tool.RawInputSchema, tool.Tool.RawOutputSchema}
	}
	want, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	want = append(want, '\n')
	if *update {
		if err := os.WriteFile("schemas.json", want, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile("schemas.json")
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("schemas.json is stale: go test ./tools -update (%v)", err)
	}
}

// TestSchemasAreAsCommitted shows every change of what a model is told in the
// diff of a change: go test ./tools -update.
func TestSchemasAreAsCommitted(t *testing.T) {
	dir := filepath.Join("testdata", "tools")
	var want []string
	for _, tool := range tools.Made(tools.Deps{}) {
		want = append(want, tool.Tool.Name+".json")
		compact, err := json.Marshal(tool.Tool)
		if err != nil {
			t.Fatal(err)
		}
		var got bytes.Buffer
		if err := json.Indent(&got, compact, "", "  "); err != nil {
			t.Fatal(err)
		}
		got.WriteByte('\n')
		path := filepath.Join(dir, tool.Tool.Name+".json")
		if *update {
			if err := os.WriteFile(path, got.Bytes(), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		committed, err := os.ReadFile(path)
		if err != nil {
			t.Error(err)
		}
		if !bytes.Equal(got.Bytes(), committed) {
			t.Errorf("%s is stale: go test ./tools -update", path)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !slices.Contains(want, e.Name()) {
			t.Errorf("%s belongs to no tool", filepath.Join(dir, e.Name()))
		}
	}
}

func TestEveryToolSaysWhatItDoes(t *testing.T) {
	seen := map[string]bool{}
	var names []string
	for _, tool := range tools.All(tools.Deps{}) {
		tl := tool.Tool
		names = append(names, tl.Name)
		if seen[tl.Name] {
			t.Errorf("%s: there are two of it", tl.Name)
		}
		seen[tl.Name] = true
		if tool.Handler == nil {
			t.Errorf("%s: no handler", tl.Name)
		}
		if tl.Title == "" {
			t.Errorf("%s: no title", tl.Name)
		}
		if len(tl.Description) < 40 || !strings.HasSuffix(tl.Description, ".") {
			t.Errorf("%s: description %q", tl.Name, tl.Description)
		}
		for hint, value := range map[string]*bool{
			"readOnly": tl.Annotations.ReadOnlyHint, "destructive": tl.Annotations.DestructiveHint,
			"idempotent": tl.Annotations.IdempotentHint, "openWorld": tl.Annotations.OpenWorldHint,
		} {
			if value == nil {
				t.Errorf("%s: no %sHint", tl.Name, hint)
			}
		}
		if a := tl.Annotations; *a.ReadOnlyHint && *a.DestructiveHint {
			t.Errorf("%s is read-only and destructive", tl.Name)
		}
		checkInputSchema(t, tl)
		checkOutputSchema(t, tl)
	}
	if !slices.IsSorted(names) {
		t.Errorf("the list is not sorted: %v", names)
	}
}

func checkInputSchema(t *testing.T, tl mcp.Tool) {
	t.Helper()
	var in struct {
		Type                 string
		Properties           map[string]any
		AdditionalProperties *bool
	}
	if err := json.Unmarshal(tl.RawInputSchema, &in); err != nil {
		t.Errorf("%s: input schema: %v", tl.Name, err)
		return
	}
	if in.Type != "object" || in.Properties == nil || in.AdditionalProperties == nil || *in.AdditionalProperties {
		t.Errorf("%s: input schema %s: want an object that takes nothing else", tl.Name, tl.RawInputSchema)
	}
	if bytes.Contains(tl.RawInputSchema, []byte(`"null"`)) {
		t.Errorf("%s: input schema %s: want one type for each argument", tl.Name, tl.RawInputSchema)
	}
}

func checkOutputSchema(t *testing.T, tl mcp.Tool) {
	t.Helper()
	var out struct {
		Type  string
		AnyOf []struct {
			Properties map[string]any
			Required   []string
		}
	}
	if err := json.Unmarshal(tl.RawOutputSchema, &out); err != nil {
		t.Errorf("%s: output schema: %v", tl.Name, err)
		return
	}
	if out.Type != "object" || len(out.AnyOf) != 2 {
		t.Fatalf("%s: output schema %s: want an object, a result or a failure", tl.Name, tl.RawOutputSchema)
	}
	result, failure := out.AnyOf[0], out.AnyOf[1]
	if len(result.Properties) == 0 {
		t.Errorf("%s: output schema %s: want properties", tl.Name, tl.RawOutputSchema)
	}
	own := slices.DeleteFunc(slices.Clone(result.Required), func(name string) bool {
		_, ok := reflect.TypeFor[tools.Failure]().FieldByNameFunc(func(field string) bool {
			f, _ := reflect.TypeFor[tools.Failure]().FieldByName(field)
			return strings.Split(f.Tag.Get("json"), ",")[0] == name
		})
		return ok
	})
	if len(own) == 0 {
		t.Errorf("%s: a result has %v, all of which a failure may have: one could pass for the other", tl.Name, result.Required)
	}
	if want := []string{"code", "what_happened", "what_is_stored", "next_step"}; !slices.Equal(failure.Required, want) {
		t.Errorf("%s: a failure has %v, want %v", tl.Name, failure.Required, want)
	}
}

func TestEveryProtocolHasARegisteringTool(t *testing.T) {
	var names []string
	for _, tool := range tools.All(tools.Deps{}) {
		names = append(names, tool.Tool.Name)
	}
	for _, p := range wire.Protocols() {
		if want := p.Name + "_register_agent"; !slices.Contains(names, want) {
			t.Errorf("there is no tool %s", want)
		}
		for _, route := range p.Reserved {
			if route.Tool != "" && !slices.Contains(names, route.Tool) {
				t.Errorf("%s %s is said to be done by %s, which is no tool", p.Name, route.Path, route.Tool)
			}
		}
	}
}

func TestMarkdownHasARowForEachTool(t *testing.T) {
	got := tools.Markdown()
	for _, tool := range tools.All(tools.Deps{}) {
		if !strings.Contains(got, "| `"+tool.Tool.Name+"` |") {
			t.Errorf("no row for %s in\n%s", tool.Tool.Name, got)
		}
	}
	for _, row := range []string{
		"| `lona_register_agent` | Registers an agent at Lona and stores its token, which you never see. | `agent_id`, `agent_name`, [`expires_in_days`], [`source`], [`user_id`] | yes, for good |\n",
		"| `list_credentials` | Lists the stored credentials: handle, service, agent, state, expiry; never a key. |  | no |\n",
	} {
		if !strings.Contains(got, row) {
			t.Errorf("want the row\n%s in\n%s", row, got)
		}
	}
}
