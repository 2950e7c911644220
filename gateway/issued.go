package gateway

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/enlist-mcp/enlist/credstore"
)

const (
	// minSecret and maxSecret bound the length of what a service may issue. A
	// shorter secret could not be masked without masking half of every text.
	minSecret = 16
	maxSecret = 4 << 10
	// minSetting is the same for a secret that the user chose.
	minSetting = 8
	// storeTime is how long storing what was issued may take at the end of an
	// operation: a whole one stays under 30 seconds.
	storeTime = 4 * time.Second
)

// presentable reports whether s can be put into a header and taken out of a
// text again: printable ASCII without spaces, of a sensible length.
func presentable(s string, shortest int) bool {
	return len(s) >= shortest && len(s) <= maxSecret &&
		!strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' })
}

// keep stores what a service issued, and returns it as it was stored. It does
// so even when whoever asked has given up meanwhile, because the service will
// not issue it a second time, and tries twice: a keyring may have been busy.
// Where there is no room for all of its attributes, only the needed ones stay.
func keep(ctx context.Context, s credstore.Store, c credstore.Credential, needed ...string) (credstore.Credential, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTime)
	defer cancel()
	err := s.Put(ctx, c)
	if errors.Is(err, credstore.ErrTooLarge) {
		c.Attrs = maps.Clone(c.Attrs)
		maps.DeleteFunc(c.Attrs, func(name, _ string) bool { return !slices.Contains(needed, name) })
	}
	if err != nil && ctx.Err() == nil {
		err = s.Put(ctx, c)
	}
	return c, err
}
