package gateway_test

import (
	"errors"
	"testing"

	"github.com/enlist-mcp/enlist/gateway"
)

// An origin stands in the question to a person and in the policy: it must not look
// like another, or be a second spelling of one.
func TestAnOriginIsWhatItLooksLike(t *testing.T) {
	f := newFixture(t, setup{})
	for _, at := range []string{
		"https://g%D0%BE%D0%BEd.example", "https://good.example%E2%80%AE", // other letters, and what turns a line around
		`https://good.example".evil.example`, "https://good.example,(sure).evil.example", "https://<b>.example",
		"https://good.example.", "https://good.example.:8443", "https://[fe80::1%25en0]",
	} {
		_, err := f.AgentDoor.Register(gateway.WithCaller(t.Context(), asker), gateway.AgentDoorRegistration{ServiceURL: at, AgentName: "my-agent"})
		var failed *gateway.Error
		if !errors.As(err, &failed) || failed.Code != gateway.CodeInvalidInput {
			t.Errorf("%s: got %v, want it refused, and nobody asked", at, err)
		}
	}
}
