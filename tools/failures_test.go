package tools_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/gateway"
	"github.com/enlist-mcp/enlist/gateway/wire"
	"github.com/enlist-mcp/enlist/tools"
)

// failing is a store where everything ends in one error: so a tool of any kind
// meets any error that there is, early or late. What a call has begun may still
// look into it when the error of the next one is set.
type failing struct {
	credstore.Store
	cause atomic.Pointer[error]
}

func (s *failing) err() error { return *s.cause.Load() }

func (s *failing) List(context.Context, string) ([]credstore.Info, error) { return nil, s.err() }
func (s *failing) Get(context.Context, credstore.Key) (credstore.Credential, error) {
	return credstore.Credential{}, s.err()
}
func (s *failing) Put(context.Context, credstore.Credential) error { return s.err() }
func (s *failing) Delete(context.Context, credstore.Key) error     { return s.err() }

// failures are all errors that a tool can meet, by a name.
func failures() map[string]error {
	all := map[string]error{
		"policy":           &gateway.PolicyError{Why: "The policy does not allow that.", Remedy: "A person can change that."},
		"not stored":       &gateway.NotStoredError{Protocol: "lona", Origin: "https://x.example", Remedy: "Ask the person to free some space, then register once more.", Cause: errors.New("full")},
		"local":            &gateway.LocalError{Why: "It is offline.", Remedy: "Ask the person to start Enlist without --embedded."},
		"refused":          &gateway.RefusedError{Why: "That is not to be."},
		"refused for":      &gateway.RefusedError{Why: "That is not to be.", Tool: "rotate_credential"},
		"nothing stored":   &gateway.ResolveError{Why: "No credential is stored."},
		"unknown handle":   &gateway.ResolveError{Handle: "lona/x", Why: "No credential of that name is stored."},
		"malformed handle": &gateway.ResolveError{Handle: "x", Why: "That is no handle.", Malformed: true},
		"several":          &gateway.ResolveError{Why: "More than one.", Candidates: []string{"lona/a", "lona/b"}, Usable: true},
		"several matches":  &gateway.ResolveError{Handle: "lona/x", Why: "More than one.", Candidates: []string{"lona/a", "lona/b"}},
		"not found":        credstore.ErrNotFound,
		"too large":        &credstore.Error{Op: "write", Place: "keyring", Kind: credstore.ErrTooLarge},
		"damaged":          &credstore.Error{Op: "read", Place: "file", Kind: credstore.ErrDamaged, Remedy: "restore it"},
		"locked":           &credstore.Error{Op: "read", Place: "keyring", Kind: credstore.ErrUnavailable, Remedy: "unlock the keyring"},
		"unavailable":      credstore.ErrUnavailable,
		"cancelled":        context.Canceled,
		"too slow":         context.DeadlineExceeded,
		"from the future":  errors.ErrUnsupported,
		"nobody knows":     errors.New("odd"),
		"full":             &gateway.KeysFullError{Err: &gateway.Error{Protocol: "lumina", Origin: "https://x.example", Status: 409, Theirs: true, Code: wire.LuminaCapReached}},
		"full of these": &gateway.KeysFullError{
			Err:  &gateway.Error{Protocol: "lumina", Origin: "https://x.example", Status: 409, Theirs: true, Code: wire.LuminaCapReached},
			Keys: []gateway.LuminaKey{{KeyID: "7", Label: "seven"}},
		},
		"half rotated": &gateway.HalfRotatedError{Old: "7", Cause: &gateway.Error{Protocol: "fluxra", Origin: "https://x.example", Code: gateway.CodeHTTPStatus, Status: 503}},
		"half for good": &gateway.HalfRotatedError{
			Old: "7", Cause: &gateway.Error{Protocol: "fluxra", Origin: "https://x.example", Code: gateway.CodeHTTPStatus, Status: 404},
		},
	}
	for _, code := range []string{gateway.ApprovalNeeded, gateway.ApprovalDeclined, gateway.ApprovalUnanswered} {
		all[code] = &gateway.ApprovalError{Question: "Do it?", Final: true, Code: code, Remedy: "A person can allow it."}
	}
	for _, p := range wire.Protocols() {
		for _, op := range []string{"rotate", "revoke"} {
			all["no "+op+" at "+p.Name] = &gateway.UnsupportedError{Protocol: p.Name, Op: op, Instead: "Do something else."}
		}
		e := gateway.Error{Protocol: p.Name, Origin: "https://x.example", Op: "do it"}
		for _, code := range []string{
			gateway.CodeUnreachable, gateway.CodeTimeout, gateway.CodeCancelled, gateway.CodeRedirect, gateway.CodeBadAnswer,
			gateway.CodeTooLarge, gateway.CodeHTTPStatus, gateway.CodeInsecure, gateway.CodeInvalidInput, gateway.CodeKeyLost,
			gateway.CodeAddressRefused, gateway.CodeChallenge, gateway.CodeNoScope, gateway.CodeRecovery, gateway.CodeWithheld,
		} {
			for _, sent := range []bool{false, true} {
				one := e
				one.Code, one.Sent, one.Cause = code, sent, errors.New("why")
				all[fmt.Sprint(p.Name, " ", code, " ", sent)] = &one
			}
		}
		for code := range tools.Advice(p.Name) {
			one := e
			one.Code, one.Theirs, one.Status, one.Message = code, true, 400, "words"
			all[p.Name+" says "+code] = &one
		}
		for _, status := range []int{400, 401, 402, 403, 404, 405, 409, 410, 413, 422, 429, 500, 502, 503} {
			one := e
			one.Code, one.Theirs, one.Status = "nobody_knows", true, status
			all[fmt.Sprint(p.Name, " says ", status)] = &one
		}
		one := e
		one.Code, one.Theirs, one.Status, one.RetryAfter = "slow_down", true, 429, time.Minute
		all[p.Name+" says when"] = &one
	}
	return all
}

