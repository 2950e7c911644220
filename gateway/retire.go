package gateway

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"

	"github.com/enlist-mcp/enlist/credstore"
)

// Trier is a Revoker whose credentials can be tried by themselves, to see that
// one has ended.
type Trier interface {
	Revoker
	// Try makes a request with a credential as it is given, that changes nothing:
	// it renews nothing, and looks nothing up in the store. An *[Error] with the
	// status 401 says that the service does not take it.
	Try(ctx context.Context, c credstore.Credential) error
}

// Retired says what was seen when a credential was ended and deleted.
type Retired struct {
	// Proved: the service was seen to refuse the credential with a 401. False: it
	// had expired, so that there was nothing to end.
	Proved bool
	// BehindLives: the service may still accept something that stood behind the
	// credential, such as a recovery key. It is deleted here, too.
	BehindLives bool
}

// NotProvedError says that a service was told to end a credential and still takes
// it. Nothing was deleted.
type NotProvedError struct {
	Origin string
	Cause  error // why it is not known; nil: the service accepted the credential
}

// Error implements error.
func (e *NotProvedError) Error() string {
	if e.Cause != nil {
		return fmt.Sprintf("%s has ended the credential, and could not be seen to refuse it: %v", e.Origin, e.Cause)
	}
	return e.Origin + " has ended the credential, and still accepts it."
}

// Unwrap returns the cause.
func (e *NotProvedError) Unwrap() error { return e.Cause }

// Retire ends a credential at the service, sees that the service does not take
// it any more, and only then forgets it here. After an error nothing is deleted;
// it can be called again. A service that has no call to end a credential is an
// *[UnsupportedError], unless the credential has expired: [Lifecycle.Forget]
// deletes it here only.
func (l *Lifecycle) Retire(ctx context.Context, k credstore.Key) (Retired, error) {
	return does(ctx, l.steward, Act{Action: ActForget, Key: k}, func(ctx context.Context) (Retired, error) {
		ctx, cancel := l.http.begin(ctx)
		defer cancel()
		return l.retire(ctx, k)
	})
}

func (l *Lifecycle) retire(ctx context.Context, k credstore.Key) (Retired, error) {
	old, err := l.store.Get(ctx, k)
	if err != nil {
		return Retired{}, err
	}
	p, err := l.protocol(k)
	if err != nil {
		return Retired{}, err
	}
	t, tries := p.(Trier)
	_, revokes := p.(Revoker)
	switch {
	case tries:
		old, err = l.end(ctx, t, old)
	case revokes:
		err = &UnsupportedError{Protocol: k.Protocol, Op: "try", Instead: "Revoke it first; then it can be forgotten here only."}
	case l.mayLive(old):
		_, err = l.revoker(k) // says that there is no such call, and what there is instead
	}
	if err != nil {
		return Retired{}, err
	}
	behind, err := l.forgetSame(ctx, old)
	return Retired{Proved: tries, BehindLives: behind}, err
}

// end ends a credential at the service and sees the 401. It returns what is
// stored then: what was half-done is finished first and may have replaced it.
func (l *Lifecycle) end(ctx context.Context, t Trier, c credstore.Credential) (credstore.Credential, error) {
	if issuedSecret(c).IsZero() {
		return c, &RefusedError{Why: "There is no secret of " + l.Handle(c.Key) + " that could be ended: its registration did not come to an end."}
	}
	if err := l.Revoke(ctx, c.Key); err != nil {
		return c, err
	}
	c, err := l.store.Get(ctx, c.Key)
	if err != nil {
		return c, err
	}
	if c.State != credstore.StateRevoked {
		return c, l.replaced(c.Key)
	}
	err = t.Try(ctx, c)
	var e *Error
	if errors.As(err, &e) && e.Status == http.StatusUnauthorized {
		return c, nil
	}
	return c, &NotProvedError{Origin: c.Origin, Cause: err}
}

// replaced says that somebody was quicker.
func (l *Lifecycle) replaced(k credstore.Key) error {
	return &RefusedError{Why: "The former key of " + l.Handle(k) + " has ended. Another one took its place meanwhile; it is stored and was not touched."}
}

// forgetSame forgets a credential unless somebody has put another one into its
// place meanwhile: that one lives.
func (l *Lifecycle) forgetSame(ctx context.Context, old credstore.Credential) (behind bool, err error) {
	unlock, err := l.store.Lock(ctx, old.Key)
	if err != nil {
		return false, err
	}
	defer unlock()
	now, err := l.store.Get(ctx, old.Key)
	if err != nil {
		return false, err
	}
	if subtle.ConstantTimeCompare([]byte(now.Secret.Reveal()), []byte(old.Secret.Reveal())) != 1 {
		return false, l.replaced(old.Key)
	}
	return l.forgetLocked(ctx, old.Key)
}
