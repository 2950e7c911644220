package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/gateway"
	"github.com/enlist-mcp/enlist/tools"
)

// jsonFlag gives a command --json, and its help the names of what is printed then.
// Names stay what they are; a newer version may have more of them.
func jsonFlag(cmd *cobra.Command, on *bool, fields string) {
	cmd.Flags().BoolVar(on, "json", false, "print JSON")
	cmd.Long = cmp.Or(cmd.Long, cmd.Short+".") + "\n\nWith --json: " + fields
}

// printJSON prints a value. What would steer a terminal is escaped, which changes
// nothing of what is said.
func printJSON(out io.Writer, v any) error {
	var text bytes.Buffer
	enc := json.NewEncoder(&text)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return err
	}
	_, err := out.Write(escaped(text.Bytes()))
	return err
}

// escaped escapes what cannot be printed. Outside of strings JSON has none of it.
func escaped(text []byte) []byte {
	var b []byte
	for len(text) > 0 {
		r, size := utf8.DecodeRune(text)
		switch {
		case r == '\n' || r == '\t' || r == '\r' || strconv.IsPrint(r):
			b = append(b, text[:size]...)
		case r > 0xFFFF:
			r -= 0x10000
			b = fmt.Appendf(b, `\u%04x\u%04x`, 0xD800+r>>10, 0xDC00+r&0x3FF)
		default:
			b = fmt.Appendf(b, `\u%04x`, r)
		}
		text = text[size:]
	}
	return b
}

// failure is why a command with --json failed.
type failure struct {
	Code         string `json:"code"`
	WhatHappened string `json:"what_happened"`
	NextStep     string `json:"next_step,omitempty"`
	Status       int    `json:"status,omitempty"` // the HTTP status of a service's answer
}

// codeUsage is the code of a mistake in the command line.
const codeUsage = "usage"

// failed makes a failure of an error. Its codes are those of the tools.
func failed(err error) failure {
	var (
		service     *gateway.Error
		resolve     *gateway.ResolveError
		refused     *gateway.RefusedError
		unsupported *gateway.UnsupportedError
		local       *gateway.LocalError
		policy      *gateway.PolicyError
		approval    *gateway.ApprovalError
		notStored   *gateway.NotStoredError
		store       *credstore.Error
	)
	f := failure{Code: tools.CodeLocalFailure, WhatHappened: plain(err.Error())}
	switch {
	case errors.As(err, &notStored):
		f.Code, f.NextStep = tools.CodeNotStored, notStored.Remedy
	case errors.As(err, &local):
		f.NextStep = local.Remedy
	case errors.As(err, &policy):
		f.Code, f.NextStep = tools.CodePolicy, policy.Remedy
	case errors.As(err, &approval):
		f.Code, f.NextStep = approval.Code, approval.Remedy
	case errors.As(err, &service):
		f.Code, f.Status = service.Code, service.Status
	case errors.As(err, &resolve):
		f.Code = tools.CodeNoCredential
		if resolve.Handle == "" && len(resolve.Candidates) > 1 {
			f.Code = tools.CodeWhichCredential
		}
		f.NextStep = "enlist list prints the handles"
	case errors.As(err, &refused):
		f.Code = tools.CodeRefused
	case errors.As(err, &unsupported):
		f.Code = tools.CodeUnsupported
	case errors.Is(err, credstore.ErrNotFound):
		f.Code = tools.CodeNoCredential
	case errors.Is(err, credstore.ErrTooLarge):
		f.Code = tools.CodeStoreTooSmall
	case errors.Is(err, credstore.ErrDamaged):
		f.Code = tools.CodeStoreDamaged
	case errors.As(err, &store), errors.Is(err, credstore.ErrUnavailable):
		f.Code = tools.CodeStoreUnavailable
	}
	if errors.As(err, &store) && f.NextStep == "" {
		f.NextStep = store.Remedy
	}
	f.NextStep = plain(f.NextStep)
	return f
}

// wantsJSON reports whether a command was asked for JSON, even if its command
// line could not be read to the end.
func wantsJSON(cmd *cobra.Command, args []string) bool {
	flag := cmd.Flags().Lookup("json")
	if flag == nil {
		return false
	}
	if end := slices.Index(args, "--"); end >= 0 {
		args = args[:end]
	}
	return flag.Value.String() == "true" || slices.Contains(args, "--json")
}

// printFailure says why a command failed: as JSON on standard output where that
// was asked for, so that whoever reads it finds one there, else in words on
// standard error.
func (p *program) printFailure(cmd *cobra.Command, args []string, err error, usage bool) {
	if wantsJSON(cmd, args) {
		f := failed(err)
		if usage {
			f.Code, f.NextStep = codeUsage, "'"+cmd.CommandPath()+" --help' says what it takes"
		}
		if printJSON(p.stdout, map[string]failure{"error": f}) == nil {
			return
		}
	}
	if p.logsJSON {
		p.logFailure(cmd, err)
		return
	}
	said := screen{colour: p.coloured(p.stderr)}
	// Cobra sets off what may have been meant by tabs and empty lines.
	text := strings.TrimSpace(strings.ReplaceAll(err.Error(), "\t", "  "))
	fmt.Fprintf(p.stderr, "%s %s\n", said.paint(styleBad, "enlist:"), plain(text))
	if usage && cmd.HasParent() {
		fmt.Fprintf(p.stderr, "Usage: %s\n'%s --help' says more.\n", cmd.UseLine(), cmd.CommandPath())
		return
	}
	if usage {
		fmt.Fprintln(p.stderr, "Run 'enlist --help' for the commands, 'enlist COMMAND --help' for one.")
		return
	}
	if code := failed(err).Code; code != tools.CodeLocalFailure && codeSections(code) != "" {
		fmt.Fprintf(p.stderr, "What this means: enlist help %s\n", code)
	}
}
