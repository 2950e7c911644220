package gateway

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/gateway/wire"
)

// agentPart is what stands between the protocol and the host of a handle.
var agentPart = wire.NewPattern(`^[A-Za-z0-9._-]{1,100}$`)

// Handle returns the name of a credential for people and models:
// protocol/agent, with @host[:port] behind it where the origin is not the
// protocol's own. A credential with a label is called by that.
func (l *Lifecycle) Handle(k credstore.Key) string {
	handle := bareHandle(k)
	if p, err := l.protocol(k); err == nil && p.Origin() == k.Origin {
		return handle
	}
	return handle + "@" + hostOf(k.Origin)
}

func bareHandle(k credstore.Key) string {
	name := k.Agent
	if k.Label != "" {
		name = k.Label
	}
	return k.Protocol + "/" + slug(name)
}

// slug returns a name as it stands in a handle.
func slug(name string) string {
	if agentPart.MatchString(name) {
		return name
	}
	out := strings.Map(func(r rune) rune {
		if r <= '~' && agentPart.MatchString(string(r)) {
			return r
		}
		return '-'
	}, name)
	if out == "" {
		return "-"
	}
	return out[:min(len(out), 100)]
}

// lockHandle takes the lock of a handle, so that two identities do not get the
// same one, and that of the credential.
func lockHandle(ctx context.Context, s credstore.Store, k credstore.Key) (unlock func(), err error) {
	handle := k
	handle.Agent, handle.Label = slug(cmp.Or(k.Label, k.Agent)), ""
	first, err := s.Lock(ctx, handle)
	if err != nil || handle == k {
		return first, err
	}
	second, err := s.Lock(ctx, k)
	if err != nil {
		first()
		return nil, err
	}
	return func() { second(); first() }, nil
}

// hostOf returns the host and port of an origin.
func hostOf(origin string) string {
	_, host, _ := strings.Cut(origin, "://")
	return host
}

// embeddedOrigin is the origin of the embedded gateway. It exists only in a
// process that was told to be it, so that it must be named in full elsewhere.
const embeddedOrigin = "http://enlist.localhost"

// Resolve returns the credential that a handle names. The suffix may be left
// out when exactly one credential matches, and "" stands for the only usable
// one at the origin that its protocol is used at now. It returns a
// *[ResolveError] that names the candidates.
func (l *Lifecycle) Resolve(ctx context.Context, handle string) (credstore.Info, error) {
	return l.resolve(ctx, nil, handle)
}

// ResolveOf is [Lifecycle.Resolve] among the credentials of one protocol.
func (l *Lifecycle) ResolveOf(ctx context.Context, protocol, handle string) (credstore.Info, error) {
	return l.resolve(ctx, []string{protocol}, handle)
}

// ResolveAmong is [Lifecycle.Resolve] among the credentials of some protocols;
// none: of all. Those of others do not exist for it.
func (l *Lifecycle) ResolveAmong(ctx context.Context, protocols []string, handle string) (credstore.Info, error) {
	return l.resolve(ctx, protocols, handle)
}

func (l *Lifecycle) resolve(ctx context.Context, only []string, handle string) (credstore.Info, error) {
	ctx, cancel := l.http.begin(ctx)
	defer cancel()
	stored, err := l.named(ctx)
	if err != nil {
		return credstore.Info{}, err
	}
	if len(only) > 0 {
		stored = filter(stored, func(i credstore.Info) bool { return slices.Contains(only, i.Protocol) })
	}
	if handle == "" {
		return l.onlyUsable(stored, only)
	}
	protocol, agent, host, err := l.parseHandle(handle)
	if err != nil {
		return credstore.Info{}, err
	}
	name := protocol.Wire().Name
	if len(only) > 0 && !slices.Contains(only, name) {
		return credstore.Info{}, &ResolveError{Handle: handle, Why: "That credential is not one of " + strings.Join(only, " or ") + "."}
	}
	bare := name + "/" + agent
	exact := func(i credstore.Info) bool { return l.Handle(i.Key) == handle }
	loose := func(i credstore.Info) bool {
		if host != "" {
			return bareHandle(i.Key) == bare && hostOf(i.Origin) == host
		}
		return bareHandle(i.Key) == bare && (i.Origin != embeddedOrigin || l.current(i))
	}
	for _, matches := range []func(credstore.Info) bool{exact, loose} {
		found := filter(stored, matches)
		if len(found) == 1 {
			return found[0], nil
		}
		if len(found) > 1 {
			return credstore.Info{}, &ResolveError{
				Handle: handle, Why: "The handle matches more than one credential.", Candidates: l.handles(found),
			}
		}
	}
	return l.unlisted(ctx, handle, protocol, agent, host, stored)
}

// current reports whether a credential is from the origin that its protocol
// is used at now. Where any service may speak it and none is set, each is.
func (l *Lifecycle) current(i credstore.Info) bool {
	p, err := l.protocol(i.Key)
	if err == nil && p.Origin() == "" && p.Wire().Anywhere {
		return i.Origin != embeddedOrigin
	}
	return err == nil && p.Origin() == i.Origin
}

