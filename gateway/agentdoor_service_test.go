package gateway_test

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/gateway"
)

const (
	doorDiscovery = "/.well-known/agentdoor.json"
	doorRegister  = "/agentdoor/register"
	doorVerify    = "/agentdoor/register/verify"
	doorAuth      = "/agentdoor/auth"
)

// door is a service that speaks AgentDoor as its documents say, to the letter:
// it is written by them alone, so that a mistake in the wire types shows. A test
// replaces a route with [service.on].
type door struct {
	*service
	clock *ticker

	mu         sync.Mutex
	registerAt string // where the document says one registers
	authAt     string
	document   string            // in the place of the usual one
	agents     map[string]string // public key → agent_id
	pending    map[string]doorPending
	used       map[string]bool // signatures
	tokens     map[string]time.Time
	keys       []string
	n          int
}

type doorPending struct {
	key, message string
	scopes       []string
}

// ticker is a clock that a test sets.
type ticker struct {
	mu sync.Mutex
	at time.Time
}

func newTicker() *ticker { return &ticker{at: start} }

func (c *ticker) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *ticker) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

func newDoor(t *testing.T) *door {
	t.Helper()
	d := &door{
		service: newService(t), clock: newTicker(), registerAt: doorRegister, authAt: doorAuth,
		agents: map[string]string{}, pending: map[string]doorPending{}, used: map[string]bool{}, tokens: map[string]time.Time{},
	}
	return d.open()
}

// open sets the handlers.
func (d *door) open() *door {
	d.on(doorDiscovery, d.discovery)
	d.on(d.registerAt, d.register)
	d.on(d.registerAt+"/verify", d.verify)
	d.on(d.authAt, d.auth)
	d.on("/data", d.data)
	return d
}

const doorScopes = `[{"id":"weather.read","description":"Read the weather"},{"id":"forecast.read","description":"Read forecasts","price":"$0.00"},` +
	`{"id":"history.read","description":"Read the past","price":"$0.001/req"}]`

func (d *door) discovery(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet || len(r.Header.Values("Authorization")) != 0 || r.Header.Get("Cookie") != "" {
		reply(400, `{"error":"invalid_request","message":"not a plain GET"}`)(w, r)
		return
	}
	body := fmt.Sprintf(`{"agentdoor_version":"1.0","service_name":"S","service_description":"D","registration_endpoint":%q,"auth_endpoint":%q,`+
		`"scopes_available":%s,"auth_methods":["ed25519-challenge","jwt"],"rate_limits":{"registration":"10/1h","default":"1000/1h"},"companion_protocols":{}}`,
		d.registerAt, d.authAt, doorScopes)
	if d.document != "" {
		body = d.document
	}
	reply(200, body)(w, r)
}

// doorBody reads a body strictly.
func doorBody(w http.ResponseWriter, r *http.Request, into any) bool {
	dec := json.NewDecoder(r.Body)
	dec.DisallowUnknownFields()
	err := dec.Decode(into)
	if r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/json" || err != nil || dec.More() {
		reply(400, `<!DOCTYPE html><html><body><pre>SyntaxError</pre></body></html>`)(w, r)
		return false
	}
	return true
}

