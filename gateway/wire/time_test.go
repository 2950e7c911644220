package wire_test

import (
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/gateway/wire"
)

func TestSecondTimeHasNoFractionAndZ(t *testing.T) {
	at := time.Date(2026, 4, 3, 22, 0, 0, 999_999_999, time.FixedZone("", 2*60*60))
	if got, want := wire.SecondTime(at).String(), "2026-04-03T20:00:00Z"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	var read wire.SecondTime
	if err := read.UnmarshalText([]byte("2026-04-03T22:00:00.5+02:00")); err != nil || read.String() != "2026-04-03T20:00:00Z" {
		t.Errorf("got %s, %v", read, err)
	}
	if err := read.UnmarshalText([]byte("soon")); err == nil {
		t.Error("took a time that is none")
	}
}
