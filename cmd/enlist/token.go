package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/enlist-mcp/enlist/credstore"
)

// minToken is how long a bearer token must be: 32 characters of rand.Text's
// alphabet are 160 bits.
const minToken = 32

func (p *program) tokenCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Say which clients may use enlist mcp --http",
		Long: `Say which clients may use enlist mcp --http: each with a bearer token of its own,
which has a name and expires. Only a hash of it is kept. What is changed holds at once
for every server that runs: whoever came with a token that is revoked, or expires, is
cut off. 'enlist audit' says what was done with which token.

The token called default is the one that the first start makes when there is no other:
it is kept in ENLIST_HOME/mcp-token, for clients of this machine, and does not expire.
Once it is revoked it is not made again.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(p.tokenAddCommand(), p.tokenListCommand(), p.tokenRevokeCommand())
	return cmd
}

func (p *program) tokenAddCommand() *cobra.Command {
	var expires string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "add NAME",
		Short: "Make a token for a client, and print it, this once",
		Example: `  enlist token add laptop
  enlist token add ci --expires 12h | gh secret set ENLIST_TOKEN`,
		Args: cobra.ExactArgs(1),
		RunE: run(func(cmd *cobra.Command, args []string) error {
			until, err := p.tokenExpiry(expires)
			if err != nil {
				return &usageError{err}
			}
			if err := checkTokenName(args[0]); err != nil {
				return &usageError{err}
			}
			return p.addToken(cmd.Context(), args[0], until, asJSON)
		}),
	}
	jsonFlag(cmd, &asJSON, "the token, an object: name, token, expires_at (absent: never).")
	cmd.Flags().StringVar(&expires, "expires", "90d", "how long it is good: a `time` such as 12h or 90d, or never")
	return cmd
}

// madeToken is a new token as the command prints it.
type madeToken struct {
	Name    string     `json:"name"`
	Token   string     `json:"token"` // it is what is asked for, and said this once
	Expires *time.Time `json:"expires_at,omitempty"`
}

func (p *program) addToken(ctx context.Context, name string, until *time.Time, asJSON bool) error {
	all, err := p.tokens()
	if err != nil {
		return err
	}
	token, kept := newToken(name, p.now())
	kept.Expires = until
	err = all.change(ctx, func(named []accessToken) ([]accessToken, error) {
		switch {
		case slices.ContainsFunc(named, func(t accessToken) bool { return t.Name == name }):
			return nil, fmt.Errorf("there is a token %s already: choose another name, or 'enlist token revoke %s' first", name, name)
		case len(named) >= maxTokens:
			return nil, fmt.Errorf("there are %d tokens, which is as many as there may be: revoke one", maxTokens)
		}
		return append(named, kept), nil
	})
	if err != nil {
		return err
	}
	if asJSON {
		err = printJSON(p.stdout, madeToken{Name: name, Token: token, Expires: until})
	} else {
		_, err = fmt.Fprintln(p.stdout, token)
	}
	if err != nil {
		// Nobody has it.
		return errors.Join(fmt.Errorf("the token could not be printed, and is revoked: %w", err), dropToken(ctx, all, name))
	}
	fmt.Fprintf(p.stderr, "enlist token: %s is good %s. Clients send it as 'Authorization: Bearer TOKEN'. Only its hash is kept: it is not printed again.\n",
		name, goodUntil(until))
	return nil
}

func goodUntil(until *time.Time) string {
	if until == nil {
		return "until it is revoked"
	}
	return "until " + until.Format(time.RFC3339)
}

func checkTokenName(name string) error {
	switch {
	case !tokenName.MatchString(name):
		return fmt.Errorf("%q cannot be the name of a token: want up to 40 of a-z, 0-9, '.', '_' and '-', a letter or digit first", name)
	case name == defaultToken:
		return errors.New("default is the name of the token in mcp-token, which the first start makes: choose another")
	}
	return nil
}

// maxTokenAge is the longest time for which a token can be good that expires.
const maxTokenAge = 10 * 365 * 24 * time.Hour

// tokenExpiry returns when a token expires; nil: never.
func (p *program) tokenExpiry(text string) (*time.Time, error) {
	if text == "never" {
		return nil, nil
	}
	var age time.Duration
	if days, ok := strings.CutSuffix(text, "d"); ok {
		n, err := strconv.Atoi(days)
		if err == nil && n > 0 && n <= int(maxTokenAge.Hours())/24 {
			age = time.Duration(n) * 24 * time.Hour
		}
	} else if d, err := time.ParseDuration(text); err == nil {
		age = d
	}
	if age < time.Second || age > maxTokenAge {
		return nil, fmt.Errorf("--expires: %q is not a time such as 12h or 90d, of at most ten years, nor never", text)
	}
	until := p.now().Add(age).UTC().Truncate(time.Second)
	return &until, nil
}

// listedToken is a token as the command prints it.
type listedToken struct {
	Name    string     `json:"name"`
	State   string     `json:"state"`
	Created time.Time  `json:"created_at"`
	Expires *time.Time `json:"expires_at,omitempty"`
	Kept    string     `json:"kept"` // where, or as what
}

func (p *program) tokenListCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the tokens: names, when made, when they expire; never a token",
		Args:  cobra.NoArgs,
		RunE: run(func(*cobra.Command, []string) error {
			tokens, err := p.tokens()
			if err != nil {
				return err
			}
			all, err := tokens.load()
			if err != nil {
				return err
			}
			list := make([]listedToken, 0, len(all))
			for _, t := range all {
				line := listedToken{Name: t.Name, State: "active", Created: t.Created, Expires: t.Expires, Kept: "hash"}
				if !t.good(p.now()) {
					line.State = "expired"
				}
				if t.Name == defaultToken {
					line.Kept = tokens.path(defaultTokenFile)
				}
				list = append(list, line)
			}
			if asJSON {
				return printJSON(p.stdout, list)
			}
			return p.screen().tokens(list)
		}),
	}
	jsonFlag(cmd, &asJSON, "an array of objects, one a token: "+tokenFields)
	return cmd
}

// tokenFields are the fields of listedToken, for the help.
const tokenFields = "name, state (active or expired),\ncreated_at, expires_at (absent: never), kept (hash, or the path of mcp-token)." //nolint:gosec // G101: names of fields

func (s *screen) tokens(list []listedToken) error {
	if len(list) == 0 {
		s.say("There is no token. 'enlist token add NAME' makes one for a client.")
		return nil
	}
	t := titled("NAME", "STATE", "MADE", "EXPIRES", "KEPT")
	for _, l := range list {
		t.row(l.Name, s.state(credstore.State(l.State)), s.when(&l.Created), s.when(l.Expires), l.Kept)
	}
	return s.print(t)
}

func (p *program) tokenRevokeCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "revoke NAME",
		Short: "Revoke a token, at once, and end what was begun with it",
		Args:  cobra.ExactArgs(1),
		RunE: run(func(cmd *cobra.Command, args []string) error {
			all, err := p.tokens()
			if err != nil {
				return err
			}
			if err := dropToken(cmd.Context(), all, args[0]); err != nil {
				return err
			}
			if asJSON {
				return printJSON(p.stdout, map[string]string{"name": args[0], "state": "revoked"})
			}
			p.screen().say(args[0] + " is revoked.")
			return nil
		}),
	}
	jsonFlag(cmd, &asJSON, "an object: name, state (revoked).")
	return cmd
}

// dropToken takes a token out. Where it is the default one, the file of the
// others stands for good for that it is not made again.
func dropToken(ctx context.Context, all *tokens, name string) error {
	path := all.path(defaultTokenFile)
	missing := fmt.Errorf("there is no token %q: 'enlist token list' shows those that there are", name)
	if _, err := os.Stat(path); name == defaultToken && errors.Is(err, fs.ErrNotExist) {
		return missing
	}
	err := all.change(ctx, func(named []accessToken) ([]accessToken, error) {
		left := slices.DeleteFunc(slices.Clone(named), func(t accessToken) bool { return t.Name == name })
		if name != defaultToken && len(left) == len(named) {
			return nil, missing
		}
		return left, nil
	})
	if err != nil || name != defaultToken {
		return err
	}
	if err := os.Remove(path); err != nil {
		return err
	}
	syncFolder(all.home)
	return nil
}

// serverTokens returns the tokens for a server that starts: at least one that is
// good. The first start makes one.
func (p *program) serverTokens(ctx context.Context) (*tokens, error) {
	t, err := p.tokens()
	if err != nil {
		return nil, err
	}
	all, err := t.load()
	if err == nil && len(all) == 0 {
		if err = p.makeToken(ctx, t); err == nil {
			all, err = t.load()
		}
	}
	if err != nil {
		return nil, fmt.Errorf("the bearer tokens of enlist mcp --http: %w", err)
	}
	if !slices.ContainsFunc(all, func(token accessToken) bool { return token.good(p.now()) }) {
		return nil, errors.New("there is no token that is good, so nobody could use it: 'enlist token add NAME' makes one")
	}
	return t, nil
}

// makeToken makes the default token and prints it, this once, unless another
// process did, or a person had it revoked.
func (p *program) makeToken(ctx context.Context, t *tokens) error {
	unlock, err := t.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	path := t.path(defaultTokenFile)
	for _, name := range []string{path, t.path(tokensFile)} {
		if _, err := os.Stat(name); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	token, _ := newToken(defaultToken, p.now())
	if err := replacePrivate(path, []byte(token+"\n")); err != nil {
		return err
	}
	fmt.Fprintf(p.stderr, "enlist mcp: clients must send this bearer token; it is kept in %s and not printed again:\n\n    %s\n\n", filepath.Clean(path), token)
	return nil
}