func (d *door) register(w http.ResponseWriter, r *http.Request) {
	var in struct {
		PublicKey  string         `json:"public_key"`
		Scopes     []string       `json:"scopes_requested"`
		X402Wallet string         `json:"x402_wallet"`
		Metadata   map[string]any `json:"metadata"`
	}
	if !doorBody(w, r, &in) {
		return
	}
	key, err := base64.StdEncoding.Strict().DecodeString(in.PublicKey)
	if err != nil || len(key) != 32 || len(in.Scopes) == 0 {
		reply(400, `{"error":"invalid_request","message":"public_key, scopes_requested"}`)(w, r)
		return
	}
	for _, s := range in.Scopes {
		if !strings.Contains(doorScopes, `"`+s+`"`) {
			reply(400, `{"error":"invalid_scopes","message":"no such scope","available_scopes":["weather.read","forecast.read","history.read"]}`)(w, r)
			return
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if id := d.agents[in.PublicKey]; id != "" {
		reply(409, `{"error":"already_registered","message":"An agent with this public key is already registered","agent_id":"`+id+`"}`)(w, r)
		return
	}
	d.n++
	id, nonce := fmt.Sprintf("ag_V1StGXR8_Z5jdHi6B%04d", d.n), fmt.Sprintf("wJalrXUtnFEMI_K7MDENG-bPxRfiC%03d", d.n)
	message := fmt.Sprintf("agentdoor:register:%s:%d:%s", id, d.clock.now().Unix(), nonce)
	d.pending[id] = doorPending{in.PublicKey, message, in.Scopes}
	reply(201, fmt.Sprintf(`{"agent_id":%q,"challenge":{"nonce":%q,"message":%q,"expires_at":%q}}`,
		id, nonce, message, d.clock.now().Add(5*time.Minute).UTC().Format("2006-01-02T15:04:05.000Z")))(w, r)
}

// signed reports whether a signature is of a key.
func signed(key, message, signature string) bool {
	public, err := base64.StdEncoding.DecodeString(key)
	raw, err2 := base64.StdEncoding.Strict().DecodeString(signature)
	return err == nil && err2 == nil && len(public) == 32 && len(raw) == 64 && ed25519.Verify(public, []byte(message), raw)
}

func (d *door) verify(w http.ResponseWriter, r *http.Request) {
	var in struct {
		AgentID   string `json:"agent_id"`
		Signature string `json:"signature"`
	}
	if !doorBody(w, r, &in) {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	p, ok := d.pending[in.AgentID]
	switch {
	case !ok:
		reply(404, `{"error":"not_found","message":"No pending registration found"}`)(w, r)
	case !signed(p.key, p.message, in.Signature):
		reply(400, `{"error":"invalid_signature","message":"Signature verification failed"}`)(w, r)
	case d.agents[p.key] != "":
		reply(409, `{"error":"DUPLICATE_AGENT","message":"Agent already exists"}`)(w, r)
	default:
		delete(d.pending, in.AgentID)
		d.agents[p.key] = in.AgentID
		key := fmt.Sprintf("agk_live_AbCdEfGhIjKlMnOpQrStUvWxYz01%04d", len(d.keys)+1)
		d.keys = append(d.keys, key)
		token, expires := d.token()
		scopes, _ := json.Marshal(p.scopes)
		reply(200, fmt.Sprintf(`{"agent_id":%q,"api_key":%q,"scopes_granted":%s,"token":%q,"token_expires_at":%q,"rate_limit":{"requests":1000,"window":"1h"}}`,
			in.AgentID, key, scopes, token, expires))(w, r)
	}
}

// token issues a JWT for an hour. The caller holds the lock.
func (d *door) token() (token, expires string) {
	token = fmt.Sprintf("eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJhZ18xIn0.c2lnbmF0dXJl%04d", len(d.tokens)+1)
	end := d.clock.now().Add(time.Hour)
	d.tokens[token] = end
	return token, end.UTC().Format("2006-01-02T15:04:05.000Z")
}

func (d *door) auth(w http.ResponseWriter, r *http.Request) {
	var in struct {
		AgentID   string `json:"agent_id"`
		Timestamp string `json:"timestamp"`
		Signature string `json:"signature"`
	}
	if !doorBody(w, r, &in) {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	key := ""
	for k, id := range d.agents {
		if id == in.AgentID {
			key = k
		}
	}
	at, err := time.Parse("2006-01-02T15:04:05.000Z", in.Timestamp)
	switch {
	case err != nil:
		reply(400, `{"error":"invalid_request","message":"timestamp must be a valid ISO 8601 date string"}`)(w, r)
	case at.Sub(d.clock.now()).Abs() > 300*time.Second || d.used[in.Signature]:
		w.Header().Set("Date", d.clock.now().UTC().Format(http.TimeFormat))
		reply(400, `{"error":"timestamp_invalid","message":"Timestamp is too far from server time."}`)(w, r)
	case key == "":
		reply(404, `{"error":"agent_not_found","message":"No registered agent found with this agent_id"}`)(w, r)
	case !signed(key, "agentdoor:auth:"+in.AgentID+":"+in.Timestamp, in.Signature):
		reply(401, `{"error":"invalid_signature","message":"Signature verification failed."}`)(w, r)
	default:
		d.used[in.Signature] = true
		token, expires := d.token()
		reply(200, fmt.Sprintf(`{"token":%q,"expires_at":%q}`, token, expires))(w, r)
	}
}

// data is a route of the service's own.
func (d *door) data(w http.ResponseWriter, r *http.Request) {
	d.mu.Lock()
	defer d.mu.Unlock()
	token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	end, issued := d.tokens[token]
	if live := issued && end.After(d.clock.now()) || slices.Contains(d.keys, token); !ok || !live {
		reply(401, `{"error":"unauthorized","message":"no"}`)(w, r)
		return
	}
	_, _ = io.WriteString(w, "fine")
}

// revokeTokens ends every JWT, as a restart with another signing key does.
func (d *door) revokeTokens() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for t := range d.tokens {
		d.tokens[t] = time.Time{}
	}
}

// secrets returns everything that the service issued and got that is secret.
func (d *door) secrets() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	all := slices.Clone(d.keys)
	for t := range d.tokens {
		all = append(all, t)
	}
	for s := range d.used {
		all = append(all, s)
	}
	return all
}

// client returns a client with the service's clock. Nothing secret may be in
// its log.
func (d *door) client(t *testing.T, s setup) *fixture {
	t.Helper()
	if s.now == nil {
		s.now = d.clock.now
	}
	f := newFixture(t, s)
	t.Cleanup(func() { noSecret(t, "the log", f.log.String(), d.secrets()...) })
	return f
}

// scout registers the usual agent.
func (d *door) scout() gateway.AgentDoorRegistration {
	return gateway.AgentDoorRegistration{ServiceURL: d.URL, AgentName: "scout"}
}

func (f *fixture) enlist(t *testing.T, r gateway.AgentDoorRegistration) gateway.AgentDoorRegistered {
	t.Helper()
	done, err := f.AgentDoor.Register(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return done
}

// doorWorks returns the status of a request with a stored credential.
func (f *fixture) doorWorks(t *testing.T, k credstore.Key) int {
	t.Helper()
	r, err := f.Lifecycle.Do(t.Context(), k, get("/data"))
	if err != nil {
		t.Fatal(err)
	}
	return r.Status
}

func doorKey(origin, agent string) credstore.Key {
	return credstore.Key{Protocol: "agentdoor", Origin: origin, Agent: agent, Kind: credstore.KindKeyPair}
}

// of returns the key of what stands behind a key pair.
func of(k credstore.Key, kind credstore.Kind) credstore.Key {
	k.Kind = kind
	return k
}
