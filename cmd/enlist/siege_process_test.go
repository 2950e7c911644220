package main

import (
	"bytes"
	"net"
	"net/url"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"
)

// replica is a gateway that is killed and started again at the same address.
type replica struct {
	at  *url.URL
	env []string

	mu    sync.Mutex
	cmd   *exec.Cmd
	ended chan struct{}
	said  bytes.Buffer
}

// startReplica starts a gateway with an environment. It ends with the test.
func startReplica(t *testing.T, env []string) *replica {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &replica{at: &url.URL{Scheme: "http", Host: ln.Addr().String()}, env: env}
	if err := ln.Close(); err != nil {
		t.Fatal(err)
	}
	r.start(t)
	t.Cleanup(r.kill)
	r.wait(t)
	return r
}

func (r *replica) start(t *testing.T) {
	t.Helper()
	cmd := exec.Command("enlist", "gateway", "--listen", r.at.Host)
	cmd.Env = append(os.Environ(), r.env...)
	cmd.Stderr = logOf{r}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // it is killed
	}()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cmd, r.ended = cmd, ended
}

// kill kills the gateway with SIGKILL and returns when it has gone.
func (r *replica) kill() {
	r.mu.Lock()
	cmd, ended := r.cmd, r.ended
	r.mu.Unlock()
	_ = cmd.Process.Kill() // it may have ended
	<-ended
}

// again kills the gateway and starts another in its place.
func (r *replica) again(t *testing.T) {
	t.Helper()
	r.kill()
	r.start(t)
}

// wait returns when the gateway answers, started again if it ended by itself: so
// does whoever runs one, when the database was not there at its start.
func (r *replica) wait(t *testing.T) {
	t.Helper()
	late := time.NewTimer(soakPatience)
	defer late.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		// It listens before it has opened its database: only an answer tells.
		conn := r.conn()
		a, err := conn.do(t.Context(), benchRequest(r.at, "GET", "/readyz", nil, nil), false)
		conn.close()
		if err == nil && a.ok() {
			return
		}
		select {
		case <-r.ended:
			r.start(t)
		case <-late.C:
			r.mu.Lock()
			defer r.mu.Unlock()
			t.Fatalf("the gateway does not answer: %v\n%s", err, r.said.String())
		case <-tick.C:
		}
	}
}

// conn returns a connection of the load to the gateway, which is not made yet.
func (r *replica) conn() *benchConn { return newBenchConn(r.at) }

// logOf keeps what a gateway logs.
type logOf struct{ *replica }

// Write implements [io.Writer].
func (l logOf) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.said.Write(b)
}
