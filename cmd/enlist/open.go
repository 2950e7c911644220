package main

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/embeddedgateway"
	"github.com/enlist-mcp/enlist/gateway"
	"github.com/enlist-mcp/enlist/gateway/wire"
)

// client is the client half with everything it stands on.
type client struct {
	*gateway.Client
	store    credstore.Store
	embedded *embedded
}

// openClient opens the user's store and the client half over it. Nothing is
// read, written or connected before it is needed: an MCP client waits for us.
func (p *program) openClient() (*client, error) {
	options, err := p.storeOptions()
	if err != nil {
		return nil, err
	}
	store, err := credstore.Open(options)
	if err != nil && p.flags.store != "" {
		return nil, &usageError{err}
	}
	if err != nil {
		return nil, err
	}
	e := newEmbedded(p, options.Home)
	origins := map[string]string{}
	if p.flags.embedded {
		for _, protocol := range wire.Protocols() {
			origins[protocol.Name] = embeddedgateway.Origin
		}
	}
	c, err := gateway.New(gateway.Options{
		Store:     waitedStore{store, p.waits()},
		Home:      journalHome(options),
		Policy:    filepath.Join(options.Home, gateway.PolicyFile),
		Env:       p.env,
		Origins:   origins,
		Transport: waitedTransport{e, p.waits()},
		Sleep:     p.pause,
		Now:       p.now,
		Logger:    p.logger(),
		Version:   version(),
	})
	if err != nil {
		return nil, err
	}
	return &client{Client: c, store: store, embedded: e}, nil
}

// journalHome returns the folder of the journal: none where the store leaves the
// home alone.
func journalHome(o credstore.Options) string {
	if o.Mode == credstore.ModeMemory {
		return ""
	}
	return o.Home
}

// Close ends the embedded gateway, if one was started, and the store.
func (c *client) Close() error {
	err := errors.Join(c.Client.Close(), c.embedded.Close())
	if store, ok := c.store.(io.Closer); ok {
		err = errors.Join(err, store.Close())
	}
	return err
}

// embedded is the transport of the client half: it reaches the origin of the
// embedded gateway inside this process, without a socket, and every other
// origin as usual; with --embedded, no other. The gateway starts with the first
// request to it; its database lies in ENLIST_HOME and is shared by every
// process of the user.
type embedded struct {
	p              *program
	home           string
	direct, inside *http.Transport

	mu      sync.Mutex
	gateway *embeddedgateway.Gateway
}

func newEmbedded(p *program, home string) *embedded {
	e := &embedded{p: p, home: home, direct: gateway.NewTransport(nil)}
	e.inside = gateway.NewTransport(func(ctx context.Context, network, addr string) (net.Conn, error) {
		g, err := e.open(context.WithoutCancel(ctx)) // it outlives the request that starts it
		if err != nil {
			return nil, &gateway.LocalError{
				Why:    "The gateway inside Enlist could not be started: " + err.Error() + ".",
				Remedy: "Ask the person to look at the data folder " + home + " and its disk, then try again.",
			}
		}
		return g.DialContext(ctx, network, addr)
	})
	return e
}

// RoundTrip implements [http.RoundTripper].
func (e *embedded) RoundTrip(req *http.Request) (*http.Response, error) {
	inside := req.URL.Scheme+"://"+req.URL.Host == embeddedgateway.Origin
	switch {
	case inside && e.p.flags.embedded:
		return e.inside.RoundTrip(req)
	case inside: // port 80 of this machine may be anybody's
		return nil, &gateway.LocalError{
			Why:    embeddedgateway.Origin + " is the gateway inside Enlist, which was started without it.",
			Remedy: "Ask the person to start Enlist with --embedded, or use a credential of the real service; register there if there is none.",
		}
	case e.p.flags.embedded:
		return nil, &gateway.LocalError{
			Why:    "Enlist was started with --embedded, so it is offline: no request goes to " + req.URL.Host + ".",
			Remedy: "Ask the person to start Enlist without --embedded, or use a credential of the gateway inside Enlist; register there if there is none.",
		}
	}
	return e.direct.RoundTrip(req)
}

// open returns the gateway, started at the first call.
func (e *embedded) open(ctx context.Context) (*embeddedgateway.Gateway, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.gateway != nil {
		return e.gateway, nil
	}
	if err := os.MkdirAll(e.home, 0o700); err != nil {
		return nil, err
	}
	g, err := embeddedgateway.New(ctx, embeddedgateway.Config{
		Database:       "sqlite:" + filepath.Join(e.home, embeddedDatabase),
		Env:            e.env,
		LonaStrategies: sampleStrategies(),
		Now:            e.p.now,
		Logger:         e.p.logger(),
		Wrap:           e.p.wrapGateway,
	})
	if err != nil {
		return nil, err
	}
	e.gateway = g
	return g, nil
}

// env is the user's environment, but that both halves of this process have the
// same registration secret: without one of its own the gateway would refuse
// the client's.
func (e *embedded) env(name string) string {
	if name == "AGENT_REGISTRATION_SECRET" {
		return first(e.p.env(name), e.p.env("LONA_AGENT_REGISTRATION_SECRET"))
	}
	return e.p.env(name)
}

// Close ends the gateway if it was started.
func (e *embedded) Close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.gateway == nil {
		return nil
	}
	return e.gateway.Close()
}
