package tools_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/enlist-mcp/enlist/gateway"
	"github.com/enlist-mcp/enlist/gateway/wire"
	"github.com/enlist-mcp/enlist/tools"
)

// What a page about a service tells a model to do, it can do.
func TestServicePagesAreTrue(t *testing.T) {
	r := newRig(t, "http://127.0.0.1:1", options{})
	for _, p := range wire.Protocols() {
		t.Run(p.Name, func(t *testing.T) {
			got, err := tools.Deps{Client: r.client, Now: r.clock.Now}.Read(t.Context(), tools.ServiceURIPrefix+p.Name)
			if err != nil {
				t.Fatal(err)
			}
			page, ok := got.(tools.ServicePage)
			if !ok || page.Protocol != p.Name || page.Tool == "" || page.AsksFor == "" || page.Arguments == "" || page.Setting == "" || len(page.Routes) == 0 {
				t.Fatalf("got %+v, want all of it", got)
			}
			if !slices.Contains(page.Tools, page.Tool) || len(page.Refused) != len(p.Reserved) {
				t.Errorf("got %+v, want its tool among its tools, and every route that is refused", page)
			}
			for _, route := range page.Routes {
				method, rest, _ := strings.Cut(route, " ")
				path, _, _ := strings.Cut(rest, " ")
				if strings.HasPrefix(path, "/") && refused(p.Reserved, method, path) {
					t.Errorf("%s: send_request refuses it", route)
				}
			}
			for _, name := range page.Tools {
				if !slices.ContainsFunc(r.client.All(), func(q gateway.Protocol) bool { return strings.HasPrefix(name, q.Wire().Name+"_") }) {
					t.Errorf("%s is no tool of a service", name)
				}
			}
		})
	}
}

func refused(routes []wire.Route, method, path string) bool {
	return slices.ContainsFunc(routes, func(r wire.Route) bool {
		prefix, wild := strings.CutSuffix(r.Path, "*")
		return (r.Method == "" || r.Method == method) && (path == r.Path || wild && strings.HasPrefix(path, prefix))
	})
}
