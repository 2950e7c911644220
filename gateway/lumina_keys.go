package gateway

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/gateway/eip191"
	"github.com/enlist-mcp/enlist/gateway/wire"
)

// KeysFullError says that a wallet has as many keys as it may have, and which.
// Nothing was revoked: which of them can go is not Enlist's to decide.
type KeysFullError struct {
	Err  *Error      // as the service said it
	Keys []LuminaKey // none: they could not be listed, for want of a stored key
}

// Error implements error.
func (e *KeysFullError) Error() string {
	var ids []string
	for _, k := range e.Keys {
		ids = append(ids, k.KeyID)
	}
	if ids == nil {
		return e.Err.Error()
	}
	return e.Err.Error() + ". The keys are: " + strings.Join(ids, ", ")
}

// Unwrap returns what the service said.
func (e *KeysFullError) Unwrap() error { return e.Err }

// LuminaKey is a key of a wallet as the service lists it.
type LuminaKey struct {
	KeyID      string
	Label      string
	CreatedAt  time.Time      // zero: not said
	LastUsedAt time.Time      // zero: never, or not said
	Stored     *credstore.Key // nil: it is not stored here
}

// keysOf lists the active keys of a wallet with one that is stored. Whoever
// asks has an error to report already, so there is none: what cannot be listed
// is left out.
func (l *Lumina) keysOf(ctx context.Context, k credstore.Key) []LuminaKey {
	stored := l.usable(ctx, k)
	for _, c := range stored {
		keys, _, err := l.listKeys(ctx, k, c.Secret)
		if err != nil {
			continue
		}
		for n := range keys {
			for _, s := range stored {
				if s.KeyID == keys[n].KeyID {
					keys[n].Stored = &s.Key
				}
			}
		}
		return keys
	}
	return nil
}

// listKeys lists the active keys of a wallet with one of them, and returns the
// answer's headers beside them.
func (l *Lumina) listKeys(ctx context.Context, k credstore.Key, with credstore.Secret) ([]LuminaKey, http.Header, error) {
	op := call{protocol: wire.LuminaName, origin: k.Origin, op: "list the keys"}
	answer, err := l.send(ctx, op, http.MethodGet, wire.LuminaKeysPath, with, nil)
	if err != nil {
		return nil, nil, err
	}
	var out struct {
		Keys []map[string]json.RawMessage `json:"keys"`
	}
	if err := l.http.decode(op, answer, &out); err != nil {
		return nil, nil, err
	}
	var keys []LuminaKey
	for _, fields := range out.Keys {
		id := scalar(fields, "keyId", "id")
		_, ok := luminaNumber(id)
		if revoked := string(fields["revokedAt"]); !ok || revoked != "" && revoked != "null" {
			continue
		}
		keys = append(keys, LuminaKey{
			KeyID:     id,
			Label:     l.http.scrub.Said(ctx, scalar(fields, "label")),
			CreatedAt: luminaTime(fields["createdAt"]), LastUsedAt: luminaTime(fields["lastUsedAt"]),
		})
	}
	return keys, answer.header, nil
}

// luminaTime reads a time: RFC 3339, or milliseconds since 1970.
func luminaTime(raw json.RawMessage) time.Time {
	var at wire.MilliTime
	if string(raw) != "null" && json.Unmarshal(raw, &at) == nil {
		return at.Time()
	}
	var millis int64
	if json.Unmarshal(raw, &millis) == nil && millis > 0 && millis < 253402300800000 {
		return time.UnixMilli(millis).UTC()
	}
	return time.Time{}
}

// usable returns the stored keys of a wallet that may work.
func (l *Lumina) usable(ctx context.Context, k credstore.Key) []credstore.Credential {
	list, err := l.store.List(ctx, wire.LuminaName)
	if err != nil {
		return nil
	}
	var found []credstore.Credential
	for _, i := range list {
		if i.Origin != k.Origin || i.Agent != k.Agent || i.Kind != credstore.KindToken || !i.UsableAt(l.now()) {
			continue
		}
		if c, err := l.store.Get(ctx, i.Key); err == nil {
			found = append(found, c)
		}
	}
	return found
}

