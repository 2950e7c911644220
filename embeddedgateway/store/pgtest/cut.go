package pgtest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
)

// Cutter stands between a program and its server, and ends a connection exactly
// where it commits.
type Cutter struct {
	// URL is the database, by way of the cutter.
	URL string

	cuts atomic.Int32

	mu   sync.Mutex
	mode cutMode
	skip int // COMMITs that pass before
}

// cutMode is where a connection is cut.
type cutMode int

const (
	cutNowhere cutMode = iota
	cutBefore
	cutAfter
)

// Cut returns a way to the database of a URL that can be cut. Nothing is cut
// until [Cutter.Before] or [Cutter.After] is called.
func Cut(t testing.TB, database string) *Cutter {
	t.Helper()
	c := &Cutter{}
	c.URL = relay(t, database, func(client, server net.Conn) {
		l := &link{Cutter: c, client: client, server: server}
		var both sync.WaitGroup
		both.Go(l.up)
		both.Go(l.down)
		both.Wait()
	})
	return c
}

// Before ends the connection of a COMMIT, the first after so many others, which
// the server does not get: nothing of the transaction is written.
func (c *Cutter) Before(skip int) { c.set(cutBefore, skip) }

// After ends the connection of a COMMIT, the first after so many others, when the
// server has done it and said so: all is written, and nobody is told.
func (c *Cutter) After(skip int) { c.set(cutAfter, skip) }

// Nowhere has everything pass again.
func (c *Cutter) Nowhere() { c.set(cutNowhere, 0) }

func (c *Cutter) set(mode cutMode, skip int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mode, c.skip = mode, skip
}

// commit says what to do with a COMMIT.
func (c *Cutter) commit() cutMode {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mode == cutNowhere {
		return cutNowhere
	}
	if c.skip > 0 {
		c.skip--
		return cutNowhere
	}
	mode := c.mode
	c.mode = cutNowhere
	return mode
}

// Cuts is how many connections were cut.
func (c *Cutter) Cuts() int { return int(c.cuts.Load()) }

// link is one connection.
type link struct {
	*Cutter
	client, server net.Conn
	commits        atomic.Bool // the answer to its COMMIT is not passed on
}

func (l *link) close() {
	_ = l.client.Close()
	_ = l.server.Close()
}

// up passes on what the program says.
func (l *link) up() {
	defer l.close()
	first := true
	for {
		m, err := message(l.client, first)
		if err != nil {
			return
		}
		first = false
		if m[0] == 'Q' && bytes.EqualFold(m[5:], []byte("commit\x00")) {
			switch l.commit() {
			case cutBefore:
				l.cuts.Add(1)
				return
			case cutAfter:
				l.commits.Store(true)
			case cutNowhere:
			}
		}
		if _, err := l.server.Write(m); err != nil {
			return
		}
	}
}

// down passes on what the server says.
func (l *link) down() {
	defer l.close()
	for {
		m, err := message(l.server, false)
		if err != nil {
			return
		}
		if l.commits.Load() && m[0] == 'C' {
			l.cuts.Add(1)
			return
		}
		if _, err := l.client.Write(m); err != nil {
			return
		}
	}
}

// message reads one message of PostgreSQL's protocol: a byte that says which one
// it is, unless it is the first of a program, its length, and what it says.
func message(from io.Reader, first bool) ([]byte, error) {
	head := make([]byte, 5)
	if first {
		head = head[:4]
	}
	if _, err := io.ReadFull(from, head); err != nil {
		return nil, err
	}
	length := binary.BigEndian.Uint32(head[len(head)-4:])
	if length < 4 || length > 1<<24 {
		return nil, errors.New("this is not PostgreSQL's protocol")
	}
	m := append(head, make([]byte, length-4)...)
	_, err := io.ReadFull(from, m[len(head):])
	return m, err
}
