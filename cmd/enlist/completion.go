package main

import (
	"context"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/gateway/wire"
	"github.com/enlist-mcp/enlist/tools"
)

// completionTime is how long somebody waits who has pressed the Tab key.
const completionTime = time.Second

// completes says what is offered for one argument of a command.
type completes func(cmd *cobra.Command) []string

// complete has the shell offer what an argument or a flag can be. It looks into
// the list of what is stored and nowhere else: no keyring is asked, no person,
// and nothing is logged. A shell that gets no answer offers nothing.
func (p *program) complete(root *cobra.Command) {
	methods := fixed("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
	arguments := map[string][]completes{
		"show": {p.handles}, "rotate": {p.handles}, "revoke": {p.handles}, "forget": {p.handles},
		"exec":          {p.handles},
		"request":       {p.handles, methods, fixed()},
		"call":          {toolNames, fixed("-")},
		"wallet delete": {p.wallets},
		"token revoke":  {p.tokenNames},
	}
	for path, offers := range arguments {
		if cmd, _, err := root.Find(strings.Fields(path)); err == nil && cmd != root {
			cmd.ValidArgsFunction = offered(offers)
		}
	}
	if cmd, _, err := root.Find([]string{"export"}); err == nil && cmd != root {
		cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 0 {
				return nil, cobra.ShellCompDirectiveDefault // a file
			}
			return starting(without(p.handles(cmd), args[1:]), typed), cobra.ShellCompDirectiveNoFileComp
		}
	}
	for path, flags := range map[string]map[string]completes{
		"":        {"store": fixed("auto", "keyring", "file", "memory")},
		"mcp":     {"services": protocolNames},
		"install": {"services": protocolNames},
		"gateway": {"protocols": protocolNames},
		"audit":   {"credential": p.handles},
	} {
		cmd, _, err := root.Find(strings.Fields(path))
		if err != nil {
			continue
		}
		for name, offer := range flags {
			// What a command does not have it is not completed for.
			_ = cmd.RegisterFlagCompletionFunc(name, listed(offer))
		}
	}
}

// offered completes the arguments of a command one after the other.
func offered(offers []completes) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		if len(args) >= len(offers) {
			return nil, cobra.ShellCompDirectiveDefault
		}
		return starting(offers[len(args)](cmd), typed), cobra.ShellCompDirectiveNoFileComp
	}
}

// listed completes a flag whose values are separated by commas.
func listed(offer completes) cobra.CompletionFunc {
	return func(cmd *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
		before := typed[:strings.LastIndex(typed, ",")+1]
		var out []string
		for _, value := range starting(offer(cmd), strings.TrimPrefix(typed, before)) {
			out = append(out, before+value)
		}
		return out, cobra.ShellCompDirectiveNoFileComp
	}
}

func starting(values []string, typed string) []string {
	return slices.DeleteFunc(values, func(v string) bool { return !strings.HasPrefix(v, typed) })
}

func without(values, taken []string) []string {
	return slices.DeleteFunc(values, func(v string) bool { return slices.Contains(taken, v) })
}

func fixed(values ...string) completes {
	return func(*cobra.Command) []string { return slices.Clone(values) }
}

func toolNames(*cobra.Command) []string {
	var names []string
	for _, t := range tools.All(tools.Deps{}) {
		names = append(names, t.Tool.Name)
	}
	return names
}

func protocolNames(*cobra.Command) []string {
	var names []string
	for _, protocol := range wire.Protocols() {
		names = append(names, protocol.Name)
	}
	return names
}

// handles lists the handles of what is stored.
func (p *program) handles(cmd *cobra.Command) []string {
	return p.stored(cmd, func(c *client, i credstore.Info) string {
		if !c.Lifecycle.HasHandle(i.Key) {
			return ""
		}
		return c.Lifecycle.Handle(i.Key)
	})
}

// wallets lists the names of the stored wallets.
func (p *program) wallets(cmd *cobra.Command) []string {
	return p.stored(cmd, func(_ *client, i credstore.Info) string {
		if i.Kind != credstore.KindWallet {
			return ""
		}
		return i.Agent
	})
}

// tokenNames lists the bearer tokens, never one of them.
func (p *program) tokenNames(*cobra.Command) []string {
	quiet := *p
	quiet.stderr = io.Discard
	kept, err := quiet.tokens()
	if err != nil {
		return nil
	}
	all, err := kept.load()
	if err != nil {
		return nil
	}
	var names []string
	for _, t := range all {
		names = append(names, t.Name)
	}
	return names
}

// stored lists the names of what is stored, each once; those that are "" have
// none.
func (p *program) stored(cmd *cobra.Command, name func(*client, credstore.Info) string) []string {
	quiet := *p
	quiet.stderr = io.Discard
	options, err := quiet.storeOptions()
	if err != nil || options.Mode == credstore.ModeMemory {
		return nil
	}
	ctx := cmd.Context()
	if ctx == nil {
		ctx = context.Background()
	}
	ctx, cancel := context.WithTimeout(ctx, completionTime)
	defer cancel()
	infos, err := credstore.Listed(ctx, options.Home)
	if err != nil || len(infos) == 0 {
		return nil
	}
	c, err := quiet.openClient()
	if err != nil {
		return nil
	}
	defer func() { _ = c.Close() }() // nothing was opened
	names := make(map[string]struct{})
	for _, i := range infos {
		if n := name(c, i); n != "" {
			names[n] = struct{}{}
		}
	}
	return slices.Sorted(maps.Keys(names))
}
