package embeddedgateway

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/enlist-mcp/enlist/embeddedgateway/store"
)

// letterKind is the kind of [store.Sealed] that a letter waits as.
const letterKind = "mail"

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
type mailer struct {
	vault *vault
	mint  minter
	smtp  bool          // a mail server is configured
	due   chan struct{} // holds something when there may be a letter to send
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

// wake says that a letter was stored.
func (m *mailer) wake() {
	select {
	case m.due <- struct{}{}:
	default:
	}
}

// delivers reports whether letters go out, and do not just lie in the outbox.
func (m *mailer) delivers() bool { return m.smtp }
