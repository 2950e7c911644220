package server

import (
	"context"
	"crypto/rand"
	"errors"
	"net/http"
	"sync"

	mcpserver "github.com/mark3labs/mcp-go/server"
)

// errNoSession refuses a session id that was not given out, has ended, or
// belongs to somebody else: nobody learns which.
var errNoSession = errors.New("no such session")

// sessions gives out the ids of streamable HTTP sessions and knows those that
// live, and whose they are. mcp-go's own keeps those that have ended for ever.
type sessions struct {
	most int64 // requests, as count says

	mu       sync.Mutex
	live     map[string]*session
	requests int64 // of those that live
}

// session is one of them.
type session struct {
	owner string          // the ID of a [Principal]
	ctx   context.Context // ends with the session
	end   func()          // ends it, and makes room for another

	requests int64
}

var _ mcpserver.SessionIdManagerResolver = (*sessions)(nil)

// maxRequests is how many requests live sessions have made together, at most.
const maxRequests = 100_000

func newSessions(most int64) *sessions {
	return &sessions{most: most, live: make(map[string]*session)}
}

// admissionKey is the context key of an [admission].
type admissionKey struct{}

// admission is the room that a request which begins a session has been given.
type admission struct {
	leave func()
	taken bool
}

// ResolveSessionIdManager implements [mcpserver.SessionIdManagerResolver]: it
// knows the sessions of the one who makes a request, or all of them without one.
func (s *sessions) ResolveSessionIdManager(r *http.Request) mcpserver.SessionIdManager {
	if r == nil {
		return &ownSessions{sessions: s}
	}
	a, _ := r.Context().Value(admissionKey{}).(*admission)
	return &ownSessions{sessions: s, guest: guestOf(r.Context()), admission: a}
}

// of returns the ids of a guest's sessions.
func (s *sessions) of(g *guest) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var ids []string
	for id, session := range s.live {
		if session.owner == g.ID {
			ids = append(ids, id)
		}
	}
	return ids
}

// within returns a context that also ends with a session of the guest's; false:
// there is none.
func (s *sessions) within(ctx context.Context, g *guest, id string) (context.Context, context.CancelFunc, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	session, ok := s.live[id]
	if !ok || session.owner != g.ID {
		return nil, nil, false
	}
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(session.ctx, cancel)
	return ctx, func() { stop(); cancel() }, true
}

// owned reports whether a session lives and is the guest's.
func (s *sessions) owned(g *guest, id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	session, ok := s.live[id]
	return ok && session.owner == g.ID
}

// count notes a request of a session, and returns the id of one that must end; ""
// for none. mcp-go keeps something of each request that was answered by events for
// as long as its session lives: when that is too much, the session that has had
// the most of them, of those of the token that has, has to begin anew.
func (s *sessions) count(id string) (tooMuch string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if session := s.live[id]; session != nil {
		session.requests++
		s.requests++
	}
	if s.requests <= s.most {
		return ""
	}
	each := make(map[string]int64) // whoever has many sessions ends nobody else's
	for _, session := range s.live {
		each[session.owner] += session.requests
	}
	for other, session := range s.live {
		if tooMuch == "" {
			tooMuch = other
			continue
		}
		most := s.live[tooMuch]
		if more := each[session.owner] - each[most.owner]; more > 0 || more == 0 && session.requests > most.requests {
			tooMuch = other
		}
	}
	return tooMuch
}

// alive reports whether a session lives.
func (s *sessions) alive(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.live[id]
	return ok
}

// ownSessions are the sessions of one guest.
type ownSessions struct {
	sessions  *sessions
	guest     *guest // nil: whoever's they are
	admission *admission
}

// Generate implements [mcpserver.SessionIdManager].
func (o *ownSessions) Generate() string {
	id := rand.Text()
	if o.admission == nil || o.admission.taken {
		return id // of a session that never lives
	}
	o.admission.taken = true
	o.sessions.mu.Lock()
	defer o.sessions.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	leave := o.admission.leave
	o.sessions.live[id] = &session{owner: o.guest.ID, ctx: ctx, end: func() { cancel(); leave() }}
	return id
}

// Validate implements [mcpserver.SessionIdManager].
func (o *ownSessions) Validate(id string) (terminated bool, err error) {
	if o.guest == nil || !o.sessions.owned(o.guest, id) {
		return false, errNoSession
	}
	return false, nil
}

// Terminate implements [mcpserver.SessionIdManager].
func (o *ownSessions) Terminate(id string) (notAllowed bool, err error) {
	o.sessions.mu.Lock()
	session, ok := o.sessions.live[id]
	if ok && o.guest != nil && session.owner != o.guest.ID {
		ok = false
	}
	if ok {
		delete(o.sessions.live, id)
		o.sessions.requests -= session.requests
	}
	o.sessions.mu.Unlock()
	if ok {
		session.end()
	}
	return false, nil
}

// endSession ends a session as its client would, whoever's it is: mcp-go has no
// other way.
func (g *guard) endSession(ctx context.Context, id string) {
	g.sessions.end(id)
	g.mcp.Handle(&unread{header: make(http.Header)}, &mcpserver.HTTPRequest{
		Method: http.MethodDelete, Header: http.Header{mcpserver.HeaderKeySessionID: {id}}, Context: ctx,
	})
}

// end has a session live no more.
func (s *sessions) end(id string) { _, _ = (&ownSessions{sessions: s}).Terminate(id) }

// unread takes an answer that nobody waits for.
type unread struct{ header http.Header }

func (u *unread) Header() http.Header         { return u.header }
func (u *unread) WriteHeader(int)             {}
func (u *unread) Write(p []byte) (int, error) { return len(p), nil }
func (u *unread) Flush()                      {}

// CanStream implements [mcpserver.HTTPResponseWriter].
func (u *unread) CanStream() bool { return false }
