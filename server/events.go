package server

import (
	"bytes"
	"container/list"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	mcpserver "github.com/mark3labs/mcp-go/server"
)

const (
	// sessionEvents is how much is kept of what was sent to a session, in bytes,
	// for a client that lost its connection; allEvents is how much for all of
	// them together. The oldest goes first.
	sessionEvents, allEvents = 2 << 20, 32 << 20
	// eventCost is what an event takes beside its message.
	eventCost = 256
)

// events keeps what was sent on the streams of sessions, so that a client that
// lost its connection gets the rest. mcp-go's own store keeps all of it until the
// session ends.
//
// An event's id is the number of its stream, and its place there. The first one
// that a stream has, place 0, may have been sent without a message: see [posted].
type events struct {
	most, mostEach int
	lives          func(session string) bool // false: nobody can ask for its events

	mu       sync.Mutex
	size     int
	streams  int64 // how many there ever were
	byAge    *list.List
	sessions map[string]*eventLog
}

var _ mcpserver.EventStore = (*events)(nil)

func newEvents(mostEach, most int, lives func(session string) bool) *events {
	return &events{most: most, mostEach: mostEach, lives: lives, byAge: list.New(), sessions: make(map[string]*eventLog)}
}

// eventLog is what is kept of one session.
type eventLog struct {
	size    int
	byAge   *list.List
	numbers map[string]int64 // of streams, by the ids that mcp-go gives them
	streams map[int64]*eventStream
}

// eventStream is one stream of a session.
type eventStream struct {
	session, id string
	number      int64
	answers     bool          // it is the answer to a request, and ends with its result
	began       chan struct{} // closed when mcp-go has sent something, or nothing will come
	more        chan struct{} // closed when the next event is kept
	lost        int64         // the place of the last event that is no longer kept
	kept        []*event
}

type event struct {
	stream    *eventStream
	place     int64
	message   json.RawMessage
	all, each *list.Element
}

func (e *event) id() string        { return eventID(e.stream.number, e.place) }
func (e *event) size() int         { return len(e.message) + eventCost }
func (s *eventStream) last() int64 { return s.lost + int64(len(s.kept)) }

func eventID(stream, place int64) string {
	return strconv.FormatInt(stream, 10) + "-" + strconv.FormatInt(place, 10)
}

// StoreEvent implements [mcpserver.EventStore].
func (s *events) StoreEvent(ctx context.Context, session, stream string, message json.RawMessage) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	log := s.log(session)
	st := log.streams[log.numbers[stream]]
	if st == nil {
		st = s.begin(ctx, session, log, stream)
	}
	return s.keep(st, message), nil
}

// keep keeps a message of a stream, and returns its id.
func (s *events) keep(st *eventStream, message json.RawMessage) string {
	log := s.sessions[st.session]
	e := &event{stream: st, place: st.last() + 1, message: bytes.Clone(message)}
	if e.size() > s.mostEach || !s.lives(st.session) {
		s.forget(st) // it goes out, once
		return e.id()
	}
	st.kept = append(st.kept, e)
	close(st.more)
	st.more = make(chan struct{})
	e.all, e.each = s.byAge.PushBack(e), log.byAge.PushBack(e)
	s.size += e.size()
	log.size += e.size()
	for log.size > s.mostEach {
		s.drop(log.byAge.Front().Value.(*event))
	}
	for s.size > s.most {
		s.drop(s.byAge.Front().Value.(*event))
	}
	return e.id()
}

func (s *events) log(session string) *eventLog {
	log := s.sessions[session]
	if log == nil {
		log = &eventLog{byAge: list.New(), numbers: make(map[string]int64), streams: make(map[int64]*eventStream)}
		s.sessions[session] = log
	}
	return log
}

// begin begins a stream: the one that its request has announced, or another.
func (s *events) begin(ctx context.Context, session string, log *eventLog, id string) *eventStream {
	p, answers := ctx.Value(postedKey{}).(*posted)
	var st *eventStream
	if answers {
		st = log.streams[p.stream]
	}
	if st == nil {
		s.streams++
		st = &eventStream{session: session, number: s.streams, answers: answers, began: make(chan struct{}), more: make(chan struct{})}
		log.streams[st.number] = st
	}
	if st.id == "" {
		close(st.began)
	}
	st.id = id
	log.numbers[id] = st.number
	return st
}

