package admin

import (
	"log/slog"
	"net/http"
	"testing"

	"github.com/enlist-mcp/enlist/embeddedgateway"
)

// APIRoutes is the JSON API without a guard.
func APIRoutes(g *embeddedgateway.Gateway) http.Handler {
	return apiRoutes(g, slog.New(slog.DiscardHandler))
}

// APIPatterns are the methods and paths of the JSON API.
func APIPatterns(t *testing.T) (patterns [][2]string) {
	t.Helper()
	for _, r := range (&api{gateway: (*embeddedgateway.Gateway)(nil)}).routes() {
		patterns = append(patterns, [2]string{r.method, r.path})
	}
	return patterns
}

// OpenAPI is the document of the JSON API.
func OpenAPI() []byte { return openAPI }
