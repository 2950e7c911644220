package conform

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/enlist-mcp/enlist/gateway/wire"
)

// cap is that a wallet has three keys at most.
func (l *lumina) cap() []check {
	return []check{
		must("cap.race", "of four that onboard at the same moment a wallet with one key gets two, and the others 409", Seed, func(ctx context.Context) error {
			if err := l.held(); err != nil {
				return err
			}
			answers := l.race(ctx, 4, func(i int) call {
				return l.onboards(l.wallet, l.seconds(time.Duration(2+i)*time.Second), "")
			})
			for _, a := range answers {
				if a.ok() {
					l.others = append(l.others, keyOf(a))
				}
			}
			return l.one(answers, wire.LuminaMaxKeys-1, wire.LuminaCapReached, wire.LuminaKeyLimitReached)
		}),
		must("onboard.lower-case", "an address in lower case onboards, where the message has it so", Published, func(ctx context.Context) error {
			address := strings.ToLower(l.second.Address())
			a := l.send(ctx, l.signed(l.second, address, address, l.seconds(0), "", nil))
			if a.ok() {
				l.foreign = keyOf(a)
			}
			return granted(a)
		}),
	}
}

// revoking is how a key ends.
func (l *lumina) revoking() []check {
	held := func(f func(context.Context) error) func(context.Context) error {
		return func(ctx context.Context) error {
			if err := l.held(); err != nil {
				return err
			}
			return f(ctx)
		}
	}
	ended := func(f func(context.Context) error) func(context.Context) error {
		return func(ctx context.Context) error {
			if l.ended.key == "" {
				return skip("no key was revoked")
			}
			return f(ctx)
		}
	}
	return []check{
		must("revoke.ok", "a key of the wallet ends another one: 204", Published, held(func(ctx context.Context) error {
			if len(l.others) == 0 {
				return skip("the wallet has one key only")
			}
			a := l.send(ctx, l.revokes(l.first.key, l.others[0].id))
			if a.err != nil {
				return a.err
			}
			if err := a.met(); err != nil {
				return err
			}
			if a.ok() {
				l.ended = l.others[0]
			}
			return status(a, http.StatusNoContent)
		})),
		must("revoke.instant", "a key that was revoked is refused at once", Seed, ended(func(ctx context.Context) error {
			return l.refused(l.send(ctx, l.lists(l.ended.key)), http.StatusUnauthorized, wire.LuminaInvalidAPIKey)
		})),
		must("revoke.again", "to revoke it again is answered with 200 and alreadyRevoked", Published, ended(func(ctx context.Context) error {
			a := l.send(ctx, l.revokes(l.first.key, l.ended.id))
			if err := granted(a); err != nil {
				return err
			}
			var f faults
			f.unless(a.status == http.StatusOK && a.at("alreadyRevoked") == true, "got status %d, want 200 and alreadyRevoked", a.status)
			return f.err()
		})),
		must("revoke.unknown", "a number that no key has is refused with 404", Published, held(func(ctx context.Context) error {
			return l.refused(l.send(ctx, l.revokes(l.first.key, "999999999999999")), http.StatusNotFound, wire.LuminaKeyNotFound)
		})),
		must("revoke.no-number", "what is no number is refused with 400", Published, held(func(ctx context.Context) error {
			return l.refused(l.send(ctx, l.revokes(l.first.key, "one")), http.StatusBadRequest, wire.LuminaInvalidID)
		})),
		must("revoke.other", "another wallet's key is refused with 404", Published, held(func(ctx context.Context) error {
			if l.foreign.key == "" {
				return skip("no second wallet could be onboarded")
			}
			return l.refused(l.send(ctx, l.revokes(l.first.key, l.foreign.id)), http.StatusNotFound, wire.LuminaKeyNotFound)
		})),
	}
}

