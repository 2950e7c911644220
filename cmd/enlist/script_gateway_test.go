package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// askCommand makes a request and fails unless it is answered with the status. The
// answer's body is in the file "answer" then.
//
//	ask STATUS METHOD URL [-H 'NAME: VALUE']... [-d BODY] [-cert NAME]
func askCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 || len(args)%2 == 0 {
		ts.Fatalf("usage: ask STATUS METHOD URL [-H 'NAME: VALUE']... [-d BODY] [-cert NAME]")
	}
	transport := &http.Transport{ForceAttemptHTTP2: true}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequest(args[1], args[2], nil)
	ts.Check(err)
	for i := 3; i < len(args); i += 2 {
		switch value := args[i+1]; args[i] {
		case "-H":
			name, text, _ := strings.Cut(value, ": ")
			req.Header.Add(name, text)
		case "-d":
			req.Header.Set("Content-Type", "application/json")
			req.Body, req.ContentLength = io.NopCloser(strings.NewReader(value)), int64(len(value))
		case "-cert":
			roots := x509.NewCertPool()
			if !roots.AppendCertsFromPEM([]byte(ts.ReadFile(value + ".crt"))) {
				ts.Fatalf("%s.crt holds no certificate", value)
			}
			transport.TLSClientConfig = &tls.Config{RootCAs: roots, ServerName: "127.0.0.1"}
		default:
			ts.Fatalf("ask knows no %s", args[i])
		}
	}
	resp, err := (&http.Client{Transport: transport, Timeout: stopTime}).Do(req)
	ts.Check(err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs("answer"), body, 0o600))
	if got := fmt.Sprint(resp.StatusCode); got != args[0] {
		ts.Fatalf("got %s over %s, want %s: %s", resp.Status, resp.Proto, args[0], body)
	}
}

// expiredCommand makes NAME.crt and NAME.key, for 127.0.0.1, which were good in 2020.
//
//	expired NAME
func expiredCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: expired NAME")
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ts.Check(err)
	sample := &x509.Certificate{
		SerialNumber: big.NewInt(1), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC), NotAfter: time.Date(2020, 12, 31, 0, 0, 0, 0, time.UTC),
	}
	cert, err := x509.CreateCertificate(rand.Reader, sample, sample, key.Public(), key)
	ts.Check(err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	ts.Check(err)
	for name, block := range map[string]*pem.Block{
		args[0] + ".crt": {Type: "CERTIFICATE", Bytes: cert}, args[0] + ".key": {Type: "PRIVATE KEY", Bytes: private},
	} {
		var text bytes.Buffer
		ts.Check(pem.Encode(&text, block))
		ts.Check(os.WriteFile(ts.MkAbs(name), text.Bytes(), 0o600))
	}
}
