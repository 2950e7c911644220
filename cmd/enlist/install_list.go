package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"text/tabwriter"
)

// clientState is one file of one client, and whether Enlist is in it.
type clientState struct {
	Client string `json:"client"`
	Title  string `json:"title"`
	Scope  string `json:"scope"` // user or project
	Found  bool   `json:"found"` // the client, or the project's file
	File   string `json:"file"`
	Exists bool   `json:"exists"`
	Enlist string `json:"enlist"` // yes, no, other: an entry of the name starts something else; unknown
	Entry  *entry `json:"entry,omitempty"`
	Error  string `json:"error,omitempty"`
}

// listClients lists the clients that were found.
func (p *program) listClients(flags installFlags) error {
	states := []clientState{}
	for _, c := range mcpClients() {
		own := p.userState(c, flags.name)
		if own.Found {
			states = append(states, own)
		}
		// In a person's own folder the two can be the same.
		if s := projectState(c, flags.name); s.Exists && !oneFile(s.File, own.File) {
			states = append(states, s)
		}
	}
	if flags.asJSON {
		return printJSON(p.stdout, states)
	}
	if len(states) == 0 {
		fmt.Fprintln(p.stdout, "No MCP client was found. 'enlist install --help' lists those that are known; --config names a file.")
		return nil
	}
	w := tabwriter.NewWriter(p.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "CLIENT\tENLIST\tFILE")
	for _, s := range states {
		fmt.Fprintf(w, "%s\t%s\t%s\n", s.Client, s.Enlist, s.note())
	}
	return w.Flush()
}

// oneFile reports whether two paths lead to one file.
func oneFile(a, b string) bool {
	one, err := os.Stat(a)
	if err != nil {
		return false
	}
	other, err := os.Stat(b)
	return err == nil && os.SameFile(one, other)
}

// note is the file, and what is to be known of it.
func (s clientState) note() string {
	switch {
	case s.Error != "":
		return s.File + " (" + s.Error + ")"
	case !s.Exists:
		return s.File + " (not there yet)"
	}
	return s.File
}

func (p *program) userState(c mcpClient, name string) clientState {
	s := clientState{Client: c.id, Title: c.title, Scope: "user", Enlist: "unknown"}
	path, signs, err := c.file(machine{runtime.GOOS, p.env})
	if err != nil {
		s.Found, s.Error = !errors.Is(err, errNoHome), err.Error()
		return s
	}
	s.File, s.Found = path, found(signs)
	return s.look(c, name)
}

func projectState(c mcpClient, name string) clientState {
	s := clientState{Client: c.id, Title: c.title, Scope: "project", Enlist: "unknown"}
	if c.project == "" {
		return s
	}
	s.File, s.Found = filepath.FromSlash(c.project), true
	return s.look(c, name)
}

// look says whether Enlist is in the file.
func (s clientState) look(c mcpClient, name string) clientState {
	f, err := openClientFile(s.File)
	if err != nil {
		s.Error = err.Error()
		return s
	}
	s.Exists = f.exists()
	doc, err := c.format(f.body, place{c.key, name})
	if err != nil {
		s.Error = err.Error()
		return s
	}
	e, there := doc.lookup()
	switch {
	case !there:
		s.Enlist = "no"
	case e.ours():
		s.Enlist, s.Entry = "yes", &e
	default:
		s.Enlist = "other"
	}
	return s
}
