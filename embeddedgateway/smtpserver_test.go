package embeddedgateway_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/md5"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"io"
	"log"
	"math/big"
	"net"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"github.com/enlist-mcp/enlist/embeddedgateway"
	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest"
)

const (
	mailUser     = "enlist@example.com"
	mailPassword = "p@ss/w?rd#%:& of the mail server"
)

// received is a mail that the server took.
type received struct {
	from, to string
	data     []byte
	secure   bool
	mech     string // how the client logged in
	utf8     bool   // it asked for SMTPUTF8
}

// mailServer is a real SMTP server on a loopback port.
type mailServer struct {
	addr  string
	roots *x509.CertPool
	took  chan received // every mail

	mu      sync.Mutex
	refuse  []error       // what RCPT is answered with, one after the other; then nil
	atData  chan struct{} // DATA waits for it; nil: it does not
	reached chan struct{} // has something when a DATA waits
	traffic bytes.Buffer  // all that went over the wire, decrypted
}

// Write keeps what goes over the wire.
func (s *mailServer) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.traffic.Write(b)
}

func (s *mailServer) said() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.traffic.String()
}

// all returns the mails that were taken so far.
func (s *mailServer) all() (list []received) {
	for {
		select {
		case m := <-s.took:
			list = append(list, m)
		default:
			return list
		}
	}
}

// serverOptions say how a mailServer differs from a good one.
type serverOptions struct {
	implicit, noTLS bool
	host            string // that the certificate is for; "": 127.0.0.1
	maxTLS          uint16
	mechs           []string // none: PLAIN
	anybody         bool     // nobody logs in
	refuse          []error
	hold            chan struct{}
}

func newMailServer(t *testing.T, o serverOptions) *mailServer {
	t.Helper()
	s := &mailServer{took: make(chan received, 100), refuse: o.refuse, atData: o.hold, reached: make(chan struct{}, 100)}
	certificate, roots := newCertificate(t, o.host)
	s.roots = roots
	config := &tls.Config{Certificates: []tls.Certificate{certificate}, MaxVersion: o.maxTLS}
	server := smtp.NewServer(smtp.BackendFunc(func(c *smtp.Conn) (smtp.Session, error) {
		base := &mailSession{server: s, conn: c, mechs: o.mechs}
		if o.anybody {
			return base, nil
		}
		if len(base.mechs) == 0 {
			base.mechs = []string{sasl.Plain}
		}
		return &authSession{base}, nil
	}))
	server.Domain = "mail.example.com"
	server.Debug = s
	server.EnableSMTPUTF8 = true
	server.ErrorLog = log.New(io.Discard, "", 0)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.addr = ln.Addr().String()
	switch {
	case o.implicit:
		ln = tls.NewListener(ln, config)
	case !o.noTLS:
		server.TLSConfig = config
	}
	done := make(chan error, 1)
	go func() { done <- server.Serve(ln) }()
	t.Cleanup(func() {
		_ = server.Close()
		<-done
	})
	return s
}

// url is the server's URL for a gateway.
func (s *mailServer) url(scheme, password string, more ...string) string {
	u := url.URL{
		Scheme: scheme, User: url.UserPassword(mailUser, password), Host: s.addr,
		RawQuery: strings.Join(append([]string{"from=" + url.QueryEscape("Enlist é <noreply@example.com>")}, more...), "&"),
	}
	return u.String()
}

// mails has a gateway send its letters to the server.
func (s *mailServer) mails(url string) gatewaytest.Option {
	return gatewaytest.Config(func(c *embeddedgateway.Config) {
		c.SMTPURL = url
		c.SMTPTLS = &tls.Config{RootCAs: s.roots, MinVersion: tls.VersionTLS10}
	})
}

// mailSession is one connection.
type mailSession struct {
	server *mailServer
	conn   *smtp.Conn
	mechs  []string
	mail   received
	in     string // the mechanism by which the client logged in
}

