package gateway_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/gateway"
	"github.com/enlist-mcp/enlist/gateway/wire"
)

// exchange is one literal exchange of a service's own documentation. It is
// read by nothing but net/http, so that a mistake in the wire types of both
// halves cannot hide.
type exchange struct {
	request  *http.Request
	body     []byte
	response *http.Response
	answer   []byte
}

func readExchange(t *testing.T, file string) exchange {
	t.Helper()
	archive, err := txtar.ParseFile(filepath.Join("wire", "testdata", file))
	if err != nil {
		t.Fatal(err)
	}
	var x exchange
	for _, f := range archive.Files {
		head, body, _ := bytes.Cut(f.Data, []byte("\n\n"))
		r := bufio.NewReader(strings.NewReader(string(head) + "\n\n"))
		switch f.Name {
		case "request.http":
			x.request, err = http.ReadRequest(r)
			x.body = body
		case "response.http":
			x.response, err = http.ReadResponse(r, nil)
			x.answer = body
		}
		if err != nil {
			t.Fatalf("%s: %s: %v", file, f.Name, err)
		}
	}
	if x.request == nil || x.response == nil {
		t.Fatalf("%s: no request or no response", file)
	}
	return x
}

// replay is a service that is in a transcript: each request must be the next
// one of it, and is answered with its answer.
func replay(t *testing.T, exchanges ...exchange) http.RoundTripper {
	t.Helper()
	var mu sync.Mutex
	next := 0
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if next == len(exchanges) {
			t.Errorf("%s %s: the transcript has ended", r.Method, r.URL)
			return
		}
		x := exchanges[next]
		next++
		compare(t, r, x)
		for name, values := range x.response.Header {
			w.Header()[name] = values
		}
		w.WriteHeader(x.response.StatusCode)
		_, _ = w.Write(x.answer)
	}))
	t.Cleanup(func() {
		srv.Close()
		if next != len(exchanges) {
			t.Errorf("got %d requests, want %d", next, len(exchanges))
		}
	})
	return &http.Transport{
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			if want := exchanges[0].request.Host + ":443"; addr != want {
				t.Errorf("dialled %s, want %s", addr, want)
			}
			return new(net.Dialer).DialContext(ctx, network, srv.Listener.Addr().String())
		},
		TLSClientConfig: &tls.Config{RootCAs: srv.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs, ServerName: "example.com"},
	}
}

// compare compares a request to the one of a transcript.
func compare(t *testing.T, r *http.Request, x exchange) {
	t.Helper()
	if got, want := r.Method+" "+r.RequestURI, x.request.Method+" "+x.request.RequestURI; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got, want := r.Host, x.request.Host; got != want {
		t.Errorf("got the host %q, want %q", got, want)
	}
	header := r.Header.Clone()
	for _, name := range []string{"Accept", "Accept-Encoding", "Content-Length", "User-Agent"} {
		header.Del(name) // every client sends these as it likes
	}
	for _, key := range header.Values("Idempotency-Key") {
		if _, ok := wire.ParseIdempotencyKey(key); !ok {
			t.Errorf("got the Idempotency-Key %s, want a string in quotes", key)
		}
	}
	header.Del("Idempotency-Key") // Enlist's own, and another each time
	if got, want := header, x.request.Header; !reflect.DeepEqual(got, want) {
		t.Errorf("got the headers %v, want %v", got, want)
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Error(err)
	}
	if len(x.body) == 0 {
		if len(body) != 0 {
			t.Errorf("got the body %s, want none", body)
		}
		return
	}
	var got, want any
	if err := json.Unmarshal(body, &got); err != nil {
		t.Errorf("the body is not JSON: %v", err)
	}
	if err := json.Unmarshal(x.body, &want); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got the body %s, want %s", body, x.body)
	}
}

func TestTranscriptOfLonaWithAnInvite(t *testing.T) {
	f := newFixture(t, setup{transport: replay(t,
		readExchange(t, "lona/request-invite.txtar"),
		readExchange(t, "lona/register-invite.txtar"),
		readExchange(t, "lona/strategies.txtar"),
	)})

	r, err := f.Lona.Register(t.Context(), gateway.LonaRegistration{
		AgentID: "my-agent", AgentName: "My Autonomous Agent", Source: "self-onboard",
	})
	if err != nil {
		t.Fatal(err)
	}

	wantRegistered(t, f, r, "lona_partner_my-agent_abc123xyz456_SecretKeyHere123")
	list, err := f.Lona.Strategies(t.Context(), r.Key)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(list), "[]"; got != want {
		t.Errorf("got the strategies %s, want %s", got, want)
	}
}

func TestTranscriptOfLonaWithTheSecret(t *testing.T) {
	f := newFixture(t, setup{
		env:       map[string]string{"LONA_AGENT_REGISTRATION_SECRET": "$AGENT_REGISTRATION_SECRET"},
		transport: replay(t, readExchange(t, "lona/register-secret.txtar")),
	})
	days := 30

	r, err := f.Lona.Register(t.Context(), gateway.LonaRegistration{
		AgentID: "moltbook-agent-123", AgentName: "Moltbook Promo Agent", Source: "moltbook", ExpiresInDays: &days,
	})
	if err != nil {
		t.Fatal(err)
	}

	wantRegistered(t, f, r, "lona_partner_moltbook-agent-123_abc123xyz456_SecretKeyHere123")
}

func wantRegistered(t *testing.T, f *fixture, r gateway.Registration, token string) {
	t.Helper()
	if got, want := r.ExpiresAt.UTC().Format("2006-01-02T15:04:05.000Z"), "2026-03-08T12:34:56.789Z"; got != want {
		t.Errorf("got expires_at %s, want %s", got, want)
	}
	if got, want := r.KeyID, "abc123xyz456"; got != want {
		t.Errorf("got the key id %q, want %q", got, want)
	}
	if got, want := r.Attrs["permissions"], "*"; got != want {
		t.Errorf("got the permissions %q, want %q", got, want)
	}
	if got, want := r.Key, (credstore.Key{
		Protocol: "lona", Origin: "https://gateway.lona.agency", Agent: r.Agent, Kind: credstore.KindToken,
	}); got != want {
		t.Errorf("got the key %+v, want %+v", got, want)
	}
	if got := f.secret(t, r.Key); got != token {
		t.Errorf("stored %q, want %q", got, token)
	}
}
