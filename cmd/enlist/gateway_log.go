package main

import (
	"context"
	"fmt"
	"log/slog"
	"strings"

	"github.com/spf13/cobra"

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
	if s.LogFormat == logJSON {
		return slog.New(slog.NewJSONHandler(out, options))
	}
	return slog.New(slog.NewTextHandler(out, options))
}

// logJSON is the format of logs that programs read.
const logJSON = "json"

// announce tells whoever started the gateway where it is. Where programs read the
// log, each line is JSON, and so is this.
func (p *program) announce(ctx context.Context, log *slog.Logger, text string) {
	if text = "enlist gateway: " + text; p.logsJSON {
		log.InfoContext(ctx, text)
		return
	}
	fmt.Fprintln(p.stderr, text)
}

// logFailure says why a gateway did not start, or ended, where programs read the
// log: each line is JSON, and so are the last.
func (p *program) logFailure(cmd *cobra.Command, err error) {
	log := slog.New(slog.NewJSONHandler(p.stderr, &slog.HandlerOptions{ReplaceAttr: maskAttr}))
	text := strings.TrimSpace(plain(strings.ReplaceAll(err.Error(), "\n\t", " "))) // pgx lists what it tried so
	for line := range strings.SplitSeq(text, "\n") {
		log.ErrorContext(cmd.Context(), cmd.CommandPath()+" failed", "error", line)
	}
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
