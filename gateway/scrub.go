package gateway

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/gateway/wire"
)

const (
	// masked stands where a secret was that has no shape of its own.
	masked = "[redacted]"
	// maxSaid is how much of a service's words is passed on, in characters.
	maxSaid = 500
	// loadTime is how long looking into the store for that may take.
	loadTime = 2 * time.Second
	// notSaid stands for words that could not be looked through.
	notSaid = "[withheld: the stored secrets could not be read to look for them in these words]"
)

// Scrubber masks secrets in what others wrote: every secret of the store and
// every one that this process was issued, plain, in base64, in hex, URL- and
// JSON-escaped, and whatever looks like a secret of a known protocol.
//
// It keeps what it has read of the store in memory and looks at the store's
// list, which is cheap, before each use; so it also knows what another process
// stored a moment ago. A secret that it knew once it does not forget.
type Scrubber struct {
	store  credstore.Store
	shapes []wire.Shape

	mu     sync.Mutex
	known  map[string]struct{}
	loaded map[credstore.Key]stamp
	masker *masker // of known; nil: to be made
}

// stamp tells one version of a stored credential from the next without its
// secret.
type stamp struct {
	keyID            string
	created, expires time.Time
}

func newScrubber(store credstore.Store) *Scrubber {
	s := &Scrubber{
		store:  store,
		known:  make(map[string]struct{}),
		loaded: make(map[credstore.Key]stamp),
	}
	for _, p := range wire.Protocols() {
		s.shapes = append(s.shapes, p.Shapes...)
	}
	return s
}

// Scrub returns text with every secret masked. When the stored secrets cannot
// be read it returns an error and no text.
func (s *Scrubber) Scrub(ctx context.Context, text string) (string, error) {
	if err := s.load(ctx); err != nil {
		return "", err
	}
	return s.current().mask(text), nil
}

// Said returns what a service said, as words for a person or a model:
// scrubbed, on one line, without control, bidirectional or escape
// characters, and at most 500 characters long. When the stored secrets cannot
// be read it says only that.
func (s *Scrubber) Said(ctx context.Context, text string) string {
	if text == "" {
		return ""
	}
	// Words are looked through even when whoever asked has given up: they may
	// still go into an error. But a keyring that is locked may never answer.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), loadTime)
	defer cancel()
	if err := s.load(ctx); err != nil {
		return notSaid
	}
	return s.said(text)
}

// Shaped returns text with everything masked that looks like a secret of a
// known protocol, and nothing else. It reads no store.
func (s *Scrubber) Shaped(text string) string { return s.current().shaped(text) }

// Own returns words of Enlist's own or of the system, cleaned like those of
// [Scrubber.Said] but without a look into the store: that the store cannot be
// read, and what to do about it, must be said just then. They hold no secret in
// the first place; those that this process knows are masked all the same.
func (s *Scrubber) Own(text string) string { return s.said(text) }

// said is Said with what is known already.
func (s *Scrubber) said(text string) string {
	// Twice: a secret could be hidden by the characters that are taken out, or
	// lose its first one to an escape sequence.
	m := s.current()
	runes := []rune(m.mask(oneLine(m.mask(text))))
	if len(runes) > maxSaid {
		runes = append(runes[:maxSaid-1], '…')
	}
	return string(runes)
}

// watch returns the store so that every secret which goes through it is known
// from then on.
func (s *Scrubber) watch() credstore.Store { return watched{s.store, s} }

type watched struct {
	credstore.Store
	scrub *Scrubber
}

// Get implements [credstore.Store].
func (w watched) Get(ctx context.Context, k credstore.Key) (credstore.Credential, error) {
	c, err := w.Store.Get(ctx, k)
	w.scrub.learn(c.Secret)
	return c, err
}

// Put implements [credstore.Store].
func (w watched) Put(ctx context.Context, c credstore.Credential) error {
	w.scrub.learn(c.Secret)
	return w.Store.Put(ctx, c)
}

// learn adds secrets that are not in the store, or not yet.
func (s *Scrubber) learn(secrets ...credstore.Secret) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, secret := range secrets {
		if _, ok := s.known[secret.Reveal()]; ok || secret.IsZero() {
			continue
		}
		s.known[secret.Reveal()] = struct{}{}
		s.masker = nil
	}
}

// load learns every secret of the store that it does not know yet.
func (s *Scrubber) load(ctx context.Context) error {
	_, err := s.loadAll(ctx)
	return err
}

// loadAll is load, and returns what is in the store.
func (s *Scrubber) loadAll(ctx context.Context) ([]credstore.Info, error) {
	list, err := s.store.List(ctx, "")
	if err != nil {
		return nil, fmt.Errorf("read the stored secrets to mask them: %w", err)
	}
	return list, s.learnAll(ctx, list)
}

// learnAll learns what is in a list of the store.
func (s *Scrubber) learnAll(ctx context.Context, list []credstore.Info) error {
	for _, i := range list {
		now := stamp{i.KeyID, i.CreatedAt, i.ExpiresAt}
		s.mu.Lock()
		have, ok := s.loaded[i.Key]
		s.mu.Unlock()
		if ok && have == now {
			continue
		}
		c, err := s.store.Get(ctx, i.Key)
		if errors.Is(err, credstore.ErrNotFound) {
			continue // lost, or forgotten since: there is nothing to mask
		}
		if err != nil {
			return fmt.Errorf("read the stored secret of %s/%s to mask it: %w", i.Protocol, i.Agent, err)
		}
		s.learn(c.Secret)
		if c.State == credstore.StatePending || c.Secret.IsZero() {
			continue // what comes in its place may look the same
		}
		s.mu.Lock()
		s.loaded[i.Key] = now
		s.mu.Unlock()
	}
	return nil
}

// current returns the masker of everything known.
func (s *Scrubber) current() *masker {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.masker == nil {
		s.masker = newMasker(s.known, s.shapes)
	}
	return s.masker
}