// authSession is one where the client must log in.
type authSession struct{ *mailSession }

// AuthMechanisms implements smtp.AuthSession.
func (s *authSession) AuthMechanisms() []string { return s.mechs }

// Auth implements smtp.AuthSession.
func (s *authSession) Auth(mech string) (sasl.Server, error) {
	check := func(user, password string) error {
		if user != mailUser || password != mailPassword {
			return smtp.ErrAuthFailed
		}
		s.in = mech
		return nil
	}
	switch mech {
	case sasl.Plain:
		return sasl.NewPlainServer(func(_, user, password string) error { return check(user, password) }), nil
	case sasl.Login:
		return &loginServer{check: check}, nil
	case "CRAM-MD5":
		return &cramServer{done: func() { s.in = mech }}, nil
	}
	return nil, smtp.ErrAuthUnknownMechanism
}

// Mail implements smtp.Session.
func (s *authSession) Mail(from string, o *smtp.MailOptions) error {
	if s.in == "" {
		return smtp.ErrAuthRequired
	}
	return s.mailSession.Mail(from, o)
}

// Reset implements smtp.Session.
func (s *mailSession) Reset() { s.mail = received{} }

// Logout implements smtp.Session.
func (s *mailSession) Logout() error { return nil }

// Mail implements smtp.Session.
func (s *mailSession) Mail(from string, o *smtp.MailOptions) error {
	_, secure := s.conn.TLSConnectionState()
	s.mail = received{from: from, secure: secure, mech: s.in, utf8: o.UTF8}
	return nil
}

// Rcpt implements smtp.Session.
func (s *mailSession) Rcpt(to string, _ *smtp.RcptOptions) error {
	s.server.mu.Lock()
	defer s.server.mu.Unlock()
	s.mail.to = to
	if len(s.server.refuse) == 0 {
		return nil
	}
	err := s.server.refuse[0]
	s.server.refuse = s.server.refuse[1:]
	return err
}

// Data implements smtp.Session.
func (s *mailSession) Data(r io.Reader) (err error) {
	if s.server.atData != nil {
		s.server.reached <- struct{}{}
		<-s.server.atData
	}
	if s.mail.data, err = io.ReadAll(r); err != nil {
		return err
	}
	s.server.took <- s.mail
	return nil
}

// loginServer is the LOGIN mechanism.
type loginServer struct {
	check func(user, password string) error
	step  int
	user  string
}

// Next implements sasl.Server.
func (l *loginServer) Next(response []byte) (challenge []byte, done bool, err error) {
	l.step++
	switch {
	case l.step == 1 && response == nil:
		return []byte("Username:"), false, nil
	case l.user == "":
		l.user = string(response)
		return []byte("Password:"), false, nil
	}
	return nil, true, l.check(l.user, string(response))
}

// cramServer is the CRAM-MD5 mechanism (RFC 2195).
type cramServer struct {
	done func()
	step int
}

// Next implements sasl.Server.
func (c *cramServer) Next(response []byte) (challenge []byte, done bool, err error) {
	const said = "<1896.697170952@mail.example.com>"
	if c.step++; c.step == 1 {
		return []byte(said), false, nil
	}
	h := hmac.New(md5.New, []byte(mailPassword))
	h.Write([]byte(said))
	if string(response) != mailUser+" "+hex.EncodeToString(h.Sum(nil)) {
		return nil, true, smtp.ErrAuthFailed
	}
	c.done()
	return nil, true, nil
}

// newCertificate makes a certificate that is its own authority.
func newCertificate(t *testing.T, host string) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "mail"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	if host != "" {
		template.DNSNames = []string{host}
	} else {
		template.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(certificate)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, roots
}

// smtpError is an answer of a mail server, which repeats the address as real
// ones do.
func smtpError(code int, enhanced smtp.EnhancedCode) error {
	return &smtp.SMTPError{Code: code, EnhancedCode: enhanced, Message: "<" + reader + "> is not known here"}
}
