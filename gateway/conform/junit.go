package conform

import (
	"encoding/xml"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// The elements of JUnit's XML, as its readers know them.
type junitSuites struct {
	XMLName  xml.Name     `xml:"testsuites"`
	Name     string       `xml:"name,attr"`
	Tests    int          `xml:"tests,attr"`
	Failures int          `xml:"failures,attr"`
	Errors   int          `xml:"errors,attr"`
	Time     string       `xml:"time,attr"`
	Suites   []junitSuite `xml:"testsuite"`
}

type junitSuite struct {
	Name       string          `xml:"name,attr"`
	Tests      int             `xml:"tests,attr"`
	Failures   int             `xml:"failures,attr"`
	Errors     int             `xml:"errors,attr"`
	Skipped    int             `xml:"skipped,attr"`
	Time       string          `xml:"time,attr"`
	Timestamp  string          `xml:"timestamp,attr"`
	Hostname   string          `xml:"hostname,attr"`
	Properties []junitProperty `xml:"properties>property"`
	Cases      []junitCase     `xml:"testcase"`
	Out        string          `xml:"system-out,omitempty"`
}

type junitProperty struct {
	Name  string `xml:"name,attr"`
	Value string `xml:"value,attr"`
}

type junitCase struct {
	Name    string        `xml:"name,attr"`
	Class   string        `xml:"classname,attr"`
	Time    string        `xml:"time,attr"`
	Skipped *junitMessage `xml:"skipped"`
	Failure *junitMessage `xml:"failure"`
	Out     string        `xml:"system-out,omitempty"`
}

type junitMessage struct {
	Message string `xml:"message,attr"`
	Type    string `xml:"type,attr,omitempty"`
	Text    string `xml:",chardata"`
}

// WriteJUnit writes a report as JUnit's XML. What a service should do and does
// not is skipped there, with its reason: a failure is what ends a build.
func WriteJUnit(w io.Writer, r Report) error {
	host := r.Target
	if _, rest, ok := strings.Cut(host, "://"); ok {
		host = rest
	}
	suite := junitSuite{
		Name: "enlist conform " + r.Protocol, Tests: len(r.Results), Time: seconds(r.Seconds),
		Timestamp: r.StartedAt.UTC().Format("2006-01-02T15:04:05"), Hostname: inXML(host),
		Properties: []junitProperty{{"target", inXML(r.Target)}, {"protocol", inXML(r.Protocol)}, {"requests", strconv.Itoa(r.Requests)}},
		Out:        inXML(strings.Join(r.Left, "\n")),
	}
	for _, result := range r.Results {
		c := junitCase{
			Name: inXML(result.ID + ": " + result.Expect), Class: "enlist.conform." + r.Protocol, Time: seconds(0),
		}
		message := &junitMessage{Message: inXML(result.Reason)}
		switch {
		case result.Outcome == Fail && result.Severity == Must:
			message.Type, message.Text = string(result.Severity), inXML(evidenceText(result))
			c.Failure = message
			suite.Failures++
		case result.Outcome == Fail:
			message.Message = "it should: " + message.Message
			c.Skipped, c.Out = message, inXML(evidenceText(result))
			suite.Skipped++
		case result.Outcome == Skip:
			c.Skipped = message
			suite.Skipped++
		}
		suite.Cases = append(suite.Cases, c)
	}
	suites := junitSuites{
		Name: "enlist conform", Tests: suite.Tests, Failures: suite.Failures, Time: suite.Time, Suites: []junitSuite{suite},
	}
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	enc := xml.NewEncoder(w)
	enc.Indent("", "  ")
	if err := enc.Encode(suites); err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	_, err := io.WriteString(w, "\n")
	return err
}

func seconds(n float64) string {
	return strconv.FormatFloat(time.Duration(n*float64(time.Second)).Seconds(), 'f', 3, 64)
}

// evidenceText is what was asked and answered, for people.
func evidenceText(r Result) string {
	var b strings.Builder
	fmt.Fprintf(&b, "source: %s\n", r.Source)
	for _, e := range r.Evidence {
		fmt.Fprintf(&b, "%s\n  %d %s\n", e.Request, e.Status, e.Answer)
	}
	return b.String()
}

// inXML is a text as it can stand in XML, whoever wrote it: without control
// characters, which XML has no way to spell, and without what changes how a
// terminal shows it.
func inXML(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return r
		case r == utf8.RuneError || unicode.IsControl(r) || unicode.In(r, unicode.Cf) || r == 0xFFFE || r == 0xFFFF:
			return -1
		}
		return r
	}, text)
}
