package main

import (
	"bytes"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// spinning returns a spinner that draws into a buffer.
func spinning(width int) (*spinner, *canvas) {
	var drawn canvas
	return &spinner{out: &drawn, width: func() int { return width }, now: time.Now}, &drawn
}

// canvas is what a spinner draws on, at any time.
type canvas struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (c *canvas) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.text.Write(p)
}

func (c *canvas) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.text.String()
}

func (c *canvas) Reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.text.Reset()
}

// pass lets time pass in the bubble.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func TestSpinnerIsPatient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, drawn := spinning(80)
		done := s.wait("waiting for the keyring")
		pass(patience - time.Millisecond)
		done()
		done() // twice does no harm
		if drawn.String() != "" {
			t.Errorf("after less than %s it has drawn %q", patience, drawn)
		}
		// What was waited before counts.
		done = s.wait("waiting for example.com")
		pass(time.Millisecond)
		if got := drawn.String(); got != clearLine+"⠋ waiting for example.com" {
			t.Errorf("got %q", got)
		}
		pass(frameTime)
		if got := drawn.String(); !strings.HasSuffix(got, clearLine+"⠙ waiting for example.com") {
			t.Errorf("got %q", got)
		}
		done()
		if got := drawn.String(); !strings.HasSuffix(got, clearLine) {
			t.Errorf("it has not gone: %q", got)
		}
		drawn.Reset()
		pass(time.Hour)
		if drawn.String() != "" {
			t.Errorf("it draws when nothing is waited for: %q", drawn)
		}
	})
}

func TestSpinnerSaysTheNewest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, drawn := spinning(80)
		first := s.wait("one")
		pass(patience)
		second := s.wait("two\x1b[2J")
		pass(frameTime)
		second()
		pass(frameTime)
		first()
		want := clearLine + "⠋ one" + clearLine + "⠙ two?[2J" + clearLine + "⠹ one" + clearLine
		if got := drawn.String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

func TestSpinnerMakesWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, drawn := spinning(12)
		log := s.above(drawn)
		_, _ = io.WriteString(log, "before\n")
		done := s.wait("waiting for a service")
		pass(patience)
		_, _ = io.WriteString(log, "a warning\n")
		pass(frameTime)
		done()
		_, _ = io.WriteString(log, "after\n")
		want := "before\n" + clearLine + "⠋ waiting f" + clearLine + "a warning\n" + clearLine + "⠙ waiting f" + clearLine + "after\n"
		if got := drawn.String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

// TestNoSpinnerWithoutATerminal: nothing is drawn into a file, a pipe or a log.
func TestNoSpinnerWithoutATerminal(t *testing.T) {
	var stderr bytes.Buffer
	p := &program{stderr: &stderr, env: func(string) string { return "" }, now: time.Now}
	synctest.Test(t, func(t *testing.T) {
		done := p.waits().wait("waiting")
		pass(time.Minute)
		done()
		if stderr.Len() > 0 {
			t.Errorf("got %q", &stderr)
		}
	})
	if p.waits().above(&stderr) != io.Writer(&stderr) {
		t.Error("the log takes a way round")
	}
}
