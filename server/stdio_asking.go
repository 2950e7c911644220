package server

import (
	"context"
	"encoding/json"
	"errors"
	"strconv"
	"sync"

	"github.com/mark3labs/mcp-go/mcp"
	mcpserver "github.com/mark3labs/mcp-go/server"
)

// maxQuestions is how many questions a stdio client is asked at once.
const maxQuestions = 16

var (
	errHungUp    = errors.New("the client has gone")
	errQuestions = errors.New("too many questions wait for an answer")
	errNoAnswer  = errors.New("the client answered with an error, or with what is no answer")
)

// client is what a stdio client said of itself.
type client struct {
	mu           sync.Mutex
	info         mcp.Implementation
	capabilities mcp.ClientCapabilities
}

// GetClientInfo implements [mcpserver.SessionWithClientInfo].
func (c *client) GetClientInfo() mcp.Implementation {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.info
}

// SetClientInfo implements [mcpserver.SessionWithClientInfo].
func (c *client) SetClientInfo(info mcp.Implementation) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.info = info
}

// GetClientCapabilities implements [mcpserver.SessionWithClientInfo].
func (c *client) GetClientCapabilities() mcp.ClientCapabilities {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.capabilities
}

// SetClientCapabilities implements [mcpserver.SessionWithClientInfo].
func (c *client) SetClientCapabilities(capabilities mcp.ClientCapabilities) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.capabilities = capabilities
}

// inquiry has the questions to a stdio client that wait for an answer.
type inquiry struct {
	send func(context.Context, mcp.JSONRPCMessage)
	gone chan struct{} // closed when no answer will come any more

	mu   sync.Mutex
	last int64
	open map[string]chan json.RawMessage
}

func newInquiry() *inquiry {
	return &inquiry{gone: make(chan struct{}), open: make(map[string]chan json.RawMessage)}
}

// begin gives a question its number and the channel of its answer.
func (q *inquiry) begin() (id int64, answer chan json.RawMessage, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.open) >= maxQuestions {
		return 0, nil, errQuestions
	}
	q.last++
	answer = make(chan json.RawMessage, 1)
	q.open[strconv.FormatInt(q.last, 10)] = answer
	return q.last, answer, nil
}

func (q *inquiry) end(id int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.open, strconv.FormatInt(id, 10))
}

// answered takes an answer; nobody waits for that of another question.
func (q *inquiry) answered(id, result json.RawMessage) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if answer, ok := q.open[string(id)]; ok {
		delete(q.open, string(id))
		answer <- result
	}
}

// RequestElicitation implements [mcpserver.SessionWithElicitation]. The call that
// asks takes no place of those under way meanwhile: else the answer might not be
// read for all the calls that wait for one.
func (s *stdioSession) RequestElicitation(ctx context.Context, request mcp.ElicitationRequest) (*mcp.ElicitationResult, error) {
	id, answer, err := s.inquiry.begin()
	if err != nil {
		return nil, err
	}
	defer s.inquiry.end(id)
	if p, ok := ctx.Value(placeKey{}).(*place); ok {
		p.leave()
		defer p.take(ctx)
	}
	s.inquiry.send(ctx, mcp.JSONRPCRequest{
		JSONRPC: mcp.JSONRPC_VERSION, ID: mcp.NewRequestId(id), Request: request.Request, Params: request.Params,
	})
	select {
	case raw := <-answer:
		result := new(mcp.ElicitationResult)
		if len(raw) == 0 || json.Unmarshal(raw, result) != nil {
			return nil, errNoAnswer
		}
		return result, nil
	case <-s.inquiry.gone:
		return nil, errHungUp
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// placeKey is the context key of the *place of a call.
type placeKey struct{}

// place is that of a call among those under way at once.
type place struct {
	slots chan struct{}
	taken bool
}

// leave gives the place to another call. Only the call itself uses it.
func (p *place) leave() {
	if p.taken {
		<-p.slots
		p.taken = false
	}
}

// take takes a place again, unless ctx ends before there is one.
func (p *place) take(ctx context.Context) {
	select {
	case p.slots <- struct{}{}:
		p.taken = true
	case <-ctx.Done():
	}
}

var (
	_ mcpserver.SessionWithClientInfo  = (*stdioSession)(nil)
	_ mcpserver.SessionWithElicitation = (*stdioSession)(nil)
)
