package gateway

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/enlist-mcp/enlist/credstore"
)

// Standing is how a credential stands: its state now, and in words of Enlist's
// own why, and what can be done about it.
type Standing struct {
	credstore.Info
	Now    credstore.State
	Reason string // one sentence; "" for a credential that is simply active
	Remedy string // one sentence: the one thing to do; "" where nothing need be done
	Way    Way    // what to do about one that is not usable
}

// Way is the way out of a standing, for who cannot read a remedy.
type Way int

// The ways out of a standing.
const (
	WayUse      Way = iota // use it: what is missing is seen to before
	WayWait                // somebody is at it
	WayRotate              // rotate it
	WayRegister            // register the same agent again
	WayAnother             // register another agent: this one gets no other key
)

// UsableNow reports whether requests may be made with the credential. One of
// which an operation is unfinished may well be usable: it is seen to before.
func (s Standing) UsableNow() bool {
	return s.Now == credstore.StateActive || s.Now == credstore.StateExpiring
}

// Standings returns what is stored as [Lifecycle.List] does, with the state of
// each now. A credential that something was begun with and not finished is
// pending, whatever the store has of it.
func (l *Lifecycle) Standings(ctx context.Context) ([]Standing, error) {
	infos, err := l.List(ctx)
	if err != nil {
		return nil, err
	}
	open := l.open(ctx)
	all := make([]Standing, 0, len(infos))
	for _, i := range infos {
		all = append(all, l.stands(ctx, i, infos, open))
	}
	return all, nil
}

// open returns what is unfinished of a credential, or of all of them. A journal
// that cannot be read hides nothing that is stored.
func (l *Lifecycle) open(ctx context.Context, of ...credstore.Key) []Unfinished {
	open, err := l.steward.journal.unfinished(ctx, of...)
	if err != nil {
		l.log.WarnContext(ctx, "what is unfinished cannot be read", "error", l.http.scrub.Own(err.Error()))
	}
	return open
}

// stands says how a credential stands among all that are stored.
func (l *Lifecycle) stands(ctx context.Context, i credstore.Info, all []credstore.Info, open []Unfinished) Standing {
	s := l.standing(ctx, i, all)
	if n := slices.IndexFunc(open, func(u Unfinished) bool { return u.Key == i.Key }); n >= 0 {
		l.unfinishedStanding(ctx, &s, open[n])
	}
	l.explain(&s, all)
	return s
}

// Standing returns how one credential stands.
func (l *Lifecycle) Standing(ctx context.Context, i credstore.Info) Standing {
	all, err := l.List(ctx)
	if err != nil {
		l.log.WarnContext(ctx, "what stands behind a credential cannot be listed", "error", l.http.scrub.Own(err.Error()))
	}
	return l.stands(ctx, i, all, l.open(ctx, i.Key))
}

// explainer is a Protocol that knows better how some credentials stand.
type explainer interface {
	// explain corrects a standing. all are the credentials that are stored.
	explain(s *Standing, all []credstore.Info)
}

// explain has a protocol say how a credential stands, unless somebody is at it.
func (l *Lifecycle) explain(s *Standing, all []credstore.Info) {
	p, _ := l.protocol(s.Key)
	if e, ok := p.(explainer); ok {
		e.explain(s, all)
	}
}

// standing says how a credential stands by what is stored of it and behind it.
func (l *Lifecycle) standing(ctx context.Context, i credstore.Info, stored []credstore.Info) Standing {
	now := l.now()
	s := Standing{Info: i, Now: i.StateAt(now)}
	p, _ := l.protocol(i.Key)
	r, renews := p.(Renewer)
	byItself := renews && !r.Due(ctx, i, stored).IsZero()
	_, rotates := p.(Rotator)
	switch s.Now {
	case credstore.StateActive:
	case credstore.StateExpiring:
		s.Reason = "It expires on " + day(i.ExpiresAt) + "."
		switch {
		case byItself:
			s.Remedy = "Nothing need be done: it is renewed when it is used."
		case renews && rotates:
			s.Remedy = "It is not renewed by itself here: rotate it before then."
		case rotates:
			s.Remedy = "Rotate it before then."
		}
	case credstore.StateExpired:
		s.Reason = "It expired on " + day(i.ExpiresAt) + "."
		s.Remedy, s.Way = "Register the agent again.", WayRegister
		switch {
		case byItself:
			s.Remedy, s.Way = "Name it and use it: it is renewed then, if the service agrees.", WayUse
		case rotates:
			s.Remedy, s.Way = "Rotate it, or register the agent again.", WayRotate
		}
	case credstore.StateRevoked:
		s.Reason = "It has ended at the service: the service was told to end it, or says that it has."
		s.Remedy, s.Way = "Register the agent again, or forget it.", WayRegister
	case credstore.StateLost:
		s.Reason = "Its secret is gone from the place where secrets are kept."
		s.Remedy, s.Way = "Register the agent again, or forget it.", WayRegister
	case credstore.StatePending:
		s.Reason = "Its registration was begun on " + day(i.CreatedAt) + " and did not come to an end."
		s.Remedy, s.Way = "Register the agent again with the same arguments.", WayRegister
	}
	return s
}

// unfinishedStanding says how a credential stands that an operation was begun
// with: whether somebody is at it, or what is left to do.
func (l *Lifecycle) unfinishedStanding(ctx context.Context, s *Standing, u Unfinished) {
	what := actionNoun(u.Action) + " was begun on " + day(u.Begun)
	if !l.idle(ctx, u.Key) {
		s.Reason = strings.ToUpper(what[:1]) + what[1:] + " and is under way."
		s.Remedy, s.Way = "", WayWait
		return
	}
	if s.Now != credstore.StateLost && s.Now != credstore.StateRevoked {
		s.Now = credstore.StatePending
	}
	s.Reason = strings.ToUpper(what[:1]) + what[1:] + " and did not come to an end"
	if u.Code != "" {
		s.Reason += " (" + u.Code + ")"
	}
	s.Reason += "."
	s.Remedy, s.Way = "Use it, or repeat the call: what is missing is then finished first.", WayUse
	if u.Phase == PhaseIntent && u.Action == ActRegister {
		s.Remedy, s.Way = "Register the agent again with the same arguments: that finishes it.", WayRegister
	}
}

// actionNoun names an action that a service was asked for.
func actionNoun(a Action) string {
	switch a {
	case ActRegister:
		return "a registration"
	case ActRecover:
		return "a recovery"
	case ActRotate:
		return "a rotation"
	case ActRenew:
		return "a renewal"
	case ActRevoke:
		return "a revocation"
	}
	return "an operation"
}

func day(t time.Time) string { return t.UTC().Format("2 January 2006 at 15:04 UTC") }