// revokeChosen ends a key of the wallet that somebody chose: one that is stored
// with itself, another with whichever stored key of the wallet the service takes.
// It is an act of its own, which the policy may refuse or ask about.
func (l *Lumina) revokeChosen(ctx context.Context, k credstore.Key, r LuminaRegistration) error {
	act := Act{Action: ActRevoke, Key: k, KeyID: r.RevokeKeyID, Chosen: r.RevokeChosen}
	act.Key.Label = ""
	stored := l.usable(ctx, k)
	end := func(ctx context.Context) (struct{}, error) {
		return struct{}{}, l.endWith(ctx, k, r.RevokeKeyID, stored)
	}
	number, _ := luminaNumber(r.RevokeKeyID)
	for _, c := range stored {
		if n, ok := luminaNumber(c.KeyID); ok && n == number { // however the service writes it
			act.Key, act.KeyID = c.Key, ""
			end = func(ctx context.Context) (struct{}, error) { return struct{}{}, l.endStored(ctx, c) }
		}
	}
	_, err := does(ctx, l.steward, act, end)
	return err
}

// endWith ends a key of the wallet that is not stored, with one that is.
func (l *Lumina) endWith(ctx context.Context, k credstore.Key, id string, stored []credstore.Credential) error {
	var err error = &RefusedError{Why: "No key of this wallet is stored that could revoke another one."}
	for _, c := range stored {
		if err = l.end(ctx, k, id, c.Secret); !keyRefused(err) {
			return err
		}
	}
	return err
}

// endStored ends a stored key, and not another that has taken its place meanwhile.
func (l *Lumina) endStored(ctx context.Context, chosen credstore.Credential) error {
	unlock, err := l.store.Lock(ctx, chosen.Key)
	if err != nil {
		return err
	}
	defer unlock()
	c, err := l.store.Get(ctx, chosen.Key)
	switch {
	case err != nil:
		return err
	case c.KeyID != chosen.KeyID:
		return &RefusedError{Why: "The key that was chosen has just been replaced by another, which was not ended. List the keys of the wallet again."}
	}
	return l.revoke(ctx, c)
}

// defaultWallet is what a wallet is called that is made here.
const defaultWallet = "default"

const wantWalletName = "want up to 100 ASCII letters, digits, dots, underscores and dashes"

// Wallet is what may be said of a stored wallet.
type Wallet struct {
	Name    string `json:"name"`
	Origin  string `json:"origin"`
	Address string `json:"address"` // with the EIP-55 checksum
}

// Wallets lists the stored wallets of every origin.
func (l *Lumina) Wallets(ctx context.Context) ([]Wallet, error) {
	list, err := l.store.List(ctx, wire.LuminaName)
	if err != nil {
		return nil, err
	}
	var found []Wallet
	for _, i := range list {
		if i.Kind == credstore.KindWallet {
			found = append(found, Wallet{Name: i.Agent, Origin: i.Origin, Address: i.KeyID})
		}
	}
	return found, nil
}

func luminaWalletKey(origin, name string) credstore.Key {
	return credstore.Key{Protocol: wire.LuminaName, Origin: origin, Agent: name, Kind: credstore.KindWallet}
}

// walletAddress is the address as Lumina answers it.
func walletAddress(w eip191.Wallet) string { return strings.ToLower(w.Address()) }

// wallet returns the wallet that is called name; "" stands for the only one of
// the origin, which is made where there is none.
func (l *Lumina) wallet(ctx context.Context, op call, name string) (string, eip191.Wallet, error) {
	if name == "" {
		all, err := l.Wallets(ctx)
		if err != nil {
			return "", eip191.Wallet{}, err
		}
		all = slices.DeleteFunc(all, func(w Wallet) bool { return w.Origin != l.origin })
		switch len(all) {
		case 0:
			w, err := l.makeWallet(ctx)
			return defaultWallet, w, err
		case 1:
			name = all[0].Name
		default:
			return "", eip191.Wallet{}, op.fail(CodeInvalidInput, fmt.Errorf("wallet: several are stored, say which: %s", walletNames(all)))
		}
	}
	w, err := l.openWallet(ctx, l.origin, name)
	if errors.Is(err, credstore.ErrNotFound) {
		all, listed := l.Wallets(ctx)
		if listed != nil {
			return "", eip191.Wallet{}, listed
		}
		all = slices.DeleteFunc(all, func(w Wallet) bool { return w.Origin != l.origin })
		err = op.fail(CodeInvalidInput, fmt.Errorf("wallet: none of that name is stored for %s; leave it out, or name one of these: %s", l.origin, walletNames(all)))
	}
	return name, w, err
}

