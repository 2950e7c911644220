package admin_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/enlist-mcp/enlist/embeddedgateway"
	"github.com/enlist-mcp/enlist/embeddedgateway/admin"
	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest"
)

const partner = "partner-secret-0123456789abcdef"

// operator is a gateway with some agents, and the API of its operator.
type operator struct {
	*gatewaytest.Gateway
	t   *testing.T
	api http.Handler
	doc document
}

// document is what the test reads of the OpenAPI document.
type document struct {
	Paths map[string]map[string]struct {
		Parameters []struct{ Name, In string }
		Responses  map[string]struct {
			Content map[string]struct{ Schema map[string]any }
		}
	}
	schemas *jsonschema.Compiler
}

func newOperator(t *testing.T) *operator {
	gw := gatewaytest.New(t, gatewaytest.Env(map[string]string{"AGENT_REGISTRATION_SECRET": partner}))
	o := &operator{Gateway: gw, t: t, api: admin.APIRoutes(gw.Embedded())}
	if err := json.Unmarshal(admin.OpenAPI(), &o.doc); err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(admin.OpenAPI()))
	if err != nil {
		t.Fatal(err)
	}
	o.doc.schemas = jsonschema.NewCompiler()
	o.doc.schemas.AssertFormat()
	if err := o.doc.schemas.AddResource("mem:///openapi.json", doc); err != nil {
		t.Fatal(err)
	}
	return o
}

// register posts to the gateway itself, as an agent does.
func (o *operator) register(path, body string, header http.Header) map[string]any {
	o.t.Helper()
	req, err := http.NewRequestWithContext(o.t.Context(), http.MethodPost, o.URL+path, strings.NewReader(body))
	if err != nil {
		o.t.Fatal(err)
	}
	for name, values := range header {
		req.Header[name] = values
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := o.Client().Do(req)
	if err != nil {
		o.t.Fatal(err)
	}
	defer resp.Body.Close()
	var out map[string]any
	if err := json.NewDecoder(resp.Body).Decode(&out); err != nil || resp.StatusCode >= 300 {
		o.t.Fatalf("%s: status %d, %v, %v", path, resp.StatusCode, out, err)
	}
	return out
}

// populate registers an agent of some protocols, and leaves a letter.
func (o *operator) populate() {
	secret := http.Header{"X-Agent-Registration-Secret": {partner}}
	o.register("/api/v1/agents/register", `{"agent_id":"scout","agent_name":"Scout Élan","source":"test"}`, secret)
	o.register("/api/v1/agents/request-invite", `{"agent_id":"ranger","agent_name":"Ranger","source":"test"}`, nil)
	o.register("/v1/register", `{"agent_name":"weather","owner_identifier":"https://example.com/a b?c#d%2F","agree_to_terms":true}`, nil)
	o.register("/api/auth/register", `{"agent_name":"flux-bot","email":"bot@example.com","metadata":{"owner":"Ops"}}`, nil)
}

// ask asks the API, and holds the answer to the document.
func (o *operator) ask(method, pattern, target string, want int) map[string]any {
	o.t.Helper()
	ctx := embeddedgateway.WithActor(o.t.Context(), "by the API")
	r := httptest.NewRequestWithContext(ctx, method, target, nil)
	w := httptest.NewRecorder()
	o.api.ServeHTTP(w, r)
	if w.Code != want {
		o.t.Fatalf("%s %s: got %d (%s), want %d", method, target, w.Code, w.Body, want)
	}
	if got := w.Header().Get("Cache-Control"); got != "no-store" {
		o.t.Errorf("%s %s: got Cache-Control %q", method, target, got)
	}
	described, ok := o.doc.Paths[pattern][strings.ToLower(method)].Responses[fmt.Sprint(want)]
	if !ok {
		o.t.Errorf("%s %s: the document has no answer %d", method, pattern, want)
	}
	if want == http.StatusNoContent {
		if w.Body.Len() > 0 {
			o.t.Errorf("%s %s: got the body %s", method, target, w.Body)
		}
		return nil
	}
	if got := w.Header().Get("Content-Type"); got != "application/json" {
		o.t.Errorf("%s %s: got Content-Type %q", method, target, got)
	}
	o.valid(described.Content["application/json"].Schema, w.Body.Bytes(), method+" "+target)
	var out map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &out); err != nil {
		o.t.Fatal(err)
	}
	return out
}

// valid holds an answer to a schema of the document.
func (o *operator) valid(described map[string]any, body []byte, what string) {
	o.t.Helper()
	ref, _ := described["$ref"].(string)
	if ref == "" {
		if described["type"] != "object" {
			o.t.Errorf("%s: the document has no schema: %v", what, described)
		}
		return
	}
	schema, err := o.doc.schemas.Compile("mem:///openapi.json" + ref)
	if err != nil {
		o.t.Fatal(err)
	}
	instance, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
	if err != nil {
		o.t.Fatalf("%s: %v in %s", what, err, body)
	}
	if err := schema.Validate(instance); err != nil {
		o.t.Errorf("%s: %v\n%s", what, err, body)
	}
}

