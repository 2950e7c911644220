package embeddedgateway_test

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"mime/multipart"
	"net"
	"net/mail"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-smtp"

	"github.com/enlist-mcp/enlist/embeddedgateway"
	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest"
)

const (
	reader = "ada.lovelace@example.org"
	proof  = "evt_0a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8f9"
	link   = "https://gateway.example.com/api/auth/verify-email?token=" + proof + "&x=%3D"
)

func letterTo(gw *gatewaytest.Gateway, to string) embeddedgateway.Letter {
	return embeddedgateway.Letter{
		To:      to,
		Subject: "Bestätige deine Adresse – Enlist",
		Text:    "Grüße!\n\nOpen this link:\n" + link + "\n",
		HTML:    `<p>Grüße! <a href="` + strings.ReplaceAll(link, "&", "&amp;") + `">Open this link</a></p>`,
		Expires: gw.Clock.Now().Add(24 * time.Hour),
	}
}

// journal is a log that is kept.
type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// Write implements io.Writer.
func (j *journal) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(b)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}

func (j *journal) option() gatewaytest.Option {
	return gatewaytest.Logger(slog.New(slog.NewTextHandler(j, &slog.HandlerOptions{Level: slog.LevelDebug})))
}

// tells fails the test if the log says whose a letter was, or what was in it.
func (j *journal) tells(t *testing.T, letter string) {
	t.Helper()
	text := j.String()
	if !strings.Contains(text, letter) {
		t.Errorf("the log does not name the letter %s:\n%s", letter, text)
	}
	for _, secret := range []string{reader, "lovelace", proof, "evt_", "Best", mailPassword, url.QueryEscape(mailPassword), url.PathEscape(mailPassword), "smtp://", "smtps://"} {
		if strings.Contains(text, secret) {
			t.Errorf("the log says %q:\n%s", secret, text)
		}
	}
}

// parts returns the parts of a mail by their type.
func parts(t *testing.T, data []byte) (*mail.Message, map[string]string) {
	t.Helper()
	m, err := mail.ReadMessage(bytes.NewReader(data))
	if err != nil {
		t.Fatalf("read the mail: %v", err)
	}
	kind, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/alternative" {
		t.Fatalf("got type %q, %v, want multipart/alternative", kind, err)
	}
	texts := map[string]string{}
	r := multipart.NewReader(m.Body, params["boundary"])
	for {
		part, err := r.NextPart()
		if errors.Is(err, io.EOF) {
			return m, texts
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(part)
		if err != nil {
			t.Fatal(err)
		}
		texts[part.Header.Get("Content-Type")] = strings.ReplaceAll(string(text), "\r\n", "\n")
	}
}

func TestMailGoesOut(t *testing.T) {
	for _, tt := range []struct {
		name, scheme, mech string
		more               []string
		server             serverOptions
	}{
		{name: "by STARTTLS", scheme: "smtp", mech: "PLAIN"},
		{name: "by TLS from the start", scheme: "smtps", mech: "PLAIN", server: serverOptions{implicit: true}},
		{name: "logged in by LOGIN", scheme: "smtp", mech: "LOGIN", server: serverOptions{mechs: []string{"LOGIN"}}},
		{name: "logged in by LOGIN, TLS from the start", scheme: "smtps", mech: "LOGIN", server: serverOptions{implicit: true, mechs: []string{"LOGIN"}}},
		{name: "logged in by CRAM-MD5", scheme: "smtp", mech: "CRAM-MD5", server: serverOptions{mechs: []string{"PLAIN", "CRAM-MD5"}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newMailServer(t, tt.server)
			var log journal
			gw := gatewaytest.New(t, s.mails(s.url(tt.scheme, mailPassword, tt.more...)), log.option())
			m := embeddedgateway.MailerOf(gw.Embedded())
			if !m.Delivers() {
				t.Error("the gateway says that it sends no mail")
			}
			name := m.Store(t, letterTo(gw, reader))
			m.Wake()
			got := <-s.took
			if got.from != "noreply@example.com" || got.to != reader || !got.secure || got.utf8 || got.mech != tt.mech {
				t.Errorf("got a mail from %s to %s, encrypted %t, SMTPUTF8 %t, logged in by %q", got.from, got.to, got.secure, got.utf8, got.mech)
			}
			wholeMail(t, gw, name, got.data)
			m.Deliver(t) // waits for the other one
			if left := gw.Outbox(t); len(left) != 0 {
				t.Errorf("left in the outbox: %d letters", len(left))
			}
			log.tells(t, name)
		})
	}
}

