package gateway

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/gateway/eip191"
	"github.com/enlist-mcp/enlist/gateway/wire"
)

// What Lumina keeps beside a key.
const (
	luminaWallet   = "wallet"   // what the wallet is called here, for rotating
	luminaTier     = "tier"     // as the service said it
	luminaReplaces = "replaces" // the keyId that this key replaces and that is not revoked yet
	luminaAsked    = "asked"    // when keys were asked for that may not have arrived, in unix seconds
)

// luminaNeeded is what stays of it where there is no room for all.
func luminaNeeded() []string { return []string{luminaWallet, luminaReplaces, luminaAsked} }

// luminaOriginVar is the setting that says where Lumina is.
const luminaOriginVar = "LUMINA_API_URL"

// luminaRegisterTool is the tool that registers an agent.
const luminaRegisterTool = "lumina_register_agent"

// luminaSignings is how often an onboarding is signed at most, a second later
// each time.
const luminaSignings = 3

// Lumina is the client half of Lumina.
type Lumina struct {
	origin  string // "": it is not set
	http    *caller
	store   credstore.Store
	steward *steward
	now     func() time.Time
	log     *slog.Logger
	begun   begun
}

func newLumina(o Options, http *caller) (*Lumina, error) {
	origin, err := o.setting(wire.LuminaName, luminaOriginVar, wire.Lumina().Origin)
	if err != nil {
		return nil, err
	}
	return &Lumina{
		origin: origin, http: http, store: o.Store, steward: o.steward, now: o.Now, log: o.Logger,
		begun: begun{o.Store, http.scrub, o.Now, o.Logger},
	}, nil
}

// Wire implements [Protocol].
func (l *Lumina) Wire() wire.Protocol { return wire.Lumina() }

// Origin implements [Protocol]. It is "" where the user has not set one.
func (l *Lumina) Origin() string { return l.origin }

// Kind implements [Protocol].
func (l *Lumina) Kind() credstore.Kind { return credstore.KindToken }

// Authorize implements [Protocol].
func (l *Lumina) Authorize(ctx context.Context, k credstore.Key, req *http.Request) error {
	if originOf(req.URL) != k.Origin {
		return errors.New("a credential goes to the origin that issued it only")
	}
	c, err := l.store.Get(ctx, k)
	if err != nil {
		return err
	}
	if c.State == credstore.StatePending {
		return &RefusedError{
			Why:  "There is no key of the agent " + cmp.Or(k.Label, k.Agent) + ": its registration did not come to an end. It must be registered again.",
			Tool: luminaRegisterTool,
		}
	}
	if !presentable(c.Secret.Reveal(), 1) {
		return &credstore.Error{
			Op: "use", Place: "the key of " + cmp.Or(k.Label, k.Agent), Kind: credstore.ErrDamaged,
			Remedy: "register the agent again",
		}
	}
	req.Header.Set(wire.LuminaKeyHeader, c.Secret.Reveal())
	return nil
}

// Environ implements [Exporter].
func (l *Lumina) Environ(ctx context.Context, k credstore.Key) ([]Variable, error) {
	header, err := headersOf(ctx, l, k)
	if err != nil {
		return nil, err
	}
	return []Variable{
		variable("LUMINA_API_KEY", header.Get(wire.LuminaKeyHeader)),
		variable(luminaOriginVar, k.Origin),
	}, nil
}

// LuminaRegistration is what an agent registers with at Lumina.
type LuminaRegistration struct {
	Label  string // names the key, here and at the service; ""
	Wallet string // which stored wallet; "": the only one, or one that is made here
	// RevokeKeyID is a key of the wallet that is revoked first; "": none is.
	RevokeKeyID string
	// RevokeChosen says that it was a person, in a form of Enlist's own: else the
	// policy has its say as for any credential that ends.
	RevokeChosen bool
}

func (r LuminaRegistration) check() error {
	_, ok := luminaNumber(r.RevokeKeyID)
	switch {
	case !wire.CheckLuminaLabel(r.Label):
		return errors.New("label: want at most 50 characters, none of them a control character")
	case r.Wallet != "" && !agentPart.MatchString(r.Wallet):
		return errors.New("wallet: " + wantWalletName)
	case r.RevokeKeyID != "" && !ok:
		return errors.New("revoke_key_id: want the number of a key")
	}
	return nil
}

