package main

import (
	"context"
	"io"
	"net/http"
	"time"

	"github.com/enlist-mcp/enlist/credstore"
)

// waits returns the spinner of this run. It has a terminal for a command that a
// person waits for; a server has a log there.
func (p *program) waits() *spinner {
	if p.spins == nil {
		p.spins = &spinner{now: p.now}
		if f, ok := terminal(p.stderr); ok && !p.serves && p.obeys(f) {
			p.spins.out = f
			p.spins.width = func() int { return p.widthOf(f) }
		}
	}
	return p.spins
}

// pause waits before a request is tried again, or less long when ctx ends.
func (p *program) pause(ctx context.Context, d time.Duration) error {
	defer p.waits().wait("waiting to try again")()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// waitedStore is a store that a person may have to wait for.
type waitedStore struct {
	credstore.Store
	on *spinner
}

// wait says that the store is waited for.
func (s waitedStore) wait(ctx context.Context) (done func()) {
	if s.on.out == nil {
		return func() {}
	}
	what := "waiting for the keyring"
	switch backend, err := s.Backend(ctx); {
	case err != nil:
		what = "waiting for the credential store"
	case backend == credstore.ModeFile:
		what = "opening the encrypted file"
	}
	return s.on.wait(what)
}

// Get implements [credstore.Store].
func (s waitedStore) Get(ctx context.Context, k credstore.Key) (credstore.Credential, error) {
	defer s.wait(ctx)()
	return s.Store.Get(ctx, k)
}

// Put implements [credstore.Store].
func (s waitedStore) Put(ctx context.Context, c credstore.Credential) error {
	defer s.wait(ctx)()
	return s.Store.Put(ctx, c)
}

// Delete implements [credstore.Store].
func (s waitedStore) Delete(ctx context.Context, k credstore.Key) error {
	defer s.wait(ctx)()
	return s.Store.Delete(ctx, k)
}

// List implements [credstore.Store].
func (s waitedStore) List(ctx context.Context, protocol string) ([]credstore.Info, error) {
	defer s.wait(ctx)()
	return s.Store.List(ctx, protocol)
}

// Lock implements [credstore.Store].
func (s waitedStore) Lock(ctx context.Context, k credstore.Key) (unlock func(), err error) {
	defer s.on.wait("waiting for another process that uses " + k.Protocol + "/" + k.Agent)()
	return s.Store.Lock(ctx, k)
}

// waitedTransport is a transport whose answers a person may have to wait for.
type waitedTransport struct {
	http.RoundTripper
	on *spinner
}

// RoundTrip implements [http.RoundTripper].
func (t waitedTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	done := t.on.wait("waiting for " + req.URL.Host)
	resp, err := t.RoundTripper.RoundTrip(req)
	if err != nil {
		done()
		return nil, err
	}
	resp.Body = waitedBody{resp.Body, done}
	return resp, nil
}

// waitedBody is the body of an answer. Whoever reads it closes it.
type waitedBody struct {
	io.ReadCloser
	done func()
}

// Close implements [io.Closer].
func (b waitedBody) Close() error {
	defer b.done()
	return b.ReadCloser.Close()
}
