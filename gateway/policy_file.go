package gateway

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/pelletier/go-toml/v2"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/gateway/wire"
)

// PolicyFile is the name of the policy in the data folder.
const PolicyFile = "policy.toml"

const (
	// maxPolicy is how large a policy may be, in bytes.
	maxPolicy = 64 << 10
	// policySettles is for how long after a change a file may change again
	// without looking any different.
	policySettles = 2 * time.Second
)

// Verdict is what a policy says about an action.
type Verdict string

// The verdicts.
const (
	Allow Verdict = "allow"
	Ask   Verdict = "ask"
	Deny  Verdict = "deny"
)

// The types of what stands in a policy are structs: the values of those that are
// strings would be taken as they are.

// policyVerdict is a [Verdict].
type policyVerdict struct{ Verdict }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (v *policyVerdict) UnmarshalText(text []byte) error {
	switch v.Verdict = Verdict(text); v.Verdict {
	case Allow, Ask, Deny:
		return nil
	}
	return valueError(`want "allow", "ask" or "deny"`)
}

// valueError says what is wanted in the place of a value.
type valueError string

// Error implements error.
func (e valueError) Error() string { return string(e) }

// rules is what a policy says at the top and in each [[for]]. What is "" or nil
// is not said.
type rules struct {
	Register policyVerdict `toml:"register"`
	Rotate   policyVerdict `toml:"rotate"`
	Revoke   policyVerdict `toml:"revoke"`
	Forget   policyVerdict `toml:"forget"`
	Write    policyVerdict `toml:"write"`

	Methods []policyMethod `toml:"methods"`
	Paths   []policyPath   `toml:"paths"`
}

// of returns the verdict on an action; "": none.
func (r rules) of(a Action) Verdict {
	switch a {
	case ActRegister:
		return r.Register.Verdict
	case ActRotate:
		return r.Rotate.Verdict
	case ActRevoke:
		return r.Revoke.Verdict
	case ActForget:
		return r.Forget.Verdict
	case ActWrite:
		return r.Write.Verdict
	}
	return ""
}

// judged lists the actions that a policy has a verdict on.
func judged() []Action { return []Action{ActRegister, ActRotate, ActRevoke, ActForget, ActWrite} }

// policyDocument is policy.toml.
type policyDocument struct {
	Services            []policyService `toml:"services"`
	Origins             []policyOrigin  `toml:"origins"`
	PrivateNetworks     []policyNetwork `toml:"private_networks"`
	RegistrationsPerDay *uint32         `toml:"registrations_per_day"`
	rules
	For []exception `toml:"for"`
}

// exception is a [[for]]: rules for what matches all that it names.
type exception struct {
	Service    policyService    `toml:"service"`
	Origin     policyOrigin     `toml:"origin"`
	Credential policyCredential `toml:"credential"`
	rules
}

// rank says how closely an exception is drawn.
func (e exception) rank() int {
	rank := 0
	for i, name := range []string{e.Service.string, e.Origin.string, e.Credential.string} {
		if name != "" {
			rank += 1 << i
		}
	}
	return rank
}

// matches reports whether an exception is about a credential.
func (e exception) matches(k credstore.Key) bool {
	return (e.Service.string == "" || e.Service.string == k.Protocol) &&
		(e.Origin.string == "" || e.Origin.string == k.Origin) &&
		(e.Credential.string == "" || e.Credential.names(k))
}

// String says what an exception is about.
func (e exception) String() string {
	var parts []string
	for _, part := range []struct{ name, value string }{
		{"service", e.Service.string}, {"origin", e.Origin.string}, {"credential", e.Credential.string},
	} {
		if part.value != "" {
			parts = append(parts, fmt.Sprintf("%s = %q", part.name, part.value))
		}
	}
	return strings.Join(parts, ", ")
}

// policyService is the name of a protocol.
type policyService struct{ string }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (s *policyService) UnmarshalText(text []byte) error {
	var names []string
	for _, p := range wire.Protocols() {
		names = append(names, p.Name)
	}
	if s.string = string(text); !slices.Contains(names, s.string) {
		return valueError("want one of " + strings.Join(names, ", "))
	}
	return nil
}

// policyOrigin is an origin, in the spelling of a [credstore.Key].
type policyOrigin struct{ string }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (o *policyOrigin) UnmarshalText(text []byte) error {
	origin, err := parseOrigin(string(text))
	if err != nil {
		return valueError(err.Error())
	}
	o.string = origin
	return nil
}

