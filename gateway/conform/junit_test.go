package conform_test

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/enlist-mcp/enlist/gateway/conform"
)

// element is XML as it is read without knowing what it should be.
type element struct {
	XMLName  xml.Name
	Attrs    []xml.Attr `xml:",any,attr"`
	Elements []element  `xml:",any"`
	Text     string     `xml:",chardata"`
}

func (e element) attr(name string) string {
	for _, a := range e.Attrs {
		if a.Name.Local == name {
			return a.Value
		}
	}
	return ""
}

func (e element) all(name string) (list []element) {
	for _, child := range e.Elements {
		if child.XMLName.Local == name {
			list = append(list, child)
		}
	}
	return list
}

// junitSchema is what JUnit's schema (of Jenkins and of Ant, as far as they agree)
// says of each element: the attributes that it must have, and in which order which
// elements may be in it.
var junitSchema = map[string]struct{ attrs, children []string }{
	"testsuites": {[]string{"name", "tests", "failures", "errors", "time"}, []string{"testsuite"}},
	"testsuite":  {[]string{"name", "tests", "failures", "errors", "skipped", "time", "timestamp", "hostname"}, []string{"properties", "testcase", "system-out", "system-err"}},
	"properties": {nil, []string{"property"}},
	"property":   {[]string{"name", "value"}, nil},
	"testcase":   {[]string{"name", "classname", "time"}, []string{"skipped", "error", "failure", "system-out", "system-err"}},
	"skipped":    {[]string{"message"}, nil},
	"failure":    {[]string{"message", "type"}, nil},
	"system-out": {nil, nil},
}

// valid checks an element against the schema.
func valid(t *testing.T, e element) {
	t.Helper()
	rule, ok := junitSchema[e.XMLName.Local]
	if !ok {
		t.Errorf("there is no element %s", e.XMLName.Local)
		return
	}
	for _, name := range rule.attrs {
		if !slices.ContainsFunc(e.Attrs, func(a xml.Attr) bool { return a.Name.Local == name }) {
			t.Errorf("%s has no attribute %s", e.XMLName.Local, name)
		}
	}
	at := 0
	for _, child := range e.Elements {
		i := slices.Index(rule.children, child.XMLName.Local)
		if i < at {
			t.Errorf("%s cannot stand in %s, or not there", child.XMLName.Local, e.XMLName.Local)
		}
		at = max(at, i)
		valid(t, child)
	}
}

func TestJUnit(t *testing.T) {
	hostile := "a\x00b\x1b[31mred\x1b[0m \u202eback\u2066 <script>&\"' ]]> \xff\xfe \u0085\uffff\U0001F600 \r\nnext"
	check := func(id string, s conform.Severity) conform.Check {
		return conform.Check{ID: id, Expect: "something <good>", Source: conform.Seed, Severity: s}
	}
	evidence := []conform.Exchange{{Request: "POST /x", Status: 200, Answer: hostile}}
	r := conform.Report{
		Protocol: "lona", Target: "https://gateway.example.com", StartedAt: time.Date(2026, 2, 6, 14, 0, 0, 0, time.UTC),
		Seconds: 1.5, Requests: 9, Left: []string{"the agent x" + hostile},
		Results: []conform.Result{
			{Check: check("register.issued", conform.Must), Outcome: conform.Pass},
			{Check: check("a.fails", conform.Must), Outcome: conform.Fail, Reason: hostile, Evidence: evidence},
			{Check: check("b.fails", conform.Should), Outcome: conform.Fail, Reason: hostile, Evidence: evidence},
			{Check: check("c.skipped", conform.Must), Outcome: conform.Skip, Reason: "it needs a mailbox"},
		},
	}
	var out bytes.Buffer
	if err := conform.WriteJUnit(&out, r); err != nil {
		t.Fatal(err)
	}
	text := out.String()
	if !utf8.ValidString(text) || strings.ContainsAny(text, "\x00\x1b\u202e\u2066\u0085\uffff") {
		t.Errorf("it has what it must not have:\n%q", text)
	}
	d := xml.NewDecoder(&out)
	d.Strict = true
	var root element
	if err := d.Decode(&root); err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		for err == nil {
			_, err = d.Token()
		}
		if !errors.Is(err, io.EOF) {
			t.Errorf("behind the root: %v", err)
		}
	}
	valid(t, root)
	suites := root.all("testsuite")
	if root.XMLName.Local != "testsuites" || len(suites) != 1 {
		t.Fatalf("got %s with %d suites", root.XMLName.Local, len(suites))
	}
	suite := suites[0]
	for name, want := range map[string]string{
		"tests": "4", "failures": "1", "errors": "0", "skipped": "2", "time": "1.500", "timestamp": "2026-02-06T14:00:00",
		"hostname": "gateway.example.com", "name": "enlist conform lona",
	} {
		if got := suite.attr(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	cases := suite.all("testcase")
	if len(cases) != 4 || cases[0].attr("name") != "register.issued: something <good>" || cases[0].attr("classname") != "enlist.conform.lona" {
		t.Fatalf("got the cases %+v", cases)
	}
	if f := cases[1].all("failure"); len(f) != 1 || f[0].attr("type") != "must" || !strings.Contains(f[0].attr("message"), "<script>") ||
		!strings.Contains(f[0].Text, "POST /x") || !strings.Contains(f[0].Text, "😀") {
		t.Errorf("got %+v", f)
	}
	if s := cases[2].all("skipped"); len(s) != 1 || len(cases[2].all("failure")) != 0 || !strings.HasPrefix(s[0].attr("message"), "it should: ") {
		t.Errorf("got %+v", s)
	}
	if s := cases[3].all("skipped"); len(s) != 1 || s[0].attr("message") != "it needs a mailbox" {
		t.Errorf("got %+v", s)
	}
}
