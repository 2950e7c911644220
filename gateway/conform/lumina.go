package conform

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"math/big"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/enlist-mcp/enlist/gateway/eip191"
	"github.com/enlist-mcp/enlist/gateway/wire"
)

// lumina is a run at a service that speaks Lumina's protocol. It onboards ten
// times until the limit is met; what then is left needs another hour.
type lumina struct {
	*session
	wallet, second eip191.Wallet
	first          issuedKey   // of wallet
	others         []issuedKey // of wallet, and of those that were spelled otherwise
	foreign        issuedKey   // of second
	ended          issuedKey
	sent           call // that onboarded first
}

// issuedKey is a key of Lumina's.
type issuedKey struct {
	key string
	id  string
}

func gradeLumina(s *session) grader {
	l := &lumina{session: s, wallet: s.newWallet(), second: s.newWallet()}
	checks := l.onboarding()
	checks = append(checks, l.listing()...)
	checks = append(checks, l.refusals()...)
	checks = append(checks, l.cap()...)
	checks = append(checks, l.revoking()...)
	checks = append(checks, s.bodies("onboard", Seed, wire.LuminaInvalidBody, func() (call, error) { return l.onboards(s.newWallet(), l.seconds(0), ""), nil },
		`{"walletAddress":"`+l.wallet.Address()+`","signature":"0x00","timestamp":"now"}`)...)
	checks = append(checks,
		s.methods("onboard", wire.LuminaOnboardPath, http.MethodGet, http.MethodPost),
		s.methods("keys", wire.LuminaKeysPath, http.MethodPost, http.MethodGet),
		s.methods("revoke", wire.LuminaKeysPath+"/1", http.MethodGet, http.MethodDelete),
		s.head("keys", func() (call, error) { return l.lists(l.first.key), l.held() }),
		s.nothing("/api/v1/agent/no-such-route", wire.LuminaNotFound),
	)
	checks = append(checks, l.spellings()...)
	checks = append(checks, l.limits()...)
	checks = append(checks, s.suspension(func() string { return strings.ToLower(l.second.Address()) }, func(context.Context) (call, error) {
		if l.foreign.key == "" {
			return call{}, skip("no second wallet could be onboarded")
		}
		return l.lists(l.foreign.key), nil
	}))
	return grader{checks: checks, tidy: l.tidy, code: func(a answer) string {
		if a.at("code") != nil {
			return a.text("code")
		}
		return a.text("error")
	}}
}

// tidy has every key end itself.
func (l *lumina) tidy(ctx context.Context) []string {
	var left []string
	for _, k := range append([]issuedKey{l.first, l.foreign}, l.others...) {
		if k.key == "" || k == l.ended {
			continue
		}
		if a := l.send(ctx, l.revokes(k.key, k.id)); !a.ok() && a.status != http.StatusUnauthorized {
			left = append(left, "the key "+k.id+": it could not be revoked")
		}
	}
	return left
}

func (s *session) newWallet() eip191.Wallet {
	w, err := eip191.New(s.rand)
	if err != nil {
		panic(err) // the source of randomness has ended
	}
	return w
}

func (l *lumina) held() error {
	if l.first.key == "" {
		return skip("no wallet could be onboarded")
	}
	return nil
}

// seconds is a time that is so far off, in Unix seconds.
func (s *session) seconds(off time.Duration) int64 {
	if s.o.Now == nil {
		return 0
	}
	return s.o.Now().Add(off).Unix()
}

// signed is what onboards an address, as it is spelled, by the signature of a
// wallet over the message of another spelling.
func (l *lumina) signed(by eip191.Wallet, address, spelled string, at int64, label string, change func(string) string) call {
	signature, err := by.Sign(wire.LuminaMessage(spelled, at))
	if err != nil {
		panic(err) // a wallet signs everything
	}
	if change != nil {
		signature = change(signature)
	}
	body := fields{"walletAddress": address, "signature": signature, "timestamp": at}
	if label != "" {
		body["label"] = label
	}
	return post(wire.LuminaOnboardPath, text(body))
}

func (l *lumina) onboards(by eip191.Wallet, at int64, label string) call {
	return l.signed(by, by.Address(), by.Address(), at, label, nil)
}

func (*lumina) lists(key string) call {
	return get(wire.LuminaKeysPath, map[string]string{wire.LuminaKeyHeader: key})
}

func (*lumina) revokes(key, id string) call {
	return call{method: http.MethodDelete, path: wire.LuminaKeysPath + "/" + id, header: map[string]string{wire.LuminaKeyHeader: key}}
}

