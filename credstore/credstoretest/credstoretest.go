// Package credstoretest is the suite that every [credstore.Store] passes.
package credstoretest

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/credstore"
)

// Place makes an empty place for credentials. Each call of open opens that
// place anew, as another process would; a store in memory returns itself.
type Place func(t *testing.T) (open func() credstore.Store)

// Run runs the suite, every test in a place of its own and in parallel.
func Run(t *testing.T, place Place) {
	tests := []struct {
		name string
		run  func(t *testing.T, open func() credstore.Store)
	}{
		{"nothing is found in an empty store", testEmpty},
		{"what was put is got and listed, by other processes too", testPut},
		{"a second put replaces all of the first", testOverwrite},
		{"keys that differ in one field are apart", testKeys},
		{"list is sorted and can be of one protocol", testList},
		{"text comes back as it was", testUnicode},
		{"a secret that is too large is refused and the former one stays", testLarge},
		{"what cannot be given back is refused", testRefused},
		{"delete removes one credential", testDelete},
		{"what is returned belongs to the caller", testShared},
		{"a credential without a time of creation gets one", testCreated},
		{"parallel puts all arrive", testParallel},
		{"of parallel puts to one key one is left, whole", testRace},
		{"a lock has one holder", testLock},
		{"locks of two keys do not wait for each other", testLocks},
		{"waiting for a lock ends with its context", testLockCancel},
		{"a context that is over stops everything", testCanceled},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			test.run(t, place(t))
		})
	}
}

// Lona returns a credential as Lona issues them, for an agent.
func Lona(agent string) credstore.Credential {
	created := time.Date(2026, 1, 7, 14, 0, 0, 123e6, time.UTC)
	return credstore.Credential{
		Info: credstore.Info{
			Key: credstore.Key{
				Protocol: "lona", Origin: "https://gateway.lona.agency", Agent: agent, Kind: credstore.KindToken,
			},
			State: credstore.StateActive, KeyID: "a1B2c3D4e5F6",
			CreatedAt: created, ExpiresAt: created.AddDate(0, 0, 30),
			Attrs: map[string]string{"user_id": agent, "agent_name": "My Agent"},
		},
		Secret: credstore.NewSecret("lona_partner_" + agent + "_a1B2c3D4e5F6_" + strings.Repeat("s3cr3t", 7)),
	}
}

func testEmpty(t *testing.T, open func() credstore.Store) {
	s, ctx := open(), t.Context()
	k := Lona("nobody").Key
	_, err := s.Get(ctx, k)
	wantError(t, err, credstore.ErrNotFound)
	infos, err := s.List(ctx, "")
	if err != nil || infos == nil || len(infos) != 0 {
		t.Errorf("list: got %v, %v, want an empty list", infos, err)
	}
	wantError(t, s.Delete(ctx, k), credstore.ErrNotFound)
}

func testPut(t *testing.T, open func() credstore.Store) {
	want := Lona("my-agent")
	want.State = credstore.StatePending
	s := open()
	put(t, s, want)
	for name, s := range map[string]credstore.Store{"the same": s, "reopened": open()} {
		t.Run(name, func(t *testing.T) {
			wantGet(t, s, want)
			wantList(t, s, "", want)
			wantList(t, s, "lona", want)
			wantList(t, s, "lithtrix")
		})
	}
	backend, err := open().Backend(t.Context())
	if err != nil || backend == credstore.ModeAuto || backend == "" {
		t.Errorf("backend: got %q, %v", backend, err)
	}
}

func testOverwrite(t *testing.T, open func() credstore.Store) {
	first, second := Lona("my-agent"), Lona("my-agent")
	second.Secret = credstore.NewSecret("second")
	second.State = credstore.StateRevoked
	second.KeyID = ""
	second.ExpiresAt = time.Time{}
	second.Attrs = nil
	s := open()
	put(t, s, first)
	put(t, s, second)
	for _, s := range []credstore.Store{s, open()} {
		wantGet(t, s, second)
		wantList(t, s, "", second)
	}
}

