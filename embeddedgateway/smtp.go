package embeddedgateway

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/mail"
	"net/netip"
	"net/textproto"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"

	gomail "github.com/wneessen/go-mail"
)

const (
	// SMTPForm says what the URL of a mail server looks like.
	SMTPForm = "smtp://USER:PASSWORD@HOST:587?from=Enlist%20%3Cnoreply%40example.com%3E (STARTTLS) or " +
		"smtps://USER:PASSWORD@HOST:465?from=… (TLS from the start), with everything percent-encoded that is not a letter or a digit"

	sendTime    = time.Minute      // a letter from the first byte to the last; less than lease
	answerTime  = 30 * time.Second // one answer of the mail server, unless the URL says otherwise
	minAnswer   = 100 * time.Millisecond
	startTLS    = "smtp"
	implicitTLS = "smtps"
)

// relay is a mail server that takes letters.
type relay struct {
	host           string
	port           int
	user, password string
	from           mail.Address
	tls            *tls.Config   // nil: none, which is for loopback only
	implicit       bool          // TLS from the start, not by STARTTLS
	patience       time.Duration // how long to wait for an answer
}

// errSMTP is what is wrong with the URL of a mail server. It never repeats any
// of it: a password that is not percent-encoded may turn up anywhere in it.
func errSMTP(why string) error {
	return errors.New("ENLIST_SMTP_URL: " + why + "; want " + SMTPForm)
}

// newRelay reads the URL of a mail server; "" is none.
func newRelay(text string, base *tls.Config) (*relay, error) {
	if text == "" {
		return nil, nil
	}
	u, err := url.Parse(text)
	if err != nil {
		return nil, errSMTP("it is not a URL; a password with other characters than letters and digits must be percent-encoded")
	}
	r := &relay{host: u.Hostname(), implicit: u.Scheme == implicitTLS, patience: answerTime}
	switch {
	case u.Scheme != startTLS && u.Scheme != implicitTLS:
		return nil, errSMTP("it begins with neither smtp:// nor smtps://")
	case r.host == "" || u.Opaque != "":
		return nil, errSMTP("it names no host")
	case u.Path != "" && u.Path != "/" || u.Fragment != "":
		return nil, errSMTP("there is a path or a fragment in it; write / and # in a password as %2F and %23")
	}
	if r.port, err = smtpPort(u); err != nil {
		return nil, err
	}
	if u.User != nil {
		r.user = u.User.Username()
		r.password, _ = u.User.Password()
		if r.user == "" || r.password == "" {
			return nil, errSMTP("it has a user without a password, or the other way round; leave both out where none are wanted")
		}
	}
	if err := r.options(u, base); err != nil {
		return nil, err
	}
	return r, nil
}

func smtpPort(u *url.URL) (int, error) {
	switch {
	case u.Port() == "" && u.Scheme == implicitTLS:
		return 465, nil
	case u.Port() == "":
		return 587, nil
	}
	port, err := strconv.Atoi(u.Port())
	if err != nil || port < 1 || port > 65535 {
		return 0, errSMTP("its port is not a number from 1 to 65535")
	}
	return port, nil
}

// options reads what is behind the question mark.
func (r *relay) options(u *url.URL, base *tls.Config) error {
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return errSMTP("what is behind its question mark cannot be read; write ? in a password as %3F")
	}
	for name, values := range query {
		if name != "from" && name != "tls" && name != "timeout" || len(values) != 1 {
			return errSMTP("behind its question mark may stand from, tls and timeout, each once")
		}
	}
	from, err := mail.ParseAddress(query.Get("from"))
	if err != nil || strings.ContainsFunc(from.Name+from.Address, unprintable) {
		return errSMTP("from is missing or not a mail address; write + in one as %2B")
	}
	r.from = *from
	if text := query.Get("timeout"); text != "" {
		if r.patience, err = time.ParseDuration(text); err != nil || r.patience < minAnswer || r.patience > sendTime {
			return errSMTP("timeout is not a time from 100ms to 1m")
		}
	}
	switch query.Get("tls") {
	case "":
		r.tls, err = smtpTLS(r.host, base)
		return err
	case "none":
		if r.implicit || !isLoopback(r.host) {
			return errSMTP("tls=none is for smtp:// and a mail server on this machine only: mail that can be read on its way is no proof of an address")
		}
		return nil
	}
	return errSMTP("tls may be none, or be left out")
}

