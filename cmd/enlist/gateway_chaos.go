package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/enlist-mcp/enlist/embeddedgateway"
)

// rehearsalFlags are the flags of a gateway that people try their agents with.
type rehearsalFlags struct {
	chaos  string // "": none
	offset time.Duration
}

// plainChaos is what --chaos means without a value: [embeddedgateway.DefaultChaos].
const plainChaos = "on"

func (f *rehearsalFlags) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.chaos, "chaos", "", "rehearse: fail on purpose, by `faults` such as "+embeddedgateway.ChaosForm+" (without a value: those, and another seed)")
	cmd.Flags().Lookup("chaos").NoOptDefVal = plainChaos
	cmd.Flags().DurationVar(&f.offset, "clock-offset", 0, "rehearse: how far the gateway's clock is off, such as -5m")
}

// parse reads what --chaos says; nil: nothing is to fail.
func (f *rehearsalFlags) parse() (*embeddedgateway.Chaos, error) {
	switch f.chaos {
	case "", "off", "false":
		return nil, nil
	case plainChaos, "true":
		c := embeddedgateway.DefaultChaos()
		return &c, nil
	}
	c, err := embeddedgateway.ParseChaos(f.chaos)
	if err != nil {
		return nil, fmt.Errorf("--chaos: %w", err)
	}
	return &c, nil
}

// apply makes a gateway one to rehearse with, and says how far its clock is off.
func (f *rehearsalFlags) apply(ctx context.Context, config *embeddedgateway.Config) error {
	chaos, err := f.parse()
	if err != nil {
		return &usageError{err}
	}
	config.Chaos = chaos
	if f.offset == 0 {
		return nil
	}
	now := config.Now
	config.Now = func() time.Time { return now().Add(f.offset) }
	config.Logger.WarnContext(ctx, "this is a rehearsal: the gateway's clock is wrong on purpose", "clock_offset", f.offset, "now", config.Now().UTC().Format(time.RFC3339))
	return nil
}
