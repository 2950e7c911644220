package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tiktoken-go/tokenizer"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/gateway"
	"github.com/enlist-mcp/enlist/gateway/wire"
	"github.com/enlist-mcp/enlist/server"
	"github.com/enlist-mcp/enlist/tools"
)

// What the list of tools may cost, in tokens: what a model must read of each tool
// to call it, and the whole answer with what else clients are told.
const (
	maxPromptTokens = 3000
	maxListTokens   = 5000
)

// cost is what a client is told about the tools, in tokens.
type cost struct{ tools, prompt, list, instructions int }

// TestGeneratedTokens counts what the list of tools costs, and keeps the README's
// figures equal to that.
func TestGeneratedTokens(t *testing.T) {
	codec, err := tokenizer.Get(tokenizer.O200kBase)
	if err != nil {
		t.Fatal(err)
	}
	count := func(text []byte) int {
		n, err := codec.Count(string(text))
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	selections := []struct {
		flags string
		tools tools.Selection
	}{{"", tools.Selection{}}}
	for _, p := range wire.Protocols() {
		selections = append(selections, struct {
			flags string
			tools tools.Selection
		}{" --services " + p.Name, tools.Selection{Services: []string{p.Name}}})
	}
	selections = append(selections, struct {
		flags string
		tools tools.Selection
	}{" --read-only", tools.Selection{ReadOnly: true}})

	var b strings.Builder
	b.WriteString("| | Tools | Names, descriptions, input schemas | The whole list, output schemas too | Instructions |\n|---|---|---|---|---|\n")
	for _, s := range selections {
		got := costOf(t, s.tools, count)
		prompt, list := maxPromptTokens, maxListTokens
		if s.flags != "" { // a part of it
			prompt, list = prompt/2, list/2
		}
		if got.prompt > prompt || got.list > list || got.instructions > 400 {
			t.Errorf("enlist mcp%s: got %+v, want at most %d and %d tokens, and 400 of instructions", s.flags, got, prompt, list)
		}
		fmt.Fprintf(&b, "| `enlist mcp%s` | %d | %d | %d | %d |\n", s.flags, got.tools, got.prompt, got.list, got.instructions)
	}
	checkReadme(t, "tokens", b.String())
}

// costOf returns what some tools cost in the era in which they cost more.
func costOf(t *testing.T, s tools.Selection, count func([]byte) int) cost {
	t.Helper()
	const meta = `"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28",` +
		`"io.modelcontextprotocol/clientInfo":{"name":"t","version":"1"},"io.modelcontextprotocol/clientCapabilities":{}}`
	var most cost
	for _, input := range []string{
		`{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"t","version":"1"}}}
{"jsonrpc":"2.0","id":2,"method":"tools/list","params":{}}`,
		`{"jsonrpc":"2.0","id":1,"method":"server/discover","params":{` + meta + `}}
{"jsonrpc":"2.0","id":2,"method":"tools/list","params":{` + meta + `}}`,
	} {
		var got cost
		for line := range bytes.Lines(served(t, s, input)) {
			var answer struct {
				ID     int
				Result struct {
					Instructions string
					Tools        []struct {
						Name        string          `json:"name"`
						Description string          `json:"description"`
						InputSchema json.RawMessage `json:"inputSchema"`
					}
				}
			}
			if err := json.Unmarshal(line, &answer); err != nil {
				t.Fatalf("%v in %s", err, line)
			}
			if answer.ID == 1 {
				got.instructions = count([]byte(answer.Result.Instructions))
				continue
			}
			prompt, err := json.Marshal(answer.Result.Tools)
			if err != nil {
				t.Fatal(err)
			}
			got.tools, got.prompt, got.list = len(answer.Result.Tools), count(prompt), count(bytes.TrimSpace(line))
		}
		if got.tools == 0 || got.instructions == 0 {
			t.Fatalf("got %+v for %s", got, input)
		}
		most = cost{max(most.tools, got.tools), max(most.prompt, got.prompt), max(most.list, got.list), max(most.instructions, got.instructions)}
	}
	return most
}

// served returns what a server with some tools answers on standard output.
func served(t *testing.T, s tools.Selection, input string) []byte {
	t.Helper()
	client, err := gateway.New(gateway.Options{Store: credstore.NewMemory(time.Now), Env: func(string) string { return "" }, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	srv, err := server.New(server.Config{Client: client, Tools: s, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := srv.ServeStdio(t.Context(), strings.NewReader(input+"\n"), &out); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}
