package tools_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	mcpclient "github.com/mark3labs/mcp-go/client"
	"github.com/mark3labs/mcp-go/mcp"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/gateway"
	"github.com/enlist-mcp/enlist/gateway/wire"
)

// service is what the stories need to know of a protocol: the reader knows
// nothing of it.
type service struct {
	register string // the tool
	args     args   // of an agent that is registered before the story
	path     string // a route that needs a credential
}

func services() map[string]service {
	return map[string]service{
		wire.LonaName:      {"lona_register_agent", args{"agent_id": "scout", "agent_name": "scout"}, wire.LonaStrategiesPath},
		wire.LithtrixName:  {"lithtrix_register_agent", args{"agent_name": "scout", "owner_identifier": "ada@example.com"}, wire.LithtrixMePath},
		wire.AgentDoorName: {"agentdoor_register_agent", args{"agent_name": "scout"}, wire.AgentDoorWhoAmIPath},
		wire.FluxraName:    {"fluxra_register_agent", args{"agent_name": "scout"}, "/api/agents/me"},
		wire.LuminaName:    {"lumina_register_agent", args{"label": "scout"}, wire.LuminaKeysPath},
	}
}

// story is one way in which things stand when a reader comes.
type story struct {
	env map[string]string // of the gateway
	// begins makes things stand so.
	begins func(*testing.T, *stage, service)
	// wants is the path that the person wants to see; "": the service's own.
	wants string
	// asks is what the person asks for, in the words of a next_step; "": the
	// path.
	asks string
	// atOnce says that no time passes before the reader comes.
	atOnce bool
	// cannot says why there is no such story of a protocol; begins then checks it.
	cannot string
}

// stories lists the eight starting points of each protocol, and some more.
func stories() map[string]map[string]story {
	const (
		noExpiry = "its keys do not expire"
		noNames  = "names are not unique there, so none is ever taken"
	)
	nothing := story{begins: func(*testing.T, *stage, service) {}}
	scope := story{wants: reportsPath, begins: withoutScope}
	down := story{begins: goesDown}
	return map[string]map[string]story{
		wire.LonaName: {
			"nothing-stored": nothing, "wrong-scope": scope, "gateway-down": down,
			"expired-token": {begins: later(31 * 24 * time.Hour)},
			"revoked-key":   {env: map[string]string{"AGENT_REGISTRATION_SECRET": operatorsSecret}, begins: lonaTokenElsewhere},
			"name-taken":    {begins: func(t *testing.T, s *stage, _ service) { s.lonaOf(t, "scout") }},
			"cap-reached": {begins: func(t *testing.T, s *stage, _ service) {
				for n := range 3 {
					s.lonaOf(t, fmt.Sprint("other-", n))
				}
			}},
		},
		wire.LithtrixName: {
			"nothing-stored": nothing, "wrong-scope": scope, "gateway-down": down,
			"expired-token": {cannot: noExpiry, begins: neverExpires},
			"revoked-key":   {begins: lithtrixKeyElsewhere},
			"name-taken":    {begins: func(t *testing.T, s *stage, _ service) { s.lithtrixOf(t, "scout") }},
			"cap-reached": {begins: func(t *testing.T, s *stage, _ service) {
				for n := range 10 {
					s.lithtrixOf(t, fmt.Sprint("other-", n))
				}
			}},
			"too-many-requests": {atOnce: true, begins: busy(60)},
		},
		wire.AgentDoorName: {
			"nothing-stored": nothing, "wrong-scope": scope, "gateway-down": down,
			"expired-token": {begins: later(2 * time.Hour)},
			"revoked-key":   {begins: doorDeleted},
			"name-taken":    {cannot: noNames, begins: doorTwice},
			"cap-reached":   {begins: doorFull},
		},
		wire.FluxraName: {
			"nothing-stored": nothing, "wrong-scope": scope, "gateway-down": down,
			"expired-token":    {begins: later(2 * time.Hour)},
			"revoked-key":      {begins: fluxraKeyElsewhere},
			"revoked-here":     {begins: revokedHere},
			"revoked-recovery": {begins: fluxraRecoveredElsewhere},
			"name-taken":       {cannot: noNames, begins: fluxraTwice},
			"cap-reached": {begins: func(t *testing.T, s *stage, _ service) {
				for n := range 10 {
					s.fluxraOf(t, fmt.Sprint("other-", n))
				}
			}},
		},
		wire.LuminaName: {
			"nothing-stored": nothing, "wrong-scope": scope, "gateway-down": down,
			"expired-token":     {cannot: noExpiry, begins: neverExpires},
			"revoked-key":       {begins: luminaKeyElsewhere},
			"name-taken":        {cannot: "labels are not unique there, so none is ever taken", begins: luminaTwice},
			"cap-reached":       {asks: "Call lumina_register_agent with label momentum.", begins: luminaFull},
			"revoked-here":      {begins: revokedHere},
			"keys-elsewhere":    {begins: luminaKeysElsewhere},
			"too-many-requests": {atOnce: true, begins: busy(10)},
		},
	}
}