// wholeMail checks every part of the mail that letterTo makes.
func wholeMail(t *testing.T, gw *gatewaytest.Gateway, name string, data []byte) {
	t.Helper()
	m, texts := parts(t, data)
	want := letterTo(gw, reader)
	if got := texts["text/plain; charset=UTF-8"]; strings.TrimSpace(got) != strings.TrimSpace(want.Text) {
		t.Errorf("text: got %q, want %q; parts %q", got, want.Text, texts)
	}
	if got := texts["text/html; charset=UTF-8"]; strings.TrimSpace(got) != want.HTML {
		t.Errorf("HTML: got %q, want %q", got, want.HTML)
	}
	if got, err := new(mime.WordDecoder).DecodeHeader(m.Header.Get("Subject")); err != nil || got != want.Subject {
		t.Errorf("subject: got %q, %v", got, err)
	}
	if from, err := m.Header.AddressList("From"); err != nil || len(from) != 1 || from[0].Name != "Enlist é" || from[0].Address != "noreply@example.com" {
		t.Errorf("from: got %v, %v", from, err)
	}
	if to, err := m.Header.AddressList("To"); err != nil || len(to) != 1 || to[0].Address != reader {
		t.Errorf("to: got %v, %v", to, err)
	}
	if date, err := m.Header.Date(); err != nil || date.Unix() != gw.Clock.Now().Unix() {
		t.Errorf("date: got %s, %v, want %s", date, err, gw.Clock.Now())
	}
	for header, want := range map[string]string{
		"Message-Id": "<" + name + "@example.com>", "Auto-Submitted": "auto-generated", "Mime-Version": "1.0",
		"User-Agent": "", "X-Mailer": "", "Bcc": "", "Cc": "",
	} {
		if got := m.Header.Get(header); got != want {
			t.Errorf("%s: got %q, want %q", header, got, want)
		}
	}
	for line := range bytes.Lines(data) {
		if len(line) > 998 || bytes.ContainsFunc(line, func(r rune) bool { return r > 127 }) {
			t.Errorf("a line that not every mail server passes on: %q", line)
		}
	}
}

func TestMailWaitsWhereNothingSendsIt(t *testing.T) {
	gw := gatewaytest.New(t)
	m := embeddedgateway.MailerOf(gw.Embedded())
	if m.Delivers() {
		t.Error("the gateway says that it sends mail")
	}
	name := m.Store(t, letterTo(gw, reader))
	m.Wake()
	want := embeddedgateway.Mail{
		Name: name, To: reader, Subject: letterTo(gw, reader).Subject, Text: letterTo(gw, reader).Text,
		Created: gw.Clock.Now().UTC().Truncate(time.Microsecond), Expires: gw.Clock.Now().Add(24 * time.Hour).UTC().Truncate(time.Microsecond),
	}
	if got := gw.Outbox(t); len(got) != 1 || got[0] != want {
		t.Errorf("outbox: got %+v, want %+v", got, want)
	}
	gw.Restart(t)
	if got := gw.Outbox(t); len(got) != 1 || got[0] != want {
		t.Errorf("after a restart: got %+v, want %+v", got, want)
	}
	gw.Clock.Advance(24 * time.Hour)
	if got := gw.Outbox(t); len(got) != 0 {
		t.Errorf("when its link has expired: got %+v", got)
	}
}

