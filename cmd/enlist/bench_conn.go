package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http/httputil"
	"net/url"
	"strconv"
	"time"
)

const (
	benchTimeout = 30 * time.Second // one request of the load, or up to twice that
	benchIdle    = 2 * time.Second  // servers close a connection that is idle for longer, as Node.js does after 5
	benchMaxBody = 1 << 20
)

// benchConn is one keep-alive connection of the load generator. It speaks just
// the HTTP/1.1 that an answer needs: generator and service mostly share a
// machine, and what net/http's client costs would be missing on the other side.
type benchConn struct {
	at   *url.URL
	conn net.Conn
	in   *bufio.Reader
	body []byte // of the last answer that was kept

	used     time.Time // last
	deadline time.Time // of what is read and written; moved on now and then
}

// benchAnswer is what came of a request.
type benchAnswer struct {
	status     int
	retryAfter time.Duration
	body       []byte // good until the next request; nil unless it was asked for
}

// ok reports whether the service did what was asked.
func (a benchAnswer) ok() bool { return a.status >= 200 && a.status < 300 }

func newBenchConn(at *url.URL) *benchConn { return &benchConn{at: at} }

func (c *benchConn) close() {
	if c.conn != nil {
		_ = c.conn.Close()
		c.conn = nil
	}
}

func (c *benchConn) dial(ctx context.Context) (err error) {
	port := c.at.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[c.at.Scheme]
	}
	addr := net.JoinHostPort(c.at.Hostname(), port)
	if c.at.Scheme == "https" {
		d := tls.Dialer{Config: &tls.Config{ServerName: c.at.Hostname(), MinVersion: tls.VersionTLS12}}
		c.conn, err = d.DialContext(ctx, "tcp", addr)
	} else {
		var d net.Dialer
		c.conn, err = d.DialContext(ctx, "tcp", addr)
	}
	if err != nil {
		c.conn = nil
		return err
	}
	if c.in == nil {
		c.in = bufio.NewReaderSize(c.conn, 4<<10)
	} else {
		c.in.Reset(c.conn)
	}
	return nil
}

// do sends a whole request, as [benchRequest] makes it, and reads its answer.
// With keep the answer has the body. After an error the next request dials anew.
func (c *benchConn) do(ctx context.Context, request []byte, keep bool) (a benchAnswer, err error) {
	if err := ctx.Err(); err != nil {
		return a, err
	}
	now := time.Now()
	if now.Sub(c.used) > benchIdle {
		c.close()
	}
	c.used = now
	if c.conn == nil {
		if err := c.dial(ctx); err != nil {
			return a, err
		}
		c.deadline = time.Time{}
	}
	if c.deadline.Sub(now) < benchTimeout {
		c.deadline = now.Add(2 * benchTimeout)
		if err := c.conn.SetDeadline(c.deadline); err != nil {
			return a, err
		}
	}
	goesOn := false
	if _, err = c.conn.Write(request); err == nil {
		a, goesOn, err = c.answer(bytes.HasPrefix(request, []byte("HEAD ")), keep)
	}
	if err != nil || !goesOn {
		c.close()
	}
	return a, err
}

// answer reads an answer, and says whether the connection goes on behind it.
func (c *benchConn) answer(head, keep bool) (a benchAnswer, goesOn bool, err error) {
	line, err := c.in.ReadSlice('\n')
	if err != nil {
		return a, false, err
	}
	if len(line) < 12 || !bytes.HasPrefix(line, []byte("HTTP/1.")) {
		return a, false, errors.New("what answers does not speak HTTP/1.1")
	}
	if a.status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return a, false, errors.New("what answers does not speak HTTP/1.1")
	}
	length, chunked, goesOn := -1, false, true
	for {
		line, err = c.in.ReadSlice('\n')
		if err != nil {
			return a, false, err
		}
		if line = bytes.TrimRight(line, "\r\n"); len(line) == 0 {
			break
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimSpace(value)
		switch len(name) { // few are looked at
		case len("Content-Length"):
			if bytes.EqualFold(name, []byte("Content-Length")) {
				if length, err = strconv.Atoi(string(value)); err != nil || length > benchMaxBody {
					return a, false, errors.New("an answer is too large, or does not say how long it is")
				}
			}
		case len("Transfer-Encoding"):
			chunked = chunked || bytes.EqualFold(name, []byte("Transfer-Encoding"))
		case len("Retry-After"): // and Connection is one shorter
			if bytes.EqualFold(name, []byte("Retry-After")) {
				seconds, _ := strconv.Atoi(string(value))
				a.retryAfter = time.Duration(seconds) * time.Second
			}
		case len("Connection"):
			if bytes.EqualFold(name, []byte("Connection")) && bytes.EqualFold(value, []byte("close")) {
				goesOn = false
			}
		}
	}
	if head || a.status == 204 || a.status == 304 {
		return a, goesOn, nil
	}
	a.body, err = c.readBody(length, chunked, keep)
	return a, goesOn && (chunked || length >= 0), err
}

func (c *benchConn) readBody(length int, chunked, keep bool) ([]byte, error) {
	if length >= 0 && !chunked {
		if !keep {
			_, err := c.in.Discard(length)
			return nil, err
		}
		if cap(c.body) < length {
			c.body = make([]byte, length)
		}
		c.body = c.body[:length]
		_, err := io.ReadFull(c.in, c.body)
		return c.body, err
	}
	from := io.Reader(c.in) // until the connection ends
	if chunked {
		from = httputil.NewChunkedReader(c.in)
	}
	body, err := io.ReadAll(io.LimitReader(from, benchMaxBody))
	if err != nil || !chunked {
		return body, err
	}
	for { // behind the last chunk: trailers and an empty line
		line, err := c.in.ReadSlice('\n')
		if err != nil || len(bytes.TrimRight(line, "\r\n")) == 0 {
			return body, err
		}
	}
}

// benchRequest writes a request out, with a body where there is one.
func benchRequest(at *url.URL, method, path string, header [][2]string, body []byte) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s%s HTTP/1.1\r\nHost: %s\r\n", method, at.EscapedPath(), path, at.Host)
	for _, h := range header {
		if h[1] != "" {
			fmt.Fprintf(&b, "%s: %s\r\n", h[0], h[1])
		}
	}
	if body != nil {
		fmt.Fprintf(&b, "Content-Type: application/json\r\nContent-Length: %d\r\n", len(body))
	} else if method == "POST" {
		b.WriteString("Content-Length: 0\r\n")
	}
	b.WriteString("\r\n")
	b.Write(body)
	return b.Bytes()
}