// TestAReaderOfNextStepGetsThere has a client that understands nothing reach an
// authenticated request of each service from wherever things stand, by what
// next_step says.
func TestAReaderOfNextStepGetsThere(t *testing.T) {
	for protocol, of := range stories() {
		for start, st := range of {
			t.Run(protocol+"/"+start, func(t *testing.T) {
				s := newStage(t, staging{protocol: protocol, env: st.env})
				s.tells(t, services()[protocol], st)
				if st.cannot != "" {
					t.Logf("%s has no %s: %s", protocol, start, st.cannot)
					return
				}
				s.golden(protocol + "/" + start)
			})
		}
	}
}

// The eight starting points are told, or it is said why not, of each protocol;
// that of the keyring is told where there is one.
func TestNoStartIsWithoutAStory(t *testing.T) {
	for _, protocol := range wire.Protocols() {
		of := stories()[protocol.Name]
		for _, start := range []string{"nothing-stored", "expired-token", "revoked-key", "name-taken", "cap-reached", "wrong-scope", "gateway-down"} {
			if of[start].begins == nil {
				t.Errorf("%s has no story of %s", protocol.Name, start)
			}
		}
	}
}

// The words are the same over pipes, in both eras.
func TestAReaderGetsThereOverPipes(t *testing.T) {
	for _, version := range []string{"2024-11-05", mcp.LATEST_LEGACY_PROTOCOL_VERSION, mcp.LATEST_PROTOCOL_VERSION} {
		for protocol, of := range stories() {
			t.Run(version+"/"+protocol, func(t *testing.T) {
				s := newStage(t, staging{protocol: protocol, connect: overPipes(version)})
				s.tells(t, services()[protocol], of["nothing-stored"])
				s.golden(protocol + "/nothing-stored")
			})
		}
	}
}

// asking is a policy that has a person asked before anything is registered.
const asking = "register = \"ask\"\n"

// A person who cannot be asked allows it in the policy, by the line that the
// error names.
func TestAReaderWaitsForThePolicy(t *testing.T) {
	path := policyFile(t, asking)
	s := newStage(t, staging{protocol: wire.LonaName, policy: path})
	line := regexp.MustCompile(`\[\[for\]\] with service = ("[^"]+"), origin = ("[^"]+") and register = "allow"`)
	s.person.deeds = append(s.person.deeds, deed{"to allow it", func() {
		said := line.FindStringSubmatch(s.seen.next())
		if said == nil {
			t.Fatalf("the person is not told how to allow it: %s", s.seen.next())
		}
		text := fmt.Sprintf("%s\n[[for]]\nservice = %s\norigin = %s\nregister = \"allow\"\n", asking, said[1], said[2])
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		s.clock.Advance(time.Minute)
	}})
	s.tells(t, services()[wire.LonaName], stories()[wire.LonaName]["nothing-stored"])
	s.golden("lona/approval-needed")
}

// A person who can be asked is, in both eras, and the call goes on.
func TestAReaderHasThePersonAsked(t *testing.T) {
	for _, version := range []string{mcp.LATEST_LEGACY_PROTOCOL_VERSION, mcp.LATEST_PROTOCOL_VERSION} {
		t.Run(version, func(t *testing.T) {
			agrees := &agreeing{}
			s := newStage(t, staging{
				protocol: wire.LonaName, policy: policyFile(t, asking),
				connect: overPipes(version, mcpclient.WithElicitationHandler(agrees)),
			})
			agrees.say = s.sayf
			s.tells(t, services()[wire.LonaName], stories()[wire.LonaName]["nothing-stored"])
			s.golden("lona/approval-asked")
		})
	}
}

// agreeing is a person at a client that can ask, who agrees.
type agreeing struct{ say func(string, ...any) }

