package tools_test

import (
	"testing"

	"github.com/mark3labs/mcp-go/mcp"

	"github.com/enlist-mcp/enlist/gateway"
	"github.com/enlist-mcp/enlist/tools"
)

// TestNobodyTakesAllTurns: however many calls of one token wait for an answer, those
// of another can wait, too.
func TestNobodyTakesAllTurns(t *testing.T) {
	r := newRig(t, "http://127.0.0.1:1", options{})
	curious := tools.Curious(tools.Deps{Client: r.client, Now: r.clock.Now}, "name")
	asks := func(token string) bool {
		caller := gateway.Caller{Kind: gateway.CallerModel, Asks: true, TokenName: token}
		req := mcp.CallToolRequest{}
		req.Params.Name = "curious"
		res, err := curious.Handler(gateway.WithCaller(t.Context(), caller), req)
		if err != nil {
			t.Fatal(err)
		}
		return res.NeedsInput()
	}
	for n := range 64 {
		if !asks("one") {
			t.Fatalf("question %d was not asked", n)
		}
	}
	if asks("one") || !asks("two") {
		t.Error("want no more questions of the one, and some of the other")
	}
}
