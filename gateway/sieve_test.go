package gateway_test

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/gateway"
	"github.com/enlist-mcp/enlist/gateway/wire"
)

// sieve puts a text through a sieve in chunks of random length.
func sieve(f *gateway.Client, size int, text string, random *rand.Rand) (string, error) {
	var out bytes.Buffer
	s := f.Scrubber.Sieve(size, func(p []byte) error { _, err := out.Write(p); return err }, func(int) {})
	for len(text) > 0 {
		n := min(len(text), 1+random.IntN(2*size))
		if _, err := s.Write([]byte(text[:n])); err != nil {
			return out.String(), err
		}
		text = text[n:]
	}
	err := s.Close()
	return out.String(), err
}

// knowing returns a client in whose store secrets are.
func knowing(t *testing.T, secrets ...string) *fixture {
	t.Helper()
	f := newFixture(t, setup{})
	for i, secret := range secrets {
		f.put(t, credstore.Credential{
			Info: credstore.Info{Key: lonaKey(lonaOrigin, "agent-"+string(rune('a'+i)))}, Secret: credstore.NewSecret(secret),
		})
	}
	if _, err := f.Scrubber.Scrub(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	return f
}

// filler returns a text that is not masked, of about n bytes.
func filler(random *rand.Rand, n int, words string) string {
	all := strings.Fields(words)
	var b strings.Builder
	for b.Len() < n {
		b.WriteString(all[random.IntN(len(all))])
		b.WriteByte(' ')
	}
	return b.String()
}

// What comes in pieces is masked as what comes at once, wherever a secret lies
// and however it is spelled.
func TestASieveMasksAcrossBorders(t *testing.T) {
	secrets := []string{token("my-agent", 1), opaque}
	f := knowing(t, secrets...)
	for _, words := range []string{"a few words: {\"of\" [the] usual, 12.5 kind; größer 👩‍💻 <b>", "onewordonlythatisneverparted"} {
		for name, disguise := range disguises {
			t.Run(name, func(t *testing.T) {
				random := rand.New(rand.NewPCG(1, 2))
				for range 3 {
					var b strings.Builder
					for range 30 {
						b.WriteString(filler(random, random.IntN(900), words))
						b.WriteString(disguise(secrets[random.IntN(2)]))
						b.WriteByte(" \t,"[random.IntN(3)])
					}
					got, err := sieve(f.Client, 2<<10, b.String(), random)
					if err != nil {
						t.Fatal(err)
					}
					for _, secret := range secrets {
						if leaks(got, secret) || leaks(got, disguise(secret)) || leaks(f.Scrubber.Bare(got), secret) {
							t.Fatalf("%q is in what came out", secret)
						}
					}
					if want := f.Scrubber.Clean(b.String()); f.Scrubber.Bare(got) != f.Scrubber.Bare(want) {
						t.Fatalf("got another text than at once: %d and %d bytes", len(got), len(want))
					}
				}
			})
		}
	}
}

// Where no escape is undone, what comes out is the same to the byte.
func TestASieveLeavesTheRestAlone(t *testing.T) {
	f := knowing(t, token("my-agent", 1), opaque)
	random := rand.New(rand.NewPCG(3, 4))
	const words = "line\n 100% \\n \\u00e9 &amp; ünïcode \"quoted\" "
	for range 20 {
		text := filler(random, 40_000, words)
		if got, err := sieve(f.Client, 2<<10, text, random); err != nil || got != text {
			t.Fatalf("got %d bytes (%v), want the %d that came", len(got), err, len(text))
		}
		text += token("my-agent", 1) + " " + token("other", 7) + " " + filler(random, 20_000, "plain words") + opaque + "."
		text = filler(random, 20_000, "plain words") + strings.Repeat(token("my-agent", 1)+",", 200) + strings.ReplaceAll(text[40_000:], "\n", " ")
		if got, err := sieve(f.Client, 2<<10, text, random); err != nil || got != f.Scrubber.Clean(text) {
			t.Fatalf("got %d bytes (%v), want %d as at once", len(got), err, len(f.Scrubber.Clean(text)))
		}
	}
}

func TestASieveHoldsLittle(t *testing.T) {
	f := knowing(t, token("my-agent", 1))
	chunk := []byte(strings.Repeat("{\"id\": \"a-strategy\",\n \"name\": \"One\"}, ", 800))
	most, n := 0, 0
	s := f.Scrubber.Sieve(64<<10, func(p []byte) error { n += len(p); return nil }, func(held int) { most = max(most, held) })
	sent := 0
	for range 512 {
		if _, err := s.Write(chunk); err != nil {
			t.Fatal(err)
		}
		sent += len(chunk)
	}
	if err := s.Close(); err != nil || n != sent {
		t.Errorf("got %d bytes (%v), want %d", n, err, sent)
	}
	if most > 512<<10 {
		t.Errorf("held %d bytes of %d, want few", most, sent)
	}
}

func TestASieveOfWhatIsNotText(t *testing.T) {
	secret := token("my-agent", 1)
	f := knowing(t, secret, opaque)
	random := rand.New(rand.NewPCG(5, 6))
	noise := make([]byte, 50_000)
	for i := range noise {
		noise[i] = byte(random.Uint32())
	}
	binary, text := string(noise), filler(random, 50_000, "a few words")
	wide := strings.ReplaceAll(opaque, "", "\x00")
	for _, tt := range []struct {
		name, give string
		withheld   bool
	}{
		{"as it is", binary, false},
		{"text first", text + binary, false},
		{"a secret in it", binary + secret + binary, true},
		{"a secret at the end", binary + secret, true},
		{"a secret in base64", binary + disguises["base64 after 1 byte"](secret) + binary, true},
		{"a secret in wide characters", binary + wide + binary, true},
		{"what looks like one", binary + token("other-agent", 5) + binary, true},
		{"a secret in the text before it", text + secret + text + binary, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := sieve(f.Client, 2<<10, tt.give, random)
			if tt.withheld {
				if !errors.Is(err, gateway.ErrHides) || strings.Contains(got, secret[:40]) || strings.Contains(got, wide[:20]) {
					t.Errorf("got %v, want it withheld before the secret", err)
				}
				return
			}
			if err != nil || got != tt.give {
				t.Errorf("got %d bytes (%v), want the %d that came", len(got), err, len(tt.give))
			}
		})
	}
}

