package main

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// minToken is how long a bearer token must be: 32 characters of rand.Text's
// alphabet are 160 bits.
const minToken = 32

// bearerToken reads the token that MCP clients must present over HTTP, or makes
// and prints one at the first start. It returns a function that compares in
// constant time and keeps only a hash.
func (p *program) bearerToken(path string) (verify func(string) bool, err error) {
	token, err := readToken(path)
	if errors.Is(err, fs.ErrNotExist) {
		token, err = p.makeToken(path)
	}
	if err != nil {
		return nil, fmt.Errorf("the bearer token of enlist mcp --http: %w", err)
	}
	want := sha256.Sum256([]byte(token))
	return func(presented string) bool {
		got := sha256.Sum256([]byte(presented))
		return subtle.ConstantTimeCompare(got[:], want[:]) == 1
	}, nil
}

func readToken(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	if runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0 {
		return "", fmt.Errorf("%s can be read by others (mode %04o): delete it, and the next start makes a new one", path, info.Mode().Perm())
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	token := strings.TrimSpace(string(text))
	if len(token) < minToken {
		return "", fmt.Errorf("%s holds fewer than %d characters: delete it, and the next start makes a new one", path, minToken)
	}
	return token, nil
}

// makeToken makes the token and prints it, this once. Of two processes that
// start together one makes it and the other reads it.
func (p *program) makeToken(path string) (string, error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	f, err := os.CreateTemp(dir, filepath.Base(path)+"-*") // 0600
	if err != nil {
		return "", err
	}
	defer func() { _ = os.Remove(f.Name()) }() // the link stays
	token := "enlist_mcp_" + rand.Text() + rand.Text()
	_, err = f.WriteString(token + "\n")
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return "", err
	}
	// A link, unlike a rename, does not replace what another process made.
	err = os.Link(f.Name(), path)
	if errors.Is(err, fs.ErrExist) {
		return readToken(path)
	}
	if err != nil { // a file system without links
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return "", err
	}
	fmt.Fprintf(p.stderr, "enlist mcp: clients must send this bearer token; it is kept in %s and not printed again:\n\n    %s\n\n", path, token)
	return token, nil
}
