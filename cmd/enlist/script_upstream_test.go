package main

import (
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// apiCommand begins an API that knows nothing of agents until the script ends, and
// sets NAME_URL. It answers what it gets: the first line, the headers and the
// trailers, each in a line. With a certificate (see certificate) it speaks TLS.
//
//	api NAME [CERTIFICATE]
func apiCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 && len(args) != 2 {
		ts.Fatalf("usage: api NAME [CERTIFICATE]")
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	api := &httptest.Server{Listener: ln, Config: &http.Server{Handler: http.HandlerFunc(echo), ReadHeaderTimeout: stopTime}}
	ts.Defer(api.Close)
	if len(args) == 1 {
		api.Start()
		ts.Setenv(args[0]+"_URL", api.URL)
		return
	}
	cert, err := newCertificate(ts.MkAbs(args[1]+".crt"), ts.MkAbs(args[1]+".key"), nil)
	ts.Check(err)
	api.TLS = cert.config()
	api.StartTLS()
	ts.Setenv(args[0]+"_URL", api.URL)
}

// echo answers a request with itself.
func echo(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	fmt.Fprintln(w, r.Method, r.RequestURI)
	for _, part := range []struct {
		what   string
		header http.Header
	}{{"", r.Header}, {"trailer ", r.Trailer}} {
		for _, name := range slices.Sorted(maps.Keys(part.header)) {
			for _, value := range part.header[name] {
				fmt.Fprintln(w, part.what+name+": "+value)
			}
		}
	}
}

// sendCommand sends a file to a server as it is, but that lines end as in HTTP and
// that variables of the script stand in it, as $NAME. The whole answer is in the
// file "answer" then.
//
//	send URL FILE
func sendCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: send URL FILE")
	}
	to, err := url.Parse(args[0])
	ts.Check(err)
	conn, err := net.Dial("tcp", to.Host)
	ts.Check(err)
	defer conn.Close()
	ts.Check(conn.SetDeadline(time.Now().Add(stopTime)))
	text := os.Expand(ts.ReadFile(args[1]), ts.Getenv)
	_, err = io.WriteString(conn, strings.ReplaceAll(text, "\n", "\r\n"))
	ts.Check(err)
	answer, err := io.ReadAll(conn)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs("answer"), []byte(strings.ReplaceAll(string(answer), "\r\n", "\n")), 0o600))
}
