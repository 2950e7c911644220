package main

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"
)

// The protocols' own variable that holds a secret, and the one that names a file
// with it.
const (
	partnerSecret     = "AGENT_REGISTRATION_SECRET"      //nolint:gosec // the name of a variable
	partnerSecretFile = "AGENT_REGISTRATION_SECRET_FILE" //nolint:gosec // the name of a variable
)

// settingsReader puts the settings together, and collects what is wrong with
// them, so that an operator hears of everything at once.
type settingsReader struct {
	list     []setting
	settings *gatewaySettings
	problems []settingProblem
}

// settingProblem is one thing that is wrong with the settings.
type settingProblem struct {
	at  origin
	err error
}

// Error implements error. It begins with the setting, as it was spelled.
func (p settingProblem) Error() string {
	if p.at.name == "" {
		return p.err.Error()
	}
	return p.at.says() + ": " + p.err.Error()
}

// Unwrap returns what is wrong.
func (p settingProblem) Unwrap() error { return p.err }

func (r *settingsReader) problem(at origin, err error) {
	r.problems = append(r.problems, settingProblem{at, err})
}

func (r *settingsReader) wrongAt(name string) bool {
	return slices.ContainsFunc(r.problems, func(p settingProblem) bool { return p.at.name == name })
}

// failed is all that is wrong as one error: of the command line where nothing
// else is.
func failedSettings(problems []settingProblem) error {
	if len(problems) == 0 {
		return nil
	}
	usage := true
	var errs []error
	for _, p := range problems {
		usage = usage && p.at.kind == fromFlag
		errs = append(errs, p)
	}
	if usage {
		return &usageError{errors.Join(errs...)}
	}
	return errors.Join(errs...)
}

// flagValues are what flags of the command line were given, by their names. A
// flag that was not given is not in it.
type flagValues map[string][]string

// readSettings reads the settings of `enlist gateway`: a flag goes before the
// environment, that before the file, that before the default.
func (p *program) readSettings(given flagValues) (*gatewaySettings, []settingProblem) {
	r := &settingsReader{list: gatewaySettingList(), settings: gatewayDefaults()}
	if file, at := p.settingsFile(); file != "" {
		r.settings.file = file
		f, err := readSettingsFile(file)
		if err != nil {
			r.problem(at, err)
		} else {
			r.readFile(f)
		}
	}
	for _, s := range r.list {
		to := s.to(r.settings)
		if value := p.env(s.env); s.env != "" && value != "" {
			r.put(s, origin{kind: fromEnvironment, name: s.env}, splitFor(to, value))
		}
		if values, ok := given[s.flag]; ok && s.flag != "" {
			r.put(s, origin{kind: fromFlag, name: "--" + s.flag}, values)
		}
	}
	r.check()
	slices.SortStableFunc(r.problems, func(a, b settingProblem) int {
		return cmp.Or(-cmp.Compare(a.at.kind, b.at.kind), cmp.Compare(a.at.line, b.at.line))
	})
	return r.settings, r.problems
}

// settingsFile returns the configuration file, "" for none, and who named it.
func (p *program) settingsFile() (string, origin) {
	if p.gatewayFile != "" {
		return p.gatewayFile, origin{kind: fromFlag, name: "--config"}
	}
	return p.env("ENLIST_GATEWAY_CONFIG"), origin{kind: fromEnvironment, name: "ENLIST_GATEWAY_CONFIG"}
}

// put takes a value over. What was wrong with one that it goes before is no
// matter any more.
func (r *settingsReader) put(s setting, at origin, values []string) {
	if old, ok := r.settings.from[s.name]; ok {
		r.problems = slices.DeleteFunc(r.problems, func(p settingProblem) bool { return p.at == old })
	}
	r.settings.from[s.name] = at
	to := s.to(r.settings)
	if err := put(to, values); err != nil {
		r.problem(at, err)
		return
	}
	if d, ok := to.(*time.Duration); ok && *d < 0 && !s.signed {
		r.problem(at, fmt.Errorf("want no negative time, got %s", showSpan(*d)))
	}
}