// keyOf is the key that an answer brings.
func keyOf(a answer) issuedKey {
	id, _ := a.at("keyId").(json.Number)
	return issuedKey{a.text("apiKey"), id.String()}
}

const luminaLabel = "enlist-conform"

func (l *lumina) onboarding() []check {
	var onboarded answer
	seen := func(f func(*faults)) func(context.Context) error {
		return func(context.Context) error {
			if err := l.held(); err != nil {
				return err
			}
			var found faults
			f(&found)
			return found.err()
		}
	}
	return []check{
		must("onboard.issued", "a signature of the wallet gets a key, lk_ and 64 hex digits, and its number", Seed, func(ctx context.Context) error {
			l.sent = l.onboards(l.wallet, l.seconds(0), luminaLabel)
			onboarded = l.send(ctx, l.sent)
			if err := granted(onboarded); err != nil {
				return err
			}
			l.first = keyOf(onboarded)
			var f faults
			shape(&f, "apiKey", l.first.key, `^lk_[0-9a-f]{64}$`)
			shape(&f, "keyId", l.first.id, `^[1-9][0-9]*$`)
			f.unless(onboarded.at("ok") == true, "ok is not true")
			return f.err()
		}),
		must("onboard.created", "it is answered with 201", Published, func(context.Context) error {
			return status(onboarded, http.StatusCreated)
		}),
		must("onboard.wallet", "the wallet is answered in lower case", Published, seen(func(f *faults) {
			f.unless(onboarded.text("wallet") == strings.ToLower(l.wallet.Address()), "wallet is %q", short(onboarded.text("wallet")))
		})),
		should("onboard.about", "the answer has the tier, the label, the time and a warning that the key is shown once", Published, seen(func(f *faults) {
			f.unless(onboarded.text("tier") != "" && onboarded.text("label") == luminaLabel && onboarded.text("warning") != "", "tier, label or warning is missing")
			l.within(f, "createdAt", onboarded.text("createdAt"), milliTime, 0, 0)
		})),
		should("onboard.rates", "the answer has the limits of both tiers", Seed, seen(func(f *faults) {
			f.unless(onboarded.at("rateLimit", "free", "rpm") != nil && onboarded.at("rateLimit", "paid", "rpm") != nil, "rateLimit is not complete")
		})),
	}
}

func (l *lumina) listing() []check {
	var listed answer
	return []check{
		must("keys.ok", "the key lists the wallet's keys, by number and label, without the keys themselves", Seed, func(ctx context.Context) error {
			if err := l.held(); err != nil {
				return err
			}
			listed = l.send(ctx, l.lists(l.first.key))
			if err := granted(listed); err != nil {
				return err
			}
			var f faults
			k := l.entry(listed)
			f.unless(listed.status == http.StatusOK && listed.at("ok") == true, "got status %d, or ok is not true", listed.status)
			f.unless(k != nil, "the key %s is not in the list", l.first.id)
			f.unless(k == nil || k["label"] == luminaLabel && k["tier"] != nil && k["createdAt"] != nil, "the key has another label, no tier or no createdAt")
			return f.err()
		}),
		should("keys.last-used", "the list says when a key was used last", Published, func(ctx context.Context) error {
			if err := l.held(); err != nil {
				return err
			}
			again := l.send(ctx, l.lists(l.first.key))
			if err := granted(again); err != nil {
				return err
			}
			var f faults
			f.unless(l.entry(again)["lastUsedAt"] != nil, "lastUsedAt is missing")
			return f.err()
		}),
	}
}

// entry is what a list says of the first key.
func (l *lumina) entry(a answer) fields {
	keys, _ := a.at("keys").([]any)
	for _, k := range keys {
		if f, ok := k.(fields); ok {
			if id, _ := f["keyId"].(json.Number); id.String() == l.first.id {
				return f
			}
		}
	}
	return nil
}

