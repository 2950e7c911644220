package main

import (
	"errors"

	"github.com/spf13/cobra"
)

func (p *program) gatewayCheckCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "check", Args: cobra.NoArgs, Short: "Say what the gateway's settings are and what is wrong with them",
		RunE: run(func(cmd *cobra.Command, _ []string) error { return errors.New("not yet") }),
	}
	jsonFlag(cmd, &asJSON, "an object.")
	return cmd
}
