package server_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"

	"github.com/mark3labs/mcp-go/mcp"

	"github.com/enlist-mcp/enlist/server"
)

// idleSessions is how many sessions of each transport with an open stream there
// must be room for, in idleMemory bytes for each transport.
const (
	idleSessions = 500
	idleMemory   = 100 << 20
)

// occupy opens n sessions of a transport with a stream each that nobody sends
// anything on, and returns what ends them.
func (r *rig) occupy(tb testing.TB, url, transport string, n int) (leave func()) {
	tb.Helper()
	conns := make([]net.Conn, 0, n)
	for range n {
		path, session := "/sse", ""
		if transport == "streamable HTTP" {
			path = "/mcp"
			session = "Mcp-Session-Id: " + r.session(url)["Mcp-Session-Id"] + "\r\n"
		}
		conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
		if err != nil {
			tb.Fatal(err)
		}
		conns = append(conns, conn)
		fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\n%s\r\n", path, bearer, session)
		status := make([]byte, len("HTTP/1.1 200"))
		if _, err := conn.Read(status); err != nil || string(status) != "HTTP/1.1 200" {
			tb.Fatalf("got %q (%v)", status, err)
		}
	}
	return func() {
		for _, conn := range conns {
			conn.Close()
		}
	}
}

// inUse returns how much memory this process uses, with what only its clients use.
func inUse() uint64 {
	runtime.GC()
	runtime.GC() // what finalizers held
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse + m.StackInuse
}

func TestIdleSessionsAreCheap(t *testing.T) {
	for _, transport := range []string{"streamable HTTP", "SSE"} {
		t.Run(transport, func(t *testing.T) {
			r := newRig(t, nowhere)
			url := r.serve()
			r.occupy(t, url, transport, 1)()
			before := inUse()
			leave := r.occupy(t, url, transport, idleSessions)
			after := inUse()
			leave()
			if after > before+idleMemory {
				t.Errorf("%d idle sessions take %d MiB", idleSessions, (after-before)>>20)
			}
			t.Logf("%d KiB a session", (after-min(before, after))/idleSessions>>10)
		})
	}
}

// BenchmarkIdleSession reports what a session with an open stream takes.
func BenchmarkIdleSession(b *testing.B) {
	for _, transport := range []string{"streamable HTTP", "SSE"} {
		b.Run(transport, func(b *testing.B) {
			r := newRig(b, nowhere)
			url := r.serve()
			r.occupy(b, url, transport, 1)()
			before := inUse()
			b.ResetTimer()
			n := min(b.N, idleSessions)
			leave := r.occupy(b, url, transport, n)
			b.StopTimer()
			b.ReportMetric(float64(inUse()-before)/float64(n), "bytes/session")
			leave()
		})
	}
}

// What sessions took is given back when they end, and nothing else is left.
func TestSessionsThatEndLeaveNothing(t *testing.T) {
	r := newRig(t, nowhere)
	h := r.handler(server.HTTPConfig{})
	r.tool("quick", func(context.Context, mcp.CallToolRequest) (*mcp.CallToolResult, error) {
		return mcp.NewToolResultText(strings.Repeat("x", 10<<10)), nil
	})
	ask := func(method, body, session string) *httptest.ResponseRecorder {
		req := httptest.NewRequestWithContext(t.Context(), method, "http://localhost/mcp", strings.NewReader(body))
		req.Header.Set("Authorization", "Bearer "+bearer)
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Accept", "application/json, text/event-stream")
		req.Header.Set("Mcp-Session-Id", session)
		req.Header.Set("Mcp-Protocol-Version", "2025-11-25")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, req)
		if w.Code != http.StatusOK && (method != http.MethodGet || w.Code != http.StatusNotFound) { // it may come too late
			t.Errorf("%s: got %d: %s", method, w.Code, w.Body)
		}
		return w
	}
	use := func(n int) {
		for range n {
			session := ask(http.MethodPost, message(0, "initialize", initialize), "").Header().Get("Mcp-Session-Id")
			listened := async(func() bool { ask(http.MethodGet, "", session); return true })
			for i := range 4 {
				ask(http.MethodPost, message(i, "tools/call", `"name":"quick"`), session)
			}
			ask(http.MethodDelete, "", session)
			<-listened
		}
	}
	use(10)
	before := inUse()
	const sessions = 200
	use(sessions)
	if after := inUse(); after > before+sessions*8<<10 { // 40 KiB went out in each
		t.Errorf("%d sessions left %d KiB each", sessions, (after-before)>>10/sessions)
	}
}