// check judges the values, and what does not go together.
func (r *settingsReader) check() {
	for _, s := range r.list {
		at, set := r.settings.from[s.name]
		if s.check == nil || !set || slices.ContainsFunc(r.problems, func(p settingProblem) bool { return p.at == at }) {
			continue
		}
		if err := s.check(r.settings); err != nil {
			r.problem(at, err)
		}
	}
	r.together("tls.cert", "tls.key")
	r.together("admin_tls.cert", "admin_tls.key")
	r.oneOnly("server_key", "server_key_file")
	r.oneOnly("admin_token", "admin_token_file")
	r.oneOnly("smtp.url", "smtp.url_file")
	r.oneOnly("database", "database_url_file")
}

// together reports two settings of which one was left out.
func (r *settingsReader) together(a, b string) {
	from := r.settings.from
	for _, pair := range [][2]string{{a, b}, {b, a}} {
		at, is := from[pair[0]]
		if _, other := from[pair[1]]; is && !other {
			r.problem(at, fmt.Errorf("it goes with %s, which is not set", r.spelled(pair[1], at.kind)))
		}
	}
}

// oneOnly has the second of two ways to set the same wait for the first: where
// both are set in one place, nobody can tell which is meant.
func (r *settingsReader) oneOnly(a, b string) {
	first, isFirst := r.settings.from[a]
	second, isSecond := r.settings.from[b]
	switch {
	case !isFirst || !isSecond:
	case first.kind == second.kind:
		r.problem(first, fmt.Errorf("both %s and %s are set: leave one out", first.name, second.name))
	case first.kind > second.kind:
		_ = put(r.of(b).to(r.settings), []string{""})
		delete(r.settings.from, b)
	default:
		_ = put(r.of(a).to(r.settings), []string{""})
		delete(r.settings.from, a)
	}
}

func (r *settingsReader) of(name string) setting {
	return r.list[slices.IndexFunc(r.list, func(s setting) bool { return s.name == name })]
}

// spelled is how a setting is called where another one was set.
func (r *settingsReader) spelled(name string, kind originKind) string {
	s := r.of(name)
	switch {
	case kind == fromFlag && s.flag != "":
		return "--" + s.flag
	case kind == fromEnvironment && s.env != "":
		return s.env
	}
	return s.name
}

// spelledAs is how a setting was called by whoever set it; its name in the file
// where nobody did.
func (s *gatewaySettings) spelledAs(name string) string {
	if at, ok := s.from[name]; ok {
		return at.says()
	}
	return name
}

// wantsList reports whether a setting has several values.
func wantsList(to any) bool {
	switch to.(type) {
	case *[]string, *[]netip.Prefix:
		return true
	}
	return false
}

// wantsText says what a text is to look like.
func wantsText(to any) string {
	switch to.(type) {
	case *time.Duration:
		return "a time such as 30s or 90d"
	case *byteSize:
		return "a size such as 10MiB"
	default:
		return "a text"
	}
}

// splitFor takes the value of a variable apart, if it is a list.
func splitFor(to any, value string) []string {
	if !wantsList(to) {
		return []string{value}
	}
	var list []string
	for part := range strings.SplitSeq(value, ",") {
		if part = strings.TrimSpace(part); part != "" {
			list = append(list, part)
		}
	}
	return list
}

// secretOf returns a secret: what a variable holds, or the first line of a file,
// which not everybody may read.
func (s *gatewaySettings) secretOf(text, file, fileName string) (string, error) {
	if text != "" {
		return text, nil
	}
	return readSecret(s.spelledAs(fileName), file)
}

// readSecret reads the first line of a file that a setting names; "" for none.
func readSecret(setting, file string) (string, error) {
	if file == "" {
		return "", nil
	}
	if err := checkSecretFile(setting, file); err != nil {
		return "", err
	}
	return firstLine(setting, file)
}

// checkSecretFile refuses a file with a secret that everybody may read.
func checkSecretFile(setting, file string) error {
	info, err := os.Stat(file)
	if err != nil {
		return fmt.Errorf("%s: %w", setting, err)
	}
	if mode := info.Mode().Perm(); runtime.GOOS != "windows" && mode&0o007 != 0 {
		return fmt.Errorf("%s: %s can be read by everybody (mode %04o): chmod 600 it, and if others have read it, make another", setting, file, mode)
	}
	return nil
}