// Where secrets follow each other without an end, nothing more comes out.
func TestASieveEndsAtWhatItCannotPart(t *testing.T) {
	f := knowing(t, opaque)
	long := strings.Repeat("0123456789abcdefghijklmnopqrstuvwxyz", 30)
	f.put(t, credstore.Credential{Info: credstore.Info{Key: lonaKey(lonaOrigin, "long")}, Secret: credstore.NewSecret(long)})
	random := rand.New(rand.NewPCG(7, 8))

	begin := filler(random, 60_000, "a few words")

	got, err := sieve(f.Client, 2<<10, begin+strings.Repeat(long, 200)+" the end", random)

	if !errors.Is(err, gateway.ErrKnot) || !strings.HasPrefix(got, begin[:20_000]) || strings.Contains(got, long[:36]) || strings.Contains(got, "end") {
		t.Errorf("got %d bytes (%v), want no more than the beginning", len(got), err)
	}
}

// FuzzSieve looks for a way to get a secret through in two pieces.
func FuzzSieve(f *testing.F) {
	f.Add(uint64(1), "words ", "after", "lona_partner_my-agent_abc123xyz456_SecretKeyHere123", byte(0))
	f.Add(uint64(2), "x", "\n", `tok+en/&<9>=~"_Zm9vYmFy`, byte(3))
	f.Add(uint64(3), "\\", "\\u0041", "0123456789abcdef", byte(8))
	f.Add(uint64(4), "%", "&#", "aaaaaaaaaaaaaaaaaaaa", byte(7))
	names := []string{"plain", "base64", "base64 after 1 byte", "base64 of Basic", "base64url", "hex", "HEX", "every % escape", "every JSON escape", "HTML"}
	f.Fuzz(func(t *testing.T, seed uint64, before, after, secret string, which byte) {
		if len(secret) < 16 || len(secret) > 200 || strings.ContainsFunc(secret, func(r rune) bool { return r <= ' ' || r > '~' }) {
			return
		}
		c := knowing(t, secret)
		random := rand.New(rand.NewPCG(seed, 1))
		hidden := disguises[names[int(which)%len(names)]](secret)
		around := strings.ToValidUTF8(strings.ReplaceAll(before+" "+after+" ", "\x00", ""), "")
		if strings.Contains(strings.Repeat(around, 2+len(hidden)/len(around)), hidden) {
			return
		}
		var b strings.Builder
		for b.Len() < 16_000 {
			b.WriteString(strings.Repeat(around, 1+random.IntN(1+1000/len(around))))
			b.WriteString(hidden)
		}
		got, err := sieve(c.Client, 1<<10, b.String(), random)
		if err != nil && !errors.Is(err, gateway.ErrKnot) {
			t.Fatal(err)
		}
		if strings.Contains(got, hidden) || strings.Contains(got, secret) && !strings.Contains(around, secret) {
			t.Fatalf("%q is in what came out", hidden)
		}
	})
}