// policyCredential is a handle. Without a host it names the credential at
// whichever origin.
type policyCredential struct{ string }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (c *policyCredential) UnmarshalText(text []byte) error {
	c.string = string(text)
	bare, _, _ := strings.Cut(string(text), "@")
	protocol, agent, ok := strings.Cut(bare, "/")
	if !ok || new(policyService).UnmarshalText([]byte(protocol)) != nil || !agentPart.MatchString(agent) {
		return valueError("want a handle as enlist list prints it, such as lona/my-agent or lona/my-agent@api.example.com")
	}
	return nil
}

// names reports whether a handle is that of a credential.
func (c policyCredential) names(k credstore.Key) bool {
	bare, host, at := strings.Cut(c.string, "@")
	return bareHandle(k) == bare && (!at || host == hostOf(k.Origin))
}

// policyMethod is a method of a request.
type policyMethod struct{ string }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (m *policyMethod) UnmarshalText(text []byte) error {
	switch m.string = strings.ToUpper(string(text)); m.string {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete:
		return nil
	}
	return valueError("want one of DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT")
}

// policyPath is what paths begin with.
type policyPath struct{ string }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (p *policyPath) UnmarshalText(text []byte) error {
	p.string = string(text)
	if refusePath(string(text)) != "" || strings.Contains(string(text), "%") {
		return valueError("want the beginning of a path, as in /api/v1, with no percent sign in it")
	}
	return nil
}

// begins reports whether a path lies under this one, however often a service
// decodes it. A path of dots or of encoded slashes is refused before.
func (p policyPath) begins(path string) bool {
	under := strings.TrimSuffix(p.string, "/")
	return !slices.ContainsFunc(decodings(path), func(form string) bool {
		return form != under && !strings.HasPrefix(form, under+"/")
	})
}

// policyNetwork is a network of private addresses.
type policyNetwork struct{ netip.Prefix }

// UnmarshalText implements [encoding.TextUnmarshaler]: a network that lies
// within those that are nobody's on the public internet and somebody's at home.
// This machine is not among them, nor is what a cloud keeps its secrets at.
func (n *policyNetwork) UnmarshalText(text []byte) error {
	prefix, err := netip.ParsePrefix(string(text))
	if err != nil || prefix != prefix.Masked() {
		return valueError("want a network, as in 10.1.0.0/16, with no bits set behind its length")
	}
	within := func(s special) bool {
		return s.choosable && s.kind != kindLoopback && s.prefix.Bits() <= prefix.Bits() && s.prefix.Contains(prefix.Addr())
	}
	if !slices.ContainsFunc(specials(), within) {
		return valueError("want a private network: one within 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, 100.64.0.0/10 or fc00::/7")
	}
	n.Prefix = prefix
	return nil
}

// parsePolicy reads a policy. An error says in which line it is wrong, and
// repeats no more of the file than the name of a setting.
func parsePolicy(text []byte) (*policyDocument, error) {
	d, err := decodePolicy(text)
	var value valueError
	var unknown *toml.StrictMissingError
	var wrong *toml.DecodeError
	switch {
	case errors.As(err, &unknown) && len(unknown.Errors) > 0:
		row, _ := unknown.Errors[0].Position()
		key := unknown.Errors[0].Key()
		return nil, fmt.Errorf("line %d: there is no setting %q", row, oneLine(strings.Join(key, ".")))
	case errors.As(err, &wrong):
		row, _ := wrong.Position()
		what := strings.TrimPrefix(wrong.Error(), "toml: ")
		if strings.HasPrefix(what, "cannot decode") {
			what = "a value of another type is wanted here"
		}
		if key := strings.Join(wrong.Key(), "."); key != "" {
			what = key + ": " + what
		}
		return nil, fmt.Errorf("line %d: %s", row, oneLine(what))
	case errors.As(err, &value):
		return nil, fmt.Errorf("line %d: %w", lineWith(text, value), value)
	case err != nil:
		return nil, errors.New("it is not a policy in TOML")
	}
	for i, e := range d.For {
		line := lineOf(text, "[[for]]", i)
		switch {
		case e.rank() == 0:
			return nil, fmt.Errorf("line %d: a [[for]] wants a service, an origin or a credential that it is for", line)
		case e.silent():
			return nil, fmt.Errorf("line %d: this [[for]] says nothing: it wants a verdict, methods or paths", line)
		}
	}
	return d, nil
}