func TestALetterIsOnTheDiskInNoFormThatCanBeRead(t *testing.T) {
	gw := gatewaytest.New(t, gatewaytest.SQLite())
	embeddedgateway.MailerOf(gw.Embedded()).Store(t, letterTo(gw, reader))
	files, err := filepath.Glob(gw.Database + "*")
	if err != nil || len(files) < 2 {
		t.Fatalf("got %q, %v", files, err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, secret := range []string{reader, proof, "Enlist"} {
			if bytes.Contains(data, []byte(secret)) {
				t.Errorf("%s holds %q", filepath.Base(file), secret)
			}
		}
	}
	for _, e := range gw.Audit(t) {
		if text := fmt.Sprint(e); strings.Contains(text, proof) || strings.Contains(text, reader) {
			t.Errorf("the audit trail holds %s", text)
		}
	}
}

// TestMailIsNotSentWhereItCouldBeRead: the letter stays, and neither it nor the
// password goes over the wire.
func TestALetterIsGoodInItsOwnPlaceOnly(t *testing.T) {
	gw := gatewaytest.New(t)
	m := embeddedgateway.MailerOf(gw.Embedded())
	one, other := m.Store(t, letterTo(gw, "one@example.org")), m.Store(t, letterTo(gw, "other@example.org"))
	if _, err := gw.Bare(t).Exec("UPDATE sealed SET data = (SELECT data FROM sealed WHERE name = $1) WHERE name = $2", one, other); err != nil {
		t.Fatal(err)
	}
	if list, err := gw.Embedded().Outbox(t.Context()); err == nil || !strings.Contains(err.Error(), other) {
		t.Errorf("got %+v, %v, want it said that the letter %s does not open", list, err, other)
	} else if len(list) != 1 || list[0].Name != one {
		t.Errorf("got %+v, want the letter that does open", list)
	}
}

func TestMailIsNotSentWhereItCouldBeRead(t *testing.T) {
	for _, tt := range []struct {
		name, scheme, password, wantLog string
		server                          serverOptions
		noRoots                         bool
	}{
		{name: "no STARTTLS", scheme: "smtp", server: serverOptions{noTLS: true}, wantLog: "STARTTLS"},
		{name: "a certificate for another host", scheme: "smtp", server: serverOptions{host: "other.example.com"}, wantLog: "certificate"},
		{name: "a certificate for another host, TLS from the start", scheme: "smtps", server: serverOptions{implicit: true, host: "other.example.com"}, wantLog: "certificate"},
		{name: "a certificate by nobody", scheme: "smtp", noRoots: true, wantLog: "certificate"},
		{name: "a certificate by nobody, TLS from the start", scheme: "smtps", server: serverOptions{implicit: true}, noRoots: true, wantLog: "certificate"},
		{name: "an old TLS", scheme: "smtp", server: serverOptions{maxTLS: tls.VersionTLS11}, wantLog: "protocol version"},
		{name: "a plain server where TLS begins at once", scheme: "smtps", server: serverOptions{noTLS: true}, wantLog: "mail was not sent"},
		{name: "a wrong password", scheme: "smtp", password: "wrong", wantLog: "refuses the user and password of ENLIST_SMTP_URL (535)"},
		{name: "a wrong password, TLS from the start", scheme: "smtps", password: "wrong", server: serverOptions{implicit: true}, wantLog: "(535)"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newMailServer(t, tt.server)
			var log journal
			if tt.password == "" {
				tt.password = mailPassword
			}
			trust := s.mails(s.url(tt.scheme, tt.password, "timeout=5s"))
			if tt.noRoots {
				trust = gatewaytest.Config(func(c *embeddedgateway.Config) { c.SMTPURL = s.url(tt.scheme, tt.password) })
			}
			gw := gatewaytest.New(t, trust, log.option())
			m := embeddedgateway.MailerOf(gw.Embedded())
			name := m.Store(t, letterTo(gw, reader))
			m.Deliver(t)
			if got := s.all(); len(got) != 0 {
				t.Errorf("sent: %+v", got)
			}
			for _, word := range []string{"MAIL FROM", reader, proof} {
				if strings.Contains(s.said(), word) {
					t.Errorf("%q went over the wire:\n%s", word, s.said())
				}
			}
			if tt.password == mailPassword && strings.Contains(s.said(), "AUTH PLAIN ") {
				t.Errorf("the password went over the wire:\n%s", s.said())
			}
			if got := gw.Outbox(t); len(got) != 1 || got[0].Tries != 1 {
				t.Errorf("outbox: got %+v, want the letter, tried once", got)
			}
			if !strings.Contains(log.String(), tt.wantLog) {
				t.Errorf("the log does not say %q:\n%s", tt.wantLog, log.String())
			}
			log.tells(t, name)
		})
	}
}

