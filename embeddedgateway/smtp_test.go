package embeddedgateway_test

import (
	"context"
	"crypto/tls"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/embeddedgateway"
)

func TestSettingsOfMail(t *testing.T) {
	const secret = "pass-word-of-mail"
	for _, tt := range []struct {
		name, url, want string // want: what the error says; "": there is none
		tls             *tls.Config
	}{
		{name: "none"},
		{name: "STARTTLS", url: "smtp://user:" + secret + "@mail.example.com:587?from=Enlist%20%3Cnoreply%40example.com%3E"},
		{name: "TLS from the start", url: "smtps://user:" + secret + "@mail.example.com?from=noreply@example.com&timeout=10s"},
		{name: "nobody logs in", url: "smtp://mail.example.com/?from=noreply@example.com"},
		{name: "no TLS on loopback", url: "smtp://127.0.0.1:25?from=noreply@example.com&tls=none"},
		{name: "no TLS on localhost", url: "smtp://localhost:25?from=noreply@example.com&tls=none"},
		{name: "no TLS on loopback, IPv6", url: "smtp://[::1]:25?from=noreply@example.com&tls=none"},
		{name: "no TLS elsewhere", url: "smtp://user:" + secret + "@mail.example.com?from=a@example.com&tls=none", want: "tls=none"},
		{name: "no TLS in smtps", url: "smtps://localhost?from=a@example.com&tls=none", want: "tls=none"},
		{name: "opportunistic TLS", url: "smtp://localhost?from=a@example.com&tls=opportunistic", want: "tls may be none"},
		{name: "no sender", url: "smtp://user:" + secret + "@mail.example.com", want: "from is missing"},
		{name: "a bad sender", url: "smtp://user:" + secret + "@mail.example.com?from=" + secret, want: "from is missing or not a mail address"},
		{name: "a sender with a line break", url: "smtp://mail.example.com?from=a@example.com%0d%0aBcc:b@example.com", want: "not a mail address"},
		{name: "two senders", url: "smtp://mail.example.com?from=a@example.com&from=b@example.com", want: "each once"},
		{name: "another scheme", url: "https://user:" + secret + "@mail.example.com?from=a@example.com", want: "neither smtp:// nor smtps://"},
		{name: "no scheme", url: secret, want: "neither smtp:// nor smtps://"},
		{name: "no host", url: "smtp://?from=a@example.com", want: "names no host"},
		{name: "no URL", url: "smtp://user:" + secret + "%zz@mail.example.com?from=a@example.com", want: "not a URL"},
		{name: "a slash in the password", url: "smtp://user:" + secret + "/@mail.example.com?from=a@example.com", want: "not a URL"},
		{name: "a number sign in the password", url: "smtp://user:1#" + secret + "@mail.example.com?from=a@example.com", want: "fragment"},
		{name: "a question mark in the password", url: "smtp://user:1?" + secret + "@mail.example.com?from=a@example.com", want: "question mark"},
		{name: "a path", url: "smtp://mail.example.com/" + secret + "?from=a@example.com", want: "path"},
		{name: "no password", url: "smtp://user@mail.example.com?from=a@example.com", want: "a user without a password"},
		{name: "no user", url: "smtp://:" + secret + "@mail.example.com?from=a@example.com", want: "a user without a password"},
		{name: "a bad port", url: "smtp://mail.example.com:0?from=a@example.com", want: "port"},
		{name: "a bad timeout", url: "smtp://mail.example.com?from=a@example.com&timeout=1h", want: "timeout"},
		{name: "more", url: "smtp://mail.example.com?from=a@example.com&" + secret + "=1", want: "from, tls and timeout"},
		{name: "certificates that nobody checks", url: "smtp://mail.example.com?from=a@example.com", tls: &tls.Config{InsecureSkipVerify: true}, want: "RootCAs"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g, err := embeddedgateway.New(context.Background(), embeddedgateway.Config{
				Database: "sqlite:" + filepath.Join(t.TempDir(), "gateway.db"), Now: time.Now, SMTPURL: tt.url, SMTPTLS: tt.tls,
			})
			if err == nil {
				defer g.Close()
			}
			switch {
			case tt.want == "" && err != nil:
				t.Errorf("got error %v", err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("got error %v, want one that says %q", err, tt.want)
			case err != nil && (strings.Contains(err.Error(), secret) || strings.Contains(err.Error(), "mail.example.com")):
				t.Errorf("the error repeats the URL: %v", err)
			}
		})
	}
}

func TestPublicURL(t *testing.T) {
	for url, good := range map[string]bool{
		"": true, "https://gateway.example.com": true, "http://127.0.0.1:8420/": true, "https://example.com/agents/": true,
		"gateway.example.com": false, "ftp://example.com": false, "https://": false, "https://user:secret@example.com": false,
		"https://example.com?a=b": false, "https://example.com?": false, "https://example.com#": false, "/path": false, "://": false,
	} {
		g, err := embeddedgateway.New(context.Background(), embeddedgateway.Config{
			Database: "sqlite:" + filepath.Join(t.TempDir(), "gateway.db"), Now: time.Now, PublicURL: url,
		})
		if err == nil {
			_ = g.Close()
		}
		if (err == nil) != good || err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: got error %v, want it taken: %t", url, err, good)
		}
	}
}

func TestKeysAreListed(t *testing.T) {
	ctx := context.Background()
	now := time.Date(2026, 2, 6, 12, 0, 0, 0, time.UTC)
	g, err := embeddedgateway.New(ctx, embeddedgateway.Config{
		Database: "sqlite:" + filepath.Join(t.TempDir(), "gateway.db"), Now: func() time.Time { return now },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	kid, err := g.RotateKeys(ctx)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := g.Keys(ctx)
	if err != nil || len(keys) != 2 {
		t.Fatalf("got %+v, %v, want two", keys, err)
	}
	if keys[0].Retires != now.Add(time.Hour+time.Minute) || keys[0].Made != now || keys[0].ID == kid {
		t.Errorf("the old key: got %+v", keys[0])
	}
	if want := (embeddedgateway.Key{ID: kid, Made: now}); keys[1] != want {
		t.Errorf("the new key: got %+v, want %+v", keys[1], want)
	}
}
