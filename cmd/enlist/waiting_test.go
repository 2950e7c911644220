package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/enlist-mcp/enlist/credstore"
)

// lateStore answers a second late, as a keyring that asks a person does.
type lateStore struct {
	credstore.Store
	backend string
	err     error
}

func (s lateStore) Backend(context.Context) (string, error) { return s.backend, s.err }

func (s lateStore) Get(ctx context.Context, k credstore.Key) (credstore.Credential, error) {
	<-time.After(time.Second)
	return s.Store.Get(ctx, k)
}

func (s lateStore) Put(ctx context.Context, c credstore.Credential) error {
	<-time.After(time.Second)
	return s.Store.Put(ctx, c)
}

func (s lateStore) Delete(ctx context.Context, k credstore.Key) error {
	<-time.After(time.Second)
	return s.Store.Delete(ctx, k)
}

func (s lateStore) List(ctx context.Context, protocol string) ([]credstore.Info, error) {
	<-time.After(time.Second)
	return s.Store.List(ctx, protocol)
}

func (s lateStore) Lock(ctx context.Context, k credstore.Key) (func(), error) {
	<-time.After(time.Second)
	return s.Store.Lock(ctx, k)
}

func TestStoreIsWaitedFor(t *testing.T) {
	key := credstore.Key{Protocol: "lona", Origin: "https://example.com", Agent: "my-agent", Kind: "token"}
	ctx := context.Background()
	for name, call := range map[string]func(credstore.Store) error{
		"get":    func(s credstore.Store) error { _, err := s.Get(ctx, key); return err },
		"put":    func(s credstore.Store) error { return s.Put(ctx, credstore.Credential{Info: credstore.Info{Key: key}}) },
		"delete": func(s credstore.Store) error { return s.Delete(ctx, key) },
		"list":   func(s credstore.Store) error { _, err := s.List(ctx, ""); return err },
		"lock": func(s credstore.Store) error {
			unlock, err := s.Lock(ctx, key)
			unlock()
			return err
		},
	} {
		for _, test := range []struct {
			backend string
			err     error
			want    string
		}{
			{credstore.ModeKeyring, nil, "waiting for the keyring"},
			{credstore.ModeAuto, nil, "waiting for the keyring"},
			{credstore.ModeFile, nil, "opening the encrypted file"},
			{"", errors.New("no"), "waiting for the credential store"},
		} {
			want := test.want
			if name == "lock" {
				want = "waiting for another process that uses lona/my-agent"
			}
			synctest.Test(t, func(t *testing.T) {
				s, drawn := spinning(80)
				_ = call(waitedStore{lateStore{credstore.NewMemory(time.Now), test.backend, test.err}, s}) // there may be no such credential
				if got := drawn.String(); !strings.HasPrefix(got, clearLine+"⠋ "+want+clearLine) || !strings.HasSuffix(got, want+clearLine) {
					t.Errorf("%s with %q: got %q, want %s", name, test.backend, got, want)
				}
			})
		}
	}
}

// roundTrip is a transport.
type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// TestAnswersAreWaitedFor: until they are read to the end, or there is none.
func TestAnswersAreWaitedFor(t *testing.T) {
	req, err := http.NewRequest(http.MethodGet, "https://user:secret@example.com/a?token=secret", nil)
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		s, drawn := spinning(80)
		resp, err := waitedTransport{roundTrip(func(*http.Request) (*http.Response, error) {
			return &http.Response{Body: io.NopCloser(bytes.NewReader(nil))}, nil
		}), s}.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		pass(patience)
		_ = resp.Body.Close()
		if got, want := drawn.String(), clearLine+"⠋ waiting for example.com"+clearLine; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		drawn.Reset()
		if _, err := (waitedTransport{roundTrip(func(*http.Request) (*http.Response, error) {
			pass(frameTime)
			return nil, errors.New("unreachable")
		}), s}).RoundTrip(req); err == nil {
			t.Error("no error")
		}
		pass(time.Minute)
		if got := drawn.String(); !strings.HasSuffix(got, "example.com"+clearLine) {
			t.Errorf("got %q", got)
		}
	})
}

func TestPauseEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, drawn := spinning(80)
		p := &program{spins: s}
		began := time.Now()
		if err := p.pause(context.Background(), time.Second); err != nil || time.Since(began) != time.Second {
			t.Errorf("%v after %s", err, time.Since(began))
		}
		if got := drawn.String(); !strings.Contains(got, "waiting to try again") || !strings.HasSuffix(got, clearLine) {
			t.Errorf("got %q", got)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if err := p.pause(ctx, time.Hour); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	})
}
