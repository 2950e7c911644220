package credstore_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/zalando/go-keyring"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/credstore/credstoretest"
)

func keyringStore(t *testing.T) (credstore.Store, *faultyRing) {
	t.Helper()
	r := newFaultyRing()
	return openOn(t, options(t, credstore.ModeAuto), credstore.QuickSystem().WithRing(r).WithRepair(hung)), r
}

func TestItemIsNamedForPeople(t *testing.T) {
	key := func(change func(*credstore.Key)) credstore.Key {
		k := credstoretest.Lona("my-agent").Key
		change(&k)
		return k
	}
	tests := map[string]struct {
		namespace     string
		key           credstore.Key
		service, user string
	}{
		"plainly": {
			key:     key(func(*credstore.Key) {}),
			service: "enlist: https://gateway.lona.agency", user: "lona/my-agent token",
		},
		"with its label": {
			key:     key(func(k *credstore.Key) { k.Label = "second account" }),
			service: "enlist: https://gateway.lona.agency", user: "lona/my-agent token (second%20account)",
		},
		"with its home": {
			namespace: "ab12",
			key:       key(func(k *credstore.Key) { k.Origin = "http://[::1]:8080" }),
			service:   "enlist [ab12]: http://[::1]:8080", user: "lona/my-agent token",
		},
		"with a mark where only the case may differ": {
			key:     key(func(k *credstore.Key) { k.Agent = "My-Agent" }),
			service: "enlist: https://gateway.lona.agency", user: "lona/My-Agent token #b2c59c43106b",
		},
		"without what a shell or a keychain takes apart": {
			key:     key(func(k *credstore.Key) { k.Agent = "a'b \"$x`\\é%" }),
			service: "enlist: https://gateway.lona.agency", user: "lona/a%27b%20%22%24x%60%5c%c3%a9%25 token",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			service, user := credstore.ItemName(test.namespace, test.key)
			if service != test.service || user != test.user {
				t.Errorf("got %q, %q, want %q, %q", service, user, test.service, test.user)
			}
		})
	}
}

func TestItemNamesStayWithinWindowsLimits(t *testing.T) {
	long := strings.Repeat("ä", 400)
	service, user := credstore.ItemName(long, credstore.Key{
		Protocol: "lona", Origin: long, Agent: long, Kind: credstore.KindToken, Label: long,
	})
	if len(service) >= 512 || len(user) > 513 {
		t.Errorf("got %d and %d bytes, want under 512", len(service), len(user))
	}
}

func TestHungKeyringIsGivenUpAfter(t *testing.T) {
	k := credstoretest.Lona("my-agent").Key
	for name, test := range map[string]struct {
		ask  func(context.Context, credstore.Ring) error
		want time.Duration
	}{
		"three seconds by auto": {credstore.ProbeKeyring, 3 * time.Second},
		"ten seconds later": {
			func(ctx context.Context, r credstore.Ring) error { return credstore.ReadKeyring(ctx, r, k) },
			10 * time.Second,
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				released := make(chan struct{})
				defer close(released)
				r := newFaultyRing()
				r.fail(func(_, _, _ string) (bool, error) { <-released; return true, errLocked })
				start := time.Now()
				wantRemedy(t, test.ask(t.Context(), r), credstore.ErrUnavailable)
				if got := time.Since(start); got != test.want {
					t.Errorf("got %s, want %s", got, test.want)
				}
			})
		})
	}
}

// hang makes a call for a credential hang until it is released, and ends ctx once it does.
func (r *faultyRing) hang(t *testing.T, call string) (ctx context.Context, release func()) {
	ctx, cancel := context.WithCancel(t.Context())
	released := make(chan struct{})
	r.fail(func(asked, service, _ string) (bool, error) {
		if asked == call && !isList(service) {
			cancel()
			<-released
		}
		return false, nil
	})
	return ctx, func() { close(released) }
}

// What was given up may still happen. Nothing overtakes it, and what it did is found.
func TestLatePutIsFound(t *testing.T) {
	s, r := keyringStore(t)
	first, second := credstoretest.Lona("my-agent"), credstoretest.Lona("my-agent")
	put(t, s, first)
	second.KeyID = "second"
	second.Secret = credstore.NewSecret("second s3cr3t")
	ctx, release := r.hang(t, "set")
	wantRemedy(t, s.Put(ctx, second), credstore.ErrUnavailable)
	short, cancel := context.WithTimeout(t.Context(), hung)
	defer cancel()
	_, err := s.Get(short, first.Key) // behind the put
	wantRemedy(t, err, credstore.ErrUnavailable)
	wantListed(t, s, "my-agent")
	release()
	wantGet(t, s, second) // behind the put
	infos, err := s.List(t.Context(), "")
	if err != nil || len(infos) != 1 || infos[0].KeyID != "second" {
		t.Errorf("list: got %+v, %v, want the second one", infos, err)
	}
}

