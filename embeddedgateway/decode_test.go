package embeddedgateway_test

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/enlist-mcp/enlist/embeddedgateway"
)

// body is of every type that a protocol's body has.
type body struct {
	Text   string         `json:"text"`
	Number *int           `json:"number"`
	List   []string       `json:"list"`
	Map    map[string]any `json:"map"`
}

func TestDecodeSaysWhereAndNotWhat(t *testing.T) {
	for name, tt := range map[string]struct{ body, want string }{
		"a wrong type":       {`{"number":"hunter2"}`, "/number"},
		"a wrong element":    {`{"list":["a",{"hunter2":1}]}`, "/list/1"},
		"out of range":       {`{"number":1e99}`, "/number"},
		"a name twice":       {`{"hunter2":1,"hunter2":2}`, "twice"},
		"a deep name twice":  {`{"map":{"hunter2":1,"hunter2":2}}`, "twice"},
		"no JSON":            {`{"text":hunter2}`, "not valid JSON"},
		"no object":          {`"hunter2"`, "not a JSON object"},
		"nothing":            {" \n", "empty"},
		"deep":               {`{"map":{"hunter2":` + strings.Repeat("[", 80) + strings.Repeat("]", 80) + `}}`, "nests deeper than 64 levels"},
		"something after it": {`{} hunter2`, "not valid JSON"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := embeddedgateway.Decode[body]([]byte(tt.body))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got %v, want %q in it", err, tt.want)
			}
			wantNone(t, "the error", []byte(err.Error()), "hunter2")
		})
	}
}

func TestDecodeTakesWhatIsInOrder(t *testing.T) {
	for name, text := range map[string]string{
		"unknown names":       `{"text":"a","more":{"x":[1,2,{"y":null}]}}`,
		"brackets in strings": `{"text":"` + strings.Repeat("[", 80) + `\"{\\"}`,
		"space around":        " \t\r\n{\"text\":\"a\"}\r\n ",
		"64 levels":           `{"more":` + strings.Repeat("[", 63) + strings.Repeat("]", 63) + `}`,
		"null":                `{"text":null,"number":null,"list":null,"map":null}`,
		"a pair of halves":    `{"text":"\ud83d\ude00"}`,
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := embeddedgateway.Decode[body]([]byte(text)); err != nil {
				t.Errorf("got %v", err)
			}
		})
	}
}

func FuzzDecode(f *testing.F) {
	for _, b := range badBodies([]string{"text", "number", "list", "map"}) {
		if len(b.body) < 4096 {
			f.Add([]byte(b.body))
		}
	}
	f.Add([]byte(`{"text":"a\u00e9","number":7,"list":["x"],"map":{"a":{"b":[1.5e3,true]}},"more":[[[]]]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		in, err := embeddedgateway.Decode[body](text)
		if err != nil {
			if in.Text != "" || in.Number != nil || in.List != nil || in.Map != nil {
				t.Errorf("a refused body left %+v", in)
			}
			return
		}
		if !utf8.Valid(text) || !json.Valid(text) {
			t.Fatalf("took %q, which is not JSON in UTF-8", text)
		}
		// The standard decoder reads the same, but for names in another case.
		var want body
		if err := json.Unmarshal(text, &want); err != nil {
			return
		}
		if !utf8.ValidString(in.Text) || in.Text != "" && in.Text != want.Text && !otherCase(text) {
			t.Errorf("read %q from %q, want %q", in.Text, text, want.Text)
		}
	})
}

// otherCase reports whether a name in an object differs from "text" in its case
// only: the standard decoder takes it for the same.
func otherCase(text []byte) bool {
	var names map[string]json.RawMessage
	if err := json.Unmarshal(text, &names); err != nil {
		return false
	}
	for name := range names {
		if name != "text" && strings.EqualFold(name, "text") {
			return true
		}
	}
	return false
}
