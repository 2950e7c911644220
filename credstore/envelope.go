package credstore

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"time"
	"unicode"
	"unicode/utf8"
)

// maxEnvelope is the size of the largest item that every backend holds. The
// tightest is Windows, whose 2,560 bytes are 1,280 characters where a program
// stores UTF-16. It holds for all backends, so that a store can move.
const maxEnvelope = 1250

// envelopeVersion changes when a field is added that an older Enlist must not ignore.
const envelopeVersion = 1

// envelope is what a vault keeps of a credential. It holds everything, the
// secret included, so that one item is always consistent in itself: the
// secret, its expiry and the user id it belongs to change together.
type envelope struct {
	Version  int               `json:"v"`
	Protocol string            `json:"protocol"`
	Origin   string            `json:"origin"`
	Agent    string            `json:"agent"`
	Kind     Kind              `json:"kind"`
	Label    string            `json:"label,omitzero"`
	State    State             `json:"state"`
	KeyID    string            `json:"key_id,omitzero"`
	Created  stamp             `json:"created,omitzero"`
	Expires  stamp             `json:"expires,omitzero"`
	Attrs    map[string]string `json:"attrs,omitzero"`
	Secret   string            `json:"secret"` // revealed: a Secret has no way out through JSON
}

// stamp is a time as a person reads it in the keychain window, in milliseconds.
type stamp time.Time

func (s stamp) IsZero() bool { return time.Time(s).IsZero() }

func (s stamp) MarshalText() ([]byte, error) { return time.Time(s).MarshalText() }

func (s *stamp) UnmarshalText(text []byte) error {
	var t time.Time
	err := t.UnmarshalText(text)
	*s = stamp(t.UTC())
	return err
}

// encode returns the envelope of a credential, which must be normal.
func encode(c Credential) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	//nolint:gosec // the envelope goes into a vault, which is where secrets are kept
	if err := e.Encode(enclose(c)); err != nil {
		return nil, err
	}
	data := bytes.TrimSuffix(b.Bytes(), []byte("\n"))
	if len(data) > maxEnvelope {
		return nil, &sizeError{len(data)}
	}
	return data, nil
}

// enclose returns the envelope of a credential.
func enclose(c Credential) envelope {
	return envelope{
		Version:  envelopeVersion,
		Protocol: c.Protocol, Origin: c.Origin, Agent: c.Agent, Kind: c.Kind, Label: c.Label,
		State: c.State, KeyID: c.KeyID,
		Created: stamp(c.CreatedAt), Expires: stamp(c.ExpiresAt),
		Attrs: c.Attrs, Secret: c.Secret.Reveal(),
	}
}

// sizeError says how large an envelope would be.
type sizeError struct{ size int }

func (e *sizeError) Error() string {
	return fmt.Sprintf("%d bytes with what is kept beside it, %d at most", e.size, maxEnvelope)
}

// refused is the error of a Put for what is wrong with the credential itself.
func refused(place string, cause error) error {
	e := &Error{Op: "write", Place: place, Cause: cause}
	var size *sizeError
	if errors.As(cause, &size) {
		e.Kind, e.Remedy = ErrTooLarge, "keep less beside the secret; a secret longer than that cannot be stored"
	}
	return e
}

// Why an item is not the envelope that was asked for. The texts are ours: what
// a JSON decoder says may quote the item.
var (
	errNotEnvelope = errors.New("the item is not one of Enlist's")
	errOtherKey    = errors.New("the item belongs to another credential")
	errNewer       = errors.New("the item was written by a newer Enlist")
	errNewerList   = fmt.Errorf("%w: the keyring's own list", errNewer)
)

// newer reports whether a newer Enlist wrote an item. It may hold what this one
// does not understand, so nothing is put in its place and it is not deleted.
func newer(data []byte) bool { return versionOf(data) > envelopeVersion }

// versionOf returns the version of an item, or 0. It looks at nothing else: in a
// version to come all the rest may be of another shape.
func versionOf(data []byte) int {
	var item struct {
		Version int `json:"v"`
	}
	if json.Unmarshal(data, &item) != nil {
		return 0
	}
	return item.Version
}

// decode returns the credential in an envelope, which must be that of k.
func decode(k Key, data []byte) (Credential, error) {
	c, err := decodeAny(data)
	if err == nil && c.Key != k {
		err = errOtherKey
	}
	if err != nil {
		return Credential{}, err
	}
	return c, nil
}

