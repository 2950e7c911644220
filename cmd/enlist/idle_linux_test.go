package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// TestIdleSessionsOfTheProgramAreCheap opens 500 sessions with a stream that
// nothing is sent on, over each transport, at the program itself: together they
// take less than 100 MiB of its memory.
func TestIdleSessionsOfTheProgramAreCheap(t *testing.T) {
	const each, limit = 500, 100 << 10 // KiB
	program := buildWith(t, nil)
	home := t.TempDir()
	cmd := exec.CommandContext(t.Context(), program, "mcp", "--http", "127.0.0.1:0")
	cmd.Env = []string{"HOME=" + home, "ENLIST_HOME=" + filepath.Join(home, "enlist"), "ENLIST_STORE=memory"}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	logged := make(chan struct{})
	defer func() {
		_ = cmd.Process.Signal(os.Interrupt)
		<-logged
		if err := cmd.Wait(); err != nil {
			t.Errorf("the program ended with %v", err)
		}
	}()
	lines := bufio.NewScanner(stderr)
	var url string
	for url == "" && lines.Scan() {
		if m := listening.FindStringSubmatch(lines.Text()); m != nil {
			url = m[1]
		}
	}
	go func() {
		defer close(logged)
		for lines.Scan() {
			continue
		}
	}()
	key, err := os.ReadFile(filepath.Join(home, "enlist", "mcp-token"))
	if err != nil {
		t.Fatal(err)
	}
	authorization := "Bearer " + strings.TrimSpace(string(key))
	begin := func() string {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+"/mcp", strings.NewReader(
			`{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"t","version":"1"}}}`))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", authorization)
		req.Header.Set("Content-Type", "application/json")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		_, _ = io.Copy(io.Discard, resp.Body)
		return resp.Header.Get("Mcp-Session-Id")
	}
	begin()
	before := residentKiB(t, cmd.Process.Pid)
	for _, path := range []string{"/mcp", "/sse"} {
		for range each {
			header := ""
			if path == "/mcp" {
				header = "Mcp-Session-Id: " + begin() + "\r\n"
			}
			conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: localhost\r\nAuthorization: %s\r\n%s\r\n", path, authorization, header)
			status := make([]byte, len("HTTP/1.1 200"))
			if _, err := io.ReadFull(conn, status); err != nil || string(status) != "HTTP/1.1 200" {
				t.Fatalf("got %q (%v), want a stream", status, err)
			}
		}
	}
	grown := residentKiB(t, cmd.Process.Pid) - before
	t.Logf("%d KiB for %d sessions of each transport", grown, each)
	if grown > limit {
		t.Errorf("%d sessions of each transport take %d MiB", each, grown>>10)
	}
}

var resident = regexp.MustCompile(`VmRSS:\s+(\d+) kB`)

func residentKiB(t testing.TB, pid int) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	m := resident.FindSubmatch(status)
	if m == nil {
		t.Fatalf("no resident memory in %s", status)
	}
	n, err := strconv.Atoi(string(m[1]))
	if err != nil {
		t.Fatal(err)
	}
	return n
}
