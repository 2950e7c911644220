package embeddedgateway

import (
	"slices"
	"time"
)

// Variables lists the variables of the environment that the protocols read,
// sorted by name.
func Variables() []string {
	var names []string
	cfg := Config{Now: func() time.Time { return time.Time{} }, PublicURL: Origin, Env: func(name string) string {
		names = append(names, name)
		return ""
	}}
	_, _ = build(newDeps(cfg, nil), makers()) // nothing set cannot be wrong
	slices.Sort(names)
	return slices.Compact(names)
}

// CheckProtocols reports everything that is wrong with the protocols' variables,
// the mail server's URL, and the rules and limits of what stands behind the
// gateway, without opening anything.
func CheckProtocols(cfg Config) []error {
	var errs []error
	makers, err := choose(cfg.Protocols)
	if err != nil {
		errs = append(errs, err)
	}
	relay, err := newRelay(cfg.SMTPURL, cfg.SMTPTLS)
	if err != nil {
		errs = append(errs, err)
	}
	if _, err := build(newDeps(cfg, relay), makers); err != nil {
		errs = append(errs, err)
	}
	if err := cfg.Front.check(); err != nil {
		errs = append(errs, err)
	}
	if cfg.Front != nil {
		if _, err := newGuards(cfg.Front.Rules); err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}