// decodePolicy reads a policy that may be wrong.
func decodePolicy(text []byte) (*policyDocument, error) {
	d := new(policyDocument)
	return d, toml.NewDecoder(bytes.NewReader(text)).DisallowUnknownFields().Decode(d)
}

// maxSearch is in how many lines a mistake is looked for.
const maxSearch = 1000

// lineWith returns the number of the line with which a policy gets wrong: the
// decoder does not say it of a number where a text is wanted. It is 1 where it
// cannot be told.
func lineWith(text []byte, want valueError) int {
	end := 0
	for n := 1; n <= maxSearch; n++ {
		next := bytes.IndexByte(text[end:], '\n')
		if next < 0 {
			end = len(text)
		} else {
			end += next + 1
		}
		var value valueError
		if _, err := decodePolicy(text[:end:end]); errors.As(err, &value) && value == want {
			return n
		}
		if end == len(text) {
			break
		}
	}
	return 1
}

// silent reports whether rules say nothing.
func (r rules) silent() bool {
	return r.Methods == nil && r.Paths == nil &&
		!slices.ContainsFunc(judged(), func(a Action) bool { return r.of(a) != "" })
}

// lineOf returns the number of the nth line that begins with a text.
func lineOf(text []byte, begin string, n int) int {
	line := 0
	for l := range bytes.Lines(text) {
		line++
		if bytes.HasPrefix(bytes.ReplaceAll(l, []byte(" "), nil), []byte(begin)) {
			if n--; n < 0 {
				return line
			}
		}
	}
	return line
}

// policyCache is a policy file, read again when it changes.
type policyCache struct {
	path string // "": there is none
	now  func() time.Time

	mu   sync.Mutex
	info fs.FileInfo // of what was read; nil: there was no file, or nothing was read yet
	read bool
	doc  *policyDocument
	err  error
}

// current returns the policy as it is now; an empty one where there is no file.
func (c *policyCache) current() (*policyDocument, error) {
	if c.path == "" {
		return new(policyDocument), nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	info, err := os.Stat(c.path)
	if err != nil {
		c.info, c.read, c.doc, c.err = nil, false, nil, nil
		// Where the data folder is none there is no file in it, and the store says so.
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
			if _, err := os.Lstat(c.path); err == nil {
				// Somebody wrote a policy, in a place that is gone for now.
				return nil, errors.New("it is a link to a file that is not there")
			}
			return new(policyDocument), nil
		}
		return nil, errors.New("it cannot be read: " + reason(err))
	}
	// One that was changed just now may be changed again in the same tick of
	// the file system's clock.
	age := c.now().Sub(info.ModTime()).Abs()
	if c.read && age > policySettles && sameFile(c.info, info) {
		return c.doc, c.err
	}
	if !info.Mode().IsRegular() { // to open a pipe would wait for somebody to write to it
		c.read = false
		return nil, errors.New("it is not a file")
	}
	c.doc, c.info, c.err = readPolicy(c.path)
	c.read = c.info != nil
	return c.doc, c.err
}

// sameFile reports whether a file has not changed by its looks.
func sameFile(a, b fs.FileInfo) bool {
	return os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size() && a.Mode() == b.Mode()
}

// readPolicy reads a policy file.
func readPolicy(path string) (*policyDocument, fs.FileInfo, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, errors.New("it cannot be read: " + reason(err))
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, nil, errors.New("it cannot be read: " + reason(err))
	case runtime.GOOS != "windows" && info.Mode().Perm()&0o022 != 0:
		return nil, info, errors.New("others than you may write to it: take that from them by chmod go-w")
	}
	text, err := io.ReadAll(io.LimitReader(f, maxPolicy+1))
	switch {
	case err != nil:
		return nil, info, errors.New("it cannot be read: " + reason(err))
	case len(text) > maxPolicy:
		return nil, info, fmt.Errorf("it is larger than %d bytes", maxPolicy)
	}
	doc, err := parsePolicy(text)
	return doc, info, err
}

// reason returns why a file could not be used, without its path.
func reason(err error) string {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err.Error()
	}
	return err.Error()
}
