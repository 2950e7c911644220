package gateway

import (
	"context"
	"io"
	"sync"
	"sync/atomic"
	"time"
)

// Progress is how whoever waits for [Lifecycle.Do] hears of an answer that is
// slow.
type Progress struct {
	// Tick starts a clock and returns what it ticks on and what stops it.
	Tick func() (ticks <-chan time.Time, stop func())
	// Report is told at each tick which one it is, from 1, and how many bytes
	// of answers have come so far. It is not called any more when Do has
	// returned, and it must not wait for anything.
	Report func(tick int, bytes int64)
}

// progressKey is the context key of a Progress.
type progressKey struct{}

// arrivedKey is the context key of an *atomic.Int64, the bytes that have come.
type arrivedKey struct{}

// WithProgress returns a context for [Lifecycle.Do] that reports progress.
func WithProgress(ctx context.Context, p Progress) context.Context {
	return context.WithValue(ctx, progressKey{}, p)
}

// reporting begins to report what arrives, if anybody wants to know; end ends
// that.
func reporting(ctx context.Context) (counted context.Context, end func()) {
	p, ok := ctx.Value(progressKey{}).(Progress)
	if !ok {
		return ctx, func() {}
	}
	bytes := new(atomic.Int64)
	ticks, stop := p.Tick()
	done := make(chan struct{})
	var reporter sync.WaitGroup
	reporter.Go(func() {
		for n := 1; ; n++ {
			select {
			case <-done:
				return
			case <-ticks:
				p.Report(n, bytes.Load())
			}
		}
	})
	return context.WithValue(ctx, arrivedKey{}, bytes), func() {
		stop()
		close(done)
		reporter.Wait()
	}
}

// arriving returns a body that counts what is read of it, if anybody wants to
// know.
func arriving(ctx context.Context, body io.Reader) io.Reader {
	if bytes, ok := ctx.Value(arrivedKey{}).(*atomic.Int64); ok {
		return &counting{body, bytes}
	}
	return body
}

type counting struct {
	io.Reader
	bytes *atomic.Int64
}

func (c *counting) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.bytes.Add(int64(n))
	return n, err
}
