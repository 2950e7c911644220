package admin

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/enlist-mcp/enlist/embeddedgateway"
	"github.com/enlist-mcp/enlist/embeddedgateway/store"
)

// openAPI describes the JSON API. A test holds it to the routes and to what they
// answer.
//
//go:embed openapi.json
var openAPI []byte

// apiOperator is what the JSON API needs of a gateway.
type apiOperator interface {
	Agents(ctx context.Context, q embeddedgateway.AgentQuery) (embeddedgateway.AgentPage, error)
	Agent(ctx context.Context, protocol, agent string) (embeddedgateway.AgentDetail, error)
	Suspend(ctx context.Context, protocol, agent string) error
	Resume(ctx context.Context, protocol, agent string) error
	Delete(ctx context.Context, protocol, agent string) error
	RevokeKey(ctx context.Context, protocol, agent, keyID string) (revoked bool, err error)
	Invites(ctx context.Context, q embeddedgateway.InviteQuery) (embeddedgateway.InvitePage, error)
	Numbers(ctx context.Context) (embeddedgateway.Numbers, error)
	Audit(ctx context.Context, q store.EventQuery) ([]store.Event, error)
	ReadOutbox(ctx context.Context) ([]embeddedgateway.Mail, error)
}

// apiRoute is one method of one path of the JSON API.
type apiRoute struct {
	method, path string
	query        []string // the parameters that it takes; others are refused
	answer       func(*http.Request) (any, error)
}

// api is the JSON API.
type api struct {
	gateway apiOperator
	log     *slog.Logger
}

const (
	apiPrefix = "/api/v1/"
	agentPath = apiPrefix + "agents/{protocol}/{agent}"
)

// apiTime is how long a request may take: counting a million agents is the
// longest thing that there is.
const apiTime = 30 * time.Second

// apiRoutes returns the handler of /api/v1/ and of /openapi.json. It asks nobody
// who they are: whoever mounts it has done that, and has said so with
// [embeddedgateway.WithActor].
func apiRoutes(g apiOperator, log *slog.Logger) http.Handler {
	a := &api{gateway: g, log: log}
	mux := http.NewServeMux()
	methods := map[string][]string{}
	for _, r := range a.routes() {
		mux.HandleFunc(r.method+" "+r.path, func(w http.ResponseWriter, req *http.Request) { a.serve(w, req, r) })
		methods[r.path] = append(methods[r.path], r.method)
		if r.method == http.MethodGet {
			methods[r.path] = append(methods[r.path], http.MethodHead)
		}
	}
	for at, allowed := range methods {
		slices.Sort(allowed)
		mux.HandleFunc(at, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Allow", strings.Join(allowed, ", "))
			a.refuse(w, http.StatusMethodNotAllowed, "method_not_allowed", "this path takes "+strings.Join(allowed, ", "))
		})
	}
	nothing := func(w http.ResponseWriter, _ *http.Request) {
		a.refuse(w, http.StatusNotFound, "not_found", "there is nothing at this path; "+openAPIPath+" lists what there is")
	}
	mux.HandleFunc("/", nothing)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		given := r.URL.EscapedPath()
		if path.Clean(given) != given { // ServeMux would redirect from it
			nothing(w, r)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

const openAPIPath = "/openapi.json"

// routes lists the routes.
func (a *api) routes() []apiRoute {
	get, post, del := http.MethodGet, http.MethodPost, http.MethodDelete
	return []apiRoute{
		{get, openAPIPath, nil, func(*http.Request) (any, error) { return json.RawMessage(openAPI), nil }},
		{get, apiPrefix + "agents", []string{"protocol", "state", "search", "after", "limit"}, a.agents},
		{get, agentPath, nil, a.agent},
		{del, agentPath, nil, a.act(a.gateway.Delete, false)},
		{post, agentPath + "/suspend", nil, a.act(a.gateway.Suspend, true)},
		{post, agentPath + "/resume", nil, a.act(a.gateway.Resume, true)},
		{get, agentPath + "/keys", nil, a.keys},
		{post, agentPath + "/keys/{key_id}/revoke", nil, a.revokeKey},
		{get, apiPrefix + "invites", []string{"after", "limit"}, a.invites},
		{get, apiPrefix + "outbox", nil, a.outbox},
		{get, apiPrefix + "events", []string{"protocol", "agent", "before", "limit"}, a.events},
		{get, apiPrefix + "numbers", nil, a.numbers},
	}
}

// apiError is a refusal.
type apiError struct {
	status        int
	code, message string
}

// Error implements error.
func (e *apiError) Error() string { return e.message }

func invalidRequest(format string, args ...any) error {
	return &apiError{http.StatusBadRequest, "invalid_request", fmt.Sprintf(format, args...)}
}

// serve answers a request to a route.
func (a *api) serve(w http.ResponseWriter, r *http.Request, route apiRoute) {
	ctx, cancel := context.WithTimeout(r.Context(), apiTime)
	defer cancel()
	r = r.WithContext(ctx)
	body, err := a.answer(r, route)
	if err == nil && body == nil {
		apiHeader(w.Header())
		w.WriteHeader(http.StatusNoContent)
		return
	}
	var text []byte
	if err == nil {
		text, err = json.Marshal(body)
	}
	if err != nil {
		e := a.judge(r, err)
		a.refuse(w, e.status, e.code, e.message)
		return
	}
	apiReply(w, http.StatusOK, text)
}

func (a *api) answer(r *http.Request, route apiRoute) (any, error) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, invalidRequest("the query cannot be read")
	}
	for name, values := range query {
		switch {
		case !slices.Contains(route.query, name):
			return nil, invalidRequest("the query has a parameter that is not known here; known are: %s", strings.Join(route.query, ", "))
		case len(values) > 1:
			return nil, invalidRequest("%s is there more than once", name)
		}
	}
	return route.answer(r)
}

