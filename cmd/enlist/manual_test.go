package main

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/enlist-mcp/enlist/tools"
)

// manualPages returns the pages of the manual by their names, without the index.
func manualPages(t *testing.T) map[string]string {
	t.Helper()
	pages := map[string]string{}
	entries, err := fs.ReadDir(docs, "docs")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if name := strings.TrimSuffix(e.Name(), ".md"); name != indexPage {
			pages[name] = manual(name)
		}
	}
	if len(pages) < 10 {
		t.Fatalf("only %d pages", len(pages))
	}
	return pages
}

// writings are the pages and what else people read first, by their paths in the
// repository.
func writings(t *testing.T) map[string]string {
	t.Helper()
	texts := map[string]string{"cmd/enlist/docs/README.md": manual(indexPage)}
	for name, text := range manualPages(t) {
		texts["cmd/enlist/docs/"+name+".md"] = text
	}
	for _, name := range []string{"README.md", "CONTRIBUTING.md"} {
		text, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		texts[name] = string(text)
	}
	return texts
}

// fenced is a block of code.
type fenced struct{ info, text string }

// fences returns the blocks of code of a text, and the text without them.
func fences(t *testing.T, text string) (blocks []fenced, rest string) {
	t.Helper()
	var b, out strings.Builder
	info, within := "", false
	for line := range strings.Lines(text) {
		mark, found := strings.CutPrefix(strings.TrimRight(line, "\n"), "```")
		switch {
		case found && !within && !strings.Contains(mark, "`"):
			info, within = mark, true
		case found && within && mark == "":
			blocks, within = append(blocks, fenced{info, b.String()}), false
			b.Reset()
		case within:
			b.WriteString(line)
		default:
			out.WriteString(line)
		}
	}
	if within {
		t.Errorf("a block of code does not end:\n%s", b.String())
	}
	return blocks, out.String()
}

var codeSpan = regexp.MustCompile("`([^`]+)`")

// spans returns what stands in backquotes outside blocks.
func spans(t *testing.T, text string) []string {
	t.Helper()
	_, rest := fences(t, text)
	var found []string
	for _, m := range codeSpan.FindAllStringSubmatch(rest, -1) {
		found = append(found, m[1])
	}
	return found
}

func TestTheIndexHasEveryPage(t *testing.T) {
	var got, want []string
	for _, about := range topics() {
		got = append(got, about.name)
		if about.about == "" {
			t.Errorf("the index does not say what %s is about", about.name)
		}
	}
	for name, text := range manualPages(t) {
		want = append(want, name)
		if !strings.HasPrefix(text, "# ") {
			t.Errorf("%s begins with no heading", name)
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("the index has %q; the pages are %q", got, want)
	}
}

var linkTarget = regexp.MustCompile(`\]\(([^)\s]+)\)`)

func TestLinksLeadSomewhere(t *testing.T) {
	checked := 0
	for path, text := range writings(t) {
		_, text = fences(t, text)
		for _, m := range linkTarget.FindAllStringSubmatch(text, -1) {
			file, anchor, _ := strings.Cut(m[1], "#")
			if strings.HasPrefix(m[1], "https://") {
				continue
			}
			checked++
			target := path
			if file != "" {
				target = filepath.Join(filepath.Dir(path), filepath.FromSlash(file))
			}
			found, err := os.ReadFile(filepath.Join(root, target))
			if err != nil {
				t.Errorf("%s links to %s: %v", path, m[1], err)
			}
			if anchor != "" && !slices.Contains(anchors(string(found)), anchor) {
				t.Errorf("%s links to %s, which has no such heading", path, m[1])
			}
		}
	}
	if checked < 20 {
		t.Errorf("only %d links were found", checked)
	}
}

// anchors are the headings of a text as links name them.
func anchors(text string) []string {
	var list []string
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "#") {
			heading := strings.ToLower(strings.TrimSpace(strings.TrimLeft(line, "#")))
			heading = regexp.MustCompile(`[^a-z0-9 _-]`).ReplaceAllString(heading, "")
			list = append(list, strings.ReplaceAll(heading, " ", "-"))
		}
	}
	return list
}

