package main

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"github.com/enlist-mcp/enlist/embeddedgateway"
)

func TestRehearsalFlags(t *testing.T) {
	begin := time.Date(2026, 2, 6, 14, 0, 0, 0, time.UTC)
	for line, want := range map[string]struct {
		chaos string // "": none
		now   time.Duration
		log   string
		err   string
	}{
		"":                                  {},
		"--chaos":                           {chaos: "reject=5%,delay=10%:2s,limit=5%,drop=5%,seed=0"},
		"--chaos=true":                      {chaos: "reject=5%,delay=10%:2s,limit=5%,drop=5%,seed=0"},
		"--chaos=off":                       {},
		"--chaos=drop=20%,seed=7":           {chaos: "reject=0%,delay=0%:2s,limit=0%,drop=20%,seed=7"},
		"--chaos=drop=often":                {err: "--chaos: drop=often: want how often"},
		"--clock-offset -5m":                {now: -5 * time.Minute, log: "the gateway's clock is wrong on purpose"},
		"--clock-offset=36h --chaos=drop=0": {chaos: "reject=0%,delay=0%:2s,limit=0%,drop=0%,seed=0", now: 36 * time.Hour, log: "clock_offset=36h"},
	} {
		flags := pflag.NewFlagSet("gateway", pflag.ContinueOnError)
		settingFlags(flags)
		if err := flags.Parse(strings.Fields(line)); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		settings, problems := newPerson(t).program().readSettings(givenFlags(flags))
		var log bytes.Buffer
		config := embeddedgateway.Config{
			Now: func() time.Time { return begin }, Logger: slog.New(slog.NewTextHandler(&log, nil)),
		}
		err := failedSettings(problems)
		if err == nil {
			err = settings.rehearse(&config)
		}
		if want.err != "" {
			var usage *usageError
			if !errors.As(err, &usage) || !strings.Contains(err.Error(), want.err) {
				t.Errorf("%s: got %v, want %q", line, err, want.err)
			}
			continue
		}
		got := ""
		if config.Chaos != nil {
			got = config.Chaos.String()
		}
		if err != nil || got != want.chaos || !config.Now().Equal(begin.Add(want.now)) || !strings.Contains(log.String(), want.log) || want.log == "" && log.Len() > 0 {
			t.Errorf("%s: got %q at %s (%v), log %s", line, got, config.Now(), err, &log)
		}
	}
	p := newPerson(t)
	if code := p.try("gateway", "--chaos=loss=5%", "--database", "sqlite:"+t.TempDir()+"/g.db"); code != exitUsage || !strings.Contains(p.stderr.String(), "none of reject, delay, limit, drop and seed") {
		t.Errorf("exit code %d, %s", code, &p.stderr)
	}
}
