package main

import (
	"context"
	"time"

	"github.com/enlist-mcp/enlist/embeddedgateway"
)

// plainChaos is what --chaos means without a value: [embeddedgateway.DefaultChaos].
const plainChaos = "on"

// parseChaos reads what the setting says; nil: nothing is to fail.
func parseChaos(text string) (*embeddedgateway.Chaos, error) {
	switch text {
	case "", "off", "false":
		return nil, nil
	case plainChaos, "true":
		c := embeddedgateway.DefaultChaos()
		return &c, nil
	}
	c, err := embeddedgateway.ParseChaos(text)
	return &c, err
}

// rehearse makes a gateway one to rehearse with, and says how far its clock is off.
func (s *gatewaySettings) rehearse(config *embeddedgateway.Config) (err error) {
	if config.Chaos, err = parseChaos(s.Chaos); err != nil || s.ClockOffset == 0 {
		return err
	}
	now := config.Now
	config.Now = func() time.Time { return now().Add(s.ClockOffset) }
	config.Logger.WarnContext(context.Background(), "this is a rehearsal: the gateway's clock is wrong on purpose",
		"clock_offset", s.ClockOffset, "now", config.Now().UTC().Format(time.RFC3339))
	return nil
}
