package tools

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/gateway"
)

// wants returns an error as the question that it comes down to, where the person
// has something to choose; else as it is.
func (d Deps) wants(s spec, err error) error {
	var resolve *gateway.ResolveError
	if errors.As(err, &resolve) && resolve.Handle == "" && resolve.Usable && len(resolve.Candidates) > 1 {
		return choice(err, form{
			message: "The agent wants to use a credential (" + s.name + ") and did not say which. Which one shall it be?",
			fields: []field{{
				name: "credential", title: "Credential", wanted: "which credential", kind: aChoice, choices: options(resolve.Candidates),
			}},
		})
	}
	var full *gateway.KeysFullError
	if errors.As(err, &full) && s.name == luminaRegister {
		return choice(err, d.keyToEnd(full))
	}
	return err
}

// choice is the question for one of several, and for none or too many the error.
func choice(err error, f form) error {
	if n := len(f.fields[0].choices); n == 0 || n > maxChoices {
		return err
	}
	return &missing{form: f, instead: err}
}

func options(values []string) []option {
	var all []option
	for _, v := range values {
		all = append(all, option{v, v})
	}
	return all
}

// maxLabel is how much of a label of a service's a question quotes, in characters.
const maxLabel = 40

// keyToEnd asks which key of a full wallet may end. What the service calls a key
// is quoted, short, and said to be the service's.
func (d Deps) keyToEnd(full *gateway.KeysFullError) form {
	f := field{name: "revoke_key_id", title: "Key that ends", wanted: "which of these keys may end for good", kind: aNumber}
	var lines []string
	for _, k := range full.Keys {
		number, err := strconv.ParseInt(k.KeyID, 10, 64)
		if err != nil {
			continue // not one that could be ended
		}
		id := strconv.FormatInt(number, 10)
		text := id
		if !k.CreatedAt.IsZero() {
			text += " of " + k.CreatedAt.UTC().Format(time.DateOnly)
		}
		if k.Stored != nil {
			text += ", stored here as " + d.Client.Lifecycle.Handle(*k.Stored)
		}
		if label := k.Label; label != "" { // cleaned when it was read
			if runes := []rune(label); len(runes) > maxLabel {
				label = string(runes[:maxLabel-1]) + "…"
			}
			text += fmt.Sprintf(", labelled %q at the service", label)
		}
		f.choices, lines = append(f.choices, option{id, text}), append(lines, text)
	}
	return form{
		message: "The wallet has as many keys at " + full.Err.Origin + " as the service allows. Which one may end for good? " +
			"Whatever still uses it will be refused. The keys: " + strings.Join(lines, "; ") + ".",
		fields: []field{f},
	}
}

// resolve returns the credential that a handle names among those of the services
// whose tools are offered.
func (d Deps) resolve(ctx context.Context, handle string) (credstore.Info, error) {
	return d.Client.Lifecycle.ResolveAmong(ctx, d.Services, handle)
}

// link asks for the address of a service.
func link(name, message string) error {
	return &missing{form: form{message: message, fields: []field{{
		name: name, title: "Address of the service", wanted: "the service's address, as in https://api.example.com", kind: aLink,
	}}}}
}
