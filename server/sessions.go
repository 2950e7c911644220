package server

import (
	"crypto/rand"
	"errors"
	"sync"

	mcpserver "github.com/mark3labs/mcp-go/server"
)

// errNoSession refuses a session id that was not given out, or has ended.
var errNoSession = errors.New("no such session")

// sessionIDs gives out the ids of streamable HTTP sessions and knows those
// that live. mcp-go's own keeps those that have ended for ever.
type sessionIDs struct {
	mu   sync.Mutex
	live map[string]struct{}
}

var _ mcpserver.SessionIdManager = (*sessionIDs)(nil)

func newSessionIDs() *sessionIDs { return &sessionIDs{live: make(map[string]struct{})} }

// Generate implements [mcpserver.SessionIdManager].
func (s *sessionIDs) Generate() string {
	id := rand.Text()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.live[id] = struct{}{}
	return id
}

// Validate implements [mcpserver.SessionIdManager].
func (s *sessionIDs) Validate(id string) (terminated bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.live[id]; !ok {
		return false, errNoSession
	}
	return false, nil
}

// Terminate implements [mcpserver.SessionIdManager].
func (s *sessionIDs) Terminate(id string) (notAllowed bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.live, id)
	return false, nil
}