func TestLateFirstPutIsListed(t *testing.T) {
	s, r := keyringStore(t)
	put(t, s, credstoretest.Lona("other"))
	c := credstoretest.Lona("my-agent")
	ctx, release := r.hang(t, "set")
	wantRemedy(t, s.Put(ctx, c), credstore.ErrUnavailable)
	wantListed(t, s, "other") // what is not known to be there is not listed
	release()
	wantGet(t, s, c) // behind the put
	wantListed(t, s, "my-agent", "other")
}

// The failure of a second put must not make the index forget what the first left.
func TestPutThatFailsAfterALatePut(t *testing.T) {
	s, r := keyringStore(t)
	put(t, s, credstoretest.Lona("other"))
	c := credstoretest.Lona("my-agent")
	ctx, release := r.hang(t, "set")
	wantRemedy(t, s.Put(ctx, c), credstore.ErrUnavailable)
	release()
	next := c
	next.KeyID, next.Secret = "next", credstore.NewSecret("next")
	var mine atomic.Bool
	r.fail(func(call, _, _ string) (bool, error) {
		return call == "set" && mine.Load(), errLocked
	})
	_, err := s.Get(t.Context(), credstoretest.Lona("other").Key) // behind the put
	if err != nil {
		t.Fatal(err)
	}
	mine.Store(true)
	wantRemedy(t, s.Put(t.Context(), next), credstore.ErrUnavailable)
	wantListed(t, s, "my-agent", "other")
	wantGet(t, s, c)
}

func TestLateDeleteIsNoticed(t *testing.T) {
	s, r := keyringStore(t)
	c := credstoretest.Lona("my-agent")
	put(t, s, c)
	ctx, release := r.hang(t, "delete")
	wantRemedy(t, s.Delete(ctx, c.Key), credstore.ErrUnavailable)
	wantListed(t, s, "my-agent")
	release()
	_, err := s.Get(t.Context(), c.Key) // behind the delete
	wantError(t, err, credstore.ErrNotFound)
	wantListed(t, s)
}

func TestKeyringFaultLeavesTheFormerCredential(t *testing.T) {
	faults := map[string]func(r *faultyRing, call, service, user string) (bool, error){
		"refuses": func(_ *faultyRing, call, _, _ string) (bool, error) {
			return call != "get", errors.New("no")
		},
		"reports success and keeps nothing": func(_ *faultyRing, call, _, _ string) (bool, error) {
			return call != "get", nil
		},
		"loses the item and then refuses": func(r *faultyRing, call, service, user string) (bool, error) {
			if call == "get" {
				return false, nil
			}
			r.mu.Lock()
			defer r.mu.Unlock()
			if _, ok := r.items[[2]string{service, user}]; !ok {
				return false, nil // taking it back works
			}
			delete(r.items, [2]string{service, user})
			return true, errors.New("no")
		},
		"cuts the item short": func(r *faultyRing, call, service, user string) (bool, error) {
			if call != "set" {
				return call == "delete", errors.New("no")
			}
			r.mu.Lock()
			defer r.mu.Unlock()
			k := [2]string{service, user}
			if strings.HasSuffix(r.items[k], "}") {
				r.items[k] = "{"
				return true, nil
			}
			return false, nil
		},
		"panics": func(_ *faultyRing, call, _, _ string) (bool, error) {
			if call != "get" {
				panic("interface conversion: s3cr3t is not a string")
			}
			return false, nil
		},
	}
	for name, fault := range faults {
		t.Run(name, func(t *testing.T) {
			s, r := keyringStore(t)
			former, next := credstoretest.Lona("my-agent"), credstoretest.Lona("my-agent")
			next.Secret, next.KeyID = credstore.NewSecret("next s3cr3t"), "next"
			put(t, s, former)
			r.fail(func(call, service, user string) (bool, error) { return fault(r, call, service, user) })
			wantRemedy(t, s.Put(t.Context(), next), credstore.ErrUnavailable)
			r.fail(nil)
			wantGet(t, s, former)
			infos, err := s.List(t.Context(), "")
			if err != nil || len(infos) != 1 || infos[0].KeyID != former.KeyID || infos[0].State != former.State {
				t.Errorf("list: got %+v, %v, want the former one", infos, err)
			}
		})
	}
}