// Register gets the agent a key and stores it. Where a usable one is stored
// under the label already, it returns that: the service gives a wallet only
// three. A full wallet is a *[KeysFullError].
func (l *Lumina) Register(ctx context.Context, r LuminaRegistration) (Registration, error) {
	// The agent is the wallet, which may be made yet: what is known is the label.
	act := Act{Action: ActRegister, Key: credstore.Key{Protocol: wire.LuminaName, Origin: l.origin, Kind: credstore.KindToken, Label: r.Label}}
	return does(ctx, l.steward, act, func(ctx context.Context) (Registration, error) { return l.register(ctx, r) })
}

func (l *Lumina) register(ctx context.Context, r LuminaRegistration) (Registration, error) {
	op := call{protocol: wire.LuminaName, origin: l.origin, op: "onboard"}
	if err := r.check(); err != nil {
		return Registration{}, op.fail(CodeInvalidInput, err)
	}
	if l.origin == "" {
		return Registration{}, errNoLumina()
	}
	ctx, cancel := l.http.begin(ctx)
	defer cancel()
	name, w, err := l.wallet(ctx, op, r.Wallet)
	if err != nil {
		return Registration{}, err
	}
	k := credstore.Key{
		Protocol: wire.LuminaName, Origin: l.origin, Agent: walletAddress(w), Kind: credstore.KindToken, Label: r.Label,
	}
	if r.RevokeKeyID != "" {
		if err := l.revokeChosen(ctx, k, r); err != nil {
			return Registration{}, err
		}
	}
	unlock, err := lockHandle(ctx, l.store, k)
	if err != nil {
		return Registration{}, err
	}
	defer unlock()
	held, err := l.stored(ctx, k)
	if err != nil {
		return Registration{}, err
	}
	if held.UsableAt(l.now()) {
		return Registration{Info: held.Info, Reused: true}, nil
	}
	if err := l.taken(ctx, op, k); err != nil {
		return Registration{}, err
	}
	held.Attrs = maps.Clone(held.Attrs)
	if held.Attrs == nil {
		held.Attrs = make(map[string]string)
	}
	held.Attrs[luminaWallet] = name
	info, err := l.issue(ctx, ActRegister, k, w, held)
	return Registration{Info: info}, err
}

// taken refuses a handle that another key has: one of another wallet, or with a
// label that is spelled the same in a handle.
func (l *Lumina) taken(ctx context.Context, op call, k credstore.Key) error {
	all, err := l.store.List(ctx, wire.LuminaName)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(all, func(i credstore.Info) bool {
		return i.Origin == k.Origin && i.Kind == k.Kind && i.Key != k && bareHandle(i.Key) == bareHandle(k)
	}) {
		return nil
	}
	return op.fail(CodeInvalidInput, fmt.Errorf(
		"label: the handle %s belongs to another stored key (another wallet or label): give a label that no handle has", bareHandle(k)))
}

// errNoLumina: the protocol has no service of its own.
func errNoLumina() error {
	return &RefusedError{Why: "Lumina has no fixed address and " + luminaOriginVar + " is not set. " +
		"Ask the person to set " + luminaOriginVar + " in Enlist's environment to the service's base URL and to restart Enlist."}
}

// stored returns what is stored under a key, and nothing where nothing is.
func (l *Lumina) stored(ctx context.Context, k credstore.Key) (credstore.Credential, error) {
	c, err := l.store.Get(ctx, k)
	if errors.Is(err, credstore.ErrNotFound) || errors.Is(err, credstore.ErrDamaged) {
		return credstore.Credential{}, nil
	}
	return c, err
}

// luminaIssued is what an onboarding answered. Only the key must be as the
// protocol says.
type luminaIssued struct {
	key    credstore.Secret
	fields map[string]json.RawMessage
}

// onboard gets a key, first by the signature of a time, which is again where that was
// sent before. One whose answer was lost may live at the service; it is not asked
// for again here, because each one takes a place of three. asks is told of each
// further time before it is signed.
func (l *Lumina) onboard(ctx context.Context, k credstore.Key, w eip191.Wallet, at int64, again bool, asks func(at int64) error) (issued luminaIssued, first bool, err error) {
	for n := 1; ; n++ {
		issued, err := l.round(ctx, k, w, at)
		var e *Error
		if !errors.As(err, &e) {
			return issued, n == 1, err
		}
		// Signing is deterministic: somebody with the same wallet, another
		// process of ours most likely, has sent this signature this second.
		// Or it is again, and has arrived or never will.
		used := e.Code == wire.LuminaInvalidSignature || again && n == 1 && e.Code == wire.LuminaStaleTimestamp
		switch {
		case e.Code == wire.LuminaCapReached, e.Code == wire.LuminaKeyLimitReached:
			return issued, false, &KeysFullError{Err: e, Keys: l.keysOf(ctx, k)}
		case !used || n == luminaSignings || !l.http.pause(ctx, time.Second):
			return issued, false, err
		}
		at = max(at+1, l.now().Unix())
		if err := asks(at); err != nil {
			return issued, false, err
		}
	}
}

