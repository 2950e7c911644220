package server_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/mark3labs/mcp-go/mcp"

	"github.com/enlist-mcp/enlist/gateway"
	"github.com/enlist-mcp/enlist/server"
	"github.com/enlist-mcp/enlist/tools"
)

func TestAPersonFillsInAForm(t *testing.T) {
	nowhere := map[string]any{"url": "http://127.0.0.1:1/docs"}
	for _, over := range []string{"in process", "stdio", "http"} {
		for _, version := range []string{legacy, "2025-11-25", modern} {
			for name, tt := range map[string]struct {
				human *human
				code  string
			}{
				"filled in": {&human{answer: mcp.ElicitationResponseActionAccept, filled: nowhere}, gateway.CodeUnreachable},
				"empty":     {&human{answer: mcp.ElicitationResponseActionAccept}, tools.CodeInvalidAnswer},
				"declined":  {&human{answer: mcp.ElicitationResponseActionDecline, filled: nowhere}, tools.CodeInputDeclined},
				"cancelled": {&human{answer: mcp.ElicitationResponseActionCancel, filled: nowhere}, tools.CodeInputUnanswered},
				"nobody":    {nil, tools.CodeMissingArgument},
			} {
				t.Run(over+"/"+version+"/"+name, func(t *testing.T) {
					r := newRig(t, "https://gateway.lona.agency")
					code, text := try(t.Context(), t, r.connect(over, version, tt.human), "discover_service", map[string]any{})
					if code != tt.code {
						t.Errorf("got %q (%s), want %q", code, text, tt.code)
					}
					if tt.human != nil && len(tt.human.questions()) != 1 {
						t.Errorf("asked %q, want one question", tt.human.questions())
					}
				})
			}
		}
	}
	r := newRig(t, "https://gateway.lona.agency")
	if code, text := try(t.Context(), t, r.connect("sse", legacy, &human{answer: mcp.ElicitationResponseActionAccept, filled: nowhere}), "discover_service", nil); code != tools.CodeMissingArgument {
		t.Errorf("over SSE: got %q (%s), want that nobody can be asked", code, text)
	}
}

// byHand is a client of the stateless era that sends what it likes.
type byHand struct {
	r    *rig
	url  string
	name string // what it calls itself
}

// call registers at Lithtrix, and returns the code of the result, and its
// question, where there is one.
func (c byHand) call(arguments, more string) (code string, id, state string) {
	c.r.t.Helper()
	meta := `"_meta":{"io.modelcontextprotocol/protocolVersion":"` + modern + `","io.modelcontextprotocol/clientInfo":{"name":"` + c.name + `","version":"1"},"io.modelcontextprotocol/clientCapabilities":{"elicitation":{}}}`
	header := map[string]string{"Mcp-Protocol-Version": modern, "Mcp-Method": "tools/call", "Mcp-Name": "lithtrix_register_agent"}
	text := c.r.body(c.r.request(http.MethodPost, c.url+"/mcp", message(1, "tools/call", meta+`,"name":"lithtrix_register_agent","arguments":`+arguments+more), header))
	for line := range strings.Lines(text) {
		if data, ok := strings.CutPrefix(line, "data: "); ok {
			text = data
		}
	}
	var m struct {
		Result struct {
			ResultType        string
			InputRequests     map[string]any
			RequestState      string
			StructuredContent struct{ Code string }
		}
	}
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		c.r.t.Fatalf("%v in %s", err, text)
	}
	code = m.Result.StructuredContent.Code
	if m.Result.ResultType == "input_required" {
		code = "asks"
		id = slices.Collect(maps.Keys(m.Result.InputRequests))[0]
	}
	return code, id, m.Result.RequestState
}

// answering is the answer to a question, with content or without.
func answering(id, state, content string) string {
	out := fmt.Sprintf(`,"inputResponses":{%q:{"action":"accept","content":{%s}}}`, id, content)
	if state != "" {
		out += fmt.Sprintf(`,"requestState":%q`, state)
	}
	return out
}

