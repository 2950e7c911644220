// Package leakscan finds secrets where they must not be.
//
// While a test suite runs, it keeps two things in one folder: every secret
// that any gateway issued, and everything that the programs under test wrote:
// standard output and error, protocol messages, logs, databases. Afterwards
// [Scan] looks for each of the one in all of the other, in the plain and in
// the encoded forms that a leak takes.
//
// The folder is named by an environment variable, so that several test
// binaries, and the processes that they start, share one; without it nothing
// is kept. It shares no code with the scrubber of the client half on purpose:
// a mistake there must not hide itself here.
package leakscan

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// Variable is the environment variable that names the folder.
const Variable = "ENLIST_LEAK_DIR"

// The two parts of the folder.
const (
	issuedDir  = "issued"
	writtenDir = "written"
)

// minSecret is the length under which a secret would be found by chance.
const minSecret = 8

// Recorder keeps secrets and output in a folder. A nil Recorder keeps nothing;
// its methods may be called from several goroutines.
type Recorder struct {
	dir string

	mu     sync.Mutex
	issued *os.File
}

// New returns a Recorder for a folder, which it makes, or nil for "".
func New(dir string) (*Recorder, error) {
	if dir == "" {
		return nil, nil
	}
	for _, part := range []string{issuedDir, writtenDir} {
		if err := os.MkdirAll(filepath.Join(dir, part), 0o700); err != nil {
			return nil, err
		}
	}
	f, err := os.CreateTemp(filepath.Join(dir, issuedDir), "*.txt")
	if err != nil {
		return nil, err
	}
	return &Recorder{dir: dir, issued: f}, nil
}

// Issued records a secret that a gateway issued. It panics if it cannot: a
// scan that misses a secret would pass for the wrong reason.
func (r *Recorder) Issued(secret string) {
	if r == nil || len(secret) < minSecret {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, err := fmt.Fprintln(r.issued, secret); err != nil {
		panic(fmt.Sprintf("leakscan: %v", err))
	}
}

// Output returns a writer for what one program writes on one stream. The name
// says which, for the report.
func (r *Recorder) Output(name string) (io.WriteCloser, error) {
	if r == nil {
		return discard{}, nil
	}
	return os.CreateTemp(filepath.Join(r.dir, writtenDir), clean(name)+"-*")
}

// Keep copies a file, or every file below a folder, as something that was
// written. What is missing is passed over.
func (r *Recorder) Keep(name, path string) error {
	if r == nil {
		return nil
	}
	return filepath.WalkDir(path, func(file string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		return r.keepFile(name+"-"+filepath.Base(file), file)
	})
}

func (r *Recorder) keepFile(name, path string) (err error) {
	in, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // a database's log goes with its last connection
	}
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := r.Output(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	_, err = io.Copy(out, in)
	return err
}

// discard is the output of a nil Recorder.
type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }
func (discard) Close() error                { return nil }

func clean(name string) string {
	return strings.Map(func(r rune) rune {
		if r == '/' || r == '\\' || r == '*' || r == ':' || r == ' ' {
			return '_'
		}
		return r
	}, name)
}

// Report is what a scan found.
type Report struct {
	Secrets int   // how many were issued
	Files   int   // how many were looked through
	Bytes   int64 // how much that was
	Found   []Finding
}

// Finding is one secret in one file. It names the secret by its first third
// only.
type Finding struct {
	File   string
	Form   string // "plain", "hex", …
	Secret string
}

// String implements [fmt.Stringer].
func (f Finding) String() string { return fmt.Sprintf("%s: %s…, %s", f.File, f.Secret, f.Form) }

// Scan looks for every secret of a folder in everything that was written.
func Scan(dir string) (Report, error) {
	secrets, err := readIssued(filepath.Join(dir, issuedDir))
	if err != nil {
		return Report{}, err
	}
	m := newMatcher()
	for _, s := range secrets {
		for _, f := range forms(s) {
			m.add(f.text, Finding{Form: f.name, Secret: s[:len(s)/3]})
		}
	}
	report := Report{Secrets: len(secrets)}
	err = filepath.WalkDir(filepath.Join(dir, writtenDir), func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		report.Files++
		report.Bytes += int64(len(text))
		for _, f := range m.find(text) {
			f.File = filepath.Base(path)
			report.Found = append(report.Found, f)
		}
		return nil
	})
	return report, err
}

func readIssued(dir string) ([]string, error) {
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	var secrets []string
	for _, f := range files {
		text, err := os.ReadFile(filepath.Join(dir, f.Name()))
		if err != nil {
			return nil, err
		}
		for s := range strings.Lines(string(text)) {
			s = strings.TrimSpace(s)
			if s != "" && !seen[s] {
				seen[s] = true
				secrets = append(secrets, s)
			}
		}
	}
	return secrets, nil
}

type form struct{ name, text string }

// forms returns the forms in which a secret could be written down.
func forms(secret string) []form {
	var percent strings.Builder
	for _, b := range []byte(secret) {
		fmt.Fprintf(&percent, "%%%02X", b)
	}
	list := []form{
		{"plain", secret},
		{"hex", hex.EncodeToString([]byte(secret))},
		{"hex", strings.ToUpper(hex.EncodeToString([]byte(secret)))},
		{"url", percent.String()},
		{"url", strings.ToLower(percent.String())},
		{"reversed", reversed(secret)},
	}
	if escaped := url.QueryEscape(secret); escaped != secret {
		list = append(list, form{"url", escaped})
	}
	for shift := range 3 {
		for name, enc := range map[string]*base64.Encoding{"base64": base64.StdEncoding, "base64url": base64.URLEncoding} {
			list = append(list, form{name, inner(enc, secret, shift)})
		}
	}
	return list
}

// inner returns what of a base64 text depends on the secret alone when the
// secret begins shift bytes after a multiple of three.
func inner(enc *base64.Encoding, secret string, shift int) string {
	text := enc.EncodeToString([]byte(strings.Repeat("\x00", shift) + secret))
	from := (shift*8 + 5) / 6
	to := (shift + len(secret)) * 8 / 6
	return text[from:to]
}

func reversed(s string) string {
	b := []byte(s)
	for i, j := 0, len(b)-1; i < j; i, j = i+1, j-1 {
		b[i], b[j] = b[j], b[i]
	}
	return string(b)
}

// matcher finds many texts at once, by their first bytes.
type matcher struct {
	byHead map[[minSecret]byte][]pattern
}

type pattern struct {
	text    string
	finding Finding
}

func newMatcher() *matcher { return &matcher{byHead: map[[minSecret]byte][]pattern{}} }

func (m *matcher) add(text string, f Finding) {
	if len(text) < minSecret {
		return
	}
	head := [minSecret]byte([]byte(text[:minSecret]))
	m.byHead[head] = append(m.byHead[head], pattern{text, f})
}

// find returns each pattern that occurs in text, once.
func (m *matcher) find(text []byte) []Finding {
	var found []Finding
	seen := map[Finding]bool{}
	for i := 0; i+minSecret <= len(text); i++ {
		candidates := m.byHead[[minSecret]byte(text[i:i+minSecret])]
		for _, p := range candidates {
			if len(text)-i >= len(p.text) && string(text[i:i+len(p.text)]) == p.text && !seen[p.finding] {
				seen[p.finding] = true
				found = append(found, p.finding)
			}
		}
	}
	return found
}
