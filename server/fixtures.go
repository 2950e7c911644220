//go:build !conformance

package server

import mcpserver "github.com/mark3labs/mcp-go/server"

// fixtures returns what the conformance suite wants a server to offer beside
// its own: nothing, but in a program built for the suite.
func (*Server) fixtures() []mcpserver.ServerOption { return nil }

// addFixtures adds the tools, resources and prompts of the suite.
func (*Server) addFixtures() {}
