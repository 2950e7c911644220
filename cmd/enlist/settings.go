package main

import (
	"net/netip"
	"net/url"
	"time"

	"github.com/enlist-mcp/enlist/embeddedgateway"
)

// gatewaySettings is everything that an operator can set of `enlist gateway`, by
// flags, the environment and one file. gatewaySettingList says where each comes
// from; nothing else reads any of them.
type gatewaySettings struct {
	Listen, AdminListen string
	Database, PublicURL string
	Protocols           []string
	TrustedProxies      []netip.Prefix

	Upstream          *url.URL
	UpstreamCAFile    string
	UpstreamPreflight bool
	UpstreamOrigins   []string
	UpstreamTimeout   time.Duration
	UpstreamMaxBody   byteSize
	Rules             []embeddedgateway.Rule
	AgentLimit        embeddedgateway.Rate
	KeyLimit          embeddedgateway.Rate
	OpenLimit         int

	TLSCert, TLSKey           string
	AdminTLSCert, AdminTLSKey string

	SMTPURL, SMTPURLFile, SMTPCAFile string
	ServerKey, ServerKeyFile         string
	AdminToken, AdminTokenFile       string
	AdminHosts                       []string
	DatabaseURLFile                  string

	LogFormat, LogLevel, LogAccess string

	RetainAudit, RetainTickets time.Duration

	DrainDelay, DrainTimeout time.Duration

	Chaos       string
	ClockOffset time.Duration

	// Env is what the table [env] has of the protocols' own variables.
	Env map[string]string

	file string            // the configuration file; "": none
	from map[string]origin // where a setting is from, by its name; the rest are defaults
}

// byteSize is a number of bytes.
type byteSize int64

// setting is one setting: how it is spelled in each place, and where its value
// goes.
type setting struct {
	name   string // in the file, with its tables: "upstream.url"
	flag   string // without dashes; "": none
	env    string // "": none
	path   bool   // it names a file: in the configuration file, beside that
	secret bool   // it has no flag, is not in the file, and its value is never shown
	signed bool   // a time that may be negative
	says   string // what it is, for people
	sample string // its value in the sample file, in TOML; "": what it defaults to
	bare   string // what its flag means without a value; "": it wants one

	to    func(*gatewaySettings) any // where its value goes
	check func(*gatewaySettings) error
}

// gatewayDefaults are the values of what nobody has set.
func gatewayDefaults() *gatewaySettings {
	return &gatewaySettings{
		Listen: defaultListen, AdminListen: defaultAdminListen,
		UpstreamTimeout: 30 * time.Second, UpstreamMaxBody: 10 << 20, OpenLimit: 256,
		LogFormat: "text", LogLevel: "info", LogAccess: embeddedgateway.AccessErrors,
		RetainAudit: 90 * 24 * time.Hour, RetainTickets: time.Hour,
		DrainTimeout: embeddedgateway.DefaultDrainTimeout,
		Env:          map[string]string{}, from: map[string]origin{},
	}
}

// gatewaySettingList is every setting, in the order of the sample file.
func gatewaySettingList() []setting {
	var all []setting
	for _, group := range [][]setting{mainSettings(), frontSettings(), tlsSettings(), secretSettings(), operationSettings()} {
		all = append(all, group...)
	}
	return all
}

func mainSettings() []setting {
	return []setting{
		{
			name: "listen", flag: "listen", env: "ENLIST_LISTEN",
			says:  "the address to listen on",
			to:    func(s *gatewaySettings) any { return &s.Listen },
			check: func(s *gatewaySettings) error { return checkAddress(s.Listen) },
		}, {
			name: "admin_listen", flag: "admin-listen", env: "ENLIST_ADMIN_LISTEN",
			says: "the address of the operator's page, metrics and outbox; a bare port means loopback, off means none",
			to:   func(s *gatewaySettings) any { return &s.AdminListen },
			check: func(s *gatewaySettings) (err error) {
				s.AdminListen, err = adminAddress(s.AdminListen)
				return err
			},
		}, {
			name: "admin_hosts", flag: "admin-host", env: "ENLIST_ADMIN_HOSTS", sample: `["gateway.internal"]`,
			says: "names that the operator's page is reached by, beside its address",
			to:   func(s *gatewaySettings) any { return &s.AdminHosts },
		}, {
			name: "database", flag: "database", env: "ENLIST_DATABASE_URL", sample: `"sqlite:gateway.db"`,
			says:  "the database: sqlite:PATH, or postgres://USER@HOST/DATABASE for several gateways side by side",
			to:    func(s *gatewaySettings) any { return &s.Database },
			check: func(s *gatewaySettings) error { return checkDatabase(s.Database, s.from["database"].kind) },
		}, {
			name: "public_url", flag: "public-url", env: "ENLIST_PUBLIC_URL", sample: `"https://gateway.example.com"`,
			says:  "where people and agents reach the gateway: links in mail and the issuer of tokens begin with it",
			to:    func(s *gatewaySettings) any { return &s.PublicURL },
			check: func(s *gatewaySettings) error { return checkBaseURL(s.PublicURL) },
		}, {
			name: "protocols", flag: "protocols", sample: `["agentdoor", "lona"]`,
			says:  "the protocols to serve; left out: all",
			to:    func(s *gatewaySettings) any { return &s.Protocols },
			check: func(s *gatewaySettings) error { return checkProtocols(s.Protocols) },
		}, {
			name: "trusted_proxies", env: "ENLIST_TRUSTED_PROXIES", sample: `["10.0.0.0/8"]`,
			says: "the proxies whose X-Forwarded-For is believed: addresses and networks",
			to:   func(s *gatewaySettings) any { return &s.TrustedProxies },
		},
	}
}

