package server

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"net/http"
	"sync"
)

// streamKey is the context key of the stream of an SSE request.
type streamKey struct{}

// streams knows which SSE streams are open, and what is still to be answered
// on them.
type streams struct {
	work *work
	mu   sync.Mutex
	byID map[string]*stream
}

func newStreams(w *work) *streams { return &streams{work: w, byID: make(map[string]*stream)} }

// stream is one of them.
type stream struct {
	id    string
	owner string // the ID of a [Principal]
	ended chan struct{}

	mu  sync.Mutex
	due []func() // one for each request that has no answer yet
}

// begin returns a new stream of a guest's, which gets its id from open.
func (*streams) begin(g *guest) *stream { return &stream{owner: g.ID, ended: make(chan struct{})} }

// owned reports whether a stream is open and is the guest's.
func (s *streams) owned(g *guest, id string) bool {
	st := s.find(id)
	return st != nil && st.owner == g.ID
}

// open returns the id of the stream of a request. It is a
// [mcpserver.SessionIDGenFunc].
func (s *streams) open(ctx context.Context, _ *http.Request) (id string, err error) {
	st, ok := ctx.Value(streamKey{}).(*stream)
	if !ok {
		return "", errors.New("no stream was begun")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	st.id = rand.Text()
	s.byID[st.id] = st
	return st.id, nil
}

// end ends a stream. Nothing is answered on it any more.
func (s *streams) end(st *stream) {
	s.mu.Lock()
	delete(s.byID, st.id)
	s.mu.Unlock()
	close(st.ended)
	st.mu.Lock()
	defer st.mu.Unlock()
	for _, answered := range st.due {
		answered()
	}
	st.due = nil
}

func (s *streams) find(id string) *stream {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.byID[id]
}

// ended returns what is closed when a stream has ended, which is at once where
// it already has.
func (s *streams) ended(id string) <-chan struct{} {
	if st := s.find(id); st != nil {
		return st.ended
	}
	end := make(chan struct{})
	close(end)
	return end
}

// asked notes a message that is to be answered on a stream.
func (s *streams) asked(id string, message []byte) {
	var m struct {
		Method string `json:"method"`
		ID     any    `json:"id"`
		Result any    `json:"result"` // then mcp-go takes it for an answer
	}
	st := s.find(id)
	if st == nil || json.Unmarshal(message, &m) != nil || m.Method == "" || m.ID == nil || m.Result != nil {
		return
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	select {
	case <-st.ended:
	default:
		st.due = append(st.due, s.work.begin())
	}
}

// answered notes an event that was written: an answer, or something else.
func (st *stream) answered(event []byte) {
	if st == nil {
		return
	}
	_, data, _ := bytes.Cut(event, []byte("data: "))
	var m struct {
		Method string `json:"method"`
		ID     any    `json:"id"`
	}
	if json.Unmarshal(bytes.TrimSpace(data), &m) != nil || m.Method != "" || m.ID == nil {
		return
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	if len(st.due) > 0 {
		st.due[0]()
		st.due = st.due[1:]
	}
}
