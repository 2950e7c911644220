package server

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/mark3labs/mcp-go/mcp"
	mcpserver "github.com/mark3labs/mcp-go/server"
)

const (
	// MaxMessage is the longest message that is read from a client, in bytes,
	// over whichever transport.
	MaxMessage = 1 << 20
	// maxCalls is how many calls of one stdio client are under way at once;
	// when they are, nothing more is read until one ends.
	maxCalls = 16
	// stdioGrace is how long a client that reads nothing any more is waited
	// for after the program was told to stop.
	stdioGrace = 2 * time.Second
	// callGrace is how long calls under way may take after the program was
	// told to stop: what a service issues meanwhile is still to be stored.
	callGrace = 5 * time.Second
)

// ServeStdio serves one client over a pair of streams, one JSON-RPC message a
// line, until in ends or ctx does. The calls under way are finished and
// answered first; when ctx ends, those that take longer than 5 seconds are
// cancelled. When out fails nothing more is read, and the calls under way are
// finished all the same.
//
// It also starts what [Server.Start] starts.
//
// mcp-go's own stdio server is not used: it drops the calls under way at the
// end of the input, may answer before it sends the progress of the same call,
// reads lines of any length, and keeps its session in a package variable.
func (s *Server) ServeStdio(ctx context.Context, in io.Reader, out io.Writer) error {
	session := &stdioSession{id: rand.Text(), notifications: make(chan mcp.JSONRPCNotification, 128), inquiry: newInquiry()}
	if err := s.mcp.RegisterSession(ctx, session); err != nil {
		return fmt.Errorf("serve stdio: %w", err)
	}
	defer s.mcp.UnregisterSession(context.WithoutCancel(ctx), session.id)

	reading, stop := context.WithCancel(ctx)
	defer stop()
	ctx, cancel := context.WithCancel(s.mcp.WithContext(context.WithoutCancel(ctx), session))
	defer cancel()
	defer context.AfterFunc(reading, func() {
		late := time.AfterFunc(callGrace, cancel)
		context.AfterFunc(ctx, func() { late.Stop() })
	})()
	s.Start(ctx)
	c := &stdioConn{
		server:    s,
		session:   session,
		out:       out,
		stop:      stop,
		responses: make(chan mcp.JSONRPCMessage, maxCalls),
		written:   make(chan error, 1),
		slots:     make(chan struct{}, maxCalls),
	}
	session.inquiry.send = c.answer
	go c.write(context.WithoutCancel(ctx))
	// On a stack of its own: one that grows deep inside a command is copied frame
	// by frame, and what the runtime looks up for that stays in memory.
	ended := make(chan error, 1)
	go func() { ended <- c.read(reading, ctx, in) }()
	err := <-ended
	s.letRest()
	close(session.inquiry.gone)

	go func() {
		c.calls.Wait()
		s.background.Wait()
		s.keeping.Wait()
		cancel() // what is left waits for nothing but this
		c.others.Wait()
		close(c.responses)
	}()
	<-ctx.Done()
	grace, cancelGrace := context.WithTimeout(context.WithoutCancel(ctx), stdioGrace)
	defer cancelGrace()
	select {
	case werr := <-c.written:
		return errors.Join(err, werr)
	case <-grace.Done():
		return errors.Join(err, errors.New("serve stdio: the client does not read its answers"))
	}
}

// stdioSession is what mcp-go knows of a stdio client.
type stdioSession struct {
	id            string
	notifications chan mcp.JSONRPCNotification
	initialized   atomic.Bool
	client
	inquiry *inquiry
	legacy  atomic.Bool // the client has initialized the session
}

var _ mcpserver.ClientSession = (*stdioSession)(nil)

func (s *stdioSession) SessionID() string { return s.id }

func (s *stdioSession) NotificationChannel() chan<- mcp.JSONRPCNotification { return s.notifications }

func (s *stdioSession) Initialize() { s.initialized.Store(true) }

func (s *stdioSession) Initialized() bool { return s.initialized.Load() }

// stdioConn is a stdio client while it is served.
type stdioConn struct {
	server    *Server
	session   *stdioSession
	out       io.Writer
	stop      context.CancelFunc
	responses chan mcp.JSONRPCMessage
	written   chan error // what write returned

	slots  chan struct{}  // one for each call under way
	calls  sync.WaitGroup // tool calls and reads, which end by themselves
	others sync.WaitGroup // requests that end with the connection
}

// read handles every message until in or ctx ends.
func (c *stdioConn) read(ctx, calls context.Context, in io.Reader) error {
	type line struct {
		text []byte
		long bool
	}
	lines := make(chan line)
	failed := make(chan error, 1)
	go func() {
		defer close(lines)
		r := bufio.NewReaderSize(in, 64<<10)
		for {
			text, long, err := readLine(r, MaxMessage)
			select {
			case lines <- line{text, long}:
			case <-ctx.Done():
				return
			}
			if err != nil {
				if !errors.Is(err, io.EOF) {
					failed <- fmt.Errorf("serve stdio: read: %w", err)
				}
				return
			}
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return nil
		case l, ok := <-lines:
			switch {
			case !ok:
				select {
				case err := <-failed:
					return err
				default:
					return nil
				}
			case l.long:
				c.answer(ctx, protocolError(nil, mcp.INVALID_REQUEST, fmt.Sprintf("message longer than %d bytes", MaxMessage)))
			default:
				c.handle(calls, bytes.TrimSpace(l.text))
			}
		}
	}
}

