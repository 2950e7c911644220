package server_test

import (
	"encoding/json"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/mark3labs/mcp-go/mcp"

	"github.com/enlist-mcp/enlist/tools"
)

// answer is a JSON-RPC answer with all that is in it.
type answer struct {
	Result map[string]any
	Error  struct {
		Code int
		Data map[string]any
	}
}

func (r *rig) answer(text string) answer {
	r.t.Helper()
	for line := range strings.Lines(text) {
		if data, ok := strings.CutPrefix(line, "data: "); ok {
			text = data // the last
		}
	}
	var a answer
	if err := json.Unmarshal([]byte(text), &a); err != nil {
		r.t.Fatalf("%v in %q", err, text)
	}
	return a
}

// speak connects by hand over a transport in a revision of the protocol. It
// returns what the server said of itself, and a function that asks it something.
func (r *rig) speak(over, revision string) (hello answer, ask func(method, params string) answer) {
	r.t.Helper()
	isModern := revision == modern
	write := message
	if isModern {
		write = modernMessage
	}
	switch over {
	case "stdio":
		c := r.openStdio(r.t.Context())
		ask = func(method, params string) answer {
			c.send(write(1, method, params))
			if !c.lines.Scan() {
				r.t.Fatalf("%s: the server wrote nothing more", method)
			}
			return r.answer(c.lines.Text())
		}
	case "sse":
		s := r.openSSE(r.serve())
		ask = func(method, params string) answer {
			s.post(write(1, method, params))
			return r.answer(s.data())
		}
	case "http":
		url, header := r.serve(), map[string]string{}
		ask = func(method, params string) answer {
			if isModern {
				return r.answer(r.body(r.modernPost(url, 1, method, params)))
			}
			resp := r.request(http.MethodPost, url+"/mcp", write(1, method, params), header)
			if id := resp.Header.Get("Mcp-Session-Id"); id != "" {
				header = map[string]string{"Mcp-Session-Id": id, "Mcp-Protocol-Version": revision}
			}
			return r.answer(r.body(resp))
		}
	}
	if isModern {
		return ask("server/discover", ""), ask
	}
	return ask("initialize", `"protocolVersion":"`+revision+`","capabilities":{},"clientInfo":{"name":"t","version":"1"}`), ask
}

// TestEveryRevisionOverEveryTransport speaks each of them by hand, so that no
// client library hides what is missing.
func TestEveryRevisionOverEveryTransport(t *testing.T) {
	sessions := []string{"2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"}
	for over, revisions := range map[string][]string{
		"stdio": append(slices.Clone(sessions), modern), "http": append(slices.Clone(sessions), modern), "sse": sessions,
	} {
		for _, revision := range revisions {
			t.Run(over+" "+revision, func(t *testing.T) {
				r := newRig(t, nowhere)
				hello, ask := r.speak(over, revision)
				saysHello(t, hello, revision)
				listsTools(t, ask("tools/list", ""), revision)

				got := ask("tools/call", `"name":"list_credentials","arguments":{}`)
				complete(t, "tools/call", got, revision)
				sameAsText(t, got)
				got = ask("tools/call", `"name":"send_request","arguments":{"method":"GET","path":"/x"}`)
				sameAsText(t, got)
				if content, _ := got.Result["structuredContent"].(map[string]any); got.Result["isError"] != true || content["code"] == nil {
					t.Errorf("a call that fails: got %+v, want an error of the tool", got)
				}

				for method, code := range map[string]int{"tools/call": -32602, "no/such": -32601} {
					if got := ask(method, `"name":"no_such_tool"`); got.Error.Code != code {
						t.Errorf("%s: got %+v, want %d", method, got, code)
					}
				}
				if got := ask("ping", ""); (got.Error.Code == -32601) != (revision == modern) || got.Error.Code == 0 && got.Result == nil {
					t.Errorf("ping: got %+v", got)
				}
			})
		}
	}
}

// complete checks what the stateless era wants in a result.
func complete(t *testing.T, method string, a answer, revision string) {
	t.Helper()
	if revision != modern {
		return
	}
	meta, _ := a.Result["_meta"].(map[string]any)
	info, _ := meta["io.modelcontextprotocol/serverInfo"].(map[string]any)
	if a.Result["resultType"] != "complete" || info["name"] != "enlist" {
		t.Errorf("%s: got %v, want a complete result from enlist", method, a.Result)
	}
}

// cached checks how long the stateless era lets a client keep a result.
func cached(t *testing.T, method string, a answer, revision string) {
	t.Helper()
	if revision != modern {
		return
	}
	ttl, ok := a.Result["ttlMs"].(float64)
	if scope := a.Result["cacheScope"]; !ok || ttl < 0 || scope != "private" && scope != "public" {
		t.Errorf("%s: got ttlMs %v and cacheScope %v", method, a.Result["ttlMs"], scope)
	}
}

