package gateway_test

import (
	"context"
	"testing"

	"github.com/enlist-mcp/enlist/gateway"
)

// TestWhatIsAgreedToHoldsForTheRestOfTheCall asks twice in one call: the first
// yes must still be one when the second comes, and be none to anything else.
func TestWhatIsAgreedToHoldsForTheRestOfTheCall(t *testing.T) {
	f := newFixture(t, setup{})
	ctx := func(c gateway.Caller, given map[string]gateway.Answer, agreed *gateway.Agreed) context.Context {
		return gateway.WithAnswers(gateway.WithCaller(t.Context(), c), "call", given, agreed)
	}
	revoke := gateway.Act{Action: gateway.ActRevoke, Key: lonaKey(lonaOrigin, "my-agent")}
	forget := gateway.Act{Action: gateway.ActForget, Key: revoke.Key}
	yes := func(ask *gateway.ApprovalError) map[string]gateway.Answer {
		return map[string]gateway.Answer{ask.ID: gateway.AnswerYes}
	}

	agreed := new(gateway.Agreed)
	first := ctx(asker, yes(asks(ctx(asker, nil, agreed), t, f, revoke)), agreed)
	if err := f.Permit(first, revoke); err != nil {
		t.Fatalf("after the first yes: %v", err)
	}
	second := asks(first, t, f, forget) // the answer to the first is none to the second, and not too late for it
	again := ctx(asker, yes(second), agreed)
	for _, act := range []gateway.Act{revoke, forget} {
		if err := f.Permit(again, act); err != nil {
			t.Errorf("after the second yes, %s: %v", act.Action, err)
		}
	}

	stranger := asker
	stranger.Name = "another client"
	asks(ctx(stranger, nil, agreed), t, f, revoke)
	asks(ctx(asker, nil, agreed), t, f, gateway.Act{Action: gateway.ActRevoke, Key: lonaKey(lonaOrigin, "other")})
	asks(ctx(asker, nil, nil), t, f, revoke)
}

func TestANoIsNotAgreedTo(t *testing.T) {
	f := newFixture(t, setup{})
	revoke := gateway.Act{Action: gateway.ActRevoke, Key: lonaKey(lonaOrigin, "my-agent")}
	for _, answer := range []gateway.Answer{gateway.AnswerNo, gateway.AnswerNone} {
		agreed := new(gateway.Agreed)
		ctx := func(given map[string]gateway.Answer) context.Context {
			return gateway.WithAnswers(gateway.WithCaller(t.Context(), asker), "call", given, agreed)
		}
		ask := asks(ctx(nil), t, f, revoke)
		if err := f.Permit(ctx(map[string]gateway.Answer{ask.ID: answer}), revoke); err == nil {
			t.Errorf("answer %d: it was permitted", answer)
		}
		asks(ctx(nil), t, f, revoke)
	}
}
