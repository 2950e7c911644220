package main

import (
	"fmt"
	"net/url"

	"github.com/spf13/cobra"

	"github.com/enlist-mcp/enlist/embeddedgateway"
)

// upstreamVar is what ENLIST_UPSTREAM is called.
const upstreamVar = "ENLIST_UPSTREAM"

func upstreamFlag(cmd *cobra.Command, upstream *string) {
	cmd.Flags().StringVar(upstream, "upstream", "",
		"the base `URL` of an API that only registered agents get through to ("+upstreamVar+"; default: none)")
}

// front is what stands behind the gateway, by the flag or else the environment;
// nil where nothing does.
func (p *program) front(flag string) (*embeddedgateway.Front, error) {
	setting, text := "--upstream", flag
	if text == "" {
		setting, text = upstreamVar, p.env(upstreamVar)
	}
	if text == "" {
		return nil, nil
	}
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		// Not the value: it may hold a user's password.
		err := fmt.Errorf("%s: want the base URL of an API, such as http://127.0.0.1:3000, without a user, a query and a fragment", setting)
		if flag != "" {
			return nil, &usageError{err}
		}
		return nil, err
	}
	return &embeddedgateway.Front{Upstream: u}, nil
}