func testKeys(t *testing.T, open func() credstore.Store) {
	s := open()
	base := Lona("agent")
	all := []credstore.Credential{base}
	for _, change := range []func(*credstore.Key){
		func(k *credstore.Key) { k.Protocol = "lithtrix" },
		func(k *credstore.Key) { k.Origin = "https://gateway.lona.agency:8443" },
		func(k *credstore.Key) { k.Agent = "Agent" },
		func(k *credstore.Key) { k.Agent = "agent token" },
		func(k *credstore.Key) { k.Agent = strings.Repeat("a", 64) },
		func(k *credstore.Key) { k.Agent = strings.Repeat("a", 130) },
		func(k *credstore.Key) { k.Agent = strings.Repeat("a", 131) },
		func(k *credstore.Key) { k.Kind = "recovery" },
		func(k *credstore.Key) { k.Label = "second" },
	} {
		c := Lona("agent")
		change(&c.Key)
		c.Attrs = nil
		c.Secret = credstore.NewSecret(fmt.Sprintf("secret %d", len(all)))
		all = append(all, c)
	}
	for _, c := range all {
		put(t, s, c)
	}
	for _, c := range all {
		wantGet(t, s, c)
	}
	if infos, err := s.List(t.Context(), ""); err != nil || len(infos) != len(all) {
		t.Errorf("got %d listed, %v, want %d", len(infos), err, len(all))
	}
}

func testList(t *testing.T, open func() credstore.Store) {
	s := open()
	name := func(protocol, origin, agent, kind, label string) credstore.Credential {
		c := Lona(agent)
		c.Protocol, c.Origin, c.Kind, c.Label = protocol, origin, credstore.Kind(kind), label
		return c
	}
	sorted := []credstore.Credential{
		name("fluxra", "https://b", "z", "token", ""),
		name("lona", "https://a", "B", "token", ""),
		name("lona", "https://a", "a", "recovery", ""),
		name("lona", "https://a", "a", "token", ""),
		name("lona", "https://a", "a", "token", "work"),
		name("lona", "https://a", "ä", "token", ""),
		name("lona", "https://b", "a", "token", ""),
	}
	for i := range sorted {
		put(t, s, sorted[(i*3+1)%len(sorted)])
	}
	wantList(t, s, "", sorted...)
	wantList(t, s, "lona", sorted[1:]...)
	wantList(t, open(), "fluxra", sorted[0])
	wantList(t, s, "lon")
}

func testUnicode(t *testing.T, open func() credstore.Store) {
	c := Lona("агент-日本 \"quoted\" 'single' \\ <&> %41 $HOME `x`")
	c.Origin = "http://[::1]:8080"
	c.Label = "zweiter Büro-Rechner 🙂"
	c.KeyID = "clé"
	c.Attrs = map[string]string{"": "empty", "tab\tnew\nline": "\x00\u2028\u202e", "ключ": "значение"}
	c.Secret = credstore.NewSecret("пароль \x00\n\t\"'\\ \u2028 🔑 $(id) <&>")
	s := open()
	put(t, s, c)
	wantGet(t, open(), c)
	wantList(t, open(), "", c)
	if err := s.Delete(t.Context(), c.Key); err != nil {
		t.Error(err)
	}
}

func testLarge(t *testing.T, open func() credstore.Store) {
	s := open()
	c := Lona("my-agent")
	fits := 0
	for step := 1024; step > 0; step /= 2 {
		c.Secret = credstore.NewSecret(strings.Repeat("x", fits+step))
		err := s.Put(t.Context(), c)
		if err == nil {
			fits += step
			continue
		}
		wantError(t, err, credstore.ErrTooLarge)
		var e *credstore.Error
		if !errors.As(err, &e) || e.Remedy == "" {
			t.Errorf("no remedy in %v", err)
		}
		if strings.Contains(err.Error(), "xxxx") {
			t.Errorf("the error holds the secret: %v", err)
		}
	}
	if fits < 600 || fits > 1250 {
		t.Errorf("the largest secret has %d bytes, want room for a token and no more than Windows has", fits)
	}
	c.Secret = credstore.NewSecret(strings.Repeat("x", fits))
	wantGet(t, s, c)
	wantGet(t, open(), c)
	wantList(t, s, "", c)
}

