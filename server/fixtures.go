//go:build !conformance

package server

import mcpserver "github.com/mark3labs/mcp-go/server"

// fixtures returns the options of a server that offers what the conformance
// suite asks for beside its own: none, but in a program built for the suite.
func (*Server) fixtures() []mcpserver.ServerOption { return nil }

// addFixtures adds the tools, resources and prompts of the suite.
func (*Server) addFixtures() {}

// ofTheSuite reports whether a resource or a prompt is one of the suite's.
func ofTheSuite(string) bool { return false }