// readLine returns the next line. One that is longer than limit is read to its
// end and not kept.
func readLine(r *bufio.Reader, limit int) (line []byte, long bool, err error) {
	for {
		part, err := r.ReadSlice('\n')
		switch {
		case long:
		case len(line)+len(part) > limit+1:
			line, long = nil, true
		default:
			line = append(line, part...)
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return line, long, err
		}
	}
}

// slow reports whether a request may have to wait for the store or a service.
func slow(method string) bool {
	switch mcp.MCPMethod(method) {
	case mcp.MethodToolsCall, mcp.MethodResourcesList, mcp.MethodResourcesRead, mcp.MethodPromptsGet, mcp.MethodCompletionComplete:
		return true
	}
	return false
}

// handle handles one message. What may be slow runs beside each other; everything
// else is answered in the order of the questions.
func (c *stdioConn) handle(ctx context.Context, line []byte) {
	if len(line) == 0 {
		return
	}
	var head struct {
		Method string          `json:"method"`
		ID     json.RawMessage `json:"id"`
		Result json.RawMessage `json:"result"`
		Error  json.RawMessage `json:"error"`
	}
	if err := json.Unmarshal(line, &head); err != nil || !utf8.Valid(line) {
		if batch(line) {
			c.answer(ctx, protocolError(nil, mcp.INVALID_REQUEST, noBatches))
			return
		}
		c.answer(ctx, protocolError(nil, mcp.PARSE_ERROR, "want one JSON-RPC message in UTF-8 on a line"))
		return
	}
	switch {
	case head.Method == "" && (head.Result != nil || head.Error != nil):
		c.session.inquiry.answered(head.ID, head.Result)
	case slow(head.Method) && head.ID != nil:
		select {
		case c.slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		c.calls.Go(func() {
			p := &place{slots: c.slots, taken: true}
			defer p.leave()
			c.answer(ctx, c.server.handle(context.WithValue(ctx, placeKey{}, p), head.ID, line))
		})
	case head.Method == string(mcp.MethodSubscriptionsListen) && head.ID != nil:
		c.others.Go(func() { c.listen(ctx, head.ID, line) })
	default:
		if head.Method == string(mcp.MethodInitialize) {
			c.session.legacy.Store(true)
		}
		c.answer(ctx, c.server.handle(ctx, head.ID, line))
	}
}

// answer sends a response; nil is none. It is lost only when the program is
// stopping and the client has left a whole queue of them unread.
func (c *stdioConn) answer(ctx context.Context, m mcp.JSONRPCMessage) {
	if m == nil {
		return
	}
	select {
	case c.responses <- m:
	default:
		select {
		case c.responses <- m:
		case <-ctx.Done():
		}
	}
}

// write writes every message until responses is closed. It is the only one
// who writes, and before a response it writes what was sent before it, so that
// the progress of a call is out before its result.
func (c *stdioConn) write(ctx context.Context) {
	var failed error
	line := func(m mcp.JSONRPCMessage) {
		if failed != nil {
			return
		}
		if failed = c.writeLine(ctx, m); failed != nil {
			c.stop()
		}
	}
	for {
		select {
		case n := <-c.session.notifications:
			line(n)
		case m, ok := <-c.responses:
			for waiting := len(c.session.notifications); waiting > 0; waiting-- {
				line(<-c.session.notifications)
			}
			if !ok {
				c.written <- failed
				return
			}
			line(m)
		}
	}
}

func (c *stdioConn) writeLine(ctx context.Context, m mcp.JSONRPCMessage) error {
	text, err := json.Marshal(m)
	if err != nil {
		c.server.bug(ctx, "a message cannot be marshalled", "error", c.server.redact.text(err.Error()))
		return nil
	}
	if _, err := c.out.Write(append(c.server.redact.message(ctx, text), '\n')); err != nil {
		return fmt.Errorf("serve stdio: write: %w", err)
	}
	return nil
}

// noBatches refuses several messages at once: but for one revision no client sends
// any, and they would go around what is said about one request in its headers.
const noBatches = "batches are not accepted: send each message by itself"

// batch reports whether a message is several at once.
func batch(message []byte) bool {
	text := bytes.TrimLeft(message, " \t\r\n")
	return len(text) > 0 && text[0] == '[' && json.Valid(text)
}

// protocolError is a JSON-RPC error. A nil id says that it could not be read.
func protocolError(id any, code int, message string) mcp.JSONRPCError {
	return mcp.NewJSONRPCError(mcp.NewRequestId(id), code, message, nil)
}
