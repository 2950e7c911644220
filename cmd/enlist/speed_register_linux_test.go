package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/embeddedgateway/store"
	"github.com/enlist-mcp/enlist/gateway/eip191"
	"github.com/enlist-mcp/enlist/gateway/wire"
)

// luminaRate is how many onboardings a second the real API of Lumina answers,
// measured elsewhere, on two cores too: it cannot be installed. expressRate is how
// many accounts AgentDoor's server on Express made there, and so says how fast the
// machine was.
const (
	luminaRate  = 360
	expressRate = 101
)

// makingAccounts is making accounts by a protocol.
func makingAccounts(l *benchLoad, protocol string) benchOp {
	return func(ctx context.Context, _ int, c *benchConn) (benchAnswer, error) {
		_, err := l.register(ctx, c, protocol)
		return benchAnswer{status: http.StatusCreated}, err
	}
}

// reportRegistrations says how fast a contender registers, and how even.
func (c *contender) reportRegistrations(b *testing.B) {
	slices.Sort(c.took)
	b.ReportMetric(0, "ns/op") // it would be of all
	b.ReportMetric(c.median(), "accounts/s")
	b.ReportMetric(1e6*median(slices.Clone(c.cpu)), "cpu-µs") // of an account, the client's too
	p50, p99 := c.took[len(c.took)/2], c.took[len(c.took)*99/100]
	b.ReportMetric(float64(p50.Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(p99.Microseconds())/1000, "p99-ms")
	b.ReportMetric(float64(p99)/float64(p50), "p99/p50")
}

// BenchmarkRegistered makes accounts over 32 connections, each on the disk before
// it is answered:
//
//	ENLIST_BENCH_AGENTS=1000000 ENLIST_TEST_PEERS=$PWD/.ci/peers go test ./cmd/enlist -run '^$' -bench Registered -benchtime 50x
func BenchmarkRegistered(b *testing.B) {
	db := sqliteWith(b, speedAgents(b))
	express := 0.0
	b.Run("agentdoor", func(b *testing.B) {
		g := newSpeedGateway(b, db.url, db.agents)
		at, err := url.Parse(peerServer(b, bundled+"agentdoor-server.cjs"))
		if err != nil {
			b.Fatal(err)
		}
		load := newBenchLoad(at, time.Now)
		const fewer, more = 2 * speedClients, 40 * speedClients // at its begin and end a turn does not keep all busy
		keys := make(chan ed25519.PrivateKey, more)
		g.key = func() (ed25519.PrivateKey, error) { return <-keys, nil }
		load.key = g.key
		theirs := newContender(b, "AgentDoor on Express", at, makingAccounts(load, wire.AgentDoorName))
		ours := newContender(b, "ours", g.at, makingAccounts(g.benchLoad, wire.AgentDoorName))
		for b.Loop() {
			made(b, keys, fewer, benchKey)
			theirs.turn(b, fewer)
			made(b, keys, more, benchKey)
			ours.turn(b, more)
		}
		ours.reportRegistrations(b)
		express = theirs.median()
		b.ReportMetric(express, "express-accounts/s")
		b.ReportMetric(ours.median()/express, "×express")
	})
	b.Run("lumina", func(b *testing.B) {
		g := newSpeedGateway(b, db.url, db.agents)
		wallets := make(chan eip191.Wallet, 40*speedClients)
		g.wallet = func() (eip191.Wallet, error) { return <-wallets, nil }
		ours := newContender(b, "ours", g.at, makingAccounts(g.benchLoad, wire.LuminaName))
		for b.Loop() {
			made(b, wallets, cap(wallets), func() (eip191.Wallet, error) { return eip191.New(rand.Reader) })
			ours.turn(b, cap(wallets))
		}
		ours.reportRegistrations(b)
		b.ReportMetric(ours.median()/luminaRate, "×real")
		if express > 0 {
			b.ReportMetric(ours.median()/(luminaRate*express/expressRate), "×real-here")
		}
	})
	b.Run("lona", func(b *testing.B) {
		g := newSpeedGateway(b, db.url, db.agents)
		ours := newContender(b, "ours", g.at, makingAccounts(g.benchLoad, wire.LonaName))
		plain := newContender(b, "bare insert", g.at, inserting(b))
		for b.Loop() {
			plain.turn(b, 10*speedClients)
			ours.turn(b, 10*speedClients)
		}
		ours.reportRegistrations(b)
		b.ReportMetric(plain.median(), "inserts/s")
		b.ReportMetric(ours.median()/plain.median(), "of-inserts")
	})
	for _, protocol := range []string{wire.LithtrixName, wire.FluxraName} {
		b.Run(protocol, func(b *testing.B) {
			g := newSpeedGateway(b, db.url, db.agents)
			ours := newContender(b, "ours", g.at, makingAccounts(g.benchLoad, protocol))
			for b.Loop() {
				ours.turn(b, 10*speedClients)
			}
			ours.reportRegistrations(b)
		})
	}
}

// made puts what clients have before they come, such as a key, where they take it.
func made[V any](b *testing.B, to chan<- V, n int, make func() (V, error)) {
	b.Helper()
	for range n {
		v, err := make()
		if err != nil {
			b.Fatal(err)
		}
		to <- v
	}
}

// inserting is the least that a registration can be: an agent, a credential and
// an event of the audit trail, in a transaction that shares its commit with those
// that wait, and no HTTP.
func inserting(b testing.TB) benchOp {
	s, err := store.Open(b.Context(), store.Options{Path: filepath.Join(b.TempDir(), "bare.db"), Now: time.Now})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = s.Close() })
	var n atomic.Int64
	return func(ctx context.Context, _ int, _ *benchConn) (benchAnswer, error) {
		name := fmt.Sprintf("agent-%d", n.Add(1))
		hash := sha256.Sum256([]byte(name))
		err := s.Tx(ctx, func(tx *store.Tx) error {
			a, _, err := tx.EnsureAgent(store.Agent{Protocol: wire.LonaName, Name: name, DisplayName: name})
			if err != nil {
				return err
			}
			if _, err := tx.Issue(store.Credential{AgentID: a.ID, Kind: "token", KeyID: "k", Hash: hash, Scopes: []string{"*"}}, 1); err != nil {
				return err
			}
			return tx.Audit(store.Event{Protocol: wire.LonaName, Name: "token_issued", Agent: name, IP: "192.0.2.1"})
		})
		return benchAnswer{status: http.StatusCreated}, err
	}
}
