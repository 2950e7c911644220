package gateway

import (
	"cmp"
	"context"
	"net/http"

	"github.com/enlist-mcp/enlist/gateway/wire"
)

// discoverFluxra looks for Fluxra. Many services have a health check, so that
// says little; what verifies an email answers without a token in Fluxra's own
// way.
func discoverFluxra(ctx context.Context, s *Site) (*Discovery, error) {
	var d Discovery
	health, healthErr := s.get(ctx, wire.FluxraHealthPath)
	if doc, ok := document(health); ok && healthErr == nil && scalar(doc, "status") == wire.FluxraHealthy {
		d.Confidence = Weak
		d.Evidence = append(d.Evidence, "GET "+wire.FluxraHealthPath+" says that it is healthy, as many services do.")
		d.Said.Version = s.said(scalar(doc, "version"), maxShort)
	}
	verify, err := s.get(ctx, wire.FluxraVerifyEmailPath)
	if err == nil && (s.refuses(verify, http.StatusBadRequest, wire.FluxraInvalidRequest) ||
		s.refuses(verify, http.StatusUnauthorized, wire.FluxraInvalidToken)) {
		d.Confidence = Certain
		if d.Evidence == nil {
			d.Confidence = Likely
		}
		d.Evidence = append(d.Evidence, "GET "+wire.FluxraVerifyEmailPath+" refuses to go without a token, by Fluxra's own code.")
	}
	if d.Evidence == nil {
		return nil, cmp.Or(healthErr, err)
	}
	return &d, nil
}
