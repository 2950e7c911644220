package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
	"github.com/spf13/cobra"

	"github.com/enlist-mcp/enlist/embeddedgateway"
)

// The tables of the file that are no settings of their own.
const (
	ruleTable = "rule" // [[rule]]: methods, path, scopes
	envTable  = "env"  // [env]: the protocols' own variables
)

// fileLeaf is a value of the file that is no table.
type fileLeaf struct {
	name   string // with its tables: "upstream.url"
	nth    int    // which [[rule]] it is of, from 1
	line   int
	kind   unstable.Kind
	values []string // of an array of texts its members
	texts  bool     // an array, and of texts only
}

// settingsFile is the configuration file, taken apart.
type settingsFile struct {
	path   string
	leaves []fileLeaf
	tables []fileLeaf // the headers of tables
	rules  int
}

// readSettingsFile reads the file. What is in it is judged by whoever asks for it.
func readSettingsFile(path string) (*settingsFile, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	f := &settingsFile{path: path}
	var all map[string]any // it is stricter than the parser: a key twice
	if err := toml.Unmarshal(text, &all); err != nil {
		var wrong *toml.DecodeError
		if errors.As(err, &wrong) {
			line, column := wrong.Position()
			return nil, fmt.Errorf("%s:%d:%d: %s", path, line, column, strings.TrimPrefix(wrong.Error(), "toml: "))
		}
		return nil, fmt.Errorf("%s: it is not valid TOML", path)
	}
	var p unstable.Parser
	p.Reset(text)
	var table []string
	nth := 0
	for p.NextExpression() {
		e := p.Expression()
		key, from, _ := tomlKey(e)
		line := 1 + strings.Count(string(text[:from]), "\n")
		switch e.Kind {
		case unstable.KeyValue:
			f.add(append(slices.Clone(table), key...), nth, line, e.Value())
		case unstable.ArrayTable, unstable.Table:
			table, nth = key, 0
			if e.Kind == unstable.ArrayTable && slices.Equal(key, []string{ruleTable}) {
				f.rules++
				nth = f.rules
			}
			f.tables = append(f.tables, fileLeaf{name: strings.Join(key, "."), nth: nth, line: line, kind: e.Kind})
		default: // a comment
		}
	}
	return f, p.Error()
}

// add notes a value, and of an inline table what is in it.
func (f *settingsFile) add(key []string, nth, line int, value *unstable.Node) {
	name := strings.Join(key, ".")
	leaf := fileLeaf{name: name, nth: nth, line: line, kind: value.Kind, values: []string{string(value.Data)}}
	switch value.Kind {
	case unstable.InlineTable:
		if len(key) == 1 && nth == 0 {
			f.tables = append(f.tables, fileLeaf{name: name, line: line, kind: unstable.Table})
		}
		for it := value.Children(); it.Next(); {
			if member := it.Node(); member.Kind == unstable.KeyValue {
				more, _, _ := tomlKey(member)
				f.add(append(slices.Clone(key), more...), nth, line, member.Value())
			}
		}
		return
	case unstable.Array:
		leaf.values, leaf.texts = nil, true
		for it := value.Children(); it.Next(); {
			member := it.Node()
			if member.Kind == unstable.Comment {
				continue
			}
			if member.Kind == unstable.InlineTable && name == ruleTable {
				f.rules++
				f.tables = append(f.tables, fileLeaf{name: name, nth: f.rules, line: line, kind: unstable.ArrayTable})
				f.add(key, f.rules, line, member)
				continue
			}
			leaf.texts = leaf.texts && member.Kind == unstable.String
			leaf.values = append(leaf.values, string(member.Data))
		}
		if name == ruleTable && len(leaf.values) == 0 {
			return
		}
	default:
	}
	f.leaves = append(f.leaves, leaf)
}

// at is where a leaf stands, as an origin.
func (f *settingsFile) at(l fileLeaf) origin {
	return origin{kind: fromFile, name: l.name, file: f.path, line: l.line}
}