func frontSettings() []setting {
	return []setting{
		{
			name: "upstream.url", flag: "upstream", env: "ENLIST_UPSTREAM", sample: `"http://127.0.0.1:3000"`,
			says: "the API behind the gateway, to which only registered agents get through",
			to:   func(s *gatewaySettings) any { return &s.Upstream },
		}, {
			name: "upstream.ca_file", env: "ENLIST_UPSTREAM_CA_FILE", path: true, sample: `"api-ca.pem"`,
			says: "certificates to trust for an API behind https, beside the system's",
			to:   func(s *gatewaySettings) any { return &s.UpstreamCAFile },
		}, {
			name: "upstream.preflight",
			says: "pass preflights of browsers (CORS), which never have a credential, on to the API, which answers them",
			to:   func(s *gatewaySettings) any { return &s.UpstreamPreflight },
		}, {
			name: "upstream.origins", sample: `["https://app.example.com"]`,
			says: "the origins whose pages may read refusals of the gateway, too; * alone: all",
			to:   func(s *gatewaySettings) any { return &s.UpstreamOrigins },
			check: func(s *gatewaySettings) error {
				err := embeddedgateway.CheckOrigins(s.UpstreamOrigins)
				if err != nil {
					s.UpstreamOrigins = nil // it is told once
				}
				return err
			},
		}, {
			name: "upstream.timeout",
			says: "how long the API may take until its answer begins",
			to:   func(s *gatewaySettings) any { return &s.UpstreamTimeout },
		}, {
			name: "upstream.max_body",
			says: "the largest body of a request to the API",
			to:   func(s *gatewaySettings) any { return &s.UpstreamMaxBody },
		}, {
			name: "limits.agent", flag: "limit-agent", sample: `"1000/1h"`,
			says: "how often one agent may ask the API, over all replicas, such as 1000/1h",
			to:   func(s *gatewaySettings) any { return &s.AgentLimit },
		}, {
			name: "limits.key", flag: "limit-key", sample: `"100/1m"`,
			says: "how often one key may ask the API, over all replicas, such as 100/1m",
			to:   func(s *gatewaySettings) any { return &s.KeyLimit },
		}, {
			name: "limits.open", flag: "limit-open",
			says: "how many requests to the API one agent may have under way at once at each replica, WebSockets and streams among them; 0: any number",
			to:   func(s *gatewaySettings) any { return &s.OpenLimit },
		},
	}
}

func tlsSettings() []setting {
	return []setting{
		{
			name: "tls.cert", flag: "tls-cert", env: "ENLIST_GATEWAY_TLS_CERT", path: true, sample: `"fullchain.pem"`,
			says: "serve TLS with the certificate chain in this file; it is read again when it changes",
			to:   func(s *gatewaySettings) any { return &s.TLSCert },
		}, {
			name: "tls.key", flag: "tls-key", env: "ENLIST_GATEWAY_TLS_KEY", path: true, sample: `"privkey.pem"`,
			says: "the file with its key, which nobody else may read",
			to:   func(s *gatewaySettings) any { return &s.TLSKey },
		}, {
			name: "admin_tls.cert", env: "ENLIST_ADMIN_TLS_CERT", path: true, sample: `"admin-fullchain.pem"`,
			says: "serve the operator's page by TLS, with the certificate chain in this file; it is read again when it changes",
			to:   func(s *gatewaySettings) any { return &s.AdminTLSCert },
		}, {
			name: "admin_tls.key", env: "ENLIST_ADMIN_TLS_KEY", path: true, sample: `"admin-privkey.pem"`,
			says: "the file with its key, which nobody else may read",
			to:   func(s *gatewaySettings) any { return &s.AdminTLSKey },
		},
	}
}

