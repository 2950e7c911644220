package tools_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/mark3labs/mcp-go/mcp"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest"
	"github.com/enlist-mcp/enlist/gateway/wire"
	"github.com/enlist-mcp/enlist/tools"
)

// shared are the tools that are offered whatever services are.
func shared() []string {
	return []string{"discover_service", "forget_credential", "list_credentials", "revoke_credential", "rotate_credential", "send_request"}
}

func TestTheToolsOfSomeServices(t *testing.T) {
	for _, p := range wire.Protocols() {
		r := newRig(t, "http://127.0.0.1:1", options{selection: tools.Selection{Services: []string{p.Name}}})
		if !slices.Contains(r.offered, p.Name+"_register_agent") {
			t.Errorf("%s: got %v, want its registering tool", p.Name, r.offered)
		}
		for _, name := range r.offered {
			if !slices.Contains(shared(), name) && !strings.HasPrefix(name, p.Name+"_") {
				t.Errorf("%s: %s is offered", p.Name, name)
			}
		}
		for _, name := range shared() {
			if !slices.Contains(r.offered, name) {
				t.Errorf("%s: %s is not offered", p.Name, name)
			}
		}
	}
	err := tools.Selection{Services: []string{"nope"}}.Check()
	if err == nil || err.Error() != `there is no service "nope"; there are agentdoor, fluxra, lithtrix, lona, lumina` {
		t.Errorf("got %v, want the names", err)
	}
}

// TestOtherServicesDoNotExist: neither their tools nor their credentials.
func TestOtherServicesDoNotExist(t *testing.T) {
	for _, version := range eras() {
		gw := gatewaytest.New(t)
		var store credstore.Store
		keep := func(s credstore.Store) credstore.Store {
			if store == nil {
				store = s
			}
			return store
		}
		env := map[string]string{"LITHTRIX_API_URL": gw.URL}
		before := newRig(t, gw.URL, options{clock: gw.Clock, env: env, store: keep})
		before.register("one")
		call[tools.LithtrixRegistered](before, "lithtrix_register_agent", args{"agent_name": "scout", "owner_identifier": "me"})

		r := newRig(t, gw.URL, options{clock: gw.Clock, env: env, store: keep, version: version, selection: tools.Selection{Services: []string{"lona", "lumina"}}})
		if list := call[tools.CredentialList](r, "list_credentials", args{}); len(list.Credentials) != 1 || list.Credentials[0].Handle != "lona/one" {
			t.Errorf("%s: got %+v, want Lona's alone", version, list)
		}
		if got := call[tools.Answer](r, "send_request", args{"method": "GET", "path": "/api/v1/strategies"}); got.Credential != "lona/one" || got.Status != 200 {
			t.Errorf("%s: got %+v, want the only one there is here", version, got)
		}
		for _, tool := range []string{"send_request", "rotate_credential", "revoke_credential", "forget_credential"} {
			in := args{"credential": "lithtrix/scout"}
			if tool == "send_request" {
				in["method"], in["path"] = "GET", wire.LithtrixMePath
			}
			if f := r.fail(tool, in); f.Code != tools.CodeNoCredential || strings.Contains(f.WhatIsStored+f.NextStep, "lithtrix/") {
				t.Errorf("%s: %s: got %+v, want that there is no such credential", version, tool, f)
			}
		}
		found := call[tools.Discovered](r, "discover_service", args{"url": gw.URL})
		lithtrix := of(t, found, "lithtrix")
		if lithtrix.Tool != "" || lithtrix.NextStep != "Ask the person to start Enlist with --services lona,lumina,lithtrix: you do not have the tools of lithtrix here." {
			t.Errorf("%s: got %+v, want that its tools are not offered", version, lithtrix)
		}
		if lona := of(t, found, "lona"); lona.Tool != "lona_register_agent" {
			t.Errorf("%s: got %+v", version, lona)
		}
		r.cannotCall("lithtrix_register_agent", args{"agent_name": "spy", "owner_identifier": "me"})
		if infos, err := store.List(t.Context(), "lithtrix"); err != nil || len(infos) != 1 || infos[0].State != credstore.StateActive {
			t.Errorf("%s: got %v (%v), want the one that was there", version, infos, err)
		}
	}
}

// cannotCall calls a tool that is not offered.
func (r *rig) cannotCall(tool string, in args) {
	r.t.Helper()
	req := mcp.CallToolRequest{}
	req.Params.Name, req.Params.Arguments = tool, in
	if res, err := r.caller.CallTool(r.t.Context(), req); err == nil {
		r.t.Errorf("%s: got %s, want that there is no such tool", tool, textOf(res))
	}
}

func TestReadOnlyChangesNothing(t *testing.T) {
	for _, version := range eras() {
		gw := gatewaytest.New(t)
		var store credstore.Store
		keep := func(s credstore.Store) credstore.Store {
			if store == nil {
				store = s
			}
			return store
		}
		newRig(t, gw.URL, options{clock: gw.Clock, store: keep}).register("one")
		r := newRig(t, gw.URL, options{clock: gw.Clock, store: keep, version: version, selection: tools.Selection{ReadOnly: true}})
		if want := []string{"discover_service", "list_credentials", "lona_list_strategies", "send_request"}; !slices.Equal(r.offered, want) {
			t.Errorf("%s: got %v, want %v", version, r.offered, want)
		}
		for _, tool := range []string{"rotate_credential", "revoke_credential", "forget_credential"} {
			if strings.Contains(r.described, tool) {
				t.Errorf("%s: a description names %s, which is not offered:\n%s", version, tool, r.described)
			}
		}
		for _, method := range []string{"GET", "HEAD", "OPTIONS"} {
			call[tools.Answer](r, "send_request", args{"method": method, "path": "/api/v1/strategies"})
		}
		for _, method := range []string{"POST", "PUT", "PATCH", "DELETE"} {
			if f := r.fail("send_request", args{"method": method, "path": "/api/v1/strategies"}); f.Code != tools.CodeInvalidArguments || !strings.HasSuffix(f.WhatHappened, "method must be one of GET, HEAD, OPTIONS.") {
				t.Errorf("%s: %s: got %+v, want it refused", version, method, f)
			}
		}
		lona := of(t, call[tools.Discovered](r, "discover_service", args{"url": gw.URL}), "lona")
		if lona.Tool != "" || !strings.Contains(lona.NextStep, "with credential lona/one") || !strings.Contains(lona.NextStep, "without --read-only") {
			t.Errorf("%s: got %+v, want that nobody registers here", version, lona)
		}
		for _, tool := range []string{"lona_register_agent", "rotate_credential", "revoke_credential", "forget_credential"} {
			r.cannotCall(tool, args{"credential": "lona/one", "agent_id": "one", "agent_name": "One"})
		}
	}
}