// What the terminal does not know of Markdown is not in the manual.
func TestPagesAreLaidOut(t *testing.T) {
	foreign := regexp.MustCompile(`(?m)^(####|> |\* |\+ |\t|<|!\[|---|===| +[-*\d])|\]\[|<!--|[^*\\]\*[^*\s]`)
	for name, text := range manualPages(t) {
		blocks, rest := fences(t, text)
		if found := foreign.FindString(codeSpan.ReplaceAllString(rest, "")); found != "" {
			t.Errorf("%s has %q, which the terminal shows as it is", name, found)
		}
		for _, b := range blocks {
			if !strings.HasPrefix(b.info, "mermaid") {
				continue
			}
			drawn := drawSequence(strings.Split(strings.TrimSpace(b.text), "\n"))
			if !strings.Contains(drawn[1], "│") {
				t.Errorf("%s: the diagram cannot be drawn:\n%s", name, strings.Join(drawn, "\n"))
			}
			for _, line := range drawn {
				if utf8.RuneCountInString(line) > 76 {
					t.Errorf("%s: the diagram is wider than a terminal: %s", name, line)
				}
			}
		}
		for _, width := range []int{72, 100} {
			laid := layOut(text, width, func(s string) string { return s })
			if strings.ContainsAny(laid, "`\x00"+boldOn+boldOff) || strings.Contains(laid, "](") || strings.Contains(laid, "**") {
				t.Errorf("%s has marks left at a width of %d:\n%s", name, width, laid)
			}
			for line := range strings.Lines(laid) {
				if n := utf8.RuneCountInString(strings.TrimRight(line, "\n")); n > width && !strings.HasPrefix(line, "    ") {
					t.Errorf("%s: %d columns at a width of %d: %s", name, n, width, line)
				}
			}
		}
	}
}

func TestLayOut(t *testing.T) {
	bold := func(s string) string { return "<" + s + ">" }
	for name, c := range map[string]struct{ markdown, want string }{
		"a heading":                  {"## What `x` is", "<What x is>\n"},
		"a paragraph is wrapped":     {"one two three four five six seven", "  one two three four\n  five six seven\n"},
		"lines are joined":           {"one\ntwo", "  one two\n"},
		"bold across lines":          {"**one two three four five**", "  <one two three four>\n  <five>\n"},
		"code before a comma":        {"see `a b`, please", "  see <a b>, please\n"},
		"a list":                     {"- one two three four five\n- six", "  • one two three four\n    five\n  • six\n"},
		"a numbered list":            {"10. one two three four five", "  10. one two three\n      four five\n"},
		"a page":                     {"[lona](lona.md)", "  <lona>\n"},
		"a page by another name":     {"[keys](gateway.md)", "  keys (enlist help\n  gateway)\n"},
		"a link":                     {"[age](https://a.org)", "  age (https://a.org)\n"},
		"a long word is cut":         {"abcdefghijklmnopqrstuvwxyz", "  abcdefghijklmnopqrst\n  uvwxyz\n"},
		"code is as it is":           {"```sh\nenlist  `x`\n\nenlist\n```", "    enlist  `x`\n\n    enlist\n"},
		"code without an end":        {"```\nx", "    x\n"},
		"a table":                    {"| a | bc |\n|---|---|\n| `d` | e\\|f |", "  <a>  <bc>\n  ─  ───\n  <d>  e|f\n"},
		"a wide table":               {"| a | b |\n|---|---|\n| one two | three four five |", "  <a>        <b>\n  ───────  ───────────\n  one two  three four\n           five\n"},
		"a diagram that is none":     {"```mermaid\nsequenceDiagram\n  loop x\n```", "    sequenceDiagram\n      loop x\n"},
		"a diagram without a person": {"```mermaid\nparticipant A\nA->>B: x\n```", "    participant A\n    A->>B: x\n"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := layOut(c.markdown, 22, bold); got != c.want {
				t.Errorf("got\n%s\nwant\n%s", got, c.want)
			}
		})
	}
}

