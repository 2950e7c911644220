package main

import (
	"io"
	"net"
	"net/http"
	"testing"
	"time"
)

// TestNobodyHoldsAConnectionByNotSending: neither who is refused before the body is
// read, nor who is read from; and who is being answered is not cut off.
func TestNobodyHoldsAConnectionByNotSending(t *testing.T) {
	began, release, cut := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	routes := http.NewServeMux()
	routes.HandleFunc("/refused", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) })
	routes.HandleFunc("/read", func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.ReadAll(r.Body); err != nil {
			w.WriteHeader(http.StatusBadRequest)
		}
	})
	routes.HandleFunc("/slow", func(_ http.ResponseWriter, r *http.Request) {
		close(began)
		<-release
		cut <- r.Context().Err()
	})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := mcpHTTPServer(t.Context(), routes, 200*time.Millisecond)
	go func() { _ = s.Serve(ln) }()
	t.Cleanup(func() { _ = s.Close() })

	answered := make(chan error, 1)
	go func() {
		resp, err := http.Post("http://"+ln.Addr().String()+"/slow", "text/plain", nil)
		if err == nil {
			err = resp.Body.Close()
		}
		answered <- err
	}()
	<-began
	for _, path := range []string{"/refused", "/read"} {
		conn, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(stopTime))
		if _, err := io.WriteString(conn, "POST "+path+" HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, conn); err != nil {
			t.Errorf("%s: the server still waits: %v", path, err)
		}
		_ = conn.Close()
	}
	close(release)
	if err := <-cut; err != nil {
		t.Errorf("what was being answered: %v", err)
	}
	if err := <-answered; err != nil {
		t.Errorf("the answer: %v", err)
	}
}