// What is looked for quickly is what is looked for slowly: by each shape's
// pattern over everything, and by each secret as it is.
func TestNothingIsPassedOverForSpeed(t *testing.T) {
	const short, middle = "q7#z2", "se#cret-9"
	f := knowing(t, token("my-agent", 1), opaque, middle, short)
	pieces := []string{
		token("my-agent", 1), token("other.agent-2", 7), opaque, middle, short, inviteCode, "lona_partner_", "lona_partner_a_", "lona_invite_short", "_", "J", "eyJ",
		"eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJhIn0.c2ln", "agk_live_0123456789abcdefABCDEF", "agk_test_0123456789abcdef", "agk_other_0123456789abcdef",
		"ltx_0123456789", "ltx_short", "sk_0123456789abcdef0123", "task_0123456789abcdef0123", "rk_0123456789abcdef0123", "evt_0123456789abcdef0", " evt_0123456789abcdef0",
		"lk_" + strings.Repeat("0a", 32), "words", " ", "...", "\u00fc", "\"", ",", "0123456789",
	}
	random := rand.New(rand.NewPCG(9, 10))
	for range 5_000 {
		var b strings.Builder
		for range 1 + random.IntN(8) {
			b.WriteString(pieces[random.IntN(len(pieces))])
		}
		text := b.String()
		want := text
		for _, secret := range []string{token("my-agent", 1), opaque, middle, short} {
			mask := wire.Mask(secret)
			if mask == secret {
				mask = "[redacted]"
			}
			want = strings.ReplaceAll(want, secret, mask)
		}
		if got, err := f.Scrubber.Scrub(t.Context(), text); err != nil || got != wire.Mask(want) {
			t.Fatalf("%q: got %q (%v), want %q", text, got, err, wire.Mask(want))
		}
	}
}

// Eight bytes at a time find what each byte by itself does.
func TestEscapesAreFoundAtEveryPlace(t *testing.T) {
	f := knowing(t, opaque)
	for n := range 40 {
		for c := range 256 {
			text := strings.Repeat("x", n) + string([]byte{byte(c)}) + "0025" + strings.Repeat("~", n%11)
			got := f.Scrubber.Unplain(text)
			want := len(text)
			if c < ' ' || c >= 0x7f || strings.ContainsRune(`%&\`, rune(c)) {
				want = n
			}
			if got != want {
				t.Fatalf("%q: got %d, want %d", text, got, want)
			}
		}
	}
}

// To look for a place to part a text at takes longest where there is none; whoever
// has given up does not wait for that.
func TestASieveStopsLookingWhenNobodyWaits(t *testing.T) {
	f := knowing(t, token("my-agent", 1))
	knot := []byte(strings.Repeat("ltx_", 64<<10))
	if _, err := f.Scrubber.SieveUntil(64<<10, func() error { return nil }).Write(knot); !errors.Is(err, gateway.ErrKnot) {
		t.Fatalf("got %v, want that there is no such place", err)
	}
	tries := 0
	_, err := f.Scrubber.SieveUntil(64<<10, func() error {
		if tries++; tries > 1 {
			return context.Canceled
		}
		return nil
	}).Write(knot)
	if !errors.Is(err, context.Canceled) || tries != 2 {
		t.Errorf("got %v after %d tries, want the cancellation at the second", err, tries)
	}
}
