package main

import (
	"embed"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// docs is the manual. Nothing of it is read before somebody asks for help.
//
//go:embed docs/*.md
var docs embed.FS

// The pages that the program itself looks into.
const (
	indexPage = "README"
	codesPage = "troubleshooting"
)

// topic is a page of the manual, as the index has it.
type topic struct{ name, about string }

// topics lists the pages in the order of the index.
func topics() []topic {
	var list []topic
	for line := range strings.Lines(manual(indexPage)) {
		name, rest, ok := strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "- ["), "](")
		if _, about, linked := strings.Cut(rest, ".md): "); ok && linked {
			list = append(list, topic{name, about})
		}
	}
	return list
}

// manual returns the Markdown of a page; "": there is none of that name.
func manual(name string) string {
	text, err := docs.ReadFile("docs/" + name + ".md")
	if err != nil {
		return ""
	}
	return strings.ReplaceAll(string(text), "\r\n", "\n")
}

// codeSections returns what the manual says of an error code, in whichever case
// its letters are; "": nothing. Several services may have a code of that name.
func codeSections(code string) string {
	var found strings.Builder
	group, told, within := "", "", false
	for line := range strings.Lines(manual(codesPage)) {
		switch {
		case strings.HasPrefix(line, "## "):
			group, within = line, false
		case strings.HasPrefix(line, "### "):
			within = slices.ContainsFunc(codesOf(line), func(c string) bool { return strings.EqualFold(c, code) })
			if within && told != group {
				fmt.Fprintln(&found, group)
				told = group
			}
		}
		if within {
			found.WriteString(line)
		}
	}
	return found.String()
}

// codesOf returns the codes that a heading names, each in backquotes.
func codesOf(heading string) []string {
	var codes []string
	for i, part := range strings.Split(heading, "`") {
		if i%2 == 1 {
			codes = append(codes, part)
		}
	}
	return codes
}

func (p *program) helpCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND | TOPIC | CODE]",
		Short: "Help about a command, a topic of the manual or an error code",
		Long: `Help about a command, a topic of the manual or an error code. Without arguments
it lists commands and topics. The manual is a part of the program; where the
output is no terminal it is Markdown.`,
		Example: `  enlist help quick-start
  enlist help invalid_invite
  enlist help gateway keys rotate`,
		ValidArgsFunction: func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			var names []string
			if len(args) == 0 {
				for _, t := range topics() {
					names = append(names, cobra.CompletionWithDesc(t.name, t.about))
				}
				for _, c := range cmd.Root().Commands() {
					if c.IsAvailableCommand() {
						names = append(names, cobra.CompletionWithDesc(c.Name(), c.Short))
					}
				}
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: run(func(cmd *cobra.Command, args []string) error {
			return p.help(cmd.Root(), args)
		}),
	}
}

// help prints what there is about a name. Where a command and a page have the
// same, that is the page, which says how to see the command's flags.
func (p *program) help(root *cobra.Command, args []string) error {
	if len(args) == 0 {
		if err := root.Help(); err != nil {
			return err
		}
		p.listTopics()
		return nil
	}
	if len(args) == 2 && args[0] == codesPage {
		args = args[1:]
	}
	name := strings.TrimSuffix(args[0], ".md")
	isTopic := slices.ContainsFunc(topics(), func(t topic) bool { return t.name == name })
	cmd, rest, err := root.Find(args)
	isCommand := err == nil && cmd != root && len(rest) == 0
	switch {
	case len(args) == 1 && isTopic:
		p.printPage(manual(name))
		if isCommand {
			fmt.Fprintf(p.stdout, "\nThe flags of the command itself: enlist %s --help\n", name)
		}
		return nil
	case isCommand:
		cmd.InitDefaultHelpFlag()
		return cmd.Help()
	}
	if text := codeSections(args[0]); text != "" && len(args) == 1 {
		p.printPage(text)
		return nil
	}
	return &usageError{p.unknownTopic(root, strings.Join(args, " "))}
}

func (p *program) listTopics() {
	list := topics()
	wide := 0
	for _, t := range list {
		wide = max(wide, len(t.name))
	}
	fmt.Fprintln(p.stdout, "\nTopics of the manual:")
	for _, t := range list {
		fmt.Fprintf(p.stdout, "  %-*s  %s\n", wide, t.name, t.about)
	}
	fmt.Fprintln(p.stdout, "\nUse \"enlist help TOPIC\" for one, and \"enlist help CODE\" for what an error code means.")
}

// printPage prints Markdown: laid out on a terminal, as it is elsewhere.
func (p *program) printPage(text string) {
	if _, ok := terminal(p.stdout); !ok {
		fmt.Fprint(p.stdout, text)
		return
	}
	s := p.screen()
	bold := func(text string) string { return s.paint(styleTitle, text) }
	fmt.Fprint(p.stdout, layOut(text, min(p.columns(), maxReading), bold))
}

// unknownTopic names what was probably meant.
func (p *program) unknownTopic(root *cobra.Command, name string) error {
	text := fmt.Sprintf("there is no command, topic or error code %q", name)
	names := &cobra.Command{SuggestionsMinimumDistance: 2}
	add := func(name string) { names.AddCommand(&cobra.Command{Use: name, Run: func(*cobra.Command, []string) {}}) }
	for _, c := range root.Commands() {
		add(c.Name())
	}
	for _, t := range topics() {
		add(t.name)
	}
	for line := range strings.Lines(manual(codesPage)) {
		if strings.HasPrefix(line, "### ") {
			for _, code := range codesOf(line) {
				add(code)
			}
		}
	}
	near := names.SuggestionsFor(name)
	slices.Sort(near)
	if near = slices.Compact(near); len(near) > 0 {
		text += "; did you mean " + strings.Join(near, " or ") + "?"
	} else {
		text += "; 'enlist help' lists commands and topics"
	}
	return errors.New(text)
}
