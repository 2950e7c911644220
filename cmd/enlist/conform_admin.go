package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/enlist-mcp/enlist/gateway/conform"
)

// adminTime is how long the operator's listener may take to answer.
const adminTime = 15 * time.Second

// mostAdminAnswer bounds what is read of one of its answers.
const mostAdminAnswer = 32 << 20

// adminClient asks a gateway's operator's listener what only an operator may
// know and do.
type adminClient struct {
	base, token string
	http        *http.Client
}

// conformAdmin returns a client of the operator's listener, which has let it in;
// nil where none was named.
func (p *program) conformAdmin(ctx context.Context, flags conformFlags) (*adminClient, error) {
	if flags.admin == "" {
		return nil, nil //nolint:nilnil // none was asked for
	}
	u, err := url.Parse(flags.admin)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil ||
		u.RawQuery != "" || u.Fragment != "" || strings.Trim(u.Path, "/") != "":
		return nil, errors.New("--admin: want the URL of the operator's listener, such as http://127.0.0.1:8421")
	case u.Scheme == "http" && !conform.Loopback(u.Hostname()):
		return nil, errors.New("--admin: the operator's token would travel in the clear: want https, or a host of this machine")
	}
	token := p.env("ENLIST_ADMIN_TOKEN")
	if file := p.env("ENLIST_ADMIN_TOKEN_FILE"); token == "" && file != "" {
		if token, err = readSecret("ENLIST_ADMIN_TOKEN_FILE", file); err != nil {
			return nil, err
		}
	}
	if token == "" {
		return nil, errors.New("--admin: name the file with the operator's token in ENLIST_ADMIN_TOKEN_FILE; enlist gateway admin-token says where it lies")
	}
	c := &adminClient{base: u.Scheme + "://" + u.Host, token: token, http: &http.Client{
		Transport:     &http.Transport{ForceAttemptHTTP2: true}, // without a proxy: the token is for nobody else
		Timeout:       adminTime,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	// Before anything is registered.
	if err := c.ask(ctx, http.MethodGet, "/api/v1/agents?limit=1", nil); err != nil {
		return nil, fmt.Errorf("--admin: %w", err)
	}
	return c, nil
}

// ask makes a request of the JSON API.
func (c *adminClient) ask(ctx context.Context, method, path string, into any) error {
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, http.NoBody)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	resp, err := c.http.Do(req)
	if e, ok := errors.AsType[*url.Error](err); ok {
		return fmt.Errorf("%s does not answer: %w", c.base, e.Err)
	}
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, mostAdminAnswer))
	switch {
	case err != nil:
		return fmt.Errorf("the answer of %s breaks off: %w", c.base, err)
	case resp.StatusCode == http.StatusUnauthorized:
		return fmt.Errorf("the token is not that of %s", c.base)
	case resp.StatusCode/100 != 2:
		return fmt.Errorf("%s answers with status %d", c.base, resp.StatusCode)
	case into == nil:
		return nil
	}
	if json.Unmarshal(body, into) != nil {
		return fmt.Errorf("%s does not answer as a gateway's operator's listener does", c.base)
	}
	return nil
}

// mail returns the letters to an address that wait, the oldest first. A gateway
// that has sent them shows none.
func (c *adminClient) mail(ctx context.Context, to string) ([]string, error) {
	var outbox struct {
		Letters []struct{ To, Text string }
	}
	if err := c.ask(ctx, http.MethodGet, "/api/v1/outbox", &outbox); err != nil {
		return nil, err
	}
	var texts []string
	for _, letter := range outbox.Letters {
		if letter.To == to {
			texts = append(texts, letter.Text)
		}
	}
	if len(texts) == 0 {
		return nil, errors.New("the outbox has no letter for this run; a gateway that has a mail server has sent it")
	}
	return texts, nil
}

// suspends returns what suspends an agent of a protocol.
func (c *adminClient) suspends(protocol string) func(context.Context, string) error {
	return func(ctx context.Context, agent string) error {
		return c.ask(ctx, http.MethodPost, "/api/v1/agents/"+protocol+"/"+url.PathEscape(agent)+"/suspend", nil)
	}
}

// waitFor has time pass.
func waitFor(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
