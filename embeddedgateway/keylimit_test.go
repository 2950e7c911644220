package embeddedgateway_test

import (
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/embeddedgateway"
	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest"
)

func TestKeyLimitIsExactWhereverItsHalvesMeet(t *testing.T) {
	clock := gatewaytest.NewClock(docTime)
	l := embeddedgateway.NewKeyLimit(3, time.Minute, clock.Now)
	var taken []time.Time
	for range 500 { // 7 seconds do not divide a minute
		clock.Advance(7 * time.Second)
		if l.Hit(1) == nil {
			taken = append(taken, clock.Now())
		}
	}
	for i := 3; i < len(taken); i++ {
		if d := taken[i].Sub(taken[i-3]); d < time.Minute {
			t.Fatalf("4 uses in %s", d)
		}
	}
	if got, want := len(taken), 500*7/63*3; got < want-3 || got > want+3 {
		t.Errorf("got %d uses, want about %d", got, want)
	}
}

func TestKeyLimitIsBounded(t *testing.T) {
	clock := gatewaytest.NewClock(docTime)
	l := embeddedgateway.NewKeyLimit(60, time.Minute, clock.Now)
	for id := range int64(3 * embeddedgateway.MaxCounted) {
		if err := l.Hit(id); err != nil {
			t.Fatal(err)
		}
	}
	if got := l.Len(); got > embeddedgateway.MaxCounted {
		t.Errorf("remembers %d keys, want at most %d", got, embeddedgateway.MaxCounted)
	}
	for range 2 { // then one key alone
		clock.Advance(time.Minute)
		if err := l.Hit(0); err != nil {
			t.Fatal(err)
		}
	}
	if got := l.Len(); got != 1 {
		t.Errorf("after two minutes: remembers %d keys, want 1", got)
	}
}

func TestKeyLimitOutlivesAClockThatIsSetBack(t *testing.T) {
	clock := gatewaytest.NewClock(docTime)
	l := embeddedgateway.NewKeyLimit(1, time.Minute, clock.Now)
	if err := l.Hit(1); err != nil {
		t.Fatal(err)
	}
	clock.Advance(-30 * time.Second)
	if l.Hit(1) == nil {
		t.Error("half a minute back: got a second use in a minute")
	}
	clock.Advance(-time.Hour)
	if err := l.Hit(1); err != nil {
		t.Errorf("an hour back: got %v, want the key to be good", err)
	}
}