func TestKeyringFaultAtTheFirstPutLeavesNothing(t *testing.T) {
	s, r := keyringStore(t)
	put(t, s, credstoretest.Lona("other"))
	r.fail(func(call, _, _ string) (bool, error) { return call == "set", errLocked })
	c := credstoretest.Lona("my-agent")
	wantRemedy(t, s.Put(t.Context(), c), credstore.ErrUnavailable)
	r.fail(func(call, _, _ string) (bool, error) {
		t.Errorf("the list asked the keyring: %s", call)
		return true, errLocked
	})
	wantListed(t, s, "other")
	r.fail(nil)
	_, err := s.Get(t.Context(), c.Key)
	wantError(t, err, credstore.ErrNotFound)
}

func TestKeyringThatDoesNotDeleteIsNotBelieved(t *testing.T) {
	s, r := keyringStore(t)
	c := credstoretest.Lona("my-agent")
	put(t, s, c)
	r.fail(func(call, _, _ string) (bool, error) { return call == "delete", nil })
	wantRemedy(t, s.Delete(t.Context(), c.Key), credstore.ErrUnavailable)
	wantGet(t, s, c)
	wantListed(t, s, "my-agent")
}

func TestItemThatIsNotTheCredentials(t *testing.T) {
	tests := map[string]struct {
		text   string
		remedy string
	}{
		"belongs to another":  {`{"v":1,"protocol":"lona","origin":"https://gateway.lona.agency","agent":"other","kind":"token","state":"active","secret":"s3cr3t"}`, "register again"},
		"is somebody else's":  {"s3cr3t password of a person", "register again"},
		"is empty":            {"", "register again"},
		"is of another shape": {`{"v":1,"secret":["s3cr3t"]}`, "register again"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			s, r := keyringStore(t)
			c := credstoretest.Lona("my-agent")
			put(t, s, c)
			for k := range r.credentials() {
				r.items[k] = test.text
			}
			_, err := s.Get(t.Context(), c.Key)
			wantRemedy(t, err, credstore.ErrDamaged)
			if err != nil && !strings.Contains(err.Error(), test.remedy) {
				t.Errorf("got %v, want %q in it", err, test.remedy)
			}
			put(t, s, c) // replaces it
			wantGet(t, s, c)
		})
	}
}

func TestLostItemIsMarked(t *testing.T) {
	s, r := keyringStore(t)
	c := credstoretest.Lona("my-agent")
	put(t, s, c)
	items := maps.Clone(r.items)
	clear(r.items)
	infos, err := s.List(t.Context(), "")
	if err != nil || infos[0].State != credstore.StateActive {
		t.Errorf("got %v, %v, want a list that did not ask the keyring", infos, err)
	}
	for range 2 {
		_, err = s.Get(t.Context(), c.Key)
		wantRemedy(t, err, credstore.ErrNotFound)
		infos, err = s.List(t.Context(), "")
		if err != nil || len(infos) != 1 || infos[0].State != credstore.StateLost {
			t.Errorf("got %v, %v, want it lost", infos, err)
		}
	}
	t.Run("and is back when the item is", func(t *testing.T) {
		maps.Copy(r.items, items)
		wantGet(t, s, c)
		infos, err := s.List(t.Context(), "")
		if err != nil || len(infos) != 1 || infos[0].State != credstore.StateActive {
			t.Errorf("got %v, %v, want it active", infos, err)
		}
	})
	t.Run("and can be forgotten", func(t *testing.T) {
		clear(r.items)
		if err := s.Delete(t.Context(), c.Key); err != nil {
			t.Error(err)
		}
		wantListed(t, s)
	})
}

func TestKeyringRemedies(t *testing.T) {
	tests := []struct {
		system string
		cause  error
		want   string
	}{
		{"linux", fmt.Errorf("%w", &exec.Error{Name: "dbus-launch", Err: exec.ErrNotFound}), "ENLIST_STORE=file"},
		{"linux", errors.New("dial unix /run/user/0/bus: connect: no such file or directory"), "D-Bus session"},
		{"linux", errors.New("The name org.freedesktop.secrets was not provided by any .service files"), "start a keyring"},
		{"linux", errLocked, "unlock the login keyring"},
		{"linux", errors.New("Object does not exist at path “/org/freedesktop/secrets/collection/login”"), "default keyring"},
		{"darwin", errors.New("exit status 36"), "security unlock-keychain"},
		{"windows", errors.New("the logon session does not exist"), "Remote Desktop"},
		{"plan9", keyring.ErrUnsupportedPlatform, "ENLIST_STORE=file"},
		{"linux", context.Canceled, "try again"},
	}
	for _, test := range tests {
		if got := credstore.KeyringRemedy(test.system, test.cause); !strings.Contains(got, test.want) {
			t.Errorf("%s, %v: got %q, want %q in it", test.system, test.cause, got, test.want)
		}
	}
}
