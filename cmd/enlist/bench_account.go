package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/enlist-mcp/enlist/gateway/eip191"
	"github.com/enlist-mcp/enlist/gateway/wire"
)

// errNoEnd: a protocol has no way for an agent to end its own credential.
var errNoEnd = errors.New("the protocol has no such route")

// refusedError is an answer that is not the one that was hoped for. It says
// nothing of what was sent, nor of what came.
type refusedError struct {
	step   string
	answer benchAnswer
}

func (e *refusedError) Error() string { return fmt.Sprintf("%s: status %d", e.step, e.answer.status) }

// benchLoad makes accounts at one service, by any of the protocols, and uses
// them. It is safe for concurrent use; each caller brings a connection.
type benchLoad struct {
	at      *url.URL
	now     func() time.Time
	secret  string                             // Lona's registration secret; "": by invite
	jwt     bool                               // AgentDoor's requests carry the JWT, not the API key
	spread  bool                               // every account is registered from an address of its own
	wallet  func() (eip191.Wallet, error)      // nil: a new one each time
	key     func() (ed25519.PrivateKey, error) // AgentDoor's; nil: a new one each time
	run     string                             // tells the accounts of two runs apart
	offered atomic.Pointer[[]string]           // AgentDoor's scopes to ask for
	first   uint32                             // where the addresses of this run begin
	n       atomic.Uint32
}

func newBenchLoad(at *url.URL, now func() time.Time) *benchLoad {
	var raw [9]byte
	_, _ = rand.Read(raw[:]) // it never fails
	return &benchLoad{at: at, now: now, run: hex.EncodeToString(raw[:5]), first: binary.BigEndian.Uint32(raw[5:])}
}

// benchAccount is an account and what is sent with its credential. Nothing of it
// is ever printed.
type benchAccount struct {
	protocol, agent string
	request         []byte // an authenticated one
	end             []byte // ends the credential of request; nil: see errNoEnd
}

// register makes an account by a protocol. What the service refuses is a
// *refusedError.
func (l *benchLoad) register(ctx context.Context, c *benchConn, protocol string) (*benchAccount, error) {
	s := &benchSignUp{benchLoad: l, ctx: ctx, conn: c}
	n := l.n.Add(1)
	s.name = fmt.Sprintf("bench-%s-%d", l.run, n)
	if l.spread {
		s.header = [][2]string{{"X-Forwarded-For", benchAddress(l.first + n)}}
	}
	way, ok := map[string]func(*benchSignUp) (*benchAccount, error){
		wire.AgentDoorName: (*benchSignUp).agentDoor,
		wire.FluxraName:    (*benchSignUp).fluxra,
		wire.LithtrixName:  (*benchSignUp).lithtrix,
		wire.LonaName:      (*benchSignUp).lona,
		wire.LuminaName:    (*benchSignUp).lumina,
	}[protocol]
	if !ok {
		return nil, fmt.Errorf("no account can be made by %q", protocol)
	}
	return way(s)
}

// use makes an authenticated request.
func (*benchLoad) use(ctx context.Context, c *benchConn, a *benchAccount) (benchAnswer, error) {
	return c.do(ctx, a.request, false)
}

// revoke ends the credential that use sends; afterwards it is refused.
func (*benchLoad) revoke(ctx context.Context, c *benchConn, a *benchAccount) (benchAnswer, error) {
	if a.end == nil {
		return benchAnswer{}, errNoEnd
	}
	return c.do(ctx, a.end, false)
}

// benchAddress is an address in a network of its own (a /64, which limits go by),
// of those that are kept for documentation (RFC 3849).
func benchAddress(n uint32) string {
	a := [16]byte{0x20, 0x01, 0x0d, 0xb8}
	binary.BigEndian.PutUint32(a[4:8], n)
	a[15] = 1
	return netip.AddrFrom16(a).String()
}

// benchSignUp is one registration under way.
type benchSignUp struct {
	*benchLoad
	ctx    context.Context
	conn   *benchConn
	name   string
	header [][2]string
}