// as returns the values of a leaf for a setting, or why they are none.
func (l fileLeaf) as(to any) ([]string, error) {
	got := map[unstable.Kind]string{
		unstable.String: "a text", unstable.Bool: "a truth value", unstable.Integer: "a number", unstable.Float: "a number",
		unstable.Array: "a list", unstable.LocalDate: "a date", unstable.LocalTime: "a time of day",
		unstable.LocalDateTime: "a date", unstable.DateTime: "a date",
	}[l.kind]
	if wantsList(to) {
		if l.kind != unstable.Array || !l.texts {
			return nil, fmt.Errorf(`want a list of texts such as ["a", "b"], got %s`, got)
		}
		return l.values, nil
	}
	if _, ok := to.(*bool); ok {
		if l.kind != unstable.Bool {
			return nil, fmt.Errorf("want true or false, without quotation marks, got %s", got)
		}
		return l.values, nil
	}
	if _, ok := to.(*int); ok {
		if l.kind != unstable.Integer {
			return nil, fmt.Errorf("want a whole number such as 256, without quotation marks, got %s", got)
		}
		return l.values, nil
	}
	if l.kind != unstable.String {
		return nil, fmt.Errorf("want %s, in quotation marks, got %s", wantsText(to), got)
	}
	return l.values, nil
}

// readFile takes over what the file sets. Every mistake in it is a problem.
func (r *settingsReader) readFile(f *settingsFile) {
	var names []string
	byName := map[string]setting{}
	for _, s := range r.list {
		if !s.secret {
			names, byName[s.name] = append(names, s.name), s
		}
	}
	names = append(names, ruleTable+".methods", ruleTable+".path", ruleTable+".scopes")
	for _, t := range f.tables {
		r.checkTable(f, t, names)
	}
	rules := make([]embeddedgateway.Rule, f.rules)
	for _, l := range f.leaves {
		table, member, _ := strings.Cut(l.name, ".")
		s, known := byName[l.name]
		switch {
		case table == envTable && member != "":
			r.readVariable(f, l, member)
		case table == ruleTable && l.nth == 0 && member != "":
			// That [rule] is none was said of the table.
		case table == ruleTable && l.nth > 0:
			r.readRule(f, l, &rules[l.nth-1], names)
		case !known:
			r.unknown(f, l, names)
		default:
			r.fromFile(f, l, s)
		}
	}
	for _, t := range f.tables {
		if t.name == ruleTable && t.nth > 0 {
			r.settings.from[ruleSetting(t.nth)] = f.at(t)
		}
		hasPath := slices.ContainsFunc(f.leaves, func(l fileLeaf) bool { return l.name == ruleTable+".path" && l.nth == t.nth })
		if t.name == ruleTable && t.nth > 0 && !hasPath {
			r.problem(f.at(t), errors.New(`it has no path, such as path = "/reports"`))
		}
	}
	r.settings.Rules = rules
}

// ruleSetting is how the nth [[rule]] is called, from 1.
func ruleSetting(nth int) string { return ruleTable + " " + strconv.Itoa(nth) }

func (r *settingsReader) fromFile(f *settingsFile, l fileLeaf, s setting) {
	at := f.at(l)
	values, err := l.as(s.to(r.settings))
	if err == nil {
		if s.path && !filepath.IsAbs(values[0]) {
			values = []string{filepath.Join(filepath.Dir(f.path), values[0])}
		}
		if s.name == "database" {
			values = []string{besideFile(f.path, values[0])}
		}
		r.put(s, at, values)
		return
	}
	r.problem(at, err)
}

// besideFile is a database of which the file says where it is: a SQLite file
// beside it.
func besideFile(file, database string) string {
	path, ok := strings.CutPrefix(database, "sqlite:")
	if !ok || path == "" || filepath.IsAbs(path) {
		return database
	}
	return "sqlite:" + filepath.Join(filepath.Dir(file), path)
}

// checkTable says where a table is none.
func (r *settingsReader) checkTable(f *settingsFile, t fileLeaf, names []string) {
	isRule := t.name == ruleTable
	if isRule && t.kind == unstable.ArrayTable || t.name == envTable && t.kind == unstable.Table {
		return
	}
	if isRule {
		r.problem(f.at(t), errors.New("there may be several: write [[rule]]"))
		return
	}
	known := slices.ContainsFunc(names, func(name string) bool { return strings.HasPrefix(name, t.name+".") })
	switch {
	case !known:
		r.unknown(f, t, tablesOf(names))
	case t.kind == unstable.ArrayTable:
		r.problem(f.at(t), fmt.Errorf("there is one: write [%s]", t.name))
	}
}

func tablesOf(names []string) []string {
	tables := []string{envTable}
	for _, name := range names {
		if table, _, ok := strings.Cut(name, "."); ok && !slices.Contains(tables, table) {
			tables = append(tables, table)
		}
	}
	return tables
}

