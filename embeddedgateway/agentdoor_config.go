package embeddedgateway

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/enlist-mcp/enlist/gateway/wire"
)

// The variables by which an operator says what is registered for.
const (
	agentDoorNameVar        = "AGENTDOOR_SERVICE_NAME"
	agentDoorDescriptionVar = "AGENTDOOR_SERVICE_DESCRIPTION"
	agentDoorScopesVar      = "AGENTDOOR_SCOPES"
	agentDoorRateVar        = "AGENTDOOR_RATE_LIMIT"
	agentDoorX402Var        = "AGENTDOOR_X402"
	agentDoorTestVar        = "AGENTDOOR_TEST_KEYS"
)

const (
	agentDoorRegistrations = 10 // an hour and an address
	agentDoorMostRequests  = 100_000
	agentDoorX402Version   = "2.0" // of x402, as the protocol's own documents have it
)

// agentDoorRate is a limit as it is written: 1000/1h.
var agentDoorRate = wire.NewPattern(`^([1-9][0-9]{0,5})/([1-9][0-9]{0,3})([smhd])$`)

// agentDoorConfig is what the operator configures.
type agentDoorConfig struct {
	service, about string
	scopes         []wire.AgentDoorScope
	limit          wire.AgentDoorRateLimit
	window         time.Duration // of limit
	x402           *wire.AgentDoorX402
	test           bool // API keys are called test keys
}

func readAgentDoorConfig(d deps) agentDoorConfig {
	c := agentDoorConfig{
		service: d.env.line(agentDoorNameVar, "Enlist gateway", 200),
		about:   d.env.line(agentDoorDescriptionVar, "Agents register here with an Ed25519 key.", 1000),
		scopes:  []wire.AgentDoorScope{{ID: wire.AgentDoorAccess, Description: "Use the API."}},
		limit:   wire.AgentDoorRateLimit{Requests: 1000, Window: "1h"},
		window:  time.Hour,
		// Who runs it for strangers means it.
		test: d.env.boolean(agentDoorTestVar, !d.Standalone),
	}
	const wantScopes = `a JSON array such as [{"id":"weather.read","description":"Read the weather","price":"$0.01/call","rate_limit":"100/1h"}]`
	var scopes []wire.AgentDoorScope
	if d.env.json(agentDoorScopesVar, wantScopes, &scopes) {
		c.scopes = scopes
		checkScopes(d.env, scopes)
	}
	if text := d.env.get(agentDoorRateVar); text != "" {
		var ok bool
		if c.limit, c.window, ok = parseRate(text); !ok {
			d.env.wrong(agentDoorRateVar, "want requests/window, such as 1000/1h: at most %d in at most a day", agentDoorMostRequests)
		}
	}
	const wantX402 = `a JSON object such as {"payment_address":"0x742d…","network":"base","currency":"USDC"}`
	var x402 wire.AgentDoorX402
	if d.env.json(agentDoorX402Var, wantX402, &x402) {
		c.x402 = &x402
		if x402.PaymentAddress == "" || x402.Network == "" || x402.Currency == "" {
			d.env.wrong(agentDoorX402Var, "want %s, with none of the three left out", wantX402)
		}
	}
	return c
}

// checkScopes judges configured scopes. Both what a scope is called and what it
// is for must be there: the protocol's own SDK refuses the document otherwise.
func checkScopes(env *environ, scopes []wire.AgentDoorScope) {
	if len(scopes) == 0 {
		env.wrong(agentDoorScopesVar, "want at least one scope; unset it for %s alone", wire.AgentDoorAccess)
	}
	known := map[string]bool{}
	for i, s := range scopes {
		_, _, rate := parseRate(s.RateLimit)
		switch {
		case s.ID == "" || len(s.ID) > 128 || strings.ContainsFunc(s.ID, func(r rune) bool { return r <= ' ' || r > '~' }):
			env.wrong(agentDoorScopesVar, "the id of scope %d must be 1 to 128 visible ASCII characters", i+1)
		case known[s.ID]:
			env.wrong(agentDoorScopesVar, "the id of scope %d is that of another one, too", i+1)
		case s.Description == "":
			env.wrong(agentDoorScopesVar, "scope %d has no description", i+1)
		case s.RateLimit != "" && !rate:
			env.wrong(agentDoorScopesVar, "the rate_limit of scope %d is not one such as 100/1h", i+1)
		}
		known[s.ID] = true
	}
}

// parseRate reads a limit such as 1000/1h.
func parseRate(text string) (wire.AgentDoorRateLimit, time.Duration, bool) {
	parts := agentDoorRate.FindStringSubmatch(text)
	if parts == nil {
		return wire.AgentDoorRateLimit{}, 0, false
	}
	n, err := strconv.Atoi(parts[1])
	count, wrong := strconv.Atoi(parts[2])
	unit := map[string]time.Duration{"s": time.Second, "m": time.Minute, "h": time.Hour, "d": 24 * time.Hour}[parts[3]]
	window := time.Duration(count) * unit
	ok := err == nil && wrong == nil && n <= agentDoorMostRequests && window <= 24*time.Hour
	return wire.AgentDoorRateLimit{Requests: n, Window: parts[2] + parts[3]}, window, ok
}

// discover answers, to anybody, how to register and what for.
func (a *agentDoor) discover(context.Context, *call) (answered, error) {
	document := wire.AgentDoorDiscovery{
		Version:              wire.AgentDoorVersion,
		ServiceName:          a.service,
		ServiceDescription:   a.about,
		RegistrationEndpoint: wire.AgentDoorRegisterPath,
		AuthEndpoint:         wire.AgentDoorAuthPath,
		ScopesAvailable:      a.scopes,
		AuthMethods:          []string{"ed25519-challenge", "jwt"},
		RateLimits: wire.AgentDoorRateLimits{
			Registration: fmt.Sprintf("%d/1h", agentDoorRegistrations),
			Default:      fmt.Sprintf("%d/%s", a.limit.Requests, a.limit.Window),
		},
		CompanionProtocols: map[string]any{},
	}
	if a.x402 != nil {
		document.Payment = &wire.AgentDoorPayment{
			Protocol: "x402", Version: agentDoorX402Version,
			Networks: []string{a.x402.Network}, Currency: []string{a.x402.Currency},
		}
	}
	return answered{status: http.StatusOK, body: document, header: http.Header{
		"Cache-Control":             {"public, max-age=3600"},
		wire.AgentDoorVersionHeader: {wire.AgentDoorVersion},
	}}, nil
}

// health answers, to anybody, that the gateway does.
func (*agentDoor) health(context.Context, *call) (wire.AgentDoorHealth, error) {
	return wire.AgentDoorHealth{Status: "healthy"}, nil
}