// round onboards once.
func (l *Lumina) round(ctx context.Context, k credstore.Key, w eip191.Wallet, at int64) (luminaIssued, error) {
	op := call{protocol: wire.LuminaName, origin: k.Origin, op: "onboard", acts: true}
	signature, err := w.Sign(wire.LuminaMessage(w.Address(), at))
	if err != nil {
		return luminaIssued{}, op.fail(CodeInvalidInput, err)
	}
	// Whoever reads it could onboard with it, for a while.
	l.http.scrub.learn(credstore.NewSecret(signature))
	answer, err := l.send(ctx, op, http.MethodPost, wire.LuminaOnboardPath, credstore.Secret{}, wire.LuminaOnboardRequest{
		WalletAddress: w.Address(), Signature: signature, Timestamp: &at, Label: k.Label,
	})
	if err != nil {
		return luminaIssued{}, err
	}
	var fields map[string]json.RawMessage
	if err := l.http.decode(op, answer, &fields); err != nil {
		return luminaIssued{}, err
	}
	var key string
	if json.Unmarshal(fields["apiKey"], &key) != nil || !presentable(key, minSecret) {
		return luminaIssued{}, op.unreadable(answer, "the answer has no key that could be put into a header")
	}
	issued := luminaIssued{key: credstore.NewSecret(key), fields: fields}
	l.http.scrub.learn(issued.key) // before anything else of the answer is looked at
	return issued, nil
}

// send makes a request; what is no POST may be made again. body nil: none.
func (l *Lumina) send(ctx context.Context, op call, method, path string, key credstore.Secret, body any) (answer, error) {
	u, err := url.Parse(op.origin + path)
	if err != nil {
		return answer{}, op.fail(CodeInvalidInput, errNotAnOrigin)
	}
	header := make(http.Header)
	if !key.IsZero() {
		header.Set(wire.LuminaKeyHeader, key.Reveal())
	}
	return l.http.exchange(ctx, op, message{method: method, url: u, header: header}, body, method != http.MethodPost)
}

// end revokes a key at the service with a key of the same wallet. One that the
// service does not know has ended.
func (l *Lumina) end(ctx context.Context, k credstore.Key, id string, with credstore.Secret) error {
	op := call{protocol: wire.LuminaName, origin: k.Origin, op: "revoke a key", acts: true}
	number, ok := luminaNumber(id)
	if !ok {
		return op.fail(CodeInvalidInput, errors.New("the service gave the key no number that it could be revoked by"))
	}
	_, err := l.send(ctx, op, http.MethodDelete, wire.LuminaKeyPath(number), with, nil)
	var e *Error
	if err == nil || errors.As(err, &e) && e.Code == wire.LuminaKeyNotFound {
		acted(ctx)
		return nil
	}
	return err
}

// luminaNumber reads a keyId.
func luminaNumber(id string) (int64, bool) {
	n, err := strconv.ParseInt(id, 10, 64)
	return n, err == nil && n > 0
}

// Discover implements [Discoverer]. The sandbox and the faucet that a service
// may also have are no registration and are not looked for.
func (l *Lumina) Discover(ctx context.Context, s *Site) (*Discovery, error) {
	keys, err := s.get(ctx, wire.LuminaKeysPath)
	if err != nil {
		return nil, err
	}
	if !s.refuses(keys, http.StatusUnauthorized, wire.LuminaMissingAPIKey) {
		return nil, nil
	}
	d := Discovery{
		Confidence: Likely,
		Evidence:   []string{"GET " + wire.LuminaKeysPath + " refuses to go without a key, by Lumina's own code."},
	}
	if onboard, err := s.get(ctx, wire.LuminaOnboardPath); err == nil && s.postOnly(onboard) {
		d.Confidence = Certain
		d.Evidence = append(d.Evidence, wire.LuminaOnboardPath+" is there, for POST.")
	}
	return &d, nil
}