// step makes a request of a registration and reads the answer into out.
func (s *benchSignUp) step(name, method, path string, header [][2]string, in, out any) error {
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return err
		}
	}
	a, err := s.conn.do(s.ctx, benchRequest(s.at, method, path, append(header, s.header...), body), true)
	if err != nil {
		return err
	}
	if !a.ok() {
		return &refusedError{name, benchAnswer{status: a.status, retryAfter: a.retryAfter}}
	}
	if err := json.Unmarshal(a.body, out); err != nil {
		return fmt.Errorf("%s: the answer is not what the protocol says", name) // err may quote it
	}
	return nil
}

func (s *benchSignUp) account(protocol, agent, path string, header ...[2]string) *benchAccount {
	return &benchAccount{protocol: protocol, agent: agent, request: benchRequest(s.at, "GET", path, header, nil)}
}

func benchBearer(token string) [2]string { return [2]string{"Authorization", "Bearer " + token} }

func benchBasic(user, password string) [2]string {
	return [2]string{"Authorization", "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))}
}

func (s *benchSignUp) lona() (*benchAccount, error) {
	in := wire.LonaRegisterRequest{AgentID: s.name, AgentName: s.name, Source: "enlist-bench"}
	header := [][2]string{{wire.LonaSecretHeader, s.secret}}
	if s.secret == "" {
		var invite wire.LonaData[wire.LonaInvite]
		err := s.step("request an invite", "POST", wire.LonaInvitePath, nil,
			wire.LonaInviteRequest{AgentID: in.AgentID, AgentName: in.AgentName, Source: in.Source}, &invite)
		if err != nil {
			return nil, err
		}
		in.InviteCode = invite.Data.InviteCode
	}
	var out wire.LonaData[wire.LonaRegistered]
	if err := s.step("register", "POST", wire.LonaRegisterPath, header, in, &out); err != nil {
		return nil, err
	}
	a := s.account(wire.LonaName, s.name, wire.LonaStrategiesPath,
		[2]string{wire.LonaKeyHeader, out.Data.Token}, [2]string{wire.LonaUserHeader, s.name})
	if s.secret != "" { // whoever registers again ends the token
		body, err := json.Marshal(in)
		if err != nil {
			return nil, err
		}
		a.end = benchRequest(s.at, "POST", wire.LonaRegisterPath, header, body)
	}
	return a, nil
}

func (s *benchSignUp) lithtrix() (*benchAccount, error) {
	agree := true
	var out wire.LithtrixKey
	err := s.step("register", "POST", wire.LithtrixRegisterPath, nil,
		wire.LithtrixRegisterRequest{AgentName: s.name, OwnerIdentifier: "enlist-bench", AgreeToTerms: &agree}, &out)
	if err != nil {
		return nil, err
	}
	a := s.account(wire.LithtrixName, s.name, wire.LithtrixMePath, benchBearer(out.APIKey))
	a.end = benchRequest(s.at, "POST", wire.LithtrixRotatePath, [][2]string{benchBearer(out.APIKey)}, nil)
	return a, nil
}

func (s *benchSignUp) agentDoor() (*benchAccount, error) {
	make := benchKey
	if s.key != nil {
		make = s.key
	}
	private, err := make()
	if err != nil {
		return nil, err
	}
	public, _ := private.Public().(ed25519.PublicKey)
	scopes, err := s.scopes()
	if err != nil {
		return nil, err
	}
	var pending wire.AgentDoorPending
	err = s.step("register", "POST", wire.AgentDoorRegisterPath, nil, wire.AgentDoorRegisterRequest{
		PublicKey: base64.StdEncoding.EncodeToString(public), ScopesRequested: scopes,
	}, &pending)
	if err != nil {
		return nil, err
	}
	signature := ed25519.Sign(private, []byte(pending.Challenge.Message))
	var out wire.AgentDoorRegistered
	err = s.step("verify", "POST", wire.AgentDoorVerifyPath, nil, wire.AgentDoorVerifyRequest{
		AgentID: pending.AgentID, Signature: base64.StdEncoding.EncodeToString(signature),
	}, &out)
	if err != nil {
		return nil, err
	}
	credential := out.APIKey
	if s.jwt {
		credential = out.Token
	}
	return s.account(wire.AgentDoorName, out.AgentID, wire.AgentDoorWhoAmIPath, benchBearer(credential)), nil
}

func benchKey() (ed25519.PrivateKey, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	return private, err
}

// scopes returns a scope of the service that costs nothing, asked for once.
func (s *benchSignUp) scopes() ([]string, error) {
	if known := s.offered.Load(); known != nil {
		return *known, nil
	}
	var document wire.AgentDoorDiscovery
	if err := s.step("discover", "GET", wire.AgentDoorDiscoveryPath, nil, nil, &document); err != nil {
		return nil, err
	}
	for _, scope := range document.ScopesAvailable {
		if scope.Price == "" {
			scopes := []string{scope.ID}
			s.offered.Store(&scopes)
			return scopes, nil
		}
	}
	return nil, errors.New("discover: the service has no scope that costs nothing")
}

func (s *benchSignUp) fluxra() (*benchAccount, error) {
	var registered wire.FluxraRegistered
	err := s.step("register", "POST", wire.FluxraRegisterPath, nil, wire.FluxraRegisterRequest{AgentName: s.name}, &registered)
	if err != nil {
		return nil, err
	}
	path := wire.FluxraAgentPath(registered.AgentID)
	var key wire.FluxraIssuedKey
	err = s.step("make a key", "POST", path, [][2]string{benchBasic(registered.AgentID, registered.RecoveryKey)},
		wire.FluxraKeyRequest{Name: "bench"}, &key)
	if err != nil {
		return nil, err
	}
	var token wire.FluxraToken
	err = s.step("get a token", "POST", wire.FluxraTokenPath, [][2]string{benchBasic(registered.AgentID, key.APIKey)},
		wire.FluxraTokenRequest{GrantType: "client_credentials"}, &token)
	if err != nil {
		return nil, err
	}
	a := s.account(wire.FluxraName, registered.AgentID, path, benchBearer(token.AccessToken))
	a.end = benchRequest(s.at, "POST", wire.FluxraLogoutPath, [][2]string{benchBearer(token.AccessToken)}, nil)
	return a, nil
}

func (s *benchSignUp) lumina() (*benchAccount, error) {
	make := func() (eip191.Wallet, error) { return eip191.New(rand.Reader) }
	if s.wallet != nil {
		make = s.wallet
	}
	wallet, err := make()
	if err != nil {
		return nil, err
	}
	at := s.now().Unix()
	signature, err := wallet.Sign(wire.LuminaMessage(wallet.Address(), at))
	if err != nil {
		return nil, err
	}
	var out wire.LuminaOnboarded
	err = s.step("onboard", "POST", wire.LuminaOnboardPath, nil, wire.LuminaOnboardRequest{
		WalletAddress: wallet.Address(), Signature: signature, Timestamp: &at, Label: "enlist-bench",
	}, &out)
	if err != nil {
		return nil, err
	}
	key := [2]string{wire.LuminaKeyHeader, out.APIKey}
	a := s.account(wire.LuminaName, out.Wallet, wire.LuminaKeysPath, key)
	a.end = benchRequest(s.at, "DELETE", wire.LuminaKeyPath(out.KeyID), [][2]string{key}, nil)
	return a, nil
}

// benchProtocol returns the protocol of a name that was typed.
func benchProtocol(name string) (string, error) {
	for _, p := range wire.Protocols() {
		if p.Name == name {
			return name, nil
		}
	}
	var known bytes.Buffer
	for i, p := range wire.Protocols() {
		if i > 0 {
			known.WriteString(", ")
		}
		known.WriteString(p.Name)
	}
	return "", &usageError{fmt.Errorf("--protocol: unknown protocol %q: known are %s", name, known.String())}
}
