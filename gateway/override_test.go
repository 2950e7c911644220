package gateway_test

import (
	"errors"
	"testing"

	"github.com/enlist-mcp/enlist/gateway"
)

// A POST that some servers take for a DELETE gets past a policy without DELETE.
func TestABodyDoesNotTurnARequestIntoAnother(t *testing.T) {
	s := newService(t)
	home := t.TempDir()
	f := newFixture(t, setup{home: home, env: map[string]string{"LONA_GATEWAY_URL": s.URL}})
	k := f.register(t, "my-agent").Key
	writePolicy(t, home, `methods = ["GET", "POST"]`)
	s.on("/things/1", reply(200, "done"))
	const form, parts = "application/x-www-form-urlencoded", "multipart/form-data; boundary=b"
	field := func(name string) string {
		return "--b\r\nContent-Disposition: form-data; name=\"" + name + "\"\r\n\r\nDELETE\r\n--b--\r\n"
	}
	for _, tt := range []struct {
		name, kind string
		body       any
		refused    bool
	}{
		{"form", form, "a=1&_method=DELETE", true},
		{"form, escaped", form, "%5fMETHOD=DELETE", true},
		{"form, semicolons", form, "a=1;_method=DELETE", true},
		{"form, unreadable", form, "_method%=DELETE", true},
		{"form, as a value", form, "a=_method", false},
		{"JSON", "", map[string]any{"_method": "DELETE"}, true},
		{"JSON, escaped", "", `{"\u005fMethod":"DELETE"}`, true},
		{"JSON, deeper", "", map[string]any{"a": map[string]any{"_method": "DELETE"}}, false},
		{"parts", parts, field("_method"), true},
		{"parts, none", parts, field("a"), false},
		{"text", "", "_method=DELETE", false},
	} {
		r := gateway.Request{Method: "POST", Path: "/things/1", Body: tt.body}
		if tt.kind != "" {
			r.Header = map[string]string{"Content-Type": tt.kind}
		}
		_, err := f.Lifecycle.Do(t.Context(), k, r)
		var refused *gateway.RefusedError
		if errors.As(err, &refused) != tt.refused || err != nil && !tt.refused {
			t.Errorf("%s: got %v, want it refused: %v", tt.name, err, tt.refused)
		}
	}
	if got := len(s.seen("/things/1")); got != 4 {
		t.Errorf("%d requests were made, want 4", got)
	}
}
