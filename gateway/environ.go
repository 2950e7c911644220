package gateway

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/enlist-mcp/enlist/credstore"
)

// Variable is a variable of the environment of a program that a person runs
// with a credential. Without a value it is to be unset.
type Variable struct {
	Name  string
	Value credstore.Secret // what is not secret, too: it prints as [redacted]
}

// Exporter is a Protocol whose credentials a program can take from its
// environment.
type Exporter interface {
	Protocol
	// Environ returns the variables that the service's own programs read. It
	// is called with a credential that is usable.
	Environ(ctx context.Context, k credstore.Key) ([]Variable, error)
}

// Environ returns an environment, as [os.Environ] does, for a program that a
// person wants to run with a credential: base, with what the service's own
// programs read, and without what is Enlist's.
//
// It is the way out for people: what it returns holds the secret itself. So no
// tool may call it; a test says so. A credential that does not work any more is
// a *[RefusedError]; one that will soon end is renewed first, where its
// protocol can.
func (l *Lifecycle) Environ(ctx context.Context, k credstore.Key, base []string) ([]string, error) {
	return does(ctx, l.steward, Act{Action: ActExec, Key: k}, func(ctx context.Context) ([]string, error) {
		return l.environ(ctx, k, base)
	})
}

func (l *Lifecycle) environ(ctx context.Context, k credstore.Key, base []string) ([]string, error) {
	ctx, cancel := l.http.begin(ctx)
	defer cancel()
	p, err := l.protocol(k)
	if err != nil {
		return nil, err
	}
	e, ok := p.(Exporter)
	if !ok {
		return nil, &RefusedError{Why: "No program is known to take a credential of " + k.Protocol + " from its environment."}
	}
	l.heal(ctx, k)
	if err := l.renewed(ctx, k, p); err != nil {
		return nil, err
	}
	vars, err := e.Environ(ctx, k)
	if err != nil {
		return nil, err
	}
	out := slices.DeleteFunc(slices.Clone(base), func(entry string) bool {
		name, _, _ := strings.Cut(entry, "=")
		// Windows does not tell lower case from upper.
		return withheld(strings.ToUpper(name)) ||
			slices.ContainsFunc(vars, func(v Variable) bool { return strings.EqualFold(v.Name, name) })
	})
	for _, v := range vars {
		if !v.Value.IsZero() {
			out = append(out, v.Name+"="+v.Value.Reveal())
		}
	}
	return out, nil
}

// Behind returns what is stored of a credential: itself first, then what stands
// behind it, such as a recovery key.
func (l *Lifecycle) Behind(ctx context.Context, k credstore.Key) ([]credstore.Info, error) {
	ctx, cancel := l.http.begin(ctx)
	defer cancel()
	keys := []credstore.Key{k}
	if p, err := l.protocol(k); err == nil {
		if d, ok := p.(Dependent); ok {
			keys = append(keys, d.Dependents(k)...)
		}
	}
	var found []credstore.Info
	for _, k := range keys {
		c, err := l.store.Get(ctx, k)
		if errors.Is(err, credstore.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		found = append(found, c.Info)
	}
	return found, nil
}

// RevealTo writes the secret of a credential, or of what stands behind one, to a
// person's terminal. It is the other way out for people: no tool may call it.
func (l *Lifecycle) RevealTo(ctx context.Context, k credstore.Key, w io.Writer) error {
	_, err := does(ctx, l.steward, Act{Action: ActReveal, Key: k}, func(ctx context.Context) (struct{}, error) {
		ctx, cancel := l.http.begin(ctx)
		defer cancel()
		c, err := l.store.Get(ctx, k)
		if err == nil && issuedSecret(c).IsZero() {
			err = &RefusedError{Why: "There is no secret to show: the registration did not come to an end."}
		}
		if err == nil {
			_, err = io.WriteString(w, c.Secret.Reveal()+"\n")
		}
		return struct{}{}, err
	})
	return err
}

// renewed sees to it that a credential is usable, and for some time yet where
// it can be renewed.
func (l *Lifecycle) renewed(ctx context.Context, k credstore.Key, p Protocol) error {
	c, err := l.store.Get(ctx, k)
	if err != nil {
		return err
	}
	state := c.StateAt(l.now())
	if r, ok := p.(Renewer); ok && (state == credstore.StateExpiring || state == credstore.StateExpired) {
		err := r.Renew(ctx, k)
		if err != nil && state == credstore.StateExpired {
			return err
		}
		if err != nil { // it works for the moment
			l.log.WarnContext(ctx, "a credential could not be renewed", "protocol", k.Protocol, "origin", k.Origin, "agent", k.Agent)
			return nil
		}
		if c, err = l.store.Get(ctx, k); err != nil {
			return err
		}
		state = c.StateAt(l.now())
	}
	if c.UsableAt(l.now()) {
		return nil
	}
	remedy := "register the agent again"
	if _, ok := p.(Rotator); ok && state == credstore.StateExpired {
		remedy = "rotate it, or " + remedy
	}
	return &RefusedError{Why: "The credential " + l.Handle(k) + " is " + string(state) + ": " + remedy + "."}
}

// withheld reports whether a variable, in upper case, is Enlist's own business:
// its settings, which may hold the passphrase of the store, and what agents are
// registered with.
func withheld(name string) bool {
	return strings.HasPrefix(name, "ENLIST_") ||
		name == "AGENT_REGISTRATION_SECRET" || strings.HasSuffix(name, "_AGENT_REGISTRATION_SECRET")
}

// headersOf returns the headers that a request with the credential would have.
func headersOf(ctx context.Context, p Protocol, k credstore.Key) (http.Header, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, k.Origin, nil)
	if err != nil {
		return nil, &RefusedError{Why: "The credential's origin is not valid."}
	}
	if err := p.Authorize(ctx, k, req); err != nil {
		return nil, err
	}
	return req.Header, nil
}

// variable returns a variable; a bearer token stands without the word.
func variable(name, value string) Variable {
	return Variable{Name: name, Value: credstore.NewSecret(strings.TrimPrefix(value, "Bearer "))}
}
