package main

import (
	"bytes"
	"cmp"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/licensecheck"

	"github.com/enlist-mcp/enlist/tools"
)

// update rewrites what is generated: go test ./cmd/enlist -run Generated -update
var update = flag.Bool("update", false, "rewrite the generated files")

const root = "../.."

// TestGeneratedToolsTable keeps the README's table of tools equal to the tools.
func TestGeneratedToolsTable(t *testing.T) {
	checkReadme(t, "tools", tools.Markdown())
}

// checkReadme keeps one generated part of the README equal to what it should be.
func checkReadme(t *testing.T, name, want string) {
	t.Helper()
	begin, end := "<!-- "+name+": generated -->\n", "<!-- /"+name+" -->"
	path := filepath.Join(root, "README.md")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), begin)
	if !ok {
		t.Fatalf("README.md has no line %q", begin)
	}
	_, after, ok := strings.Cut(rest, end)
	if !ok {
		t.Fatalf("README.md has no %q", end)
	}
	checkGenerated(t, path, before+begin+want+end+after)
}

// TestGeneratedNotice keeps NOTICE equal to what is linked into the binary on
// the platforms that are built.
func TestGeneratedNotice(t *testing.T) {
	t.Parallel()
	modules := linked(t)
	var b strings.Builder
	b.WriteString(`Enlist
Copyright 2026 The Enlist authors

Licensed under the Apache License, Version 2.0; see LICENSE.

The enlist binary contains the modules below, on the platforms for which it is
built. Their licences follow. This file is generated:
go test ./cmd/enlist -run Generated -update

`)
	for _, m := range modules {
		if strings.Contains(m.path, "tiktoken") {
			t.Errorf("%s is in the binary; it is for tests, and as large as all the rest", m.path)
		}
		fmt.Fprintf(&b, "%-45s %-40s %s\n", m.path, m.version, strings.Join(m.licences, ", "))
	}
	printed := map[string]bool{}
	for _, m := range modules {
		for _, text := range m.texts {
			if printed[text] {
				continue
			}
			printed[text] = true
			var users []string
			for _, other := range modules {
				if slices.Contains(other.texts, text) {
					users = append(users, other.path)
				}
			}
			fmt.Fprintf(&b, "\n%s\n%s\n\n%s\n", strings.Repeat("=", 78), strings.Join(users, "\n"), text)
		}
	}
	checkGenerated(t, filepath.Join(root, "NOTICE"), b.String())
}

// module is one module whose code is in the binary.
type module struct {
	path, version, dir string
	licences           []string // SPDX identifiers
	texts              []string
}

// linked returns the modules of the binary, sorted, with the Go standard
// library first.
func linked(t *testing.T) []module {
	t.Helper()
	seen := map[string]module{}
	for _, goos := range []string{"linux", "darwin", "windows"} {
		cmd := exec.Command("go", "list", "-deps", "-f",
			"{{with .Module}}{{if not .Main}}{{.Path}}\t{{.Version}}\t{{.Dir}}{{end}}{{end}}", ".")
		cmd.Env = append(os.Environ(), "GOOS="+goos, "GOARCH=amd64", "CGO_ENABLED=0")
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("go list: %v\n%s", err, stderr.String())
		}
		for line := range strings.Lines(string(out)) {
			fields := strings.Split(strings.TrimSpace(line), "\t")
			if len(fields) == 3 {
				seen[fields[0]] = module{path: fields[0], version: fields[1], dir: fields[2]}
			}
		}
	}
	goroot, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	list := []module{{path: "Go standard library and runtime", dir: strings.TrimSpace(string(goroot))}}
	for _, m := range seen {
		list = append(list, m)
	}
	slices.SortFunc(list[1:], func(a, b module) int { return cmp.Compare(a.path, b.path) })
	for i := range list {
		readLicences(t, &list[i])
	}
	return list
}

func readLicences(t *testing.T, m *module) {
	t.Helper()
	entries, err := os.ReadDir(m.dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		name := strings.ToUpper(e.Name())
		if e.IsDir() || !strings.HasPrefix(name, "LICEN") && !strings.HasPrefix(name, "COPYING") && name != "NOTICE" {
			continue
		}
		text, err := os.ReadFile(filepath.Join(m.dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		m.texts = append(m.texts, strings.TrimSpace(strings.ReplaceAll(string(text), "\r\n", "\n")))
		for _, match := range licensecheck.Scan(text).Match {
			if !match.IsURL && !slices.Contains(m.licences, match.ID) {
				m.licences = append(m.licences, match.ID)
			}
		}
	}
	if len(m.licences) == 0 {
		t.Errorf("%s: no licence found in %s", m.path, m.dir)
	}
}

func checkGenerated(t *testing.T, path, want string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("%s is stale; run: go test ./cmd/enlist -run Generated -update", filepath.Base(path))
	}
}
