package gateway

import (
	"context"
	"net/http"

	"github.com/enlist-mcp/enlist/gateway/wire"
)

// discoverFluxra looks for Fluxra. Many services have a health check, so that
// says little; what verifies an email answers without a token in Fluxra's own
// way.
func discoverFluxra(ctx context.Context, s *Site) (*Discovery, error) {
	var d Discovery
	health, err := s.get(ctx, wire.FluxraHealthPath)
	if err != nil {
		return nil, err
	}
	if doc, ok := document(health); ok && scalar(doc, "status") == wire.FluxraHealthy {
		d.Confidence = Weak
		d.Evidence = append(d.Evidence, "GET "+wire.FluxraHealthPath+" says that it is healthy, as many services do.")
		d.Said.Version = s.said(scalar(doc, "version"), maxShort)
	}
	verify, err := s.get(ctx, wire.FluxraVerifyEmailPath)
	if err != nil && d.Evidence == nil {
		return nil, err
	}
	if err == nil && (s.refuses(verify, http.StatusBadRequest, wire.FluxraInvalidRequest) ||
		s.refuses(verify, http.StatusUnauthorized, wire.FluxraInvalidToken)) {
		sure := Likely
		if d.Evidence != nil {
			sure = Certain
		}
		d.Confidence = sure
		d.Evidence = append(d.Evidence, "GET "+wire.FluxraVerifyEmailPath+" refuses to go without a token, by Fluxra's own code.")
	}
	if d.Evidence == nil {
		return nil, nil
	}
	return &d, nil
}