// decodeAny returns the credential in an envelope, whosoever it is.
func decodeAny(data []byte) (Credential, error) {
	var e envelope
	if err := json.Unmarshal(data, &e); err != nil {
		if newer(data) {
			return Credential{}, errNewer
		}
		return Credential{}, errNotEnvelope
	}
	return e.credential()
}

// credential returns the credential in an envelope.
func (e envelope) credential() (Credential, error) {
	if e.Version < 1 {
		return Credential{}, errNotEnvelope
	}
	if e.Version > envelopeVersion {
		return Credential{}, errNewer
	}
	if checkState(e.State) != nil {
		return Credential{}, errNotEnvelope
	}
	c := Credential{
		Info: Info{
			Key:   Key{Protocol: e.Protocol, Origin: e.Origin, Agent: e.Agent, Kind: e.Kind, Label: e.Label},
			State: e.State, KeyID: e.KeyID,
			CreatedAt: time.Time(e.Created), ExpiresAt: time.Time(e.Expires),
			Attrs: e.Attrs,
		},
		Secret: NewSecret(e.Secret),
	}
	return c, nil
}

// prepare returns c as it is given back, and its envelope.
func prepare(c Credential, now func() time.Time) (Credential, []byte, error) {
	c, err := normal(c, now)
	if err != nil {
		return Credential{}, nil, err
	}
	data, err := encode(c)
	return c, data, err
}

// normal returns c as every backend gives it back: times in UTC and whole
// milliseconds, no empty map, a time of creation.
func normal(c Credential, now func() time.Time) (Credential, error) {
	if err := check(c); err != nil {
		return Credential{}, err
	}
	if c.CreatedAt.IsZero() {
		c.CreatedAt = now()
	}
	c.CreatedAt = millis(c.CreatedAt)
	c.ExpiresAt = millis(c.ExpiresAt)
	if len(c.Attrs) == 0 {
		c.Attrs = nil
	}
	c.Attrs = maps.Clone(c.Attrs)
	return c, nil
}

func millis(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return time.UnixMilli(t.UnixMilli()).UTC()
}

// check refuses what could not be given back as it came.
func check(c Credential) error {
	if err := errors.Join(checkState(c.State), checkKey(c.Key)); err != nil {
		return err
	}
	if !utf8.ValidString(c.Secret.Reveal()) {
		return errors.New("the secret is not valid UTF-8")
	}
	if !utf8.ValidString(c.KeyID) {
		return errors.New("the key id is not valid UTF-8")
	}
	for name, value := range c.Attrs {
		if !utf8.ValidString(name) || !utf8.ValidString(value) {
			return errors.New("an attribute is not valid UTF-8")
		}
	}
	for _, t := range []time.Time{c.CreatedAt, c.ExpiresAt} {
		if y := t.UTC().Year(); y < 1 || y > 9999 {
			return fmt.Errorf("the year %d cannot be stored", y)
		}
	}
	return nil
}

// checkState refuses the states that follow from others.
func checkState(s State) error {
	switch s {
	case StatePending, StateActive, StateRevoked:
		return nil
	}
	return fmt.Errorf("a credential is stored as pending, active or revoked, not as %q", s)
}

func checkKey(k Key) error {
	if k.Protocol == "" || k.Agent == "" || k.Kind == "" {
		return errors.New("a credential needs a protocol, an agent and a kind")
	}
	for _, s := range []string{k.Protocol, k.Origin, k.Agent, string(k.Kind), k.Label} {
		if !utf8.ValidString(s) || bytes.ContainsFunc([]byte(s), unicode.IsControl) {
			return errors.New("the name of a credential holds characters that cannot be stored")
		}
	}
	return nil
}

// canonical is a key as bytes: two keys have the same ones only when they are
// equal.
func canonical(k Key) []byte {
	// Strings always marshal.
	b, _ := json.Marshal([]string{k.Protocol, k.Origin, k.Agent, string(k.Kind), k.Label})
	return b
}

// id is a key as a name for files and items; nothing can be learned from it
// but whether two are equal.
func id(k Key) string { return digest(string(canonical(k))) }

// digest is the SHA-256 of s in hexadecimal.
func digest(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}
