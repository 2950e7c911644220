package embeddedgateway

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/enlist-mcp/enlist/embeddedgateway/store"
)

const (
	// letterKind is the kind of [store.Sealed] that a letter waits as.
	letterKind = "mail"

	lease      = 2 * time.Minute  // how long a letter is its taker's only
	firstPause = time.Minute      // after the first try that failed; doubled at each
	maxPause   = 30 * time.Minute // the pause does not grow beyond
	lookEvery  = 30 * time.Second // another process may have stored a letter
	lastWait   = 2 * time.Second  // for the letter that is being sent at the end
	maxOutbox  = 1000             // letters that are shown at once
)

// letter is a mail to one person. It may hold a link or a code that works, so
// it waits sealed and not longer than those do.
type letter struct {
	To      string    `json:"to"`
	Subject string    `json:"subject"`
	Text    string    `json:"text"`
	HTML    string    `json:"html"`
	Expires time.Time `json:"expires"`
}

// mailer sends letters, or keeps them in an outbox that the operator can read
// where no mail server is configured. No request waits for a mail server: a
// letter is stored in the transaction that it belongs to, and goes out later.
// What it logs names a letter and says nothing of what is in it or whose it is.
type mailer struct {
	vault *vault
	mint  minter
	now   func() time.Time
	log   *slog.Logger
	relay *relay        // nil: no mail server
	store *store.Store  // set when the gateway has opened it
	due   chan struct{} // holds something when there may be a letter to send

	metrics *metrics

	sending sync.Mutex // one letter after the other: a mail server counts connections
}

// enclose seals a letter. It is stored with [store.Tx.Seal].
func (m *mailer) enclose(l letter) (store.Sealed, error) {
	name, err := m.mint.keyID()
	if err != nil {
		return store.Sealed{}, err
	}
	text, err := json.Marshal(l)
	if err != nil {
		return store.Sealed{}, fmt.Errorf("encode a letter: %w", err)
	}
	data, err := m.vault.seal(letterKind, name, text)
	if err != nil {
		return store.Sealed{}, err
	}
	return store.Sealed{Kind: letterKind, Name: name, Data: data, ExpiresAt: l.Expires}, nil
}

// unfold opens a letter that was enclosed.
func (m *mailer) unfold(s store.Sealed) (l letter, err error) {
	text, err := m.vault.open(letterKind, s.Name, s.Data)
	if err == nil {
		err = json.Unmarshal(text, &l)
	}
	return l, err
}

// wake says that a letter was stored.
func (m *mailer) wake() {
	select {
	case m.due <- struct{}{}:
	default:
	}
}

// delivers reports whether letters go out, and do not just lie in the outbox.
func (m *mailer) delivers() bool { return m.relay != nil }

// keep sends what is due until ctx ends. It looks when it is woken, and now and
// then: other processes share the outbox, and what failed is tried again.
func (m *mailer) keep(ctx context.Context) {
	if !m.delivers() {
		return
	}
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		if err := m.deliver(ctx); err != nil && ctx.Err() == nil {
			m.log.WarnContext(ctx, "looking for mail to send failed; it is tried again", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-m.due:
		case <-tick.C:
		}
	}
}

// deliver sends what is due, one letter after the other. It ends early when the
// mail server cannot be used: the other letters would fare no better.
func (m *mailer) deliver(ctx context.Context) error {
	m.sending.Lock()
	defer m.sending.Unlock()
	for ctx.Err() == nil {
		var s store.Sealed
		err := m.store.Tx(ctx, func(tx *store.Tx) (err error) {
			s, err = tx.Take(letterKind, tx.Now().Add(lease))
			return err
		})
		if errors.Is(err, store.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		if usable, err := m.try(ctx, s); err != nil || !usable {
			return err
		}
	}
	return nil
}

// try sends a letter that was taken and drops it, or has it tried again later.
// It reports whether the mail server can be used. It is not cut off at once when
// ctx ends; a letter that then is handed out again may reach its reader twice.
func (m *mailer) try(ctx context.Context, s store.Sealed) (usable bool, err error) {
	sending, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(lastWait, cut) })()

	why := &sendError{why: "it does not open with this server key"}
	if l, err := m.unfold(s); err == nil {
		if err = m.relay.send(sending, s.Name, m.now(), l); err == nil {
			why = &sendError{delivered: true}
		} else if !errors.As(err, &why) {
			why = &sendError{why: "the mail server did not take it"}
		}
	}
	log := m.log.With("letter", s.Name, "try", s.Tries)
	forever := context.WithoutCancel(ctx)
	switch {
	case why.delivered:
		m.metrics.mail.WithLabelValues("sent").Inc()
		log.DebugContext(ctx, "mail sent")
	case why.refused:
		m.metrics.mail.WithLabelValues("refused").Inc()
		log.WarnContext(ctx, "mail was refused for good and is dropped", "reason", why.why)
	default:
		m.metrics.mail.WithLabelValues("failed").Inc()
		pause := pauseAfter(s.Tries)
		log.WarnContext(ctx, "mail was not sent; it is tried again until it expires", "reason", why.why, "pause", pause)
		return !why.unusable, m.store.Tx(forever, func(tx *store.Tx) error {
			return tx.Postpone(s, tx.Now().Add(pause))
		})
	}
	return true, m.store.Tx(forever, func(tx *store.Tx) error { return tx.Drop(s.ID) })
}

// pauseAfter is how long a letter waits that was tried so many times: twice as
// long as the last time, and up to a quarter more, so that not all of those
// that failed together come back together.
func pauseAfter(tries int) time.Duration {
	pause := firstPause
	for range tries - 1 {
		pause = min(2*pause, maxPause)
	}
	var random [4]byte
	_, _ = rand.Read(random[:]) // never fails
	share := time.Duration(binary.BigEndian.Uint32(random[:]) % 1000)
	return (pause + pause/4*share/1000).Truncate(time.Second)
}

// Mail is a letter that waits in the outbox.
type Mail struct {
	Name    string // as the log calls it
	To      string
	Subject string
	Text    string
	Created time.Time
	Expires time.Time
	Tries   int // how often sending it was tried
}

// Outbox returns the letters that wait, the oldest first and at most a thousand:
// all that have not expired where no mail server is configured, else those that
// have not been sent yet. What is in them opens accounts: it is for the eyes of
// the operator only. A letter that cannot be read is in the error, and the
// others are returned all the same.
func (g *Gateway) Outbox(ctx context.Context) ([]Mail, error) {
	sealed, err := g.store.Sealed(ctx, letterKind, maxOutbox)
	if err != nil {
		return nil, fmt.Errorf("read the outbox: %w", err)
	}
	list := make([]Mail, 0, len(sealed))
	var errs []error
	for _, s := range sealed {
		l, err := g.mail.unfold(s)
		if err != nil {
			errs = append(errs, fmt.Errorf("read the outbox: letter %s: %w", s.Name, err))
			continue
		}
		list = append(list, Mail{
			Name: s.Name, To: l.To, Subject: l.Subject, Text: l.Text,
			Created: s.CreatedAt, Expires: s.ExpiresAt, Tries: s.Tries,
		})
	}
	return list, errors.Join(errs...)
}