func saysHello(t *testing.T, hello answer, revision string) {
	t.Helper()
	complete(t, "hello", hello, revision)
	cached(t, "hello", hello, revision)
	if revision == modern {
		supported, _ := hello.Result["supportedVersions"].([]any)
		if !slices.Contains(supported, any(modern)) {
			t.Errorf("got the revisions %v, want %s", supported, modern)
		}
	} else if got := hello.Result["protocolVersion"]; got != revision {
		t.Errorf("got revision %v, want %s", got, revision)
	}
	capabilities, _ := hello.Result["capabilities"].(map[string]any)
	if text, _ := hello.Result["instructions"].(string); capabilities["tools"] == nil || !strings.Contains(text, "list_credentials") {
		t.Errorf("got %v, want tools and instructions", hello.Result)
	}
}

func listsTools(t *testing.T, list answer, revision string) {
	t.Helper()
	complete(t, "tools/list", list, revision)
	cached(t, "tools/list", list, revision)
	all, _ := list.Result["tools"].([]any)
	if len(all) != len(tools.All(tools.Deps{})) {
		t.Errorf("got %d tools, want all", len(all))
	}
	for _, one := range all {
		tool, _ := one.(map[string]any)
		annotations, _ := tool["annotations"].(map[string]any)
		title := tool["title"] != nil || annotations["title"] != nil
		for _, schema := range []string{"inputSchema", "outputSchema"} {
			if s, _ := tool[schema].(map[string]any); s["type"] != "object" {
				t.Errorf("%v: got the %s %v", tool["name"], schema, s)
			}
		}
		if !title || tool["description"] == "" || len(annotations) < 4 {
			t.Errorf("got %v, want a title, a description and four hints", slices.Collect(maps.Keys(tool)))
		}
	}
}

// sameAsText checks that a client which does not know of structured results gets
// the same as text.
func sameAsText(t *testing.T, a answer) {
	t.Helper()
	content, _ := a.Result["content"].([]any)
	var said any
	if len(content) == 1 {
		first, _ := content[0].(map[string]any)
		text, _ := first["text"].(string)
		_ = json.Unmarshal([]byte(text), &said)
	}
	if said == nil || !reflect.DeepEqual(said, a.Result["structuredContent"]) {
		t.Errorf("got the text %v beside %v, want the same", content, a.Result["structuredContent"])
	}
}

// TestARevisionThatNobodyKnows: a client of the past or the future is told which
// ones there are.
func TestARevisionThatNobodyKnows(t *testing.T) {
	for _, over := range []string{"stdio", "http", "sse"} {
		r := newRig(t, nowhere)
		if hello, _ := r.speak(over, "1999-01-01"); hello.Result["protocolVersion"] != "2025-11-25" {
			t.Errorf("%s: got %v, want the latest with sessions", over, hello)
		}
	}
	r := newRig(t, nowhere)
	const future = "2999-01-01"
	body := strings.ReplaceAll(modernMessage(1, "server/discover", ""), modern, future)
	resp := r.request(http.MethodPost, r.serve()+"/mcp", body, map[string]string{"Mcp-Protocol-Version": future, "Mcp-Method": "server/discover"})
	got := r.answer(r.body(resp))
	supported, _ := got.Error.Data["supported"].([]any)
	if resp.StatusCode != http.StatusBadRequest || got.Error.Code != -32022 || !slices.Contains(supported, any(modern)) {
		t.Errorf("got %s, %+v, want 400 and the revisions there are", resp.Status, got)
	}
}

// TestTheHeadersOfTheStatelessEra: a proxy may go by them, so they must say what
// the message says.
func TestTheHeadersOfTheStatelessEra(t *testing.T) {
	r := newRig(t, nowhere)
	url := r.serve()
	call := modernMessage(1, "tools/call", `"name":"list_credentials","arguments":{}`)
	for name, tt := range map[string]struct {
		header map[string]string
		status int
		code   int
	}{
		"right":                 {nil, http.StatusOK, 0},
		"a session id":          {map[string]string{"Mcp-Session-Id": "invented"}, http.StatusOK, 0},
		"no method":             {map[string]string{"Mcp-Method": ""}, http.StatusBadRequest, -32020},
		"another method":        {map[string]string{"Mcp-Method": "tools/list"}, http.StatusBadRequest, -32020},
		"a method in capitals":  {map[string]string{"Mcp-Method": "Tools/Call"}, http.StatusBadRequest, -32020},
		"no name":               {map[string]string{"Mcp-Name": ""}, http.StatusBadRequest, -32020},
		"another name":          {map[string]string{"Mcp-Name": "lona_register_agent"}, http.StatusBadRequest, -32020},
		"no revision":           {map[string]string{"Mcp-Protocol-Version": ""}, http.StatusBadRequest, -32020},
		"another revision":      {map[string]string{"Mcp-Protocol-Version": "2025-11-25"}, http.StatusBadRequest, -32020},
		"a stream to resume at": {map[string]string{"Last-Event-ID": "1"}, http.StatusBadRequest, -32020},
	} {
		header := map[string]string{"Mcp-Protocol-Version": modern, "Mcp-Method": "tools/call", "Mcp-Name": "list_credentials"}
		maps.Copy(header, tt.header)
		resp := r.request(http.MethodPost, url+"/mcp", call, header)
		got := r.answer(r.body(resp))
		if resp.StatusCode != tt.status || got.Error.Code != tt.code || (got.Result != nil) != (tt.code == 0) {
			t.Errorf("%s: got %s, %+v, want %d and %d", name, resp.Status, got, tt.status, tt.code)
		}
		if resp.Header.Get("Mcp-Session-Id") != "" {
			t.Errorf("%s: got a session", name)
		}
	}
	for _, method := range []string{http.MethodGet, http.MethodDelete} {
		if resp := r.request(method, url+"/mcp", "", map[string]string{"Mcp-Protocol-Version": modern}); resp.StatusCode != http.StatusMethodNotAllowed {
			t.Errorf("%s: got %s, want that there is none", method, resp.Status)
		}
	}
}

