package server

import mcpserver "github.com/mark3labs/mcp-go/server"

// NewEvents returns the store of what was sent, with bounds of its own.
func NewEvents(mostEach, most int, lives func(session string) bool) mcpserver.EventStore {
	return newEvents(mostEach, most, lives)
}
