package pgtest

import (
	"net"
	"net/url"
	"sync"
	"testing"
	"time"
)

// relay gives connections to the server of a database's URL to serve, which closes
// both ends, and returns the URL by way of it.
func relay(t testing.TB, database string, serve func(client, server net.Conn)) string {
	t.Helper()
	u, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // at once
	if err != nil {
		t.Fatal(err)
	}
	to := u.Host
	var all sync.WaitGroup
	all.Go(func() {
		for {
			client, err := ln.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", to) //nolint:noctx // at once
			if err != nil {
				_ = client.Close()
				continue
			}
			all.Go(func() { serve(client, server) })
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		all.Wait() // whoever has a connection has closed it: it was opened later
	})
	u.Host = ln.Addr().String()
	return u.String()
}

// Far returns a way to the database of a URL that takes so long in each direction,
// as one to another data center does.
func Far(t testing.TB, database string, takes time.Duration) string {
	t.Helper()
	return relay(t, database, func(client, server net.Conn) {
		var both sync.WaitGroup
		both.Go(func() { late(client, server, takes) })
		both.Go(func() { late(server, client, takes) })
		both.Wait()
	})
}

// late passes on what one end says to the other, so much later.
func late(from, to net.Conn, by time.Duration) {
	type part struct {
		text []byte
		due  <-chan time.Time
	}
	const most = 1 << 10 // parts that are under way
	way := make(chan part, most)
	go func() {
		defer close(way)
		for {
			text := make([]byte, 16<<10)
			n, err := from.Read(text)
			if n > 0 {
				way <- part{text[:n], time.After(by)}
			}
			if err != nil {
				return
			}
		}
	}()
	for p := range way {
		<-p.due
		if _, err := to.Write(p.text); err != nil {
			break
		}
	}
	_ = to.Close()
	_ = from.Close()
	for range way { // until the reader has gone
	}
}