// onlyUsable returns the only usable one of the stored credentials, which are
// those of some protocols, or of all for none. One of another origin is never chosen unless it is named: a request
// would go to a service that nobody asked for.
func (l *Lifecycle) onlyUsable(stored []credstore.Info, protocols []string) (credstore.Info, error) {
	of := ""
	if len(protocols) > 0 {
		of = " of " + strings.Join(protocols, " or ")
	}
	usable := filter(stored, func(i credstore.Info) bool { return i.UsableAt(l.now()) })
	here := filter(usable, l.current)
	switch {
	case len(here) == 1:
		return here[0], nil
	case len(here) > 1:
		return credstore.Info{}, &ResolveError{Why: "More than one credential" + of + " is usable: say which.", Candidates: l.handles(here), Usable: true}
	case len(usable) > 0:
		return credstore.Info{}, &ResolveError{
			Why:        "No usable credential" + of + " is from the service that is set now: register an agent there, or say which of the others.",
			Candidates: l.handles(usable), Usable: true,
		}
	case len(stored) > 0:
		return credstore.Info{}, &ResolveError{Why: "No stored credential" + of + " is usable any more: name one that is renewed when it is used, or register the agent again.", Candidates: l.handles(stored)}
	}
	return credstore.Info{}, &ResolveError{Why: "No credential" + of + " is stored: register an agent first."}
}

// unlisted looks a handle up that the store's list does not have. The list
// may be lost while the secret is still in the keyring.
func (l *Lifecycle) unlisted(ctx context.Context, handle string, p Protocol, agent, host string, stored []credstore.Info) (credstore.Info, error) {
	origins := []string{p.Origin()}
	if host != "" {
		origins = []string{"https://" + host, "http://" + host}
	}
	for _, origin := range origins {
		if !secure(origin) {
			continue
		}
		c, err := l.store.Get(ctx, credstore.Key{
			Protocol: p.Wire().Name, Origin: origin, Agent: agent, Kind: p.Kind(),
		})
		if err == nil {
			return c.Info, nil
		}
		if !errors.Is(err, credstore.ErrNotFound) {
			return credstore.Info{}, err
		}
	}
	return credstore.Info{}, &ResolveError{
		Handle: handle, Why: "No credential of that name is stored.", Candidates: l.handles(stored),
	}
}

// parseHandle takes a handle apart. host is "" when there is no suffix.
func (l *Lifecycle) parseHandle(handle string) (p Protocol, agent, host string, err error) {
	protocol, rest, ok := strings.Cut(handle, "/")
	agent, suffix, suffixed := strings.Cut(rest, "@")
	host = suffixHost(suffix)
	if !ok || !agentPart.MatchString(agent) || suffixed && host == "" {
		return nil, "", "", &ResolveError{
			Handle:    clip(handle),
			Why:       "A handle is protocol/agent or protocol/agent@host[:port], as in lona/my-agent.",
			Malformed: true,
		}
	}
	for _, p := range l.protocols {
		if p.Wire().Name == protocol {
			return p, agent, host, nil
		}
	}
	names := make([]string, len(l.protocols))
	for i, p := range l.protocols {
		names[i] = p.Wire().Name
	}
	return nil, "", "", &ResolveError{
		Handle:    clip(handle),
		Why:       fmt.Sprintf("A handle begins with a protocol: %s.", strings.Join(names, ", ")),
		Malformed: true,
	}
}

// suffixHost returns a host with or without a port in the spelling of an
// origin, or "" when s is not one.
func suffixHost(s string) string {
	if strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune(`/\?#@%`, r) }) {
		return ""
	}
	u, err := url.Parse("https://" + s)
	if err != nil || u.Hostname() == "" || strings.HasSuffix(s, ":") {
		return ""
	}
	return hostOf(originOf(u))
}

// clip returns as much of what was given as an error may repeat.
func clip(s string) string {
	if runes := []rune(oneLine(s)); len(runes) > 100 {
		return string(runes[:99]) + "…"
	}
	return oneLine(s)
}

// HasHandle reports whether a stored credential has a handle: a key or a token
// that stands behind one has none.
func (l *Lifecycle) HasHandle(k credstore.Key) bool {
	p, err := l.protocol(k)
	return err != nil || p.Kind() == k.Kind
}

// named returns the stored credentials that have a handle.
func (l *Lifecycle) named(ctx context.Context) ([]credstore.Info, error) {
	all, err := l.store.List(ctx, "")
	if err != nil {
		return nil, err
	}
	return filter(all, func(i credstore.Info) bool {
		p, err := l.protocol(i.Key)
		return err == nil && p.Kind() == i.Kind
	}), nil
}

// handles returns the handles of credentials, each once.
func (l *Lifecycle) handles(infos []credstore.Info) []string {
	out := make([]string, 0, len(infos))
	for _, i := range infos {
		out = append(out, l.Handle(i.Key))
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func filter(infos []credstore.Info, keep func(credstore.Info) bool) []credstore.Info {
	var out []credstore.Info
	for _, i := range infos {
		if keep(i) {
			out = append(out, i)
		}
	}
	return out
}
