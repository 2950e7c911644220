package main

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// figuresFile holds what the benchmarks printed when the README's figures were
// measured. CONTRIBUTING.md says how to measure them again.
const figuresFile = "testdata/figures.txt"

// measured is what a benchmark printed: its values by their units.
type measured map[string]float64

// TestGeneratedFigures keeps the README's table of figures equal to what was
// measured.
func TestGeneratedFigures(t *testing.T) {
	all, machine := readFigures(t)
	value := func(benchmark, unit, format string) string {
		v, ok := all[benchmark][unit]
		if !ok {
			t.Errorf("%s has no %s of %s: measure again", figuresFile, unit, benchmark)
		}
		if strings.Contains(format, "%%") {
			v *= 100
		}
		return fmt.Sprintf(format, v)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "| With %s agents, on %s | a second | p50, p99 | beside |\n|---|---|---|---|\n", value("Authenticated/lona", "agents", "%.0f"), machine)
	for _, r := range []struct{ what, benchmark string }{
		{"Request with a token of Lona", "Authenticated/lona"},
		{"… a key of Lithtrix", "Authenticated/lithtrix"},
		{"… an API key of AgentDoor", "Authenticated/agentdoor_key"},
		{"… a JWT of AgentDoor", "Authenticated/agentdoor_jwt"},
		{"… a JWT of Fluxra", "Authenticated/fluxra_jwt"},
		{"… a key of Lumina", "Authenticated/lumina"},
		{"A proxy's question to `/.enlist/verify`, with a token of Lona", "Verify/lona"},
		{"Request with a token of Lona, on PostgreSQL", "Postgres/lona"},
	} {
		fmt.Fprintf(&b, "| %s | %s | %s, %s ms | %s of a bare `net/http` handler |\n", r.what, value(r.benchmark, "req/s", "%.0f"),
			value(r.benchmark, "p50-ms", "%.1f"), value(r.benchmark, "p99-ms", "%.1f"), value(r.benchmark, "of-bare", "%.0f%%"))
	}
	for _, r := range []struct{ what, benchmark, unit, format, beside string }{
		{"Registration at Lona by secret", "Registered/lona", "of-inserts", "%.0f%%", " of a bare insert in a shared commit"},
		{"… at Lithtrix", "Registered/lithtrix", "", "", ""},
		{"… at AgentDoor, verified", "Registered/agentdoor", "×express", "%.0f×", " AgentDoor's own server on Express"},
		{"… at Fluxra, with key and token", "Registered/fluxra", "", "", ""},
		{"… at Lumina", "Registered/lumina", "×real-here", "%.1f×", " Lumina's own API (360 a second where Express does 101)"},
	} {
		beside := ""
		if r.unit != "" {
			beside = value(r.benchmark, r.unit, r.format) + r.beside
		}
		fmt.Fprintf(&b, "| %s | %s | %s, %s ms | %s |\n", r.what, value(r.benchmark, "accounts/s", "%.0f"),
			value(r.benchmark, "p50-ms", "%.1f"), value(r.benchmark, "p99-ms", "%.1f"), beside)
	}
	fmt.Fprintf(&b, "| The same requests, of a thousandth of the agents | %s | | %s of the processor's time with all of them |\n",
		value("Growth/requests", "few/s", "%.0f"), value("Growth/requests", "×cpu", "%.2f×"))
	fmt.Fprintf(&b, "| The same registrations, of a thousandth of the agents | %s | | %s of the processor's time with all of them |\n",
		value("Growth/registrations", "few/s", "%.0f"), value("Growth/registrations", "×cpu", "%.2f×"))
	fmt.Fprintf(&b, "| Registrations at Lona with PostgreSQL %s ms away, by two gateways | %s | | %s those by one |\n",
		value("Replicas", "round-trip-ms", "%.0f"), value("Replicas", "two/s", "%.0f"), value("Replicas", "×one", "%.1f×"))
	checkReadme(t, "figures", b.String())
}

// resultLine is a line of a benchmark's result. The number of processors is
// behind its name.
var resultLine = regexp.MustCompile(`^Benchmark(\S+?)(?:-(\d+))?\s+\d+\s+(.*)$`)

// readFigures reads the file of figures, and says what machine they are of.
func readFigures(t *testing.T) (all map[string]measured, machine string) {
	t.Helper()
	f, err := os.Open(filepath.FromSlash(figuresFile))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	all = map[string]measured{}
	var cpu, cores string
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if name, ok := strings.CutPrefix(lines.Text(), "cpu: "); ok {
			cpu = name
		}
		m := resultLine.FindStringSubmatch(lines.Text())
		if m == nil {
			continue
		}
		cores = m[2]
		all[m[1]] = measured{}
		fields := strings.Fields(m[3])
		for i := 0; i+1 < len(fields); i += 2 {
			v, err := strconv.ParseFloat(fields[i], 64)
			if err != nil {
				t.Fatalf("%s: %v", figuresFile, err)
			}
			all[m[1]][fields[i+1]] = v
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return all, fmt.Sprintf("%s cores (%s)", cores, cpu)
}
