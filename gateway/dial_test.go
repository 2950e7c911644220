package gateway_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/gateway"
)

func TestNamesUnderLocalhostAreThisMachine(t *testing.T) {
	s := newService(t)
	port := s.URL[strings.LastIndex(s.URL, ":"):]
	for _, host := range []string{"localhost", "enlist.localhost", "no.such.name.LOCALHOST"} {
		f := newFixture(t, setup{env: map[string]string{"LONA_GATEWAY_URL": "http://" + host + port}})
		if r := f.register(t, "my-agent"); r.Origin != "http://"+strings.ToLower(host)+port {
			t.Errorf("got the origin %q", r.Origin)
		}
	}
}

func TestTheTransportUsesNoProxy(t *testing.T) {
	if gateway.NewTransport(nil).Proxy != nil {
		t.Error("got a proxy, want none")
	}
}

func TestTheTransportDialsAsItIsTold(t *testing.T) {
	s := newService(t)
	f := newFixture(t, setup{
		env: map[string]string{"LONA_GATEWAY_URL": "http://enlist.localhost"},
		transport: gateway.NewTransport(func(ctx context.Context, network, addr string) (net.Conn, error) {
			if addr != "enlist.localhost:80" {
				t.Errorf("dialled %s", addr)
			}
			return new(net.Dialer).DialContext(ctx, network, strings.TrimPrefix(s.URL, "http://"))
		}),
	})

	if got, want := f.Lifecycle.Handle(f.register(t, "my-agent").Key), "lona/my-agent"; got != want {
		t.Errorf("got the handle %q, want %q", got, want)
	}
}

func TestSleepEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := gateway.Sleep(ctx, time.Hour); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want that the context has ended", err)
	}
	if err := gateway.Sleep(t.Context(), time.Nanosecond); err != nil {
		t.Errorf("got %v, want none", err)
	}
}

func TestErrorsReadWell(t *testing.T) {
	for want, err := range map[string]error{
		"request an invite at https://example.com: rate_limited (HTTP 429): slow down": &gateway.Error{
			Origin: "https://example.com", Op: "request an invite", Status: 429, Code: "rate_limited", Message: "slow down",
		},
		"register at https://example.com: timeout: no answer": &gateway.Error{
			Origin: "https://example.com", Op: "register", Code: gateway.CodeTimeout, Cause: errors.New("no answer"),
		},
		"lona has no call to revoke a credential. Forget it.": &gateway.UnsupportedError{Protocol: "lona", Op: "revoke", Instead: "Forget it."},
		"Not so.":                &gateway.RefusedError{Why: "Not so."},
		"Not so. Use x instead.": &gateway.RefusedError{Why: "Not so.", Tool: "x"},
		"No match.":              &gateway.ResolveError{Why: "No match."},
	} {
		if got := err.Error(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