func testRefused(t *testing.T, open func() credstore.Store) {
	tests := map[string]func(*credstore.Credential){
		"no state":                 func(c *credstore.Credential) { c.State = "" },
		"a state that follows":     func(c *credstore.Credential) { c.State = credstore.StateExpiring },
		"no protocol":              func(c *credstore.Credential) { c.Protocol = "" },
		"no agent":                 func(c *credstore.Credential) { c.Agent = "" },
		"no kind":                  func(c *credstore.Credential) { c.Kind = "" },
		"a newline in the agent":   func(c *credstore.Credential) { c.Agent = "a\nb" },
		"an agent that is no text": func(c *credstore.Credential) { c.Agent = "a\xff" },
		"a secret that is no text": func(c *credstore.Credential) { c.Secret = credstore.NewSecret("s3cr3t\xff") },
		"a value that is no text":  func(c *credstore.Credential) { c.Attrs = map[string]string{"a": "\xff"} },
		"a year without end":       func(c *credstore.Credential) { c.ExpiresAt = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) },
	}
	s := open()
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			c := Lona("my-agent")
			change(&c)
			err := s.Put(t.Context(), c)
			if err == nil {
				t.Fatal("got no error")
			}
			if strings.Contains(err.Error(), "s3cr3t") {
				t.Errorf("the error holds the secret: %v", err)
			}
		})
	}
	wantList(t, s, "")
}

func testDelete(t *testing.T, open func() credstore.Store) {
	s := open()
	one, other := Lona("one"), Lona("other")
	put(t, s, one)
	put(t, s, other)
	if err := open().Delete(t.Context(), one.Key); err != nil {
		t.Fatal(err)
	}
	for _, s := range []credstore.Store{s, open()} {
		_, err := s.Get(t.Context(), one.Key)
		wantError(t, err, credstore.ErrNotFound)
		wantError(t, s.Delete(t.Context(), one.Key), credstore.ErrNotFound)
		wantGet(t, s, other)
		wantList(t, s, "", other)
	}
	put(t, s, one)
	wantGet(t, s, one)
}