func TestMailIsTriedAgain(t *testing.T) {
	s := newMailServer(t, serverOptions{refuse: []error{
		smtpError(451, smtp.EnhancedCode{4, 7, 1}), smtpError(450, smtp.EnhancedCode{4, 2, 1}),
	}})
	var log journal
	gw := gatewaytest.New(t, s.mails(s.url("smtp", mailPassword)), log.option())
	m := embeddedgateway.MailerOf(gw.Embedded())
	name := m.Store(t, letterTo(gw, reader))
	for _, step := range []struct {
		after time.Duration
		tries int
	}{{0, 1}, {59 * time.Second, 1}, {17 * time.Second, 2}, {119 * time.Second, 2}} {
		gw.Clock.Advance(step.after)
		m.Deliver(t)
		if got := gw.Outbox(t); len(got) != 1 || got[0].Tries != step.tries {
			t.Fatalf("%s later: got %+v, want it tried %d times", step.after, got, step.tries)
		}
	}
	gw.Clock.Advance(32 * time.Second)
	m.Deliver(t)
	if got := s.all(); len(got) != 1 || got[0].to != reader {
		t.Errorf("sent: %d mails, want it once", len(got))
	}
	if got := gw.Outbox(t); len(got) != 0 {
		t.Errorf("left: %+v", got)
	}
	if !strings.Contains(log.String(), "451 4.7.1") {
		t.Errorf("the log does not say why:\n%s", log.String())
	}
	log.tells(t, name)
}

func TestMailIsSentWhenThePasswordIsRight(t *testing.T) {
	s := newMailServer(t, serverOptions{})
	gw := gatewaytest.New(t, s.mails(s.url("smtp", "wrong")))
	m := embeddedgateway.MailerOf(gw.Embedded())
	m.Store(t, letterTo(gw, reader))
	m.Deliver(t)
	if n := len(s.all()); n != 0 {
		t.Fatalf("sent with a wrong password: %d", n)
	}
	gw.Clock.Advance(2 * time.Minute)
	gw.Restart(t, s.mails(s.url("smtp", mailPassword)))
	<-s.took // it lay there when the gateway began
}

func TestMailThatIsRefusedForGoodIsDropped(t *testing.T) {
	s := newMailServer(t, serverOptions{refuse: []error{smtpError(550, smtp.EnhancedCode{5, 1, 1})}})
	var log journal
	gw := gatewaytest.New(t, s.mails(s.url("smtp", mailPassword)), log.option())
	m := embeddedgateway.MailerOf(gw.Embedded())
	name := m.Store(t, letterTo(gw, reader))
	m.Deliver(t)
	if left, sent := gw.Outbox(t), s.all(); len(left) != 0 || len(sent) != 0 {
		t.Errorf("left: %+v, sent: %+v", left, sent)
	}
	if !strings.Contains(log.String(), "550 5.1.1") {
		t.Errorf("the log does not say why:\n%s", log.String())
	}
	log.tells(t, name)
}

