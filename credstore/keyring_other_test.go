//go:build !linux

package credstore_test

import (
	"context"

	"github.com/enlist-mcp/enlist/credstore"
)

// keyringRoles: elsewhere a keyring cannot be locked or stopped for a test.
func keyringRoles() map[string]func(context.Context, credstore.Options, string) error {
	return nil
}
