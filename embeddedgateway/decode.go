package embeddedgateway

import (
	"bytes"
	"errors"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// maxDepth is how deep a body may nest. No protocol needs more than 3.
const maxDepth = 64

// decode reads one JSON object, and nothing behind it. It refuses duplicate
// names, invalid UTF-8, wrong types and deep nesting; names that it does not
// know are ignored. Its error never repeats a value from the body.
func decode[In any](body []byte) (In, error) {
	var in In
	body = bytes.TrimLeft(body, " \t\r\n")
	switch {
	case len(body) == 0:
		return in, invalid("the body is empty: want a JSON object")
	case body[0] != '{':
		return in, invalid("the body is not a JSON object")
	case depth(body) > maxDepth:
		return in, invalid("the body nests deeper than %d levels", maxDepth)
	}
	err := json.Unmarshal(body, &in)
	if err == nil {
		return in, nil
	}
	var none In
	if errors.Is(err, jsontext.ErrDuplicateName) {
		return none, invalid("the body has a name twice in one object")
	}
	if wrong, ok := errors.AsType[*json.SemanticError](err); ok {
		// The pointer holds names of ours only: unknown ones are skipped.
		return none, invalid("the value at %s has the wrong type or is out of range", wrong.JSONPointer)
	}
	return none, invalid("the body is not valid JSON in UTF-8")
}

// depth is how deep a JSON text nests. What is not JSON has some depth too.
func depth(body []byte) int {
	depth, deepest, inString := 0, 0, false
	for i := 0; i < len(body); i++ {
		switch b := body[i]; {
		case inString && b == '\\':
			i++
		case b == '"':
			inString = !inString
		case inString:
		case b == '{' || b == '[':
			depth++
			deepest = max(deepest, depth)
		case b == '}' || b == ']':
			depth--
		}
	}
	return deepest
}
