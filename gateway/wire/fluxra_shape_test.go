package wire_test

import (
	"testing"

	"github.com/enlist-mcp/enlist/gateway/wire"
)

// The prefixes of Fluxra's secrets are the ends of many words, and every answer
// of every service is looked through for them.
func TestFluxrasShapesAreForWholeWords(t *testing.T) {
	const tail = "0123456789AbCdEf-_0123456789AbCdEf0123456789A"
	for text, want := range map[string]string{
		`{"risk_management_parameters":{"task_identifier_of_the_run":1}}`: `{"risk_management_parameters":{"task_identifier_of_the_run":1}}`,
		"framework_and_network_of_a_disk_with_long_names":                 "framework_and_network_of_a_disk_with_long_names",
		"an sk_… key, the rk_ prefix and evt_<43 letters>":                "an sk_… key, the rk_ prefix and evt_<43 letters>",
		`{"api_key":"sk_` + tail + `","recovery_key":"rk_` + tail + `"}`:  `{"api_key":"sk_…","recovery_key":"rk_…"}`,
		"/api/auth/verify-email?token=evt_" + tail + "&x=1":               "/api/auth/verify-email?token=evt_…&x=1",
	} {
		if got := wire.Mask(text); got != want {
			t.Errorf("got %q of %q, want %q", got, text, want)
		}
	}
}