func walletNames(all []Wallet) string {
	var names []string
	for _, w := range all {
		names = append(names, w.Name)
	}
	if len(names) == 0 {
		return "(none)"
	}
	return strings.Join(names, ", ")
}

// openWallet returns a stored wallet.
func (l *Lumina) openWallet(ctx context.Context, origin, name string) (eip191.Wallet, error) {
	c, err := l.store.Get(ctx, luminaWalletKey(origin, name))
	if err != nil {
		return eip191.Wallet{}, err
	}
	w, err := eip191.ParseKey(c.Secret.Reveal())
	if err != nil || c.KeyID != "" && walletAddress(w) != strings.ToLower(c.KeyID) {
		return eip191.Wallet{}, &credstore.Error{
			Op: "use", Place: "the wallet " + name, Kind: credstore.ErrDamaged, Remedy: "import the wallet again",
		}
	}
	return w, nil
}

// makeWallet makes the origin's wallet and stores it, before anything is signed
// with it.
func (l *Lumina) makeWallet(ctx context.Context) (eip191.Wallet, error) {
	k := luminaWalletKey(l.origin, defaultWallet)
	unlock, err := l.store.Lock(ctx, k)
	if err != nil {
		return eip191.Wallet{}, err
	}
	defer unlock()
	w, err := l.openWallet(ctx, l.origin, defaultWallet)
	if !errors.Is(err, credstore.ErrNotFound) {
		return w, err // somebody was quicker, or the list was lost and the wallet was not
	}
	if w, err = eip191.New(rand.Reader); err != nil {
		return w, err
	}
	l.log.InfoContext(ctx, "a wallet is made", "protocol", wire.LuminaName, "origin", l.origin, "address", w.Address())
	return w, l.putWallet(ctx, k, w)
}

func (l *Lumina) putWallet(ctx context.Context, k credstore.Key, w eip191.Wallet) error {
	return l.store.Put(ctx, credstore.Credential{Secret: credstore.NewSecret(w.Key()), Info: credstore.Info{
		Key: k, State: credstore.StateActive, KeyID: w.Address(), CreatedAt: l.now().UTC().Truncate(time.Millisecond),
	}})
}

// WalletImport is a wallet that a person has already.
type WalletImport struct {
	Name       string // what it is to be called
	File       []byte // a private key in hex, or a keystore of version 3
	Passphrase string // of the keystore
	Shared     bool   // it may be used at another origin, too
}

// ImportWallet stores a wallet for the origin that is set. A wallet is used at
// one origin only, unless Shared says otherwise: the message that it signs names
// no host, so a signature for one service is good at another.
func (l *Lumina) ImportWallet(ctx context.Context, i WalletImport) (Wallet, error) {
	act := Act{Action: ActImport, Key: luminaWalletKey(l.origin, i.Name)}
	return does(ctx, l.steward, act, func(ctx context.Context) (Wallet, error) { return l.importWallet(ctx, i) })
}