// drop forgets the oldest event of a stream, and the stream with the last one.
func (s *events) drop(e *event) {
	st, log := e.stream, s.sessions[e.stream.session]
	st.lost, st.kept = e.place, st.kept[1:]
	s.byAge.Remove(e.all)
	log.byAge.Remove(e.each)
	s.size -= e.size()
	log.size -= e.size()
	if len(st.kept) == 0 {
		s.forget(st)
	}
}

// forget forgets a stream. What comes on it after that is on another.
func (s *events) forget(st *eventStream) {
	log := s.sessions[st.session]
	if st.id == "" && log.streams[st.number] == st {
		close(st.began) // nothing comes on it any more
	}
	delete(log.streams, st.number)
	delete(log.numbers, st.id)
	for len(st.kept) > 0 {
		s.drop(st.kept[0])
	}
	if len(log.streams) == 0 {
		delete(s.sessions, st.session)
	}
}

// ReplayEventsAfter implements [mcpserver.EventStore]. Where something is missing
// that was sent after the event, the event is not known.
func (s *events) ReplayEventsAfter(_ context.Context, session, lastEventID string, send func(string, json.RawMessage) error) (string, error) {
	s.mu.Lock()
	st, place := s.find(session, lastEventID)
	if st == nil || st.id == "" || place < st.lost || place > st.last() {
		s.mu.Unlock()
		return "", fmt.Errorf("%w: %s", mcpserver.ErrUnknownEventID, lastEventID)
	}
	tail := append([]*event(nil), st.kept[place-st.lost:]...)
	s.mu.Unlock()
	for _, e := range tail {
		if err := send(e.id(), e.message); err != nil {
			return "", err
		}
	}
	return st.id, nil
}

// find returns the stream of an event, and the event's place in it.
func (s *events) find(session, eventID string) (*eventStream, int64) {
	number, place, _ := strings.Cut(eventID, "-")
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil {
		return nil, 0
	}
	at, err := strconv.ParseInt(place, 10, 64)
	log := s.sessions[session]
	if err != nil || log == nil {
		return nil, 0
	}
	return log.streams[n], at
}

// PurgeSession implements [mcpserver.EventStore].
func (s *events) PurgeSession(_ context.Context, session string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	log := s.sessions[session]
	if log == nil {
		return nil
	}
	for _, st := range log.streams {
		s.forget(st)
	}
	return nil
}

// announce has a request of a session begin its stream, before there is anything
// to send, and returns the id of its first event.
func (s *events) announce(p *posted) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return eventID(s.announced(p).number, 0)
}

func (s *events) announced(p *posted) *eventStream {
	s.streams++
	p.stream = s.streams
	st := &eventStream{session: p.session, number: p.stream, answers: true, began: make(chan struct{}), more: make(chan struct{})}
	s.log(p.session).streams[p.stream] = st
	return st
}

// retract forgets a stream that was announced, and that no result came on.
func (s *events) retract(p *posted) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if log := s.sessions[p.session]; log != nil {
		if st := log.streams[p.stream]; st != nil && st.id == "" {
			s.forget(st)
		}
	}
}

// answering returns, for an event of a stream that answers a request, what is
// closed when that stream has something to send; nil for any other.
func (s *events) answering(session, eventID string) <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if st, place := s.find(session, eventID); st != nil && st.answers && place >= st.lost && place <= st.last() {
		return st.began
	}
	return nil
}

// told returns what was kept after an event, as far as it still is, and what is
// closed when there is more.
func (s *events) told(session, eventID string) (tail []*event, more <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st, place := s.find(session, eventID)
	if st == nil {
		return nil, nil
	}
	from := min(max(place-st.lost, 0), int64(len(st.kept)))
	return slices.Clone(st.kept[from:]), st.more
}