// refusals is what cannot onboard, and what is no key.
func (l *lumina) refusals() []check {
	invalid := func(id, expect string, source Source, c func() call) check {
		return must(id, expect, source, func(ctx context.Context) error {
			return l.refused(l.send(ctx, c()), http.StatusBadRequest, wire.LuminaInvalidBody)
		})
	}
	unsigned := func(id, expect string, severity Severity, source Source, c func() call) check {
		return check{Check{id, expect, source, severity}, func(ctx context.Context) error {
			return l.refused(l.send(ctx, c()), http.StatusUnauthorized, wire.LuminaInvalidSignature, wire.LuminaSignatureMismatch)
		}}
	}
	fresh := func(change func(fields)) call {
		c := l.onboards(l.wallet, l.seconds(0), "")
		var body fields
		if err := json.Unmarshal([]byte(c.body), &body); err == nil {
			change(body)
		}
		return post(wire.LuminaOnboardPath, text(body))
	}
	return []check{
		unsigned("onboard.replay", "a signature that was accepted is refused", Should, Choice, func() call { return l.sent }),
		must("onboard.stale", "a timestamp that is six minutes old is refused", Seed, func(ctx context.Context) error {
			return l.refused(l.send(ctx, l.onboards(l.wallet, l.seconds(-6*time.Minute), "")), http.StatusBadRequest, wire.LuminaStaleTimestamp)
		}),
		unsigned("onboard.other-signer", "a signature of another wallet is refused", Must, Seed, func() call {
			return l.signed(l.second, l.wallet.Address(), l.wallet.Address(), l.seconds(0), "", nil)
		}),
		unsigned("onboard.high-s", "a signature with a high s is refused", Should, Published, func() call {
			return l.signed(l.wallet, l.wallet.Address(), l.wallet.Address(), l.seconds(time.Second), "", highS)
		}),
		invalid("onboard.no-wallet", "no walletAddress is refused", Seed, func() call { return fresh(func(f fields) { delete(f, "walletAddress") }) }),
		invalid("onboard.checksum", "an address with a wrong checksum is refused", Published, func() call {
			return fresh(func(f fields) { f["walletAddress"] = miscased(l.wallet.Address()) })
		}),
		invalid("onboard.short-address", "an address of 39 digits is refused", Seed, func() call {
			return fresh(func(f fields) { f["walletAddress"] = l.wallet.Address()[:41] })
		}),
		invalid("onboard.no-signature", "no signature is refused", Seed, func() call { return fresh(func(f fields) { delete(f, "signature") }) }),
		invalid("onboard.compact", "a signature of 64 bytes is refused", Published, func() call {
			return fresh(func(f fields) { f["signature"] = "0x" + strings.Repeat("1b", 64) })
		}),
		invalid("onboard.no-time", "no timestamp is refused", Seed, func() call { return fresh(func(f fields) { delete(f, "timestamp") }) }),
		invalid("onboard.fraction", "a timestamp with a fraction is refused", Choice, func() call {
			return fresh(func(f fields) { f["timestamp"] = float64(l.seconds(0)) + 0.5 })
		}),
		invalid("onboard.long-label", "a label of 51 characters is refused", Seed, func() call {
			return fresh(func(f fields) { f["label"] = strings.Repeat("l", 51) })
		}),
		l.keyless("keys.no-key", "a request without a key is refused", wire.LuminaMissingAPIKey, func() call { return l.lists("") }),
		l.keyless("keys.unknown-key", "a key that nobody has is refused", wire.LuminaInvalidAPIKey, func() call {
			return l.lists(l.secret("lk_" + hex.EncodeToString(l.bytes(32))))
		}),
		l.keyless("keys.in-url", "a key in the URL counts for nothing", wire.LuminaMissingAPIKey, func() call {
			return get(wire.LuminaKeysPath+"?x-api-key="+l.first.key, nil)
		}),
		l.keyless("revoke.no-key", "to revoke without a key is refused", wire.LuminaMissingAPIKey, func() call { return l.revokes("", "1") }),
	}
}

// keyless is the check that a request is refused for its key.
func (l *lumina) keyless(id, expect, code string, c func() call) check {
	return must(id, expect, Published, func(ctx context.Context) error {
		return l.refused(l.send(ctx, c()), http.StatusUnauthorized, code)
	})
}

// miscased is an address in mixed case that is not the checksum's.
func miscased(address string) string {
	i := strings.IndexFunc(address[2:], func(r rune) bool { return r >= 'a' && r <= 'f' || r >= 'A' && r <= 'F' }) + 2
	b := []byte(address)
	b[i] ^= 0x20
	return string(b)
}

// highS is the other signature that the same wallet could have made: with the
// high s.
func highS(signature string) string {
	raw, err := hex.DecodeString(strings.TrimPrefix(signature, "0x"))
	if err != nil || len(raw) != 65 {
		return signature
	}
	order, _ := new(big.Int).SetString("fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141", 16)
	s := new(big.Int).Sub(order, new(big.Int).SetBytes(raw[32:64]))
	s.FillBytes(raw[32:64])
	raw[64] ^= 27 ^ 28
	if !slices.Contains([]byte{27, 28}, raw[64]) {
		return signature
	}
	return "0x" + hex.EncodeToString(raw)
}
