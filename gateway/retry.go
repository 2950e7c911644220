package gateway

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	// maxTries is how often a request is made at most.
	maxTries = 3
	// firstPause is about how long the first pause between two tries is; each
	// is twice the one before.
	firstPause = 400 * time.Millisecond
	// maxAsked bounds what a service may ask to wait, so that it can be
	// calculated with.
	maxAsked = 365 * 24 * time.Hour
)

// retry makes a request until it has an answer that counts, or no try is left.
// What is not idempotent is made again only after a 429, which says that
// nothing was done. It returns the last outcome.
func (c *caller) retry(ctx context.Context, idempotent bool, once func() (answer, error)) (answer, error) {
	for n := 1; ; n++ {
		a, err := once()
		if n == maxTries || ctx.Err() != nil {
			return a, err
		}
		wait, again := c.again(n, idempotent, a, err)
		if !again || !c.pause(ctx, wait) {
			return a, err
		}
		a.drop()
	}
}

// again reports whether the nth try is worth another one, and after how long.
func (c *caller) again(n int, idempotent bool, a answer, err error) (time.Duration, bool) {
	wait := firstPause << (n - 1)
	wait = wait/2 + rand.N(wait) //nolint:gosec // many clients must not come back at once; nobody gains by guessing when
	if err != nil {
		var e *Error
		return wait, idempotent && errors.As(err, &e) && e.Code == CodeUnreachable
	}
	asked, said := retryAfter(a.header, c.now())
	switch a.status {
	case http.StatusTooManyRequests:
		// Without a time to wait, another try would only count against the limit.
		return max(wait, asked), said
	case http.StatusInternalServerError, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return max(wait, asked), idempotent
	}
	return 0, false
}

// pause waits, unless the operation has not the time for that and for what
// comes after it.
func (c *caller) pause(ctx context.Context, d time.Duration) bool {
	if d+time.Second > c.left(ctx) {
		return false
	}
	return c.sleep(ctx, d) == nil
}

// retryAfter returns how long a service asks to wait, and whether it does.
func retryAfter(h http.Header, now time.Time) (time.Duration, bool) {
	value := strings.TrimSpace(h.Get("Retry-After"))
	if value == "" {
		return 0, false
	}
	if at, err := http.ParseTime(value); err == nil {
		return min(max(at.Sub(now), 0), maxAsked), true
	}
	seconds, err := strconv.ParseFloat(value, 64)
	if err != nil || !(seconds >= 0) {
		return 0, false
	}
	if seconds > maxAsked.Seconds() {
		return maxAsked, true
	}
	return time.Duration(seconds * float64(time.Second)), true
}