// Elicit implements [mcpclient.ElicitationHandler].
func (a *agreeing) Elicit(_ context.Context, req mcp.ElicitationRequest) (*mcp.ElicitationResult, error) {
	a.say("The client asks the person: %s", req.Params.Message)
	a.say("The person agrees.")
	return &mcp.ElicitationResult{ElicitationResponse: mcp.ElicitationResponse{Action: mcp.ElicitationResponseActionAccept, Content: map[string]any{}}}, nil
}

// tells has a story begin, and a reader take it from there.
func (s *stage) tells(t *testing.T, of service, st story) {
	t.Helper()
	st.begins(t, s, of)
	if st.cannot != "" {
		return
	}
	if !st.atOnce {
		s.clock.Advance(time.Minute)
	}
	w := wish{url: s.url(), path: of.path}
	if st.wants != "" {
		s.otherwise = s.own(of)
		w.path = st.wants
	} else if len(s.stored()) > 0 {
		w.path = s.own(of)
	}
	newReader(t, s, w).run(st.asks)
}

// own returns a path that the credential that is stored is good for.
func (s *stage) own(of service) string {
	for _, i := range s.stored() {
		if id := gateway.FluxraAgentID(i); i.Protocol == wire.FluxraName && id != "" {
			return wire.FluxraAgentPath(id)
		}
	}
	return of.path
}

// enrol registers the agent of a story before it begins.
func (s *stage) enrol(of service) result { return s.must(of.register, of.args) }

// later has an agent come back after a while.
func later(d time.Duration) func(*testing.T, *stage, service) {
	return func(_ *testing.T, s *stage, of service) {
		s.enrol(of)
		s.clock.Advance(d)
	}
}

// neverExpires checks that what a service issues has no end.
func neverExpires(t *testing.T, s *stage, of service) {
	t.Helper()
	s.enrol(of)
	for _, i := range s.stored() {
		if !i.ExpiresAt.IsZero() {
			t.Errorf("%s ends at %s, want never", i.Agent, i.ExpiresAt)
		}
	}
	s.clock.Advance(20 * 365 * 24 * time.Hour)
	if res := s.must("send_request", args{"method": "GET", "path": of.path}); !s.reached(res) {
		t.Errorf("after twenty years: got %v, want an answer", res.content)
	}
}

// withoutScope has an agent that may do only what costs nothing, and a person
// who knows what is needed for more.
func withoutScope(_ *testing.T, s *stage, of service) {
	s.enrol(of)
	s.person.facts["scopes"] = func(result) any { return []any{wire.AgentDoorAccess, reportsScope} }
}

// revokedHere has the credential ended by Enlist itself.
func revokedHere(_ *testing.T, s *stage, of service) {
	s.enrol(of)
	s.must("revoke_credential", args{})
}

// goesDown ends the service, which the person sees to when they are asked.
func goesDown(_ *testing.T, s *stage, of service) {
	s.enrol(of)
	s.down()
	s.person.deeds = append(s.person.deeds, deed{"is running", s.up})
}

// busy has an agent use up what it may do in a minute.
func busy(n int) func(*testing.T, *stage, service) {
	return func(_ *testing.T, s *stage, of service) {
		s.enrol(of)
		for range n {
			s.must("send_request", args{"method": "GET", "path": of.path})
		}
	}
}