func secretSettings() []setting {
	return []setting{
		{
			name: "server_key", env: "ENLIST_SERVER_KEY", secret: true,
			to: func(s *gatewaySettings) any { return &s.ServerKey },
		}, {
			name: "server_key_file", env: "ENLIST_SERVER_KEY_FILE", path: true, sample: `"server-key"`,
			says: "what codes, mail and signing keys are sealed under: 32 bytes in base64 or hex, 0600; left out: one is made beside a SQLite database",
			to:   func(s *gatewaySettings) any { return &s.ServerKeyFile },
		}, {
			name: "admin_token", env: "ENLIST_ADMIN_TOKEN", secret: true,
			to: func(s *gatewaySettings) any { return &s.AdminToken },
		}, {
			name: "admin_token_file", env: "ENLIST_ADMIN_TOKEN_FILE", path: true, sample: `"admin-token"`,
			says: "the operator's token, 0600; left out: one is made beside a SQLite database",
			to:   func(s *gatewaySettings) any { return &s.AdminTokenFile },
		}, {
			name: "database_url_file", path: true, sample: `"database-url"`,
			says: "a file, 0600, with the URL of the database where that holds a password",
			to:   func(s *gatewaySettings) any { return &s.DatabaseURLFile },
		}, {
			name: "smtp.url", env: "ENLIST_SMTP_URL", secret: true,
			to: func(s *gatewaySettings) any { return &s.SMTPURL },
		}, {
			name: "smtp.url_file", path: true, sample: `"smtp-url"`,
			says: "a file, 0600, with the URL of the mail server; left out: mail waits in the outbox",
			to:   func(s *gatewaySettings) any { return &s.SMTPURLFile },
		}, {
			name: "smtp.ca_file", env: "ENLIST_SMTP_CA_FILE", path: true, sample: `"mail-ca.pem"`,
			says: "certificates to trust for the mail server beside the system's",
			to:   func(s *gatewaySettings) any { return &s.SMTPCAFile },
		},
	}
}

func operationSettings() []setting {
	return []setting{
		{
			name: "log.format", flag: "log-format", env: "ENLIST_LOG_FORMAT",
			says:  "text or json",
			to:    func(s *gatewaySettings) any { return &s.LogFormat },
			check: func(s *gatewaySettings) error { return oneOf(s.LogFormat, "text", logJSON) },
		}, {
			name: "log.level", flag: "log-level", env: "ENLIST_LOG_LEVEL",
			says:  "debug, info, warn or error",
			to:    func(s *gatewaySettings) any { return &s.LogLevel },
			check: func(s *gatewaySettings) error { return oneOf(s.LogLevel, "debug", "info", "warn", "error") },
		}, {
			name: "log.access",
			says: "which requests get a line: all, errors (answers of 500 and above) or off",
			to:   func(s *gatewaySettings) any { return &s.LogAccess },
			check: func(s *gatewaySettings) error {
				return oneOf(s.LogAccess, embeddedgateway.AccessAll, embeddedgateway.AccessErrors, embeddedgateway.AccessOff)
			},
		}, {
			name: "retention.audit",
			says: "how long the audit trail is kept; 0s: for ever",
			to:   func(s *gatewaySettings) any { return &s.RetainAudit },
		}, {
			name: "retention.tickets",
			says: "how long what has expired (invites, challenges, codes) is still known to have done so",
			to:   func(s *gatewaySettings) any { return &s.RetainTickets },
			// The clocks of replicas differ: what one takes for over must
			// not be forgotten while another would still take it.
			check: func(s *gatewaySettings) error { return atLeast(s.RetainTickets, 10*time.Minute) },
		}, {
			name: "drain.delay",
			says: "at the end: how long to go on while /readyz says no, so that a load balancer sees it",
			to:   func(s *gatewaySettings) any { return &s.DrainDelay },
		}, {
			name: "drain.timeout",
			says: "at the end: how long requests that are under way may take",
			to:   func(s *gatewaySettings) any { return &s.DrainTimeout },
			check: func(s *gatewaySettings) error {
				return atLeast(s.DrainTimeout, time.Second)
			},
		}, {
			name: "chaos", flag: "chaos", bare: plainChaos, sample: `"reject=5%,delay=10%:2s,limit=5%,drop=5%,seed=7"`,
			says: "rehearsal for those who write agents: fail on purpose, by these faults; on: some of each",
			to:   func(s *gatewaySettings) any { return &s.Chaos },
			check: func(s *gatewaySettings) error {
				_, err := parseChaos(s.Chaos)
				return err
			},
		}, {
			name: "clock_offset", flag: "clock-offset", signed: true, sample: `"-5m"`,
			says: "rehearsal: the gateway's clock is wrong by so much",
			to:   func(s *gatewaySettings) any { return &s.ClockOffset },
		},
	}
}
