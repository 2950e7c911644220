package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"
)

// certificate is a certificate in two files, which is read again when they
// change, as they do when it is renewed: connections that are open stay so.
type certificate struct {
	certFile, keyFile string
	settings          [2]string // that name them, for messages
	log               *slog.Logger

	mu     sync.Mutex
	loaded *tls.Certificate
	files  [2]fs.FileInfo // as they were when they were read, or could not be
}

// newCertificate reads the files, which must be in order now.
func newCertificate(certFile, keyFile string, log *slog.Logger) (*certificate, error) {
	return newCertificateOf(certFile, keyFile, [2]string{"--tls-cert", "--tls-key"}, log)
}

func newCertificateOf(certFile, keyFile string, settings [2]string, log *slog.Logger) (*certificate, error) {
	c := &certificate{certFile: certFile, keyFile: keyFile, settings: settings, log: log}
	files, err := c.stat()
	if err != nil {
		return nil, err
	}
	c.files = files
	c.loaded, err = c.load(files)
	return c, err
}

func (c *certificate) stat() (files [2]fs.FileInfo, err error) {
	for i, path := range []string{c.certFile, c.keyFile} {
		if files[i], err = os.Stat(path); err != nil {
			return files, fmt.Errorf("%s: %w", c.settings[i], err)
		}
	}
	return files, nil
}

func (c *certificate) load(files [2]fs.FileInfo) (*tls.Certificate, error) {
	if mode := files[1].Mode().Perm(); runtime.GOOS != "windows" && mode&0o077 != 0 {
		return nil, fmt.Errorf("%s: %s can be read by others (mode %04o): chmod 600 it, and if others have read it, have another certificate issued", c.settings[1], c.keyFile, mode)
	}
	loaded, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return nil, fmt.Errorf("%s %s and %s %s are no certificate chain and its key, in PEM: %w", c.settings[0], c.certFile, c.settings[1], c.keyFile, err)
	}
	return &loaded, nil
}

// good reports why no client would accept the certificate at a time.
func (c *certificate) good(now time.Time) error {
	switch leaf := c.current().Leaf; {
	case now.After(leaf.NotAfter):
		return fmt.Errorf("%s: the certificate in %s expired on %s: have it renewed", c.settings[0], c.certFile, leaf.NotAfter.UTC().Format(time.RFC3339))
	case now.Before(leaf.NotBefore):
		return fmt.Errorf("%s: the certificate in %s is not valid before %s: look at the clock of this machine", c.settings[0], c.certFile, leaf.NotBefore.UTC().Format(time.RFC3339))
	}
	return nil
}

// current returns the certificate. What cannot be read when the files change,
// perhaps because only one of them has yet, is logged; the one before stays.
func (c *certificate) current() *tls.Certificate {
	c.mu.Lock()
	defer c.mu.Unlock()
	files, err := c.stat()
	if err == nil && sameFile(files[0], c.files[0]) && sameFile(files[1], c.files[1]) {
		return c.loaded
	}
	c.files = files
	if err == nil {
		var renewed *tls.Certificate
		if renewed, err = c.load(files); err == nil {
			c.loaded = renewed
			c.log.Info("the certificate was read again", "file", c.certFile)
			return renewed
		}
	}
	c.log.Warn("the certificate has changed and cannot be read; the one before is used", "error", err)
	return c.loaded
}

func sameFile(a, b fs.FileInfo) bool {
	return a != nil && b != nil && os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size() && a.Mode() == b.Mode()
}

// config is the configuration of a server with this certificate.
func (c *certificate) config() *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.current(), nil },
	}
}

// names reports whether the certificate is for a host. A page whose own name was
// made to point here (DNS rebinding) has no name that the certificate is for.
func (c *certificate) names(host string) bool {
	return c.current().Leaf.VerifyHostname(host) == nil
}

// at returns the host and port by which clients reach an address: where it is any
// of the machine's, a name that the certificate is for.
func (c *certificate) at(addr net.Addr) string {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok || !tcp.IP.IsUnspecified() {
		return addr.String()
	}
	for _, name := range c.current().Leaf.DNSNames {
		if !strings.HasPrefix(name, "*") {
			return net.JoinHostPort(name, strconv.Itoa(tcp.Port))
		}
	}
	return addr.String()
}

// tlsCertificate returns the certificate that the flags name; nil for none.
func (p *program) tlsCertificate(flags mcpFlags) (*certificate, error) {
	switch {
	case flags.tlsCert == "" && flags.tlsKey == "":
		return nil, nil
	case flags.tlsCert == "" || flags.tlsKey == "":
		return nil, &usageError{errors.New("--tls-cert and --tls-key go together")}
	case flags.behindProxy:
		return nil, &usageError{errors.New("--behind-proxy is for plain HTTP: leave it out, or --tls-cert and --tls-key")}
	}
	return newCertificate(flags.tlsCert, flags.tlsKey, p.logger())
}
