package store_test

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/embeddedgateway/store"
)

// childEnv makes the test binary another process of the same database: it
// names what to do there.
const childEnv = "ENLIST_STORE_TEST_CHILD"

func TestMain(m *testing.M) {
	if job := os.Getenv(childEnv); job != "" {
		os.Exit(child(job, os.Args[1]))
	}
	os.Exit(m.Run())
}

// child does a job on the database at path when it is told to by a line on its
// standard input.
func child(job, path string) int {
	_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
	if job == "copy" {
		copyChild(path, os.Args[2])
		return 0
	}
	o := store.Options{Path: path, Now: time.Now}
	if strings.HasPrefix(path, "postgres:") {
		o.Path, o.URL = "", path
	}
	s, err := store.Open(context.Background(), o)
	if err != nil {
		fmt.Println("open:", err)
		return 1
	}
	switch job {
	case "open":
	case "share":
		share(s)
	case "fill":
		limitFiles(1 << 19)
		register(s)
	case "register":
		register(s)
	}
	if err := s.Close(); err != nil {
		fmt.Println("close:", err)
		return 1
	}
	return 0
}

// start starts a child; it begins when go is called.
func start(t *testing.T, job string, args ...string) (cmd *exec.Cmd, out io.Reader, begin func()) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd = exec.CommandContext(t.Context(), exe, args...)
	cmd.Env = append(os.Environ(), childEnv+"="+job, "GORACE=atexit_sleep_ms=0")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err = cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, out, func() { _, _ = io.WriteString(in, "go\n") }
}

// What the children of TestProcessesShareOneDatabase contend for.
const (
	processes   = 4
	sharedLimit = 25
	sharedCap   = 5
	sharedHits  = 16
)

func digest(parts ...any) [32]byte { return sha256.Sum256([]byte(fmt.Sprint(parts...))) }

// share contends for hits, credentials and a ticket with whoever does the same,
// and prints what it got.
func share(s *store.Store) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	try := func(what string, fn func(tx *store.Tx) (bool, error)) {
		wg.Go(func() {
			var got bool
			err := s.Tx(context.Background(), func(tx *store.Tx) (err error) {
				got, err = fn(tx)
				return err
			})
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil && got:
				fmt.Println(what)
			case err != nil && !errors.Is(err, store.ErrCap) && !errors.Is(err, store.ErrExists):
				fmt.Println("error:", err)
			}
		})
	}
	for i := range sharedHits {
		try("hit", func(tx *store.Tx) (bool, error) {
			wait, err := tx.Hit("shared", sharedLimit, time.Hour)
			return wait == 0, err
		})
		try("issued", func(tx *store.Tx) (bool, error) {
			a, _, err := tx.EnsureAgent(store.Agent{Protocol: "test", Name: "shared"})
			if err != nil {
				return false, err
			}
			_, err = tx.Issue(store.Credential{AgentID: a.ID, Hash: digest(os.Getpid(), i)}, sharedCap)
			return err == nil, err
		})
		try("opened", func(tx *store.Tx) (bool, error) {
			err := tx.OpenTicket(store.Ticket{Protocol: "test", Hash: digest("shared")}, false)
			return err == nil, err
		})
	}
	wg.Wait()
}

func TestProcessesShareOneDatabase(t *testing.T) {
	path := filepath.Join(t.TempDir(), "gateway.db")
	var outs []io.Reader
	var cmds []*exec.Cmd
	var begins []func()
	for range processes {
		cmd, out, begin := start(t, "share", path)
		cmds, outs, begins = append(cmds, cmd), append(outs, out), append(begins, begin)
	}
	for _, begin := range begins { // all open and migrate a new database at once
		begin()
	}
	got := make(map[string]int)
	for i, out := range outs {
		text, err := io.ReadAll(out)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			got[strings.TrimSpace(line)]++
		}
		if err := cmds[i].Wait(); err != nil {
			t.Errorf("child: %v", err)
		}
	}
	want := map[string]int{"hit": sharedLimit, "issued": sharedCap, "opened": 1}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("all processes together: got %v, want %v", got, want)
	}
}

// register registers agents as fast as it can, and prints each once it is
// acknowledged, until it fails or is killed.
func register(s *store.Store) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			for i := 0; ; i++ {
				name := fmt.Sprintf("agent-%d-%d-%d", os.Getpid(), worker, i)
				err := s.Tx(context.Background(), func(tx *store.Tx) error { return registerAgent(tx, name) })
				mu.Lock()
				if err != nil {
					fmt.Println("error:", err)
					mu.Unlock()
					return
				}
				fmt.Println(name)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
}

func registerAgent(tx *store.Tx, name string) error {
	a, _, err := tx.EnsureAgent(store.Agent{Protocol: "test", Name: name})
	if err != nil {
		return err
	}
	if _, err := tx.Issue(store.Credential{AgentID: a.ID, Kind: "token", Hash: digest(name)}, 1); err != nil {
		return err
	}
	return tx.Audit(store.Event{Protocol: "test", Name: "token_issued", Agent: name})
}

func TestNothingAcknowledgedIsLostWhenKilled(t *testing.T) {
	path := filepath.Join(t.TempDir(), "gateway.db")
	var acknowledged []string
	for range 5 {
		cmd, out, begin := start(t, "register", path)
		begin()
		lines := bufio.NewScanner(out)
		// It is killed at no particular moment of its work; what it had
		// printed until then was acknowledged.
		for n := 1 + rand.IntN(100); lines.Scan(); n-- {
			if !strings.HasPrefix(lines.Text(), "agent-") {
				t.Fatalf("child: %s", lines.Text())
			}
			acknowledged = append(acknowledged, lines.Text())
			if n == 0 {
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		_ = cmd.Wait()
	}
	s := open(t, path, time.Now)
	for _, name := range acknowledged {
		if _, err := s.Authenticate(t.Context(), "test", digest(name)); err != nil {
			t.Errorf("%s was acknowledged: got error %v", name, err)
		}
	}
	// Nothing is there in part, acknowledged or not.
	events, err := s.Events(t.Context(), store.EventQuery{Limit: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range events {
		_, agentErr := s.Agent(t.Context(), "test", e.Agent)
		_, keyErr := s.Authenticate(t.Context(), "test", digest(e.Agent))
		if agentErr != nil || keyErr != nil {
			t.Errorf("%s is half there: %v, %v", e.Agent, agentErr, keyErr)
		}
	}
	if len(events) < len(acknowledged) {
		t.Errorf("events: got %d, want %d or more", len(events), len(acknowledged))
	}
	t.Logf("%d acknowledged, %d written", len(acknowledged), len(events))
}