// TestAStatelessRequestSaysWhatItsClientCan: without that it is refused.
func TestAStatelessRequestSaysWhatItsClientCan(t *testing.T) {
	r := newRig(t, nowhere)
	body := message(1, "tools/list", `"_meta":{"io.modelcontextprotocol/protocolVersion":"`+modern+`"}`)
	resp := r.request(http.MethodPost, r.serve()+"/mcp", body, map[string]string{"Mcp-Protocol-Version": modern, "Mcp-Method": "tools/list"})
	if got := r.answer(r.body(resp)); resp.StatusCode != http.StatusBadRequest || got.Error.Code != -32602 {
		t.Errorf("over HTTP: got %s, %+v", resp.Status, got)
	}
	if got := r.pipe(body); len(got) != 1 || got[0].Error == nil || got[0].Error.Code != -32602 {
		t.Errorf("over stdio: got %+v", got)
	}
}

// TestASubscriptionIsAcknowledgedFirst, with what of it there is.
func TestASubscriptionIsAcknowledgedFirst(t *testing.T) {
	const acknowledged = "notifications/subscriptions/acknowledged"
	listen := `"notifications":{"toolsListChanged":true}`
	check := func(over string, got []rpc) {
		t.Helper()
		if len(got) < 2 || got[0].Method != acknowledged || got[len(got)-1].ID != 7.0 || got[len(got)-1].Error != nil {
			t.Fatalf("%s: got %+v, want the acknowledgement and the end", over, got)
		}
		meta, _ := got[0].Params["_meta"].(map[string]any)
		if wants, _ := got[0].Params["notifications"].(map[string]any); wants["toolsListChanged"] == true || meta["io.modelcontextprotocol/subscriptionId"] != 7.0 {
			t.Errorf("%s: got %+v, want that the tools do not change", over, got[0])
		}
	}
	r := newRig(t, nowhere)
	check("http", r.messages(r.modernPost(r.serve(), 7, "subscriptions/listen", listen)))
	c := newRig(t, nowhere).openStdio(t.Context())
	c.send(modernMessage(7, "subscriptions/listen", listen))
	first := c.next()
	_ = c.in.Close() // which ends the subscription, too
	check("stdio", []rpc{first, c.next()})
	if err := <-c.ended; err != nil {
		t.Error(err)
	}
}

// Batches, which only one old revision has, are refused as a whole: a client
// learns what is wrong, and no part of one is done.
func TestABatchIsRefused(t *testing.T) {
	batch := "[" + message(1, "tools/call", `"name":"nothing"`) + "," + message(2, "ping", "") + "]"
	for _, version := range []string{"2024-11-05", "2025-03-26", legacy, "2025-11-25", modern} {
		t.Run(version, func(t *testing.T) {
			r := newRig(t, nowhere)
			url := r.serve()
			header := map[string]string{"Mcp-Protocol-Version": modern, "Mcp-Method": "tools/call"}
			if version != modern {
				header = r.sessionOf("", url, version)
			}
			resp := r.request(http.MethodPost, url+"/mcp", batch, header)
			got := r.parse(r.body(resp))
			if resp.StatusCode != http.StatusBadRequest || got.ID != nil || got.Error == nil || got.Error.Code != mcp.INVALID_REQUEST || !strings.Contains(got.Error.Message, "batch") {
				t.Errorf("got %s: %+v, want the refusal of batches", resp.Status, got)
			}
		})
	}
}

// A call whose number is null has none that an answer could carry.
func TestANumberOfNullIsNone(t *testing.T) {
	r := newRig(t, nowhere)
	url := r.serve()
	resp := r.request(http.MethodPost, url+"/mcp", message("null", "tools/call", `"name":"nothing"`), r.sessionOf("", url, "2025-11-25"))
	if text := r.body(resp); resp.StatusCode != http.StatusAccepted || text != "" {
		t.Errorf("got %s: %s, want it to be taken for a notification", resp.Status, text)
	}
}
