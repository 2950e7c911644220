package main

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/json"
	"flag"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/spf13/cobra/doc"
	"go.yaml.in/yaml/v3"
)

var (
	// release is where a release takes its completions and man pages from; "":
	// this is only a test.
	release = flag.String("release", "", "write what archives hold beside the binary into this folder")
	// tag is that of the release.
	tag = flag.String("tag", "", "the tag that is released")
)

// commands returns the program's commands, as a person's shell would have them.
func commands() *program {
	return &program{stdin: strings.NewReader(""), stdout: io.Discard, stderr: io.Discard, env: func(string) string { return "" }, now: time.Now}
}

// TestReleasePages writes the completions and man pages of a release. They are
// made of the commands when they are needed, so that none can be stale, and by a
// test, so that what makes them is not in the binary.
func TestReleasePages(t *testing.T) {
	dir := *release
	if dir == "" {
		dir = t.TempDir()
	}
	man, shells := filepath.Join(dir, "man"), filepath.Join(dir, "completions")
	for _, d := range []string{man, shells} {
		if err := os.RemoveAll(d); err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	root := commands().root()
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd("completion")
	root.DisableAutoGenTag = true
	header := &doc.GenManHeader{Section: "1", Source: "Enlist", Manual: "Enlist"}
	if *release == "" { // else SOURCE_DATE_EPOCH says when
		header.Date = &time.Time{}
	}
	if err := doc.GenManTree(root, header, man); err != nil {
		t.Fatal(err)
	}
	for name, write := range map[string]func(io.Writer) error{
		"enlist.bash": func(w io.Writer) error { return root.GenBashCompletionV2(w, true) },
		"_enlist":     root.GenZshCompletion,
		"enlist.fish": func(w io.Writer) error { return root.GenFishCompletion(w, true) },
		"enlist.ps1":  root.GenPowerShellCompletionWithDesc,
	} {
		var b bytes.Buffer
		if err := write(&b); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(shells, name), b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, cmd := range append(root.Commands(), root) {
		if cmd.Hidden || !cmd.IsAvailableCommand() && cmd != root {
			continue
		}
		page := strings.ReplaceAll(cmd.CommandPath(), " ", "-") + ".1"
		text, err := os.ReadFile(filepath.Join(man, page))
		if err != nil || !bytes.Contains(text, []byte(cmd.Short[:min(20, len(cmd.Short))])) {
			t.Errorf("%s: got %v, want a page that says what it does", page, err)
		}
	}
}

// TestReleaseOfServerJSON: what the MCP registry is told keeps to its schema,
// which is a copy of the one that $schema names, and is of this release.
func TestReleaseOfServerJSON(t *testing.T) {
	text := fitsSchema(t, "server.json", "server.schema.json")
	var s struct {
		Name, Version string
		Packages      []struct {
			RegistryType, Identifier string
			PackageArguments         []struct{ Value string }
		}
	}
	if err := json.Unmarshal(text, &s); err != nil {
		t.Fatal(err)
	}
	if want := strings.TrimPrefix(*tag, "v"); *tag != "" && s.Version != want {
		t.Errorf("server.json is of version %s, and %s is released", s.Version, want)
	}
	if !regexp.MustCompile(`^\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?$`).MatchString(s.Version) {
		t.Errorf("version %q: want a semantic one", s.Version)
	}
	changes := read(t, "CHANGELOG.md")
	newest := regexp.MustCompile(`(?m)^## \[?v?(\d+\.\d+\.\d+)`).FindSubmatch(changes)
	if newest != nil && string(newest[1]) != s.Version {
		t.Errorf("server.json is of version %s, and the newest in CHANGELOG.md is %s", s.Version, newest[1])
	}
	for _, p := range s.Packages {
		if p.RegistryType != "oci" || !strings.HasSuffix(p.Identifier, ":"+s.Version) {
			t.Errorf("package %s: want the image of this version", p.Identifier)
		}
		for _, a := range p.PackageArguments {
			if cmd, _, err := commands().root().Find([]string{a.Value}); err != nil || cmd.Name() != a.Value {
				t.Errorf("there is no command %q", a.Value)
			}
		}
	}
	// The registry looks for it in the image, to see that the two belong together.
	if want := `LABEL io.modelcontextprotocol.server.name="` + s.Name + `"`; !bytes.Contains(read(t, "Dockerfile"), []byte(want)) {
		t.Errorf("the Dockerfile has no %s", want)
	}
}

// TestReleaseOfGoreleaser: the release's configuration keeps to the schema that
// goreleaser jsonschema prints, and names files that there are.
func TestReleaseOfGoreleaser(t *testing.T) {
	text := fitsSchema(t, ".goreleaser.yaml", "goreleaser.schema.json")
	var c struct {
		Builds   []struct{ Env, Goos, Goarch, Flags []string }
		Archives []struct{ Files []struct{ Src string } }
		Checksum struct{ Algorithm string }
	}
	if err := json.Unmarshal(text, &c); err != nil {
		t.Fatal(err)
	}
	if len(c.Builds) != 1 || len(c.Builds[0].Goos)*len(c.Builds[0].Goarch) != 6 || !slices.Contains(c.Builds[0].Env, "CGO_ENABLED=0") ||
		!slices.Contains(c.Builds[0].Flags, "-trimpath") || c.Checksum.Algorithm != "sha256" {
		t.Errorf("got %+v, want six platforms, static, reproducible, with checksums", c)
	}
	var files []string
	for _, a := range c.Archives {
		for _, f := range a.Files {
			files = append(files, f.Src)
			if strings.Contains(f.Src, "*") {
				continue
			}
			if _, err := os.Stat(filepath.Join(root, f.Src)); err != nil {
				t.Error(err)
			}
		}
	}
	for _, want := range []string{"LICENSE", "NOTICE", ".ci/cache/release/completions/*", ".ci/cache/release/man/*"} {
		if !slices.Contains(files, want) {
			t.Errorf("archives: got %q, want %s in them", files, want)
		}
	}
}

// fitsSchema returns a file of the repository's root as JSON, which keeps to a
// schema.
func fitsSchema(t *testing.T, file, schema string) []byte {
	t.Helper()
	var value any
	if err := yaml.Unmarshal(read(t, file), &value); err != nil { // JSON is YAML
		t.Fatal(err)
	}
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	s, err := jsonschema.NewCompiler().Compile(filepath.Join("testdata", "release", schema))
	if err != nil {
		t.Fatal(err)
	}
	instance, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Validate(instance); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	// The schema is one that refuses something.
	if err := s.Validate(map[string]any{"name": 1, "version": "x"}); err == nil {
		t.Fatalf("%s takes anything", schema)
	}
	return text
}

func read(t *testing.T, file string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, file))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// TestReleaseOfTheImage reads the Dockerfile as far as that goes without Docker:
// what it copies is there, what it runs to build makes a static binary, which
// nobody's root runs, and no shell.
func TestReleaseOfTheImage(t *testing.T) {
	text := strings.ReplaceAll(string(read(t, "Dockerfile")), "\\\n", " ")
	stages := strings.Split(regexp.MustCompile(`(?m)^#.*\n`).ReplaceAllString(text, ""), "FROM ")
	if len(stages) != 3 {
		t.Fatalf("got %d stages, want one that builds and one that is the image", len(stages)-1)
	}
	build, image := stages[1], stages[2]
	// Beyond loopback MCP is not served in the clear without a word about it.
	if !regexp.MustCompile(`(?m)^#   docker run .* IMAGE mcp --http 0\.0\.0\.0:\d+ --behind-proxy$`).MatchString(text) {
		t.Error("the Dockerfile does not say how to start MCP over HTTP")
	}
	for _, m := range regexp.MustCompile(`(?m)^#   docker run .* IMAGE (\w.*)$`).FindAllStringSubmatch(text, -1) {
		if err := checkCommand(strings.Fields(m[1]), false); err != nil {
			t.Errorf("the Dockerfile has %s: %v", m[1], err)
		}
	}
	for _, m := range regexp.MustCompile(`(?m)^COPY ([^-].*) \S+$`).FindAllStringSubmatch(build, -1) {
		for _, src := range strings.Fields(m[1]) {
			if _, err := os.Stat(filepath.Join(root, src)); err != nil {
				t.Errorf("COPY: %v", err)
			}
		}
	}
	for _, want := range []string{
		"scratch\n", "\nUSER 65532:65532\n", "\nENTRYPOINT [\"/usr/local/bin/enlist\"]\n", "--from=build --chown=65532:65532 /out/data /data\n",
		"ENV ENLIST_HOME=/data ", "XDG_CONFIG_HOME=/config", "/etc/ssl/certs/ca-certificates.crt",
	} {
		if !strings.Contains(image, want) {
			t.Errorf("the image: got %s\nwant %q in it", image, want)
		}
	}
	line := regexp.MustCompile(`(?m)^RUN (CGO_ENABLED=0 .*go build.*) -o /out/enlist (\./cmd/enlist)$`).FindStringSubmatch(build)
	if line == nil {
		t.Fatalf("got %s, want a line that builds", build)
	}
	binary := filepath.Join(t.TempDir(), "enlist")
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-c", line[1]+` -o "$1" `+line[2], "sh", binary)
	cmd.Dir, cmd.Env = root, append(os.Environ(), "TARGETOS=linux", "TARGETARCH="+runtime.GOARCH)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	f, err := elf.Open(binary)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
			t.Errorf("the binary has %v: it is not static", p.Type)
		}
	}
}