// elsewhere makes a request as another program does.
func (s *stage) elsewhere(t *testing.T, method, path string, header map[string]string, body any) map[string]any {
	t.Helper()
	if body == nil {
		body = args{}
	}
	raw, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, s.url()+path, bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	for name, value := range header {
		req.Header.Set(name, value)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode/100 != 2 {
		t.Fatalf("%s %s: got %s %s (%v)", method, path, resp.Status, text, err)
	}
	out := map[string]any{}
	if len(text) > 0 {
		if err := json.Unmarshal(text, &out); err != nil {
			t.Fatalf("%s %s: %v in %s", method, path, err, text)
		}
	}
	return out
}

// issued returns the last secret of a shape that the gateway issued.
func (s *stage) issued(t *testing.T, prefix string) string {
	t.Helper()
	all := s.gw.Secrets()
	for n := range all {
		if secret := all[len(all)-1-n]; strings.HasPrefix(secret, prefix) {
			return secret
		}
	}
	t.Fatalf("no secret begins with %s", prefix)
	return ""
}

func basic(user, password string) map[string]string {
	return map[string]string{"Authorization": "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))}
}

// operatorsSecret is what whoever runs Lona registers with.
const operatorsSecret = "the-operators-registration-secret"

func (s *stage) lonaOf(t *testing.T, agent string) {
	t.Helper()
	body := args{"agent_id": agent, "agent_name": "Somebody else", "source": "elsewhere"}
	invite := s.elsewhere(t, http.MethodPost, wire.LonaInvitePath, nil, body)["data"].(map[string]any)
	body["invite_code"] = invite["invite_code"]
	s.elsewhere(t, http.MethodPost, wire.LonaRegisterPath, nil, body)
}

// lonaTokenElsewhere has the service's operator give the agent another token,
// which ends the one that is stored.
func lonaTokenElsewhere(t *testing.T, s *stage, of service) {
	s.enrol(of)
	s.elsewhere(t, http.MethodPost, wire.LonaRegisterPath, map[string]string{wire.LonaSecretHeader: operatorsSecret},
		args{"agent_id": "scout", "agent_name": "scout", "source": "operator"})
}

func (s *stage) lithtrixOf(t *testing.T, agent string) {
	t.Helper()
	s.elsewhere(t, http.MethodPost, wire.LithtrixRegisterPath, nil, args{"agent_name": agent, "owner_identifier": "ada@example.com"})
}

// lithtrixKeyElsewhere has another program rotate the key, which ends the one
// that is stored.
func lithtrixKeyElsewhere(t *testing.T, s *stage, of service) {
	s.enrol(of)
	s.elsewhere(t, http.MethodPost, wire.LithtrixRotatePath, map[string]string{"Authorization": "Bearer " + s.issued(t, "ltx_")}, nil)
}

// doorDeleted has the operator delete the agent: there is no other way in which
// its keys end.
func doorDeleted(t *testing.T, s *stage, of service) {
	s.enrol(of)
	for _, i := range s.stored() {
		if id := i.Attrs["agent_id"]; id != "" {
			if err := s.gw.Embedded().Delete(t.Context(), wire.AgentDoorName, id); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
	t.Fatal("no agent is registered")
}

// doorOf registers somebody's key pair at the service, under a name.
func (s *stage) doorOf(t *testing.T, name string) {
	t.Helper()
	public, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s.elsewhere(t, http.MethodPost, wire.AgentDoorRegisterPath, nil, args{
		"public_key": base64.StdEncoding.EncodeToString(public), "scopes_requested": []string{wire.AgentDoorAccess}, "metadata": args{"agent_name": name},
	})
}

func doorFull(t *testing.T, s *stage, _ service) {
	for n := range 10 {
		s.doorOf(t, fmt.Sprint("other-", n))
	}
}

func doorTwice(t *testing.T, s *stage, of service) {
	s.doorOf(t, "scout")
	if res := s.enrol(of); res.content["reused"] != false {
		t.Errorf("got %v, want a registration of its own", res.content)
	}
}

func (s *stage) fluxraOf(t *testing.T, agent string) map[string]any {
	t.Helper()
	return s.elsewhere(t, http.MethodPost, wire.FluxraRegisterPath, nil, args{"agent_name": agent})
}

func fluxraTwice(t *testing.T, s *stage, of service) {
	other := s.fluxraOf(t, "scout")
	if res := s.enrol(of); res.content["agent_id"] == other["agent_id"] {
		t.Errorf("got %v, want an account of its own", res.content)
	}
}

// fluxraKeyElsewhere has another program end the API key with the recovery key.
func fluxraKeyElsewhere(t *testing.T, s *stage, of service) {
	id, _ := s.enrol(of).content["agent_id"].(string)
	s.fluxraEndsKeys(t, id)
}

// fluxraEndsKeys ends every API key of an account with its recovery key.
func (s *stage) fluxraEndsKeys(t *testing.T, id string) {
	t.Helper()
	list := s.elsewhere(t, http.MethodGet, wire.FluxraAgentPath(id), map[string]string{"Authorization": "Bearer " + s.issued(t, "eyJ")}, nil)
	for _, key := range list["keys"].([]any) {
		keyID := key.(map[string]any)["key_id"].(string)
		s.elsewhere(t, http.MethodDelete, wire.FluxraKeyPath(id, keyID), basic(id, s.issued(t, "rk_")), nil)
	}
}

// fluxraRecoveredElsewhere has the account recovered by its email on another
// machine, and its API key ended from there: nothing that is stored is good for
// anything any more.
func fluxraRecoveredElsewhere(t *testing.T, s *stage, of service) {
	const email = "ada@example.com"
	of.args["email"] = email
	id, _ := s.enrol(of).content["agent_id"].(string)
	s.must("fluxra_verify_email", args{"token": s.mailed(t, `evt_[A-Za-z0-9_-]+`)})
	s.elsewhere(t, http.MethodPost, wire.FluxraRecoveryRequestPath, nil, args{"email": email})
	s.elsewhere(t, http.MethodPost, wire.FluxraRecoveryVerifyPath, nil, args{"email": email, "code": s.mailed(t, `\b[0-9]{6}\b`)})
	s.fluxraEndsKeys(t, id)
	s.clock.Advance(time.Hour) // and the token that was had with the key ends
	s.person.facts["code"] = func(result) any { return s.mailed(t, `\b[0-9]{6}\b`) }
}

// mailed returns what is of a shape in the last letter.
func (s *stage) mailed(t *testing.T, shape string) string {
	t.Helper()
	letters := s.gw.Outbox(t)
	if len(letters) == 0 {
		t.Fatal("no mail came")
	}
	found := regexp.MustCompile(shape).FindString(letters[len(letters)-1].Text)
	if found == "" {
		t.Fatalf("there is no %s in the last letter", shape)
	}
	return found
}

// luminaKeyElsewhere has another program revoke the key.
func luminaKeyElsewhere(t *testing.T, s *stage, of service) {
	s.enrol(of)
	s.luminaRevokes(t, s.issued(t, "lk_"), 0)
}

// luminaRevokes ends one of the wallet's keys, with one of them.
func (s *stage) luminaRevokes(t *testing.T, with string, n int) {
	t.Helper()
	header := map[string]string{wire.LuminaKeyHeader: with}
	keys := s.elsewhere(t, http.MethodGet, wire.LuminaKeysPath, header, nil)["keys"].([]any)
	id := keys[n].(map[string]any)["keyId"].(float64)
	s.elsewhere(t, http.MethodDelete, fmt.Sprintf("%s/%.0f", wire.LuminaKeysPath, id), header, nil)
}

func luminaTwice(t *testing.T, s *stage, of service) {
	other := s.onAnotherMachine(t)
	if _, err := other.Lumina.Register(t.Context(), gateway.LuminaRegistration{Label: "scout"}); err != nil {
		t.Fatal(err)
	}
	if res := s.enrol(of); res.content["reused"] != false {
		t.Errorf("got %v, want a key of its own", res.content)
	}
}

// luminaFull has three bots take the three places of the wallet.
func luminaFull(_ *testing.T, s *stage, of service) {
	for _, label := range []string{"scout", "spot", "arb"} {
		s.must(of.register, args{"label": label})
	}
	s.person.facts["revoke_key_id"] = func(seen result) any {
		var id int64
		first := regexp.MustCompile(`Its keys: ([0-9]+)`).FindStringSubmatch(seen.text("what_happened"))
		if first != nil {
			_ = json.Unmarshal([]byte(first[1]), &id)
		}
		return id
	}
}

// luminaKeysElsewhere has three keys of the wallet on another machine, and here
// one that has ended.
func luminaKeysElsewhere(t *testing.T, s *stage, of service) {
	s.enrol(of)
	s.luminaRevokes(t, s.issued(t, "lk_"), 0)
	other := s.onAnotherMachine(t)
	for _, label := range []string{"spot", "arb", "mm"} {
		if _, err := other.Lumina.Register(t.Context(), gateway.LuminaRegistration{Label: label}); err != nil {
			t.Fatal(err)
		}
	}
	s.person.deeds = append(s.person.deeds, deed{"revoke one of its keys", func() { s.luminaRevokes(t, s.issued(t, "lk_"), 0) }})
}

// onAnotherMachine returns another client with the wallets of this one.
func (s *stage) onAnotherMachine(t *testing.T) *gateway.Client {
	t.Helper()
	store := credstore.NewMemory(s.clock.Now)
	for _, i := range s.stored() {
		if i.Kind != credstore.KindWallet {
			continue
		}
		c, err := s.store.Get(t.Context(), i.Key)
		if err != nil {
			t.Fatal(err)
		}
		if err := store.Put(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	url := s.url()
	wait := func(context.Context, time.Duration) error {
		s.clock.Advance(2 * time.Second)
		return nil
	}
	c, err := gateway.New(gateway.Options{Store: store, Now: s.clock.Now, Sleep: wait, Env: func(name string) string {
		if name == "LUMINA_API_URL" {
			return url
		}
		return ""
	}})
	if err != nil {
		t.Fatal(err)
	}
	return c
}