// smtpTLS is how the mail server must prove who it is.
func smtpTLS(host string, base *tls.Config) (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if base != nil {
		c = base.Clone()
		c.MinVersion = max(c.MinVersion, tls.VersionTLS12)
	}
	if c.InsecureSkipVerify {
		return nil, errors.New("embeddedgateway: Config.SMTPTLS does not verify certificates: give it the RootCAs of the mail server's instead")
	}
	c.ServerName = host
	return c, nil
}

func isLoopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.IsLoopback()
}

func isASCII(s string) bool {
	return !strings.ContainsFunc(s, func(c rune) bool { return c > unicode.MaxASCII })
}

// unprintable reports whether a character could end a line, or be taken for
// something that it is not.
func unprintable(r rune) bool { return !strconv.IsPrint(r) }

// sendError is why a letter was not sent. It holds no words of the mail server,
// who may repeat the letter or its address, and nothing of the letter.
type sendError struct {
	why       string
	refused   bool // for good: there is no use in another try
	unusable  bool // the mail server cannot be used at all, whatever the letter
	delivered bool // it went out; what failed came after
}

// Error implements error.
func (e *sendError) Error() string { return e.why }

// message makes a mail of a letter. Its Message-ID is the same at every try, so
// that one that was sent twice can be told.
func (r *relay) message(name string, date time.Time, l letter) (*gomail.Msg, error) {
	to, err := mail.ParseAddress(l.To)
	if err != nil || to.Address != l.To || strings.ContainsFunc(l.To, unprintable) {
		return nil, &sendError{why: "its address is not a plain mail address", refused: true}
	}
	m := gomail.NewMsg(gomail.WithNoDefaultUserAgent())
	m.FromMailAddress(&r.from)
	m.ToMailAddress(to)
	m.Subject(strings.Map(func(c rune) rune {
		if unprintable(c) {
			return ' '
		}
		return c
	}, l.Subject))
	m.SetDateWithValue(date)
	m.SetMessageIDWithValue(name + "@" + r.domain())
	m.SetGenHeader("Auto-Submitted", "auto-generated") // RFC 3834: no out-of-office notes
	m.SetBodyString(gomail.TypeTextPlain, l.Text)
	if l.HTML != "" {
		m.AddAlternativeString(gomail.TypeTextHTML, l.HTML)
	}
	return m, nil
}

// domain is what is behind the @ of the sender.
func (r *relay) domain() string {
	return r.from.Address[strings.LastIndexByte(r.from.Address, '@')+1:]
}

// send hands a letter to the mail server. Its error is a *sendError.
func (r *relay) send(ctx context.Context, name string, date time.Time, l letter) error {
	message, err := r.message(name, date, l)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, sendTime)
	defer cancel()
	line := &line{relay: r}
	defer context.AfterFunc(ctx, line.hangUp)()
	defer line.hangUp()
	client, err := r.client(line, l.To)
	if err != nil {
		return &sendError{why: "the mail server's settings do not work together", unusable: true}
	}
	server, err := client.DialToSMTPClientWithContext(ctx)
	if err != nil {
		return r.unusable(ctx, err)
	}
	if err := client.SendWithSMTPClient(server, message); err != nil {
		return failed(message, err)
	}
	_ = client.CloseWithSMTPClient(server) // the letter has been taken
	return nil
}

