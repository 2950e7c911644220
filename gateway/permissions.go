package gateway

import (
	"strings"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/gateway/wire"
)

const (
	// permissionsAttr is the attribute that holds what a service granted, with
	// commas between.
	permissionsAttr = "permissions"
	// maxPermissions is how many of them are kept.
	maxPermissions = 32
)

// permissionLike matches what can be a permission rather than words: they are
// shown to a model as facts, not as what a service said.
var permissionLike = wire.NewPattern(`^[A-Za-z0-9*_.:/-]{1,64}$`)

// Permissions returns what a service granted with a credential: no more than
// 32, and nothing that does not look like a permission.
func Permissions(i credstore.Info) []string {
	return onlyPermissions(strings.Split(i.Attrs[permissionsAttr], ","))
}

// joinPermissions returns the attribute for what a service granted. One that
// holds a secret is left out.
func joinPermissions(granted []string, s *Scrubber) string {
	var clean []string
	for _, p := range onlyPermissions(granted) {
		if s.Own(p) == p {
			clean = append(clean, p)
		}
	}
	return strings.Join(clean, ",")
}

func onlyPermissions(granted []string) []string {
	var out []string
	for _, p := range granted {
		if len(out) < maxPermissions && permissionLike.MatchString(p) {
			out = append(out, p)
		}
	}
	return out
}
