package tools_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/enlist-mcp/enlist/gateway"
	"github.com/enlist-mcp/enlist/tools"
)

func TestArgumentsThatDoNotFitAreSaidToBeWhich(t *testing.T) {
	var requests int
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { requests++ }))
	t.Cleanup(s.Close)
	r := newRig(t, s.URL, options{})
	for _, tc := range []struct {
		name string
		tool string
		in   any
		want string // in what_happened
	}{
		{"one is missing", "lona_register_agent", args{"agent_id": "my-agent"}, "agent_name is missing"},
		{"all are missing", "lona_register_agent", nil, "agent_id is missing; agent_name is missing"},
		{"a string for an integer", "lona_register_agent", args{"agent_id": "a1", "agent_name": "A", "expires_in_days": "7"}, "expires_in_days must be an integer, not a string"},
		{"a fraction for an integer", "lona_register_agent", args{"agent_id": "a1", "agent_name": "A", "expires_in_days": 7.5}, "expires_in_days must be an integer, not a number"},
		{"a list for a string", "lona_register_agent", args{"agent_id": []string{"a1"}, "agent_name": "A"}, "agent_id must be a string, not an array"},
		{"null", "list_credentials", args{"credential": nil}, `there is no argument "credential"`},
		{"null for a string", "rotate_credential", args{"credential": nil}, "credential must be a string, not null (leave it out)"},
		{"unknown", "lona_register_agent", args{"agent_id": "a1", "agent_name": "A", "invite": "x"}, `there is no argument "invite"`},
		{"a list for the object", "lona_register_agent", []string{"a1"}, "they must be a JSON object"},
		{"a method that is none", "send_request", args{"method": "FETCH", "path": "/"}, "method must be one of DELETE, GET, HEAD"},
		{"a number in the query", "send_request", args{"method": "GET", "path": "/", "query": args{"limit": 3}}, `query["limit"] must be a string, not an integer`},
		{"a boolean for an object", "send_request", args{"method": "GET", "path": "/", "headers": true}, "headers must be an object, not a boolean"},
		{"a number for a body", "send_request", args{"method": "POST", "path": "/", "body": 5}, "body must be an array or object or string, not an integer"},
		{"an integer too large for one", "lona_register_agent", args{"agent_id": "a1", "agent_name": "A", "expires_in_days": json.Number("99999999999999999999")}, "expires_in_days is not a number without"},
		{"an integer with a point", "lona_register_agent", args{"agent_id": "a1", "agent_name": "A", "expires_in_days": json.Number("7.0")}, "expires_in_days is not a number without"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := r.fail(tc.tool, tc.in)
			if f.Code != tools.CodeInvalidArguments || !strings.Contains(f.WhatHappened, tc.want) {
				t.Errorf("got %+v, want %s in what_happened", f, tc.want)
			}
			if !strings.Contains(f.NextStep, tc.tool) {
				t.Errorf("next_step: got %q, want the tool's name in it", f.NextStep)
			}
		})
	}
	f := r.fail("lona_register_agent", args{})
	if want := "agent_id (string), agent_name (string), expires_in_days (integer, optional), source (string, optional), user_id (string, optional)"; !strings.Contains(f.NextStep, want) {
		t.Errorf("next_step: got %q, want %q in it", f.NextStep, want)
	}
	f = r.fail("send_request", args{})
	if want := "credential (string, optional), method (string), path (string), query (object, optional), headers (object, optional), body (array or object or string, optional)"; !strings.Contains(f.NextStep, want) {
		t.Errorf("next_step: got %q, want %q in it", f.NextStep, want)
	}
	if requests != 0 {
		t.Errorf("the service got %d requests, want none", requests)
	}
}

// What the schema cannot say is refused before any request, too.
func TestNamesThatTheServiceWouldRefuseAreNotSent(t *testing.T) {
	var requests int
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { requests++ }))
	t.Cleanup(s.Close)
	r := newRig(t, s.URL, options{})
	for name, in := range map[string]args{
		"slash":             {"agent_id": "my/agent", "agent_name": "A"},
		"newline":           {"agent_id": "my\nagent", "agent_name": "A"},
		"10,000 characters": {"agent_id": strings.Repeat("a", 10_000), "agent_name": "A"},
		"another script":    {"agent_id": "агент", "agent_name": "A"},
		"empty":             {"agent_id": "", "agent_name": "A"},
		"no days":           {"agent_id": "a1", "agent_name": "A", "expires_in_days": 0},
		"long name":         {"agent_id": "a1", "agent_name": strings.Repeat("n", 101)},
	} {
		f := r.fail("lona_register_agent", in)
		if f.Code != gateway.CodeInvalidInput || !strings.Contains(f.WhatHappened, "want") || f.WhatIsStored != "Nothing changed: no request was made." {
			t.Errorf("%s: got %+v, want invalid_input", name, f)
		}
		if len(f.WhatHappened) > 300 {
			t.Errorf("%s: what_happened has %d bytes: it repeats the argument", name, len(f.WhatHappened))
		}
	}
	if requests != 0 {
		t.Errorf("the service got %d requests, want none", requests)
	}
}

// Whatever a model gives, it is told what is wrong with it, and nothing breaks.
func FuzzInvalidArguments(f *testing.F) {
	for _, seed := range []string{`{}`, `null`, `[1]`, `{"agent_id":7}`, `{"query":{"a":1}}`, `{"body":null,"x":{}}`, `{"a":`, "\xff"} {
		f.Add([]byte(seed))
	}
	all := tools.All(tools.Deps{})
	f.Fuzz(func(t *testing.T, raw []byte) {
		for _, tool := range all {
			res := tools.InvalidArguments(tool.Tool, raw)
			got, ok := res.StructuredContent.(tools.Failure)
			if !ok || !res.IsError || got.Code != tools.CodeInvalidArguments || got.WhatHappened == "" || !strings.Contains(got.NextStep, tool.Tool.Name) {
				t.Errorf("%s with %q: got %+v", tool.Tool.Name, raw, res)
			}
			if _, err := json.Marshal(res); err != nil {
				t.Error(err)
			}
		}
	})
}
