package embeddedgateway_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/embeddedgateway"
	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest"
)

// A token whose signature was found good is not looked at again; what it may be
// used for, and until when, is judged each time.
func TestATokenThatWasTakenIsJudgedAgain(t *testing.T) {
	gw := gatewaytest.New(t)
	signer := embeddedgateway.SignerOf(gw.Embedded())
	token, claims := signer.Sign(t, "lona", "my-agent", map[string]any{"scope": "a"})
	for range 3 {
		said, err := signer.Verify("lona", token)
		if err != nil || said["scope"] != "a" {
			t.Fatalf("got %v, %v; want the token's scope", said, err)
		}
		if _, err := signer.Verify("fluxra", token); err == nil {
			t.Fatal("a token of one protocol is taken by another")
		}
	}
	if _, err := signer.Verify("lona", token+"a"); err == nil {
		t.Error("a token is taken with something behind it")
	}
	gw.Clock.Set(claims.Expiry.Time().Add(-time.Second))
	if _, err := signer.Verify("lona", token); err != nil {
		t.Errorf("a second before its end: %v", err)
	}
	gw.Clock.Set(claims.Expiry.Time())
	if _, err := signer.Verify("lona", token); err == nil {
		t.Error("a token is taken at its end, because it was taken before")
	}
}

func TestTokensThatAreRememberedAreBounded(t *testing.T) {
	var v embeddedgateway.Verified
	v.Put("kept")
	for i := range 2 * embeddedgateway.MaxVerified {
		v.Put(fmt.Sprint(i))
		if i%1000 == 0 && !v.Has("kept") {
			t.Fatalf("a token that is used all the time was forgotten after %d others", i)
		}
	}
	if v.Has("0") {
		t.Error("a token that nobody used is remembered")
	}
	if v.Len() > embeddedgateway.MaxVerified {
		t.Errorf("%d tokens are remembered, want %d at most", v.Len(), embeddedgateway.MaxVerified)
	}
}
