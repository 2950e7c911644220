package embeddedgateway_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/embeddedgateway"
)

// leaver is a client that asks over and over by connections that it keeps, one
// after the other, and leaves each when it is told to. It repeats nothing: what
// gets no answer is lost.
type leaver struct {
	addr, request string
	answered      *atomic.Int64
	enough        chan struct{} // closed with the 500th answer
}

// run asks until it has no connection left, and returns what was lost.
func (l leaver) run(conns int) (lost []error) {
	type kept struct {
		net.Conn
		*bufio.Reader
	}
	var open []kept
	for range conns {
		conn, err := net.Dial("tcp", l.addr)
		if err != nil {
			return []error{err}
		}
		defer conn.Close()
		open = append(open, kept{conn, bufio.NewReader(conn)})
	}
	for i := 0; len(open) > 0; i++ {
		at := i % len(open)
		leave, err := l.ask(open[at].Conn, open[at].Reader)
		if err != nil {
			lost = append(lost, fmt.Errorf("request %d: %w", i, err))
		}
		if leave || err != nil {
			open = append(open[:at], open[at+1:]...)
		}
	}
	return lost
}

func (l leaver) ask(conn net.Conn, r *bufio.Reader) (leave bool, err error) {
	if _, err := io.WriteString(conn, l.request); err != nil {
		return true, err
	}
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		return true, err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return true, err
	}
	if l.answered.Add(1) == 500 {
		close(l.enough)
	}
	return resp.Close, nil
}

// TestTheEndLosesNoRequest ends a gateway while clients ask over connections that
// they keep: each request is answered, and each connection told to leave that is
// used. One that is not is closed without a byte: what is sent by it just then is
// lost by HTTP/1.1, whose clients must expect that and may ask again.
func TestTheEndLosesNoRequest(t *testing.T) {
	for name, path := range map[string]string{"itself": "/health", "upstream": "/r"} {
		t.Run(name, func(t *testing.T) {
			for range 2 {
				gw, key := inFront(t, hello, embeddedgateway.Front{})
				url, stop, ended := served(t, gw, time.Minute)
				addr := strings.TrimPrefix(url, "http://")
				var answered atomic.Int64
				l := leaver{addr, "GET " + path + " HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + key + "\r\n\r\n", &answered, make(chan struct{})}
				var all sync.WaitGroup
				for range 16 {
					all.Go(func() {
						for _, err := range l.run(4) {
							t.Errorf("lost: %v", err)
						}
					})
				}
				unused, err := net.Dial("tcp", addr)
				if err != nil {
					t.Fatal(err)
				}
				defer unused.Close()
				r := bufio.NewReader(unused)
				if leave, err := l.ask(unused, r); leave || err != nil {
					t.Fatalf("before the end: told to leave: %t, %v", leave, err)
				}
				<-l.enough
				stop()
				all.Wait()
				if _, err := r.ReadByte(); !errors.Is(err, io.EOF) {
					t.Errorf("a connection that nobody used ends with %v", err)
				}
				if err := <-ended; err != nil {
					t.Error(err)
				}
			}
		})
	}
}
