package main

import (
	"fmt"
	"io"
	"slices"
	"sync"
	"time"
)

const (
	// patience is how long a person waits without being told for what.
	patience = 300 * time.Millisecond
	// frameTime is how long one picture of the spinner stands.
	frameTime = 100 * time.Millisecond
	// clearLine takes the cursor to the beginning of its line and clears that.
	clearLine = "\r\x1b[K"
)

// frames are the pictures of the spinner.
const frames = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"

// spinner tells a person at a terminal what the program waits for, once it has
// waited for longer than a moment, on a line that is gone again before anything
// else is printed. It is drawn while somebody waits and at no other time, so no
// goroutine of it outlives what it waits for. The libraries for this draw on in a
// goroutine until they are told to stop, and look at the environment themselves.
type spinner struct {
	out   io.Writer // a terminal; nil: nothing is drawn
	width func() int
	now   func() time.Time

	mu      sync.Mutex
	waits   []*string // what is waited for, the newest last
	since   time.Time // when the first of those began
	waited  time.Duration
	timer   *time.Timer
	frame   int
	visible bool
}

// wait says what is waited for, until done is called. It may be called by many
// at a time.
func (s *spinner) wait(what string) (done func()) {
	if s == nil || s.out == nil {
		return func() {}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	mine := &what
	s.waits = append(s.waits, mine)
	if len(s.waits) == 1 {
		s.since = s.now()
		s.timer = time.AfterFunc(max(0, patience-s.waited), s.draw)
	}
	return sync.OnceFunc(func() { s.over(mine) })
}

// over ends one wait. What was waited counts for the next: three short ones in a
// row are a long one.
func (s *spinner) over(mine *string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waits = slices.DeleteFunc(s.waits, func(w *string) bool { return w == mine })
	if len(s.waits) > 0 {
		return
	}
	s.timer.Stop()
	s.waited += s.now().Sub(s.since)
	s.clear()
}

// draw draws the next picture, if anything is waited for still.
func (s *spinner) draw() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.waits) == 0 {
		return
	}
	pictures := []rune(frames)
	line := string(pictures[s.frame%len(pictures)]) + " " + cell(*s.waits[len(s.waits)-1])
	// The last column stays free: a terminal may begin a new line behind it.
	fmt.Fprint(s.out, clearLine+within(line, max(1, s.width()-1)))
	s.frame++
	s.visible = true
	s.timer.Reset(frameTime)
}

func (s *spinner) clear() {
	if s.visible {
		fmt.Fprint(s.out, clearLine)
		s.visible = false
	}
}

// above returns a writer for lines that may come while the spinner is drawn: they
// take its place, and it goes on below them.
func (s *spinner) above(out io.Writer) io.Writer {
	if s == nil || s.out == nil {
		return out
	}
	return lineAbove{s, out}
}

type lineAbove struct {
	s   *spinner
	out io.Writer
}

// Write implements [io.Writer].
func (w lineAbove) Write(p []byte) (int, error) {
	w.s.mu.Lock()
	defer w.s.mu.Unlock()
	w.s.clear()
	return w.out.Write(p)
}
