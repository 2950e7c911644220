package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/enlist-mcp/enlist/gateway"
)

// maxRequestBody is the most that `enlist request --data -` reads.
const maxRequestBody = 10 << 20

func (p *program) requestCommand() *cobra.Command {
	var (
		headers, query []string
		data           string
		asJSON         bool
	)
	cmd := &cobra.Command{
		Use:   "request CREDENTIAL METHOD PATH",
		Short: "Make a request with a credential",
		Long: `Make a request with a credential to the service that issued it, and print the
body of the answer. An answer with an error status ends with exit code 1.

CREDENTIAL is a handle as 'enlist list' prints it, such as lona/my-agent.`,
		Example: `  enlist request lona/my-agent GET /api/v1/strategies`,
		Args:    cobra.ExactArgs(3),
		RunE: run(func(cmd *cobra.Command, args []string) error {
			r := gateway.Request{Method: strings.ToUpper(args[1]), Path: args[2]}
			var err error
			if r.Header, err = pairs("header", headers, ":"); err != nil {
				return &usageError{err}
			}
			if r.Query, err = pairs("query", query, "="); err != nil {
				return &usageError{err}
			}
			if cmd.Flags().Changed("data") {
				if r.Body, err = p.requestBody(data); err != nil {
					return err
				}
			}
			return p.withClient(cmd, func(ctx context.Context, c *client) error {
				return p.request(ctx, c, args[0], r, asJSON)
			})
		}),
	}
	cmd.Flags().StringArrayVarP(&headers, "header", "H", nil, "add a `'Name: value'` header")
	cmd.Flags().StringArrayVarP(&query, "query", "q", nil, "add a `name=value` to the query")
	cmd.Flags().StringVarP(&data, "data", "d", "", "send this `body`; - reads standard input")
	jsonFlag(cmd, &asJSON, `an object, whatever the status: status, headers, body (JSON as it came,
else a string), truncated, binary, file (where a long body lies).`)
	return cmd
}

func (p *program) request(ctx context.Context, c *client, handle string, r gateway.Request, asJSON bool) error {
	info, err := named(ctx, c, handle)
	if err != nil {
		return err
	}
	answer, err := c.Lifecycle.Do(ctx, info.Key, r)
	if err != nil {
		return err
	}
	if asJSON {
		err = printJSON(p.stdout, newAnswer(answer))
	} else {
		_, err = io.WriteString(p.stdout, endLine(p.printable(string(answer.Body))))
		if answer.Binary != "" {
			fmt.Fprintf(p.stderr, "enlist: the body is not text: %s\n", answer.Binary)
		}
		if answer.Truncated {
			fmt.Fprintln(p.stderr, "enlist: the body was longer; this is its beginning")
		}
		if answer.Unfiled != "" {
			fmt.Fprintln(p.stderr, "enlist:", answer.Unfiled)
		}
		if f := answer.File; f != nil {
			fmt.Fprintf(p.stderr, "enlist: %s has %d bytes of it\n", f.Path, f.Size)
		}
	}
	if err == nil && answer.Status >= 400 && asJSON {
		return &runError{err: fmt.Errorf("HTTP %d", answer.Status), reported: true} // the JSON has the status
	}
	if err == nil && answer.Status >= 400 {
		return fmt.Errorf("%s answered HTTP %d", info.Origin, answer.Status)
	}
	return err
}

// answer is what `enlist request --json` prints.
type answer struct {
	Status    int                 `json:"status"`
	Headers   map[string][]string `json:"headers"`
	Body      any                 `json:"body,omitzero"` // JSON as it came, else a string
	Truncated bool                `json:"truncated,omitzero"`
	Binary    string              `json:"binary,omitzero"`
	File      string              `json:"file,omitzero"`
}

func newAnswer(r gateway.Response) answer {
	a := answer{Status: r.Status, Headers: r.Header, Truncated: r.Truncated, Binary: r.Binary}
	if r.File != nil {
		a.File = r.File.Path
	}
	switch {
	case json.Valid(r.Body):
		a.Body = json.RawMessage(r.Body)
	case len(r.Body) > 0:
		a.Body = string(r.Body) // as JSON, which escapes what steers a terminal
	}
	return a
}

func (p *program) requestBody(data string) (string, error) {
	if data != "-" {
		return data, nil
	}
	text, err := io.ReadAll(io.LimitReader(p.stdin, maxRequestBody+1))
	if err != nil {
		return "", fmt.Errorf("read the body: %w", err)
	}
	if len(text) > maxRequestBody {
		return "", fmt.Errorf("the body is larger than %d bytes", maxRequestBody)
	}
	return string(text), nil
}

// pairs reads the values of a repeated flag.
func pairs(what string, values []string, separator string) (map[string]string, error) {
	if len(values) == 0 {
		return nil, nil
	}
	m := make(map[string]string, len(values))
	for _, v := range values {
		name, value, ok := strings.Cut(v, separator)
		if !ok || name == "" {
			return nil, fmt.Errorf("--%s wants name%svalue", what, separator)
		}
		if _, twice := m[name]; twice {
			return nil, fmt.Errorf("--%s gives %s twice", what, name)
		}
		if what == "header" {
			value = strings.TrimSpace(value)
		}
		m[name] = value
	}
	return m, nil
}

// printable returns what a service sent without what would steer a terminal,
// if standard output is one. Into a file or a pipe it goes as it came.
func (p *program) printable(s string) string {
	f, ok := p.stdout.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return s
	}
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) || r == '\n' || r == '\t' {
			return r
		}
		return unicode.ReplacementChar
	}, s)
}

func endLine(s string) string {
	if s == "" || strings.HasSuffix(s, "\n") {
		return s
	}
	return s + "\n"
}