func TestDrawSequence(t *testing.T) {
	got := drawSequence([]string{
		"sequenceDiagram", "participant Ann", "participant Bo", "participant Cy",
		"Ann->>Bo: hello", "Note over Bo: thinks", "Bo->>Cy: a longer one", "Note over Cy: too", "Cy-->>Ann: bye",
	})
	want := []string{
		"Ann      Bo              Cy",
		" │ hello  │               │",
		" │───────→│               │",
		" │        ■ thinks        │",
		" │        │ a longer one  │",
		" │        │──────────────→│",
		" │        │           too ■",
		" │ bye    │               │",
		" │←╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌│",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// commandTree is the commands of the program, without anything behind them.
func commandTree() *cobra.Command {
	p := &program{stdout: io.Discard, stderr: io.Discard, env: noEnvironment}
	r := p.root()
	r.InitDefaultHelpCmd()
	r.InitDefaultCompletionCmd()
	return r
}

var (
	shellWord   = regexp.MustCompile(`'[^']*'|"[^"]*"|[^\s'"]+`)
	assignment  = regexp.MustCompile(`^[A-Z_]+=`)
	toolInTable = regexp.MustCompile("(?m)^\\| `([a-z_]+)`")
)

// words takes a line of shell apart, as far as the manual's go.
func words(line string) []string {
	line, _, _ = strings.Cut(line+" ", " # ")
	var list []string
	for _, w := range shellWord.FindAllString(line, -1) {
		if slices.Contains([]string{">", ">>", "<", "|", "||", "&&", "&", ";"}, w) {
			break // what comes then is no argument
		}
		if w = strings.Trim(w, `'"`); len(list) > 0 || !assignment.MatchString(w) {
			list = append(list, w)
		}
	}
	return list
}

// checkCommand says what is wrong with a command line of enlist. A part of one,
// as it stands in a sentence, need not have all its arguments.
func checkCommand(args []string, part bool) error {
	tree := commandTree()
	cmd, rest, err := tree.Find(args)
	if err != nil {
		return err
	}
	if cmd == tree && len(rest) > 0 && !strings.HasPrefix(rest[0], "-") {
		return fmt.Errorf("there is no command %s", rest[0])
	}
	err = cmd.ParseFlags(rest)
	if err != nil && (!part || !strings.Contains(err.Error(), "needs an argument")) {
		return err
	}
	given := cmd.Flags().Args()
	if cmd.Name() == "help" && len(given) > 0 && given[0] != strings.ToUpper(given[0]) {
		p := &program{stdout: io.Discard, env: noEnvironment}
		tree.SetOut(io.Discard)
		return p.help(tree, given)
	}
	if cmd.Name() == "call" && len(given) > 0 && given[0] != "TOOL" && !strings.Contains(tools.Markdown(), "`"+given[0]+"`") {
		return fmt.Errorf("there is no tool %s", given[0])
	}
	if part {
		return nil
	}
	return cmd.ValidateArgs(given)
}

func TestCommandsInTheManualExist(t *testing.T) {
	blockLines, parts := 0, 0
	for path, text := range writings(t) {
		blocks, _ := fences(t, text)
		for _, b := range blocks {
			if !strings.HasPrefix(b.info, "sh") {
				continue
			}
			for line := range strings.Lines(b.text) {
				w := words(line)
				if len(w) == 0 || w[0] != "enlist" {
					continue
				}
				blockLines++
				if err := checkCommand(w[1:], false); err != nil {
					t.Errorf("%s: %s: %v", path, strings.TrimSpace(line), err)
				}
			}
		}
		for _, span := range spans(t, text) {
			if w := words(span); len(w) > 1 && w[0] == "enlist" {
				parts++
				if err := checkCommand(w[1:], true); err != nil {
					t.Errorf("%s: `%s`: %v", path, span, err)
				}
			}
		}
	}
	if blockLines < 20 || parts < 50 {
		t.Errorf("only %d lines and %d parts of lines were found", blockLines, parts)
	}
}

// A mistake in the manual's command lines is one that the check finds.
func TestTheCheckOfCommandsFindsMistakes(t *testing.T) {
	for _, line := range []string{
		"enlist lst", "enlist list --jsn", "enlist gateway key list", "enlist gateway --listen", "enlist show", "enlist version x",
		"enlist call lona_register {}", "enlist help lonna", "enlist rotate a b", "X=1 enlist nothing",
	} {
		if err := checkCommand(words(line)[1:], false); err == nil {
			t.Errorf("%s passes", line)
		}
	}
}

// Every command that prints JSON is on the page about that.
func TestTheManualHasEveryJSON(t *testing.T) {
	rows, found := spans(t, manual("json")), 0
	var look func(cmd *cobra.Command)
	look = func(cmd *cobra.Command) {
		for _, c := range cmd.Commands() {
			look(c)
		}
		if cmd.Flags().Lookup("json") == nil {
			return
		}
		found++
		if !slices.ContainsFunc(rows, func(row string) bool {
			return strings.HasPrefix(row, cmd.CommandPath()+" ") && strings.HasSuffix(row, " --json")
		}) {
			t.Errorf("%s --json is not on the page", cmd.CommandPath())
		}
	}
	look(commandTree())
	if found < 10 {
		t.Errorf("only %d commands print JSON", found)
	}
}
