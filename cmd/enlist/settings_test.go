package main

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/embeddedgateway"
)

// written are settings in a file, and perhaps in the environment.
func written(t *testing.T, text string, env map[string]string) (*program, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "gateway.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return &program{gatewayFile: path, env: func(name string) string { return env[name] }, now: time.Now}, path
}

// said are the problems as they are printed, without the folder of the file.
func said(path string, problems []settingProblem) []string {
	var list []string
	for _, p := range problems {
		list = append(list, strings.ReplaceAll(p.Error(), path, "F"))
	}
	return list
}

func TestWrongSettingsNameThemselves(t *testing.T) {
	for text, want := range map[string]string{
		"":                                            "",
		`listen = "127.0.0.1:0"`:                      "",
		`lisen = "x"`:                                 `F:1: lisen: there is no such setting; did you mean listen?`,
		`max_body = "1MiB"`:                           `F:1: max_body: there is no such setting; did you mean upstream.max_body?`,
		`xyzzy = 1`:                                   `F:1: xyzzy: there is no such setting`,
		"[upstrem]\nurl = 1\ntimeout = 2":             `F:1: upstrem: there is no such setting; did you mean upstream?`,
		"[log]\n\n\nlevxl = \"info\"":                 `F:4: log.levxl: there is no such setting; did you mean log.level?`,
		`log.level = "loud"`:                          `F:1: log.level: want debug, info, warn or error, got "loud"`,
		`log = { level = "loud" }`:                    `F:1: log.level: want debug, info, warn or error, got "loud"`,
		`log = "info"`:                                `F:1: log: there is no such setting; did you mean *`,
		`listen = 8420`:                               `F:1: listen: want a text, in quotation marks, got a number`,
		`listen = "nonsense"`:                         `F:1: listen: "nonsense" is not an address to listen on: want HOST:PORT, such as 127.0.0.1:8420`,
		`listen = ["a"]`:                              `F:1: listen: want a text, in quotation marks, got a list`,
		`admin_listen = "8421"`:                       "",
		`admin_listen = "there"`:                      `F:1: admin_listen: "there" is not an address to listen on: want HOST:PORT or a port, such as 127.0.0.1:8421, or off`,
		`protocols = "lona"`:                          `F:1: protocols: want a list of texts such as ["a", "b"], got a text`,
		`protocols = ["nova"]`:                        `F:1: protocols: unknown protocol "nova": known are *`,
		`protocols = []`:                              `F:1: protocols: name at least one, or leave it out for all: *`,
		`trusted_proxies = ["everybody"]`:             `F:1: trusted_proxies: "everybody" is neither an address nor a network such as 10.0.0.0/8`,
		`trusted_proxies = ["::ffff:10.0.0.0/104"]`:   `F:1: trusted_proxies: "::ffff:10.0.0.0/104" is a network of IPv4 in the dress of IPv6: write it as one of IPv4, such as 10.0.0.0/8`,
		`public_url = "https://u:p@h"`:                `F:1: public_url: want a URL such as https://api.example.com, without a user, a query and a fragment`,
		`upstream.url = "127.0.0.1:3000"`:             `F:1: upstream.url: want a URL such as *`,
		`upstream.timeout = 30`:                       `F:1: upstream.timeout: want a time such as 30s or 90d, in quotation marks, got a number`,
		`upstream.timeout = "30"`:                     `F:1: upstream.timeout: want a time such as 30s, 10m, 12h or 90d, got "30"`,
		`upstream.timeout = "-1s"`:                    `F:1: upstream.timeout: want no negative time, got -1s`,
		`upstream.max_body = "10 apples"`:             `F:1: upstream.max_body: want a size such as 512KiB or 10MiB, got "10 apples"`,
		`limits.agent = "1000"`:                       `F:1: limits.agent: want how often in how long, such as 1000/1h or 100/1m, got "1000"`,
		`limits.agent = "9/48h"`:                      `F:1: limits.agent: want whole seconds behind the slash, from 1s to 24h, got "9/48h"`,
		`limits.key = "0/1h"`:                         `F:1: limits.key: want how often in how long, such as 1000/1h or 100/1m, got "0/1h"`,
		`chaos = "drop=20%,seed=7"`:                   "",
		`clock_offset = "-5m"`:                        "",
		`retention.tickets = "1m"`:                    `F:1: retention.tickets: want at least 10m, got 1m`,
		`tls.cert = "a"`:                              `F:1: tls.cert: it goes with tls.key, which is not set`,
		`server_key = "x"`:                            `F:1: server_key: a secret is not put into this file: name a file with it (server_key_file), or set ENLIST_SERVER_KEY`,
		`smtp.url = "smtp://u:p@h"`:                   `F:1: smtp.url: a secret is not put into this file: name a file with it (smtp.url_file), or set ENLIST_SMTP_URL`,
		`database = "mysql:x"`:                        `F:1: database: want sqlite:PATH, or postgres://USER@HOST/DATABASE without a password`,
		`database = "postgres://u:pw@h/d"`:            `F:1: database: a secret is not put into this file: give the URL in a file of its own (database_url_file) *`,
		`database = "postgres://u@h/d"`:               "",
		"[env]\nAGENT_TOKEN_TTL_DAYS = 3":             "",
		"[env]\nAGENT_TOKEN_TTL_DAY = 3":              `F:2: env.AGENT_TOKEN_TTL_DAY: there is no such setting; did you mean env.AGENT_TOKEN_TTL_DAYS?`,
		"[env]\nAGENT_TOKEN_TTL_DAYS = [3]":           `F:2: env.AGENT_TOKEN_TTL_DAYS: want a text, a number or true or false`,
		"[env]\nAGENT_REGISTRATION_SECRET=1":          `F:2: env.AGENT_REGISTRATION_SECRET: a secret is not put into this file: name a file with it (AGENT_REGISTRATION_SECRET_FILE), or set it in the environment`,
		"[rule]\npath = \"/a\"":                       `F:1: rule: there may be several: write [[rule]]*`,
		"[[rule]]\nscopes = [\"a\"]":                  `F:1: rule: it has no path, such as path = "/reports"`,
		"[[rule]]\npath = \"reports\"":                `F:2: rule.path: want a path that begins with /, got "reports"`,
		"[[rule]]\npath = \"/a\"\nscope = 1":          `F:3: rule.scope: there is no such setting; did you mean rule.scopes?`,
		`rule = [{ path = "/a", methods = ["get"] }]`: `F:1: rule.methods: want methods such as GET, got "get"`,
		"[[tls]]\ncert = \"a\"\nkey = \"b\"":          `F:1: tls: there is one: write [tls]`,
		"listen = \"a\nb\"":                           `*F:1:*`,
		"listen = \"127.0.0.1:0\"\nlisten = \"b:1\"":  `*F:2:*`,

		`upstream.origins = ["https://app.example.com/"]`:     `F:1: upstream.origins: write it as browsers send it, without a path: https://app.example.com`,
		`upstream.origins = ["*", "https://app.example.com"]`: `F:1: upstream.origins: "*" is all origins: leave the others out, or name those that are meant`,
		`upstream.origins = "https://app.example.com"`:        `F:1: upstream.origins: want a list of texts such as ["a", "b"], got a text`,
		`limits.open = 100`:   "",
		`limits.open = "100"`: `F:1: limits.open: want a whole number such as 256, without quotation marks, got a text`,
		`limits.open = -1`:    `F:1: limits.open: want a whole number such as 256, got "-1"`,
		`limits.open = 1.5`:   `F:1: limits.open: want a whole number such as 256, without quotation marks, got a number`,
	} {
		p, path := written(t, text, nil)
		_, problems := p.readSettings(nil)
		got := said(path, problems)
		if want == "" {
			if len(got) > 0 {
				t.Errorf("%q: got %q", text, got)
			}
			continue
		}
		pattern := "^" + strings.ReplaceAll(regexp.QuoteMeta(want), `\*`, ".*") + "$"
		if len(got) == 0 || !regexp.MustCompile(pattern).MatchString(got[0]) {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
		if len(got) > 1 {
			t.Errorf("%q: one mistake is several: %q", text, got)
		}
	}
}

func TestAllProblemsAreToldAtOnce(t *testing.T) {
	p, path := written(t, "lisen = 1\n[log]\nlevel = \"loud\"\nformat = \"xml\"\n[tls]\nkey = \"k\"\n", map[string]string{
		"ENLIST_LISTEN": "nonsense", "ENLIST_SERVER_KEY": "a", "ENLIST_SERVER_KEY_FILE": "b",
	})
	_, problems := p.readSettings(flagValues{"public-url": {"ftp://x"}})
	want := []string{
		`--public-url: want a URL such as https://api.example.com, without a user, a query and a fragment`,
		`ENLIST_LISTEN: "nonsense" is not an address to listen on: want HOST:PORT, such as 127.0.0.1:8420`,
		`ENLIST_SERVER_KEY: both ENLIST_SERVER_KEY and ENLIST_SERVER_KEY_FILE are set: leave one out`,
		`F:1: lisen: there is no such setting; did you mean listen?`,
		`F:3: log.level: want debug, info, warn or error, got "loud"`,
		`F:4: log.format: want text or json, got "xml"`,
		`F:6: tls.key: it goes with tls.cert, which is not set`,
	}
	if got := said(path, problems); !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestWhichSettingHolds(t *testing.T) {
	const file = "listen = \"127.0.0.1:1\"\nlog.level = \"warn\"\nserver_key_file = \"beside\"\ntrusted_proxies = [\"10.0.0.1\"]\n"
	p, path := written(t, file, map[string]string{
		"ENLIST_LISTEN": "127.0.0.1:2", "ENLIST_LOG_LEVEL": "error", "ENLIST_SERVER_KEY": "a-secret", "ENLIST_TRUSTED_PROXIES": "10.0.0.0/8, ::ffff:192.0.2.1",
	})
	s, problems := p.readSettings(flagValues{"listen": {"127.0.0.1:3"}})
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	got := map[string]string{}
	for _, e := range s.effective() {
		got[e.Setting] = e.Value + " from " + strings.ReplaceAll(e.From, path, "F")
	}
	for name, want := range map[string]string{
		"listen": "127.0.0.1:3 from --listen", "log.level": "error from ENLIST_LOG_LEVEL", "log.format": "text from default",
		"server_key": "set from ENLIST_SERVER_KEY", "server_key_file": " from default", "upstream.max_body": "10MiB from default",
		"trusted_proxies": "10.0.0.0/8, 192.0.2.1/32 from ENLIST_TRUSTED_PROXIES",
	} {
		if got[name] != want {
			t.Errorf("%s: got %q, want %q", name, got[name], want)
		}
	}
	if strings.Contains(fmt.Sprint(got), "a-secret") {
		t.Error("a secret is shown")
	}

	// A mistake in what does not hold is none.
	p, path = written(t, "listen = \"nonsense\"\n", map[string]string{"ENLIST_LISTEN": "127.0.0.1:2"})
	if _, problems := p.readSettings(nil); len(problems) > 0 {
		t.Errorf("got %q", said(path, problems))
	}
}

func TestPathsInTheFileAreBesideIt(t *testing.T) {
	p, path := written(t, "database = \"sqlite:db/gateway.db\"\nserver_key_file = \"key\"\nadmin_token_file = \"/run/token\"\n[env]\nAGENT_REGISTRATION_SECRET_FILE = \"lona\"\n", nil)
	s, problems := p.readSettings(nil)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	folder := filepath.Dir(path)
	for got, want := range map[string]string{
		s.Database: "sqlite:" + filepath.Join(folder, "db", "gateway.db"), s.ServerKeyFile: filepath.Join(folder, "key"),
		s.AdminTokenFile: "/run/token", s.Env["AGENT_REGISTRATION_SECRET_FILE"]: filepath.Join(folder, "lona"),
	} {
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

// TestTheSampleIsTheSettings: as it is printed it changes nothing; with every line
// taken out of its comment it sets every setting there is, and what it says are
// defaults are.
func TestTheSampleIsTheSettings(t *testing.T) {
	p, path := written(t, sampleSettings(), nil)
	s, problems := p.readSettings(nil)
	if len(problems) > 0 || len(s.from) > 0 || len(s.Rules) > 0 {
		t.Errorf("as it is: got %q, %v", said(path, problems), s.from)
	}
	text := regexp.MustCompile(`(?m)^# (\[\[rule\]\]|[a-zA-Z_0-9]+ = )`).ReplaceAllString(sampleSettings(), "$1")
	text = regexp.MustCompile(`(?m)^database_url_file = .*`).ReplaceAllString(text, "") // goes with no database
	p, path = written(t, text, nil)
	full, problems := p.readSettings(nil)
	if len(problems) > 0 {
		t.Errorf("with all of it: got %q", said(path, problems))
	}
	defaults := gatewayDefaults()
	for _, one := range gatewaySettingList() {
		_, set := full.from[one.name]
		switch {
		case one.secret == set && one.name != "database_url_file":
			t.Errorf("%s: is set: %t", one.name, set)
		case set && one.sample == "" && !reflect.DeepEqual(one.to(full), one.to(defaults)):
			t.Errorf("%s: the sample has %q, and that is not the default", one.name, show(one.to(full)))
		case !one.secret && one.says == "":
			t.Errorf("nobody says what %s is", one.name)
		}
	}
	for _, name := range embeddedgateway.Variables() {
		if _, set := full.Env[name]; !set && name != partnerSecret {
			t.Errorf("the sample does not have %s", name)
		}
	}
	if len(full.Rules) != 1 || len(embeddedgateway.Variables()) < 10 {
		t.Errorf("got %v, %v", full.Rules, embeddedgateway.Variables())
	}
}

// TestEverySettingGoesSomewhere: each has a place of its own, so that none is
// taken for another.
func TestEverySettingGoesSomewhere(t *testing.T) {
	s, seen := gatewayDefaults(), map[any]string{}
	for _, one := range gatewaySettingList() {
		for _, spelled := range []any{one.to(s), "name " + one.name, "flag " + one.flag, "env " + one.env} {
			if other := seen[spelled]; other != "" && spelled != "flag " && spelled != "env " {
				t.Errorf("%s and %s have the same: %v", one.name, other, spelled)
			}
			seen[spelled] = one.name
		}
		if one.secret && (one.flag != "" || one.env == "") {
			t.Errorf("%s is a secret: it has a flag, or no variable", one.name)
		}
	}
}