// judge says what to answer for an error. What is the gateway's fault is logged,
// and said to nobody else.
func (a *api) judge(r *http.Request, err error) *apiError {
	var e *apiError
	switch {
	case errors.As(err, &e):
		return e
	case errors.Is(err, store.ErrNotFound):
		return &apiError{http.StatusNotFound, "not_found", "there is no such agent, or it has no such key"}
	case errors.Is(err, embeddedgateway.ErrQuery), errors.Is(err, store.ErrText):
		return &apiError{http.StatusBadRequest, "invalid_request", err.Error()}
	case r.Context().Err() != nil, errors.Is(err, store.ErrClosed):
		return &apiError{http.StatusServiceUnavailable, "unavailable", "this cannot be answered now: try again"}
	}
	a.log.ErrorContext(r.Context(), "the admin API failed", "method", r.Method, "path", r.Pattern, "error", err)
	return &apiError{http.StatusInternalServerError, "internal_error", "this failed here; the log of the gateway says why"}
}

func (a *api) refuse(w http.ResponseWriter, status int, code, message string) {
	var body struct {
		Error struct {
			Code    string `json:"code"`
			Message string `json:"message"`
		} `json:"error"`
	}
	body.Error.Code, body.Error.Message = code, message
	text, _ := json.Marshal(body) // of two strings
	apiReply(w, status, text)
}

// apiHeader keeps an answer out of caches and from being taken for a page.
func apiHeader(h http.Header) {
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
}

func apiReply(w http.ResponseWriter, status int, body []byte) {
	apiHeader(w.Header())
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(body)
}

// number reads a whole number of the query; 0 where there is none.
func number(r *http.Request, name string, least, most int64) (int64, error) {
	text := r.URL.Query().Get(name)
	if !r.URL.Query().Has(name) {
		return 0, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < least || n > most {
		return 0, invalidRequest("%s must be a whole number from %d to %d", name, least, most)
	}
	return n, nil
}