const agentPath = "/api/v1/agents/{protocol}/{agent}"

func TestAPIAnswersAreAsDocumented(t *testing.T) {
	o := newOperator(t)
	o.populate()
	list := o.ask("GET", "/api/v1/agents", "/api/v1/agents", 200)["agents"].([]any)
	if len(list) != 3 {
		t.Fatalf("got %d agents, want 3: %v", len(list), list)
	}
	for _, one := range list {
		a := one.(map[string]any)
		at := "/api/v1/agents/" + a["protocol"].(string) + "/" + url.PathEscape(a["agent"].(string))
		detail := o.ask("GET", agentPath, at, 200)
		if detail["agent"] != a["agent"] || len(detail["events"].([]any)) == 0 {
			t.Errorf("%s: got %v", at, detail)
		}
		key := o.ask("GET", agentPath+"/keys", at+"/keys", 200)["keys"].([]any)[0].(map[string]any)
		revoke := at + "/keys/" + url.PathEscape(key["key_id"].(string)) + "/revoke"
		for i, want := range []bool{true, false} {
			if got := o.ask("POST", agentPath+"/keys/{key_id}/revoke", revoke, 200)["revoked"]; got != want {
				t.Errorf("%s, time %d: got revoked %v, want %v", revoke, i+1, got, want)
			}
		}
		if got := o.ask("POST", agentPath+"/suspend", at+"/suspend", 200)["state"]; got != "suspended" {
			t.Errorf("%s: got state %v", at, got)
		}
		o.ask("GET", "/api/v1/agents", "/api/v1/agents?state=suspended&limit=1", 200)
		if got := o.ask("POST", agentPath+"/resume", at+"/resume", 200)["state"]; got != "active" {
			t.Errorf("%s: got state %v", at, got)
		}
	}
	o.ask("DELETE", agentPath, "/api/v1/agents/lona/scout", 204)
	o.ask("GET", agentPath, "/api/v1/agents/lona/scout", 404)
	o.ask("GET", "/api/v1/invites", "/api/v1/invites?limit=1", 200)
	numbers := o.ask("GET", "/api/v1/numbers", "/api/v1/numbers", 200)
	if numbers["mail"] != 1.0 || len(numbers["protocols"].([]any)) != 5 {
		t.Errorf("got %v", numbers)
	}
	letters := o.ask("GET", "/api/v1/outbox", "/api/v1/outbox", 200)["letters"].([]any)
	if len(letters) != 1 || !strings.Contains(letters[0].(map[string]any)["text"].(string), "token=") {
		t.Errorf("got %v", letters)
	}
	page := o.ask("GET", "/api/v1/events", "/api/v1/events?limit=2", 200)
	newest := page["events"].([]any)[0].(map[string]any)
	if newest["name"] != "outbox_read" || newest["detail"] != "by the API" {
		t.Errorf("got %v, want the reading of the outbox", newest)
	}
	next := o.ask("GET", "/api/v1/events", fmt.Sprintf("/api/v1/events?limit=500&before=%.0f", page["next"]), 200)
	if got := next["events"].([]any)[0].(map[string]any)["id"].(float64); got >= page["next"].(float64) {
		t.Errorf("got the event %v on the second page, want one before %v", got, page["next"])
	}
}

func TestAPISearches(t *testing.T) {
	o := newOperator(t)
	o.populate()
	for search, want := range map[string]string{
		"SCOUT": "lona/scout", "scout é": "lona/scout", "https://EXAMPLE": "lithtrix/weather/https://example.com/a b?c#d%2F",
		"ops": "fluxra/", "flux": "fluxra/", "eather": "", "%": "", "o_s": "", "bot@example.com": "",
	} {
		found := o.ask("GET", "/api/v1/agents", "/api/v1/agents?search="+url.QueryEscape(search), 200)["agents"].([]any)
		var got []string
		for _, a := range found {
			got = append(got, a.(map[string]any)["protocol"].(string)+"/"+a.(map[string]any)["agent"].(string))
		}
		if want == "" && len(got) > 0 || want != "" && (len(got) != 1 || !strings.HasPrefix(got[0], want)) {
			t.Errorf("%q: found %q, want %q", search, got, want)
		}
	}
}

