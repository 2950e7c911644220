package store_test

import (
	"fmt"
	"testing"

	"github.com/enlist-mcp/enlist/embeddedgateway/store"
)

// BenchmarkOperator is what an operator asks for, of a thousand and of a million
// agents: what a page costs must not grow with them. The million takes a minute
// to make.
func BenchmarkOperator(b *testing.B) {
	for _, agents := range []int{1000, 1_000_000} {
		b.Run(fmt.Sprint(agents), func(b *testing.B) {
			if agents > 1000 && testing.Short() {
				b.Skip("-short")
			}
			s := fresh(b)
			fillAgents(b, s, 0, agents)
			deep, err := s.Agents(b.Context(), store.AgentQuery{Prefix: "weather bot", Limit: 400})
			if err != nil {
				b.Fatal(err)
			}
			for _, q := range []struct {
				name string
				store.AgentQuery
			}{
				{"newest", store.AgentQuery{}},
				{"of a protocol", store.AgentQuery{Protocol: "lumina"}},
				{"suspended", store.AgentQuery{Suspension: store.Suspended}},
				{"suspended of a protocol", store.AgentQuery{Suspension: store.Suspended, Protocol: "lona"}},
				{"search, one", store.AgentQuery{Prefix: "AGENT-0000777"}},
				{"search, none", store.AgentQuery{Prefix: "zzz"}},
				{"search, all", store.AgentQuery{Prefix: "w"}},
				{"search, all, active", store.AgentQuery{Prefix: "w", Suspension: store.Active}},
				{"search, all, deep", store.AgentQuery{Prefix: "w", After: deep.Next}},
			} {
				b.Run(q.name, func(b *testing.B) {
					q.Limit = 50
					for b.Loop() {
						if _, err := s.Agents(b.Context(), q.AgentQuery); err != nil {
							b.Fatal(err)
						}
					}
				})
			}
			b.Run("count all", func(b *testing.B) {
				for b.Loop() {
					if _, err := s.CountAgents(b.Context()); err != nil {
						b.Fatal(err)
					}
					if _, err := s.CountKeys(b.Context()); err != nil {
						b.Fatal(err)
					}
				}
			})
		})
	}
}