// client is made for each letter: it holds one connection.
func (r *relay) client(l *line, to string) (*gomail.Client, error) {
	options := []gomail.Option{
		gomail.WithPort(r.port), gomail.WithTimeout(r.patience), gomail.WithHELO(r.domain()),
		gomail.WithDialContextFunc(l.dial), gomail.WithoutNoop(), gomail.WithTLSPolicy(gomail.TLSMandatory),
	}
	switch {
	case r.tls == nil:
		options = append(options, gomail.WithTLSPolicy(gomail.NoTLS))
	case r.implicit:
		options = append(options, gomail.WithSSL(), gomail.WithTLSConfig(r.tls))
	default:
		options = append(options, gomail.WithTLSConfig(r.tls))
	}
	if isASCII(r.from.Address + to) {
		// Mail that asks for it is returned by every server on its way that lacks it.
		options = append(options, gomail.WithoutSMTPUTF8())
	}
	if r.user != "" {
		options = append(options, gomail.WithUsername(r.user), gomail.WithPassword(r.password),
			gomail.WithOpportunisticSMTPAuth( // the best of those that the server knows
				gomail.SMTPAuthSCRAMSHA256PLUS, gomail.SMTPAuthSCRAMSHA256,
				gomail.SMTPAuthSCRAMSHA1PLUS, gomail.SMTPAuthSCRAMSHA1,
				gomail.SMTPAuthCramMD5, gomail.SMTPAuthPlain, gomail.SMTPAuthLogin))
	}
	return gomail.NewClient(r.host, options...)
}

// line is the connection to the mail server. The library leaves one open where
// it was refused, and does not watch the context, so it is closed here.
type line struct {
	relay *relay

	mu   sync.Mutex
	conn net.Conn
	over bool
}

// dial goes by the host of its own: the library's address has no brackets around
// an IPv6 one.
func (l *line) dial(ctx context.Context, network, _ string) (net.Conn, error) {
	addr := net.JoinHostPort(l.relay.host, strconv.Itoa(l.relay.port))
	conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	l.conn = conn
	over := l.over
	l.mu.Unlock()
	if over {
		l.hangUp()
		return nil, context.Canceled
	}
	if !l.relay.implicit {
		return conn, nil
	}
	secure := tls.Client(conn, l.relay.tls)
	if err := secure.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	return secure, nil
}

func (l *line) hangUp() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.over = true
	if l.conn != nil {
		_ = l.conn.Close()
	}
}

// unusable explains why the mail server could not be used.
func (r *relay) unusable(ctx context.Context, err error) error {
	why := err.Error()
	var answer *textproto.Error
	var slow net.Error
	switch {
	case errors.As(err, &answer) && answer.Code/10 == 53:
		why = fmt.Sprintf("the mail server refuses the user and password of ENLIST_SMTP_URL (%d)", answer.Code)
	case errors.As(err, &answer):
		why = fmt.Sprintf("the mail server answered %d before any letter", answer.Code)
	case ctx.Err() != nil || errors.As(err, &slow) && slow.Timeout():
		why = "the mail server did not answer in time"
	case r.password != "" && strings.Contains(why, r.password):
		why = "the mail server could not be logged in to"
	}
	return &sendError{why: why, unusable: true}
}

// failed explains why a letter was not taken.
func failed(m *gomail.Msg, err error) error {
	var e *gomail.SendError
	if !errors.As(err, &e) {
		return &sendError{why: "the mail server did not take it", delivered: m.IsDelivered()}
	}
	why := e.Reason.String() + " failed"
	if e.ErrorCode() != 0 {
		why = strings.TrimSpace(fmt.Sprintf("%s: the mail server answered %d %s", why, e.ErrorCode(), e.EnhancedStatusCode()))
	}
	return &sendError{
		why:       why,
		refused:   e.Reason == gomail.ErrSMTPRcptTo && e.ErrorCode() >= 500,
		delivered: m.IsDelivered(),
	}
}