// meets reports whether a use can meet an error: one that is of a protocol is met
// by its own tools, and by list_credentials, which stands for the others.
func (u use) meets(which string) bool {
	of := func(text string) string {
		for _, p := range wire.Protocols() {
			if strings.HasPrefix(text, p.Name) {
				return p.Name
			}
		}
		return ""
	}
	own := cmp.Or(of(u.tool), of(u.at))
	return u.tool == "list_credentials" || of(which) == "" || of(which) == own
}

// TestEveryFailureOfEveryTool has every tool meet every error: the rig checks what
// each failure must say.
func TestEveryFailureOfEveryTool(t *testing.T) {
	errs := failures()
	for name, selection := range map[string]tools.Selection{
		"all": {}, "lona alone": {Services: []string{"lona"}}, "read-only": {ReadOnly: true},
	} {
		t.Run(name, func(t *testing.T) {
			store := &failing{}
			store.cause.Store(new(error))
			r := newRig(t, "http://127.0.0.1:1", options{
				selection: selection, store: func(s credstore.Store) credstore.Store { store.Store = s; return store },
				env: map[string]string{"LUMINA_API_URL": "http://127.0.0.1:1", "FLUXRA_API_URL": "http://127.0.0.1:1", "LITHTRIX_API_URL": "http://127.0.0.1:1"},
			})
			codes := map[string]bool{}
			for _, u := range hostileUses() {
				if !slices.Contains(r.offered, u.tool) || name != "all" && u.tool != "list_credentials" && u.tool != "send_request" {
					continue // what is withheld is withheld from all alike
				}
				for _, which := range slices.Sorted(maps.Keys(errs)) {
					if !u.meets(which) {
						continue
					}
					err := errs[which]
					store.cause.Store(&err)
					// Most of these it never meets, and need not have the arguments for.
					codes[decode[tools.Failure](t, r.raw(u.tool, u.args("http://127.0.0.1:1", "scout"))).Code] = true
					if t.Failed() {
						t.Fatalf("%s, %s", u.name(), which)
					}
				}
				r.raw(u.tool, args{"no such": "argument"})
				r.raw(u.tool, args{"credential": 7, "url": 7, "agent_name": 7, "agent_id": 7, "label": 7, "email": 7})
			}
			if len(codes) < 40 {
				t.Errorf("met %d codes, want many more: %q", len(codes), slices.Sorted(maps.Keys(codes)))
			}
		})
	}
}