// TestAnAnswerToAFormIsNoOthers plays clients that make up what they were asked.
func TestAnAnswerToAFormIsNoOthers(t *testing.T) {
	policy := filepath.Join(t.TempDir(), gateway.PolicyFile)
	if err := os.WriteFile(policy, []byte(`register = "ask"`), 0o600); err != nil {
		t.Fatal(err)
	}
	r := newRig(t, "https://gateway.lona.agency", "policy="+policy, "LITHTRIX_API_URL=http://127.0.0.1:1")
	c := byHand{r, r.serve(), "t"}
	const scout, spy, owner = `{"agent_name":"scout"}`, `{"agent_name":"spy"}`, `"owner_identifier":"me@example.com"`
	// form has it asked for the owner.
	form := func() (id, state string) {
		t.Helper()
		code, id, state := c.call(scout, "")
		if code != "asks" || id == "" || state == "" {
			t.Fatalf("got %q, question %q, state %q; want the form", code, id, state)
		}
		return id, state
	}
	// approval goes on to the question of the policy.
	approval := func() (id, state string) {
		t.Helper()
		formID, formState := form()
		code, id, state := c.call(scout, answering(formID, formState, owner))
		if code != "asks" || id == formID || state == "" || state == formState {
			t.Fatalf("got %q, question %q, state %q; want the approval", code, id, state)
		}
		return id, state
	}
	const late = tools.CodeInputUnanswered

	id, state := form()
	for name, got := range map[string]func() (string, string, string){
		"of another call": func() (string, string, string) { return c.call(spy, answering(id, state, owner)) },
		"of another client": func() (string, string, string) {
			return byHand{r, c.url, "other"}.call(scout, answering(id, state, owner))
		},
		"to nothing": func() (string, string, string) { return c.call(scout, answering("X", "INVENTED", owner)) },
	} {
		if code, _, _ := got(); code != late {
			t.Errorf("an answer %s: got %q, want %q", name, code, late)
		}
	}
	// Of many that come with one answer, one goes on; and it may not be approved yet.
	var mu sync.Mutex
	codes := map[string]int{}
	var calls sync.WaitGroup
	for range 8 {
		calls.Go(func() {
			code, _, _ := c.call(scout, answering(id, state, owner))
			mu.Lock()
			defer mu.Unlock()
			codes[code]++
		})
	}
	calls.Wait()
	if codes["asks"] != 1 || codes[late] != 7 {
		t.Errorf("got %v, want one that goes on", codes)
	}

	// What was filled in is no approval, whatever it says it answers.
	id, state = form()
	if code, _, _ := c.call(scout, answering(id, state, owner+`,"approved":true`)); code != "asks" {
		t.Errorf("got %q, want that it is to be approved", code)
	}
	// An approval is for what was filled in, and for that alone.
	id, _ = approval()
	if code, _, _ := c.call(`{"agent_name":"scout","owner_identifier":"somebody else"}`, answering(id, "", "")); code != gateway.ApprovalUnanswered {
		t.Errorf("an approval for another owner: got %q", code)
	}
	if code, _, _ := c.call(scout, answering(id, "", "")); code != "asks" {
		t.Errorf("an approval without what was filled in: got %q, want to be asked for it", code)
	}
	id, state = approval()
	if code, _, _ := c.call(scout, answering("X", state, "")); code != gateway.ApprovalUnanswered {
		t.Errorf("an answer to an approval that nobody asked for: got %q", code)
	}
	if code, _, _ := c.call(scout, answering(id, state, "")); code != late {
		t.Errorf("a turn that was used: got %q", code)
	}
	id, state = approval()
	if code, _, _ := c.call(scout, answering(id, state, "")); code != gateway.CodeUnreachable {
		t.Errorf("both: got %q, want that it was tried", code)
	}
	if code, _, _ := c.call(scout, answering(id, state, "")); code != late {
		t.Errorf("both once more: got %q", code)
	}
}

// TestAToolThatIsNotOfferedCannotBeCalled by its name either.
func TestAToolThatIsNotOfferedCannotBeCalled(t *testing.T) {
	for name, tt := range map[string]struct {
		selection tools.Selection
		tool      string
	}{
		"another service": {tools.Selection{Services: []string{"fluxra"}}, "lona_register_agent"},
		"read-only":       {tools.Selection{ReadOnly: true}, "forget_credential"},
	} {
		for _, over := range []string{"in process", "stdio", "http", "sse"} {
			for _, version := range []string{legacy, modern} {
				if over == "sse" && version == modern {
					continue // there is no such thing
				}
				r := newRigWith(t, server.Config{Caller: gateway.CallerScript, Tools: tt.selection}, "http://127.0.0.1:1")
				c := r.connect(over, version, nil)
				request := mcp.CallToolRequest{}
				request.Params.Name = tt.tool
				request.Params.Arguments = map[string]any{"credential": "lona/my-agent", "agent_id": "a-1", "agent_name": "A"}
				if res, err := c.CallTool(t.Context(), request); err == nil || !r.stored() {
					t.Errorf("%s, %s, %s: got %+v, want that there is no such tool", name, over, version, res)
				}
				list, err := c.ListTools(t.Context(), mcp.ListToolsRequest{})
				if err != nil {
					t.Fatal(err)
				}
				for _, tool := range list.Tools {
					if tool.Name == tt.tool {
						t.Errorf("%s, %s, %s: it is listed", name, over, version)
					}
				}
			}
		}
	}
}

func TestInstructionsNameNoToolThatIsNotOffered(t *testing.T) {
	for _, selection := range []tools.Selection{{}, {Services: []string{"fluxra"}}, {ReadOnly: true}, {Services: []string{"lumina"}, ReadOnly: true}} {
		r := newRigWith(t, server.Config{Tools: selection}, "https://gateway.lona.agency")
		c := r.openStdio(t.Context())
		c.send(message(1, "initialize", initialize))
		if !c.lines.Scan() {
			t.Fatal("no answer")
		}
		said := c.lines.Text()
		for _, tool := range tools.All(tools.Deps{}) {
			if name := tool.Tool.Name; strings.Contains(said, name) && r.MCP().GetTool(name) == nil {
				t.Errorf("%+v: %s names %s", selection, said, name)
			}
		}
		if strings.Contains(said, "register with the tool") == selection.ReadOnly {
			t.Errorf("%+v: got %s", selection, said)
		}
	}
}
