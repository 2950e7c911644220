package main

import (
	"time"

	"github.com/dustin/go-humanize"
)

// When a relative time is told in coarser steps.
const (
	inMinutes = time.Hour
	inHours   = 48 * time.Hour
	inDays    = 60 * humanize.Day
	inMonths  = 24 * humanize.Month
)

// relative says how far a time is from now: "in 12 days", "3 h ago".
func relative(t, now time.Time) string {
	apart := t.Sub(now)
	before, after := "in ", ""
	if apart < 0 {
		apart, before, after = -apart, "", " ago"
	}
	// 30 days less the second that has passed since are 30 days.
	switch {
	case apart >= inHours-time.Minute/2:
		apart = apart.Round(time.Hour)
	case apart >= inMinutes-time.Second/2:
		apart = apart.Round(time.Minute)
	default:
		apart = apart.Round(time.Second)
	}
	if apart < 5*time.Second {
		return "just now"
	}
	zero := time.Time{}
	return before + humanize.CustomRelTime(zero, zero.Add(apart), "", "", []humanize.RelTimeMagnitude{
		{D: time.Minute, Format: "%d s", DivBy: time.Second},
		{D: inMinutes, Format: "%d min", DivBy: time.Minute},
		{D: inHours, Format: "%d h", DivBy: time.Hour},
		{D: inDays, Format: "%d days", DivBy: humanize.Day},
		{D: inMonths, Format: "%d months", DivBy: humanize.Month},
		{D: humanize.LongTime, Format: "%d years", DivBy: humanize.Year},
		{D: 1<<63 - 1, Format: "a long time"},
	}) + after
}

// when prints a time: relative for a person, else exact. Without one it is never.
func (s *screen) when(t *time.Time) string {
	switch {
	case t == nil || t.IsZero():
		return "never"
	case s.person:
		return relative(*t, s.now)
	}
	return t.UTC().Format(time.RFC3339)
}

// whenExactly prints a time: for a person both ways.
func (s *screen) whenExactly(t *time.Time) string {
	if !s.person || t == nil || t.IsZero() {
		return s.when(t)
	}
	return s.when(t) + " (" + t.UTC().Format(time.RFC3339) + ")"
}