func TestAPIRefusals(t *testing.T) {
	o := newOperator(t)
	o.populate()
	const list = "/api/v1/agents"
	for _, c := range []struct {
		method, pattern, target string
		status                  int
		code                    string
	}{
		{"GET", list, list + "?limit=0", 400, "invalid_request"},
		{"GET", list, list + "?limit=501", 400, "invalid_request"},
		{"GET", list, list + "?limit=", 400, "invalid_request"},
		{"GET", list, list + "?limit=1&limit=2", 400, "invalid_request"},
		{"GET", list, list + "?limits=1", 400, "invalid_request"},
		{"GET", list, list + "?state=asleep", 400, "invalid_request"},
		{"GET", list, list + "?after=nonsense", 400, "invalid_request"},
		{"GET", list, list + "?search=%zz", 400, "invalid_request"},
		{"GET", list, list + "?protocol=%00", 400, "invalid_request"},
		{"GET", "/api/v1/events", "/api/v1/events?before=-1", 400, "invalid_request"},
		{"GET", "/api/v1/invites", "/api/v1/invites?after=x", 400, "invalid_request"},
		{"GET", agentPath, list + "/lona/nobody", 404, "not_found"},
		{"GET", agentPath, list + "/lona/a%00b", 400, "invalid_request"},
		{"GET", agentPath, list + "/lona/%ff", 400, "invalid_request"},
		{"GET", agentPath, list + "/lona/scout?x=1", 400, "invalid_request"},
		{"DELETE", agentPath, list + "/lona/nobody", 404, "not_found"},
		{"POST", agentPath + "/suspend", list + "/lona/nobody/suspend", 404, "not_found"},
		{"POST", agentPath + "/resume", list + "/nowhere/scout/resume", 404, "not_found"},
		{"GET", agentPath + "/keys", list + "/lona/nobody/keys", 404, "not_found"},
		{"POST", agentPath + "/keys/{key_id}/revoke", list + "/lona/scout/keys/none/revoke", 404, "not_found"},
	} {
		refusal := o.ask(c.method, c.pattern, c.target, c.status)["error"].(map[string]any)
		if refusal["code"] != c.code || refusal["message"] == "" {
			t.Errorf("%s %s: got %v, want the code %s", c.method, c.target, refusal, c.code)
		}
	}
}

// Where there is no route an answer is of the same form, and nothing redirects.
func TestAPIBesideItsRoutes(t *testing.T) {
	o := newOperator(t)
	o.populate()
	for target, want := range map[string]int{
		"GET /api/v1/": 404, "GET /api/v1/agents/": 404, "GET /api/v1/agents/lona": 404, "GET /api/v2/agents": 404,
		"GET /api/v1//agents": 404, "GET /api/v1/../v1/agents": 404, "GET /api/v1/agents/lona/": 404, "GET /": 404,
		"POST /api/v1/agents": 405, "PUT /api/v1/agents/lona/scout": 405, "GET /api/v1/agents/lona/scout/suspend": 405,
		"DELETE /openapi.json": 405,
	} {
		method, path, _ := strings.Cut(target, " ")
		w := httptest.NewRecorder()
		o.api.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), method, path, nil))
		if w.Code != want || (want == 405) != (w.Header().Get("Allow") != "") {
			t.Errorf("%s: got %d, Allow %q, want %d", target, w.Code, w.Header().Get("Allow"), want)
		}
		o.valid(map[string]any{"$ref": "#/components/schemas/Error"}, w.Body.Bytes(), target)
	}
	w := httptest.NewRecorder()
	o.api.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "HEAD", "/api/v1/agents", nil))
	if w.Code != 200 {
		t.Errorf("HEAD: got %d", w.Code)
	}
}

func TestAPIDocumentHasEveryRoute(t *testing.T) {
	o := newOperator(t)
	var routes, documented []string
	for _, r := range admin.APIPatterns(t) {
		routes = append(routes, r[0]+" "+r[1])
		parameters := 0
		for _, p := range o.doc.Paths[r[1]][strings.ToLower(r[0])].Parameters {
			if p.In != "path" {
				continue
			}
			parameters++
			if !strings.Contains(r[1], "{"+p.Name+"}") {
				t.Errorf("%s has no part %s", r[1], p.Name)
			}
		}
		if parameters != strings.Count(r[1], "{") {
			t.Errorf("%s %s: %d parts of the path are documented", r[0], r[1], parameters)
		}
	}
	for path, methods := range o.doc.Paths {
		for method, operation := range methods {
			documented = append(documented, strings.ToUpper(method)+" "+path)
			for _, p := range operation.Parameters {
				if p.In == "query" {
					target := path + "?" + p.Name + "=1&" + p.Name + "=1"
					w := httptest.NewRecorder()
					o.api.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), strings.ToUpper(method), target, nil))
					if !strings.Contains(w.Body.String(), p.Name+" is there more than once") {
						t.Errorf("%s is documented and not known: %s", target, w.Body)
					}
				}
			}
		}
	}
	slices.Sort(routes)
	slices.Sort(documented)
	if !slices.Equal(routes, documented) {
		t.Errorf("got the routes\n%s\ndocumented are\n%s", strings.Join(routes, "\n"), strings.Join(documented, "\n"))
	}
	w := httptest.NewRecorder()
	o.api.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", "/openapi.json", nil))
	if w.Code != 200 || !json.Valid(w.Body.Bytes()) || !strings.Contains(w.Body.String(), `"openapi":"3.1.0"`) {
		t.Errorf("/openapi.json: got %d, %.100s", w.Code, w.Body)
	}
}
