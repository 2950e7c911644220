package tools

import (
	_ "embed"
	"encoding/json"
)

// schemasFile has the schemas of every tool, by its name. They follow from the
// types of its arguments and its result, but to make them takes longer than all
// else until a client's first answer, so it is done beforehand: go test ./tools
// -update.
//
//go:embed schemas.json
var schemasFile []byte

// schemas are those of a tool.
type schemas struct {
	Input  json.RawMessage `json:"input"`
	Output json.RawMessage `json:"output"`
}

// committedSchemas returns what the file has. A tool that is not in it gets its
// schemas made.
func committedSchemas() map[string]schemas {
	var all map[string]schemas
	if json.Unmarshal(schemasFile, &all) != nil {
		return nil
	}
	return all
}