// more is a check that takes an onboarding beyond the ten that there are in an
// hour. Where time cannot be moved, the limit is met, and it is skipped.
func (l *lumina) more(id, expect string, source Source, f func(ctx context.Context) error) check {
	return must(id, expect, source, func(ctx context.Context) error {
		if err := l.held(); err != nil {
			return err
		}
		if l.o.Wait != nil && !l.o.SpreadAddresses {
			if err := l.wait(ctx, time.Hour); err != nil {
				return err
			}
		}
		return f(ctx)
	})
}

// gets is the check that something onboards.
func (l *lumina) gets(c func() call) func(context.Context) error {
	return func(ctx context.Context) error {
		a := l.send(ctx, c())
		if a.ok() {
			l.others = append(l.others, keyOf(a))
		}
		return granted(a)
	}
}

// spelled onboards a new wallet with its address and the signature as they are
// changed.
func (l *lumina) spelled(address, signature func(string) string) func() call {
	return func() call {
		w := l.newWallet()
		spelling := address(w.Address())
		return l.signed(w, spelling, spelling, l.seconds(0), "", signature)
	}
}

// spellings is in how many ways a wallet can be written.
func (l *lumina) spellings() []check {
	same := func(text string) string { return text }
	return []check{
		l.more("cap.freed", "a key that was revoked makes room for another", Seed, func(ctx context.Context) error {
			if l.ended.key == "" {
				return skip("no key was revoked")
			}
			return l.gets(func() call { return l.onboards(l.wallet, l.seconds(-time.Minute), "") })(ctx)
		}),
		l.more("cap.reached", "a fourth key is refused with 409", Seed, func(ctx context.Context) error {
			if l.ended.key == "" {
				return skip("no key was revoked")
			}
			a := l.send(ctx, l.onboards(l.wallet, l.seconds(-2*time.Minute), ""))
			return l.refused(a, http.StatusConflict, wire.LuminaCapReached, wire.LuminaKeyLimitReached)
		}),
		l.more("onboard.upper-case", "an address in upper case onboards, where the message has it so", Published,
			l.gets(l.spelled(func(a string) string { return "0x" + strings.ToUpper(a[2:]) }, nil))),
		l.more("onboard.upper-signature", "a signature in upper case is good", Published,
			l.gets(l.spelled(same, func(s string) string { return "0x" + strings.ToUpper(s[2:]) }))),
		l.more("onboard.recovery-id", "a v of 0 or 1 is good", Published, l.gets(l.spelled(same, func(s string) string {
			v := map[string]string{"1b": "00", "1c": "01"}[s[len(s)-2:]]
			if v == "" {
				return s
			}
			return s[:len(s)-2] + v
		}))),
		l.more("onboard.other-spelling", "a message with another spelling of the address is refused", Published, func(ctx context.Context) error {
			w := l.newWallet()
			c := l.signed(w, w.Address(), strings.ToLower(w.Address()), l.seconds(0), "", nil)
			return l.refused(l.send(ctx, c), http.StatusUnauthorized, wire.LuminaInvalidSignature, wire.LuminaSignatureMismatch)
		}),
		l.more("onboard.early", "a timestamp that is six minutes ahead is refused", Seed, func(ctx context.Context) error {
			c := l.onboards(l.newWallet(), l.seconds(6*time.Minute), "")
			return l.refused(l.send(ctx, c), http.StatusBadRequest, wire.LuminaStaleTimestamp)
		}),
	}
}

// limits is what is refused when it was too much.
func (l *lumina) limits() []check {
	return []check{
		must("key.limit", "a key is refused with 429 after 10 requests in a minute", Seed, func(ctx context.Context) error {
			if err := l.held(); err != nil {
				return err
			}
			return l.exhausts(ctx, 101, wire.LuminaRateLimit, func(int) call { return l.lists(l.first.key) })
		}),
		must("onboard.limit", "onboarding is refused with 429 after 10 times in an hour, those that were refused among them", Seed, func(ctx context.Context) error {
			return l.exhausts(ctx, 11, wire.LuminaRateLimit, func(int) call { return l.onboards(l.wallet, l.seconds(-6*time.Minute), "") })
		}),
	}
}