func TestNoAddressAddsToAMail(t *testing.T) {
	s := newMailServer(t, serverOptions{})
	gw := gatewaytest.New(t, s.mails(s.url("smtp", mailPassword)))
	m := embeddedgateway.MailerOf(gw.Embedded())
	for _, to := range []string{
		"", "ada", "ada@example.org\r\nBcc: eve@example.org", "ada@example.org\nSubject: x", "ada@example.org,eve@example.org",
		"Ada <ada@example.org>", "<ada@example.org>", "ada@example.org>\r\nRCPT TO:<eve@example.org", "ada @example.org",
		"\"ada\r\n eve\"@example.org", "ada@example.org (\r\nBcc: eve@example.org)", "ada@example.org\x00", "ada@exa\u202emple.org",
	} {
		m.Store(t, letterTo(gw, to))
	}
	good := letterTo(gw, reader)
	good.Subject = "Hello\r\nBcc: eve@example.org\r\n\r\nbody"
	good.HTML = ""
	good.Text = "a\n.\nRCPT TO:<eve@example.org>\n.\r\nb"
	m.Store(t, good)
	m.Deliver(t)
	got := s.all()
	if left := gw.Outbox(t); len(left) != 0 || len(got) != 1 {
		t.Fatalf("sent %d mails, want the good one; left %+v", len(got), left)
	}
	read, err := mail.ReadMessage(bytes.NewReader(got[0].data))
	if err != nil {
		t.Fatal(err)
	}
	if read.Header.Get("Bcc") != "" || strings.Contains(s.said(), "RCPT TO:<eve@example.org>\r\n250") {
		t.Errorf("the mail grew a header:\n%s", got[0].data)
	}
	if body, err := io.ReadAll(read.Body); err != nil || !strings.Contains(string(body), "b") {
		t.Errorf("the text was cut: %q, %v", body, err)
	}
}

func TestAMailServerThatHangsIsGivenUp(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	accepted := make(chan net.Conn, 10)
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			accepted <- conn
		}
	}()
	for _, scheme := range []string{"smtp", "smtps"} {
		t.Run(scheme, func(t *testing.T) {
			u := scheme + "://" + ln.Addr().String() + "?from=noreply@example.com"
			var log journal
			gw := gatewaytest.New(t, log.option(), gatewaytest.Config(func(c *embeddedgateway.Config) { c.SMTPURL = u + "&timeout=200ms" }))
			m := embeddedgateway.MailerOf(gw.Embedded())
			m.Store(t, letterTo(gw, "first@example.org"))
			m.Store(t, letterTo(gw, "second@example.org"))
			m.Deliver(t)
			if got := gw.Outbox(t); len(got) != 2 || got[0].Tries != 1 {
				t.Errorf("got %+v, want both, tried", got)
			}
			if !strings.Contains(log.String(), "did not answer in time") {
				t.Errorf("the log does not say why:\n%s", log.String())
			}
			// With more patience than the end of the gateway has.
			for len(accepted) > 0 {
				<-accepted
			}
			gw.Clock.Advance(5 * time.Minute)
			gw.Restart(t, gatewaytest.Config(func(c *embeddedgateway.Config) { c.SMTPURL = u + "&timeout=1m" }))
			<-accepted
			closed := make(chan error, 1)
			go func() { closed <- gw.Embedded().Close() }()
			select {
			case err := <-closed:
				if err != nil {
					t.Errorf("close: %v", err)
				}
			case <-time.After(20 * time.Second):
				t.Error("the gateway does not end")
			}
		})
	}
}