// unknown reports a name that no setting has, once a table.
func (r *settingsReader) unknown(f *settingsFile, l fileLeaf, names []string) {
	table, _, within := strings.Cut(l.name, ".")
	if within && !slices.Contains(tablesOf(append(names, ruleTable+".")), table) && r.wrongAt(table) {
		return // its table is unknown, and that was said
	}
	why := errors.New("there is no such setting")
	for _, s := range r.list {
		if s.secret && s.name == l.name {
			why = fmt.Errorf("a secret is not put into this file: name a file with it (%s_file), or set %s", s.name, s.env)
			r.problem(f.at(l), why)
			return
		}
	}
	if near := nearest(l.name, names); near != "" {
		why = fmt.Errorf("there is no such setting; did you mean %s?", near)
	}
	r.problem(f.at(l), why)
}

// nearest returns the name that was probably meant, or "".
func nearest(name string, names []string) string {
	known := &cobra.Command{SuggestionsMinimumDistance: 3}
	for _, n := range names {
		known.AddCommand(&cobra.Command{Use: n, Run: func(*cobra.Command, []string) {}})
	}
	if near := known.SuggestionsFor(name); len(near) > 0 {
		return near[0]
	}
	// The right name in no table, or in another one.
	_, last, _ := strings.Cut("."+name, ".")
	if i := strings.LastIndex(name, "."); i >= 0 {
		last = name[i+1:]
	}
	for _, n := range names {
		if strings.HasSuffix(n, "."+last) || n == last {
			return n
		}
	}
	return ""
}

// readRule takes over a value of a [[rule]].
func (r *settingsReader) readRule(f *settingsFile, l fileLeaf, rule *embeddedgateway.Rule, names []string) {
	to := map[string]any{"methods": &rule.Methods, "path": &rule.Path, "scopes": &rule.Scopes}[strings.TrimPrefix(l.name, ruleTable+".")]
	if to == nil {
		r.unknown(f, l, names)
		return
	}
	values, err := l.as(to)
	if err == nil {
		err = put(to, values)
	}
	if err == nil && to == any(&rule.Path) && !strings.HasPrefix(rule.Path, "/") {
		err = fmt.Errorf("want a path that begins with /, got %q", rule.Path)
	}
	for _, method := range rule.Methods {
		if to == any(&rule.Methods) && method != strings.ToUpper(method) {
			err = fmt.Errorf("want methods such as GET, got %q", method)
		}
	}
	if err != nil {
		r.problem(f.at(l), err)
	}
}

// readVariable takes over a protocol's own variable.
func (r *settingsReader) readVariable(f *settingsFile, l fileLeaf, name string) {
	names := append(embeddedgateway.Variables(), partnerSecretFile)
	switch {
	case name == partnerSecret:
		r.problem(f.at(l), fmt.Errorf("a secret is not put into this file: name a file with it (%s), or set it in the environment", partnerSecretFile))
		return
	case !slices.Contains(names, name):
		r.unknown(f, l, prefixed(envTable+".", names))
		return
	}
	value := ""
	switch l.kind {
	case unstable.String, unstable.Integer, unstable.Bool:
		value = l.values[0]
	default:
		r.problem(f.at(l), errors.New("want a text, a number or true or false"))
		return
	}
	if name == partnerSecretFile && !filepath.IsAbs(value) {
		value = filepath.Join(filepath.Dir(f.path), value)
	}
	r.settings.Env[name] = value
	r.settings.from[envTable+"."+name] = f.at(l)
}

func prefixed(prefix string, names []string) []string {
	var list []string
	for _, n := range names {
		list = append(list, prefix+n)
	}
	return list
}

// origin is where a setting was set.
type origin struct {
	kind originKind
	name string // as it is spelled there
	file string
	line int
}

type originKind int

const (
	fromDefault originKind = iota
	fromFile
	fromEnvironment
	fromFlag
)

// String says where it was, in short.
func (o origin) String() string {
	switch o.kind {
	case fromFile:
		return o.file + ":" + strconv.Itoa(o.line)
	case fromDefault:
		return "default"
	default:
		return o.name
	}
}

// says is how a message begins about what is wrong there.
func (o origin) says() string {
	if o.kind == fromFile {
		return o.String() + ": " + o.name
	}
	return o.name
}