func (l *Lumina) importWallet(ctx context.Context, i WalletImport) (Wallet, error) {
	op := call{protocol: wire.LuminaName, origin: l.origin, op: "import a wallet"}
	if l.origin == "" {
		return Wallet{}, errNoLumina()
	}
	if !agentPart.MatchString(i.Name) {
		return Wallet{}, op.fail(CodeInvalidInput, errors.New("name: "+wantWalletName))
	}
	var w eip191.Wallet
	var err error
	if eip191.IsKeystore(i.File) {
		w, err = eip191.OpenKeystore(i.File, i.Passphrase)
	} else {
		w, err = eip191.ParseKey(string(i.File))
	}
	if err != nil {
		return Wallet{}, op.fail(CodeInvalidInput, err)
	}
	ctx, cancel := l.http.begin(ctx)
	defer cancel()
	k := luminaWalletKey(l.origin, i.Name)
	unlock, err := l.store.Lock(ctx, k)
	if err != nil {
		return Wallet{}, err
	}
	defer unlock()
	all, err := l.Wallets(ctx)
	if err != nil {
		return Wallet{}, err
	}
	done := Wallet{Name: i.Name, Origin: l.origin, Address: w.Address()}
	for _, other := range all {
		switch {
		case other == done:
			return done, nil
		case other.Origin == l.origin && other.Name == i.Name:
			return Wallet{}, &RefusedError{Why: "Another wallet of that name is stored: choose another name."}
		case other.Origin != l.origin && other.Address == done.Address && !i.Shared:
			return Wallet{}, &RefusedError{Why: "This wallet is used at " + other.Origin + " already, and what it signs for one service is good at another. Use another wallet, or say that it is shared."}
		}
	}
	return done, l.putWallet(ctx, k, w)
}

// DeleteWallet deletes a wallet of the origin that is set. Its private key is
// gone then. While credentials hang on it, which could not be rotated without
// it, that is refused unless force says otherwise.
func (l *Lumina) DeleteWallet(ctx context.Context, name string, force bool) (Wallet, error) {
	act := Act{Action: ActForget, Key: luminaWalletKey(l.origin, name)}
	return does(ctx, l.steward, act, func(ctx context.Context) (Wallet, error) { return l.deleteWallet(ctx, name, force) })
}

func (l *Lumina) deleteWallet(ctx context.Context, name string, force bool) (Wallet, error) {
	w, err := l.Wallet(ctx, name)
	if err != nil {
		return Wallet{}, err
	}
	ctx, cancel := l.http.begin(ctx)
	defer cancel()
	k := luminaWalletKey(l.origin, name)
	unlock, err := l.store.Lock(ctx, k)
	if err != nil {
		return Wallet{}, err
	}
	defer unlock()
	list, err := l.store.List(ctx, wire.LuminaName)
	if err != nil {
		return Wallet{}, err
	}
	var hang []string
	for _, i := range list {
		if i.Kind == credstore.KindToken && i.Origin == l.origin && i.State != credstore.StateRevoked &&
			(i.Attrs[luminaWallet] == name || i.Agent == strings.ToLower(w.Address)) {
			hang = append(hang, bareHandle(i.Key))
		}
	}
	if len(hang) > 0 && !force {
		return Wallet{}, &RefusedError{Why: "Credentials were issued to this wallet, and without it they can never be rotated: " +
			strings.Join(hang, ", ") + ". Revoke them first, or force it."}
	}
	if err := l.store.Delete(ctx, k); err != nil {
		return Wallet{}, err
	}
	l.log.InfoContext(ctx, "a wallet is deleted", "protocol", wire.LuminaName, "origin", l.origin, "address", w.Address)
	return w, nil
}

// Wallet returns what may be said of the wallet that is called name.
func (l *Lumina) Wallet(ctx context.Context, name string) (Wallet, error) {
	if l.origin == "" {
		return Wallet{}, errNoLumina()
	}
	ctx, cancel := l.http.begin(ctx)
	defer cancel()
	all, err := l.Wallets(ctx)
	if err != nil {
		return Wallet{}, err
	}
	all = slices.DeleteFunc(all, func(w Wallet) bool { return w.Origin != l.origin })
	for _, w := range all {
		if w.Name == name {
			return w, nil
		}
	}
	return Wallet{}, &RefusedError{Why: "No wallet of that name is stored for " + l.origin + ". Stored are: " + walletNames(all) + "."}
}

// Try implements [Trier]: it lists the keys of the wallet.
func (l *Lumina) Try(ctx context.Context, c credstore.Credential) error {
	op := call{protocol: wire.LuminaName, origin: c.Origin, op: "try a key"}
	_, err := l.send(ctx, op, http.MethodGet, wire.LuminaKeysPath, c.Secret, nil)
	return err
}
