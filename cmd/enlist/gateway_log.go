package main

import (
	"log/slog"

	"github.com/enlist-mcp/enlist/gateway/wire"
)

// gatewayLogger logs what a gateway does, to standard error, as its settings say.
// Whatever looks like a secret of a protocol is masked, whoever wrote it.
func (p *program) gatewayLogger(s *gatewaySettings) *slog.Logger {
	level := slog.LevelWarn
	if p.serves {
		_ = level.UnmarshalText([]byte(s.LogLevel)) // it was judged
	}
	if p.flags.verbose {
		level = slog.LevelDebug
	}
	options := &slog.HandlerOptions{Level: level, ReplaceAttr: maskAttr}
	out := p.waits().above(p.stderr)
	if s.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(out, options))
	}
	return slog.New(slog.NewTextHandler(out, options))
}

// maskAttr masks what is text in an attribute.
func maskAttr(_ []string, a slog.Attr) slog.Attr {
	switch value := a.Value.Any().(type) {
	case string:
		a.Value = slog.StringValue(wire.Mask(value))
	case error:
		a.Value = slog.StringValue(wire.Mask(value.Error()))
	}
	return a
}
