package main

import (
	"encoding/base64"
	"encoding/json"
	"regexp"
	"testing"

	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest"
)

// fluxra sends the bodies of Fluxra's page to a gateway.
type fluxra struct {
	page map[string]string
	gw   *gatewaytest.Gateway
}

// post sends a body of the page; section "" is none. authorization goes into the
// header of that name through the shell, as a person keeps it off the screen.
func (f fluxra) post(t *testing.T, path, section, authorization string, replace ...string) (int, []byte) {
	t.Helper()
	command := "curl -X POST " + f.gw.URL + path
	if authorization != "" {
		command += ` -H "Authorization: $AUTHORIZATION"`
	}
	if section != "" {
		if f.page[section] == "" {
			t.Fatalf("the page has no %s", section)
		}
		command += ` -H "Content-Type: application/json" -d '` + f.page[section] + `'`
	}
	return curl(t, command, []string{"AUTHORIZATION=" + authorization}, replace...)
}

// shown fails the test unless an answer is one of those that the page shows.
func (f fluxra) shown(t *testing.T, status, want int, body []byte, section string) {
	t.Helper()
	wantStatus(t, status, want, body)
	sameFields(t, body, f.page[section])
}

// mailed returns what the newest letter has of a form.
func (f fluxra) mailed(t *testing.T, form string) string {
	t.Helper()
	letters := f.gw.Outbox(t)
	if len(letters) == 0 {
		t.Fatal("no letter was written")
	}
	found := regexp.MustCompile(form).FindString(letters[len(letters)-1].Text)
	if found == "" {
		t.Fatalf("the newest letter has no %s", form)
	}
	return found
}

func basicAuth(name, secret string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(name+":"+secret))
}

const (
	evtForm  = `evt_[A-Za-z0-9_-]+`
	codeForm = `\b[0-9]{6}\b`
)

func TestTheBodiesOfFluxrasPage(t *testing.T) {
	f := fluxra{page: seedOf(t, "fluxra"), gw: gatewaytest.New(t)}
	status, body := f.post(t, "/api/auth/register", "register.request.json", "")
	f.shown(t, status, 201, body, "register.json")
	id, recovery := textAt(t, body, "agent_id"), textAt(t, body, "recovery_key")

	// As it is printed, the token is nobody's.
	status, body = f.post(t, "/api/auth/verify-email", "verify-email.request.json", "")
	wantStatus(t, status, 401, body)
	status, body = f.post(t, "/api/auth/verification/resend", "verification-resend.request.json", "")
	f.shown(t, status, 200, body, "verification-resend.json")
	if got, want := textAt(t, body, "message"), textAt(t, []byte(f.page["verification-resend.json"]), "message"); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	status, body = f.post(t, "/api/auth/verify-email", "verify-email.request.json", "", "evt_...", f.mailed(t, evtForm))
	f.shown(t, status, 200, body, "get-verify-email.json")

	// The page leaves making an API key to another page.
	status, body = curl(t, "curl -X POST "+f.gw.URL+"/api/agents/"+id+` -H "Authorization: $AUTHORIZATION" -H "Content-Type: application/json" -d '{"name":"page"}'`,
		[]string{"AUTHORIZATION=" + basicAuth(id, recovery)})
	wantStatus(t, status, 201, body)
	key := textAt(t, body, "api_key")

	status, body = f.post(t, "/api/auth/token", "token.request.json", basicAuth(id, key))
	f.shown(t, status, 200, body, "token.json")
	first := "Bearer " + textAt(t, body, "access_token")
	status, body = f.post(t, "/api/auth/refresh", "refresh.request.json", first)
	wantStatus(t, status, 200, body)
	for _, field := range fieldsOf(t, []byte(f.page["refresh.json"])) {
		if !regexp.MustCompile(regexp.QuoteMeta(field)).MatchString(joined(fieldsOf(t, body))) {
			t.Errorf("the answer to a refresh has no %s", field)
		}
	}
	second := "Bearer " + textAt(t, body, "access_token")
	status, body = f.post(t, "/api/auth/logout", "", first)
	wantStatus(t, status, 401, body) // the refresh has ended it
	status, body = f.post(t, "/api/auth/logout", "", second)
	f.shown(t, status, 200, body, "logout.json")
	status, body = f.post(t, "/api/auth/logout", "", second)
	wantStatus(t, status, 401, body)

	status, body = f.post(t, "/api/auth/recovery/request", "recovery-request.request.json", "")
	f.shown(t, status, 200, body, "recovery-request.json")
	code := f.mailed(t, codeForm)
	status, body = f.post(t, "/api/auth/recovery/verify", "recovery-verify.request.json", "", "123456", code)
	f.shown(t, status, 200, body, "recovery-verify.json")
	status, body = f.post(t, "/api/auth/recovery/verify", "recovery-verify.request.json", "", "123456", code)
	wantStatus(t, status, 409, body)
	if got := errorCode(t, body); got != "CODE_ALREADY_USED" {
		t.Errorf("the code again: got %s", got)
	}
}

func TestTheLinkOfFluxrasPage(t *testing.T) {
	f := fluxra{page: seedOf(t, "fluxra"), gw: gatewaytest.New(t)}
	status, body := f.post(t, "/api/auth/register", "register.request.json", "")
	wantStatus(t, status, 201, body)
	status, body = curl(t, "curl '"+f.gw.URL+"/api/auth/verify-email?token=evt_...'", nil, "evt_...", f.mailed(t, evtForm))
	f.shown(t, status, 200, body, "get-verify-email.json")
}

func joined(fields []string) string {
	text, err := json.Marshal(fields)
	if err != nil {
		return ""
	}
	return string(text)
}

// errorCode returns the code of a refusal, wherever it stands.
func errorCode(t *testing.T, body []byte) string {
	t.Helper()
	return regexp.MustCompile(`[A-Z]+(_[A-Z]+)+`).FindString(string(body))
}