func testShared(t *testing.T, open func() credstore.Store) {
	s := open()
	want, c := Lona("my-agent"), Lona("my-agent")
	put(t, s, c)
	c.Attrs["user_id"] = "changed"
	got, err := s.Get(t.Context(), c.Key)
	if err != nil {
		t.Fatal(err)
	}
	got.Attrs["user_id"] = "changed"
	infos, err := s.List(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	infos[0].Attrs["user_id"] = "changed"
	wantGet(t, s, want)
	wantList(t, s, "", want)
}

func testCreated(t *testing.T, open func() credstore.Store) {
	s := open()
	c := Lona("my-agent")
	c.CreatedAt = time.Time{}
	put(t, s, c)
	got, err := s.Get(t.Context(), c.Key)
	if err != nil || got.CreatedAt.IsZero() || got.CreatedAt.Location() != time.UTC {
		t.Errorf("got %v, %v, want the time of the put in UTC", got.CreatedAt, err)
	}
}

func testParallel(t *testing.T, open func() credstore.Store) {
	stores := []credstore.Store{open(), open()}
	var all []credstore.Credential
	for i := range 16 {
		all = append(all, Lona(fmt.Sprintf("agent-%02d", i)))
	}
	var wg sync.WaitGroup
	for i, c := range all {
		wg.Go(func() {
			if err := stores[i%2].Put(t.Context(), c); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, c := range all {
		wantGet(t, stores[0], c)
	}
	wantList(t, open(), "", all...)
}

func testRace(t *testing.T, open func() credstore.Store) {
	stores := []credstore.Store{open(), open()}
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			c := Lona("my-agent")
			c.KeyID = fmt.Sprint("key", i)
			c.Attrs = map[string]string{"n": fmt.Sprint(i)}
			c.Secret = credstore.NewSecret(fmt.Sprint("secret", i))
			if err := stores[i%2].Put(t.Context(), c); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	got, err := open().Get(t.Context(), Lona("my-agent").Key)
	if err != nil {
		t.Fatal(err)
	}
	n := got.Attrs["n"]
	if got.KeyID != "key"+n || got.Secret.Reveal() != "secret"+n {
		t.Errorf("got a mixture: %+v", got.Info)
	}
	wantList(t, stores[0], "", got)
}

func testLock(t *testing.T, open func() credstore.Store) {
	stores := []credstore.Store{open(), open()}
	k := Lona("my-agent").Key
	var inside, count atomic.Int32 // atomic, because the race detector does not see locks of the kernel
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			unlock, err := stores[i%2].Lock(t.Context(), k)
			if err != nil {
				t.Error(err)
				return
			}
			defer unlock()
			if n := inside.Add(1); n != 1 {
				t.Errorf("got %d holders at once, want 1", n)
			}
			runtime.Gosched()
			inside.Add(-1)
			count.Add(1)
		})
	}
	wg.Wait()
	if got := count.Load(); got != 64 {
		t.Errorf("got %d holders in all, want 64", got)
	}
}

func testLocks(t *testing.T, open func() credstore.Store) {
	s := open()
	a, b := Lona("a"), Lona("b")
	unlockA := lock(t, s, a.Key)
	unlockB := lock(t, s, b.Key)
	put(t, s, a) // under its own lock, as whoever renews does it
	wantGet(t, s, a)
	unlockA()
	unlockA() // again: harmless, even while another holds it
	unlockA = lock(t, s, a.Key)
	unlockA()
	unlockB()
}

func testLockCancel(t *testing.T, open func() credstore.Store) {
	holder, waiter := open(), open()
	k := Lona("my-agent").Key
	unlock := lock(t, holder, k)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err := waiter.Lock(ctx, k)
	wantError(t, err, context.DeadlineExceeded)
	ctx, cancel = context.WithCancel(t.Context())
	failed := make(chan error)
	go func() {
		_, err := waiter.Lock(ctx, k)
		failed <- err
	}()
	cancel()
	wantError(t, <-failed, context.Canceled)
	unlock()
	lock(t, waiter, k)()
}

func testCanceled(t *testing.T, open func() credstore.Store) {
	s := open()
	c := Lona("my-agent")
	put(t, s, c)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	changed := c
	changed.Secret = credstore.NewSecret("changed")
	wantError(t, s.Put(ctx, changed), context.Canceled)
	wantError(t, s.Delete(ctx, c.Key), context.Canceled)
	_, err := s.Get(ctx, c.Key)
	wantError(t, err, context.Canceled)
	_, err = s.List(ctx, "")
	wantError(t, err, context.Canceled)
	_, err = s.Lock(ctx, c.Key)
	wantError(t, err, context.Canceled)
	wantGet(t, s, c)
	wantList(t, s, "", c)
}

func lock(t *testing.T, s credstore.Store, k credstore.Key) (unlock func()) {
	t.Helper()
	unlock, err := s.Lock(t.Context(), k)
	if err != nil {
		t.Fatal(err)
	}
	return unlock
}

func put(t *testing.T, s credstore.Store, c credstore.Credential) {
	t.Helper()
	if err := s.Put(t.Context(), c); err != nil {
		t.Fatal(err)
	}
}

func wantGet(t *testing.T, s credstore.Store, want credstore.Credential) {
	t.Helper()
	got, err := s.Get(t.Context(), want.Key)
	if err != nil {
		t.Errorf("get: %v", err)
		return
	}
	if !reflect.DeepEqual(got.Info, want.Info) {
		t.Errorf("get: got %+v, want %+v", got.Info, want.Info)
	}
	if got.Secret.Reveal() != want.Secret.Reveal() {
		t.Error("get: got another secret")
	}
}

func wantList(t *testing.T, s credstore.Store, protocol string, want ...credstore.Credential) {
	t.Helper()
	got, err := s.List(t.Context(), protocol)
	if err != nil {
		t.Errorf("list: %v", err)
		return
	}
	infos := []credstore.Info{}
	for _, c := range want {
		infos = append(infos, c.Info)
	}
	if !reflect.DeepEqual(got, infos) {
		t.Errorf("list: got %+v, want %+v", got, infos)
	}
}

func wantError(t *testing.T, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Errorf("got the error %v, want %v", got, want)
	}
}