func TestALetterThatIsBeingSentMayFinishAtTheEnd(t *testing.T) {
	hold := make(chan struct{})
	s := newMailServer(t, serverOptions{hold: hold})
	gw := gatewaytest.New(t, s.mails(s.url("smtp", mailPassword)))
	m := embeddedgateway.MailerOf(gw.Embedded())
	m.Store(t, letterTo(gw, reader))
	m.Wake()
	<-s.reached
	closed := make(chan error, 1)
	go func() { closed <- gw.Embedded().Close() }()
	close(hold)
	if err := <-closed; err != nil {
		t.Errorf("close: %v", err)
	}
	if n := len(s.all()); n != 1 {
		t.Errorf("sent %d mails, want 1", n)
	}
	gw.Restart(t)
	if left := gw.Outbox(t); len(left) != 0 {
		t.Errorf("left: %+v", left)
	}
}

func TestTwoGatewaysSendEachLetterOnce(t *testing.T) {
	s := newMailServer(t, serverOptions{})
	configure := s.mails(s.url("smtp", mailPassword))
	gw := gatewaytest.New(t, configure)
	other := gatewaytest.New(t, configure, gatewaytest.ReplicaOf(gw))
	const n = 20
	mailers := []embeddedgateway.Mailer{embeddedgateway.MailerOf(gw.Embedded()), embeddedgateway.MailerOf(other.Embedded())}
	for i := range n {
		mailers[i%2].Store(t, letterTo(gw, fmt.Sprintf("reader-%02d@example.org", i)))
	}
	var both sync.WaitGroup
	for _, m := range mailers {
		both.Go(func() {
			m.Wake()
			m.Deliver(t)
		})
	}
	both.Wait()
	var to []string
	for _, got := range s.all() {
		to = append(to, got.to)
	}
	slices.Sort(to)
	if len(to) != n || len(slices.Compact(slices.Clone(to))) != n {
		t.Errorf("sent %d mails, want %d, each once: %q", len(to), n, to)
	}
	if left := gw.Outbox(t); len(left) != 0 {
		t.Errorf("left: %d", len(left))
	}
}

func TestMailThatHasExpiredIsNotSent(t *testing.T) {
	gw := gatewaytest.New(t)
	embeddedgateway.MailerOf(gw.Embedded()).Store(t, letterTo(gw, reader))
	gw.Clock.Advance(24 * time.Hour)
	s := newMailServer(t, serverOptions{})
	gw.Restart(t, s.mails(s.url("smtp", mailPassword)))
	embeddedgateway.MailerOf(gw.Embedded()).Deliver(t)
	if got := s.all(); len(got) != 0 {
		t.Errorf("sent: %d mails", len(got))
	}
}

func TestMailGoesOutWithoutTLSOnThisMachine(t *testing.T) {
	s := newMailServer(t, serverOptions{noTLS: true, anybody: true})
	gw := gatewaytest.New(t, s.mails("smtp://"+s.addr+"?from=noreply@example.com&tls=none"))
	m := embeddedgateway.MailerOf(gw.Embedded())
	m.Store(t, letterTo(gw, reader))
	m.Deliver(t)
	if got := s.all(); len(got) != 1 || got[0].secure || got[0].mech != "" {
		t.Errorf("got %+v, want one mail", got)
	}
}

func TestAnAddressMayHaveLettersOfEveryLanguage(t *testing.T) {
	s := newMailServer(t, serverOptions{})
	gw := gatewaytest.New(t, s.mails(s.url("smtp", mailPassword)))
	m := embeddedgateway.MailerOf(gw.Embedded())
	const to = "jürgen@bücher.example"
	m.Store(t, letterTo(gw, to))
	m.Deliver(t)
	if got := s.all(); len(got) != 1 || got[0].to != to || !got[0].utf8 {
		t.Errorf("got %+v, want a mail to %s that asks for SMTPUTF8", got, to)
	}
}

func TestPausesGrow(t *testing.T) {
	for tries, want := range map[int]time.Duration{1: 1, 2: 2, 3: 4, 4: 8, 5: 16, 6: 30, 60: 30} {
		want *= time.Minute
		for range 100 {
			if got := embeddedgateway.PauseAfter(tries); got < want || got > want+want/4 {
				t.Fatalf("after %d tries: got %s, want from %s to a quarter more", tries, got, want)
			}
		}
	}
}
