package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// mcpClient is a program that starts MCP servers, and where it looks for them.
type mcpClient struct {
	id, title string
	format    format
	key       string // of the table of servers
	kind      string // what an entry says its type is; "" if it says none
	comments  bool   // the file may have comments
	locks     bool   // it makes a folder beside its file while it writes
	// file returns the user's own file, and the folders or files of which one is
	// there if the client is.
	file func(machine) (path string, signs []string, err error)
	// project is the file in a project's folder; "": there is none.
	project string
	// reload says how the client gets to know of a change.
	reload string
}

// machine is where clients keep their files.
type machine struct {
	goos string
	env  func(string) string
}

// mcpClients is the list.
func mcpClients() []mcpClient {
	return []mcpClient{
		{
			id: "claude-desktop", title: "Claude Desktop", format: parseJSON, key: "mcpServers",
			file:   machine.claudeDesktop,
			reload: "Quit Claude Desktop and open it again.",
		},
		{
			id: "claude-code", title: "Claude Code", format: parseJSON, key: "mcpServers", kind: "stdio", locks: true,
			file: machine.claudeCode, project: ".mcp.json",
			reload: "Claude Code sees it in its next session; /mcp there shows it.",
		},
		{
			id: "cursor", title: "Cursor", format: parseJSON, key: "mcpServers", comments: true,
			file: machine.cursor, project: ".cursor/mcp.json",
			reload: "Cursor shows it in its settings, under MCP, where it can be switched on.",
		},
		{
			id: "vscode", title: "VS Code", format: parseJSON, key: "servers", kind: "stdio", comments: true,
			file: vscode("Code"), project: ".vscode/mcp.json",
			reload: "VS Code asks whether to trust it when it is first started; MCP: List Servers shows it.",
		},
		{
			id: "vscode-insiders", title: "VS Code Insiders", format: parseJSON, key: "servers", kind: "stdio", comments: true,
			file: vscode("Code - Insiders"), project: ".vscode/mcp.json",
			reload: "VS Code asks whether to trust it when it is first started; MCP: List Servers shows it.",
		},
		{
			id: "codex", title: "Codex", format: parseTOML, key: "mcp_servers", comments: true,
			file: machine.codex, project: ".codex/config.toml",
			reload: "Codex sees it in its next session; /mcp there shows it. In a project, Codex must trust the folder.",
		},
	}
}

// clientIDs are the names of the list.
func clientIDs() []string {
	var ids []string
	for _, c := range mcpClients() {
		ids = append(ids, c.id)
	}
	return ids
}

// clientNamed returns a client of the list.
func clientNamed(id string) (mcpClient, error) {
	for _, c := range mcpClients() {
		if c.id == id {
			return c, nil
		}
	}
	return mcpClient{}, fmt.Errorf("there is no client %q; there are %s", id, strings.Join(clientIDs(), ", "))
}

// errNoHome says that the environment names no folder of the user.
var errNoHome = errors.New("the environment does not say where your files are: name the client's file with --config")

// home returns the user's folder.
func (m machine) home() string {
	if m.goos == "windows" {
		return m.env("USERPROFILE")
	}
	return m.env("HOME")
}

// settings returns the folder in which programs with windows keep theirs.
func (m machine) settings() string {
	switch m.goos {
	case "windows":
		return first(m.env("AppData"), under(m.home(), "AppData", "Roaming"))
	case "darwin":
		return under(m.home(), "Library", "Application Support")
	}
	return first(m.env("XDG_CONFIG_HOME"), under(m.home(), ".config"))
}

// in returns a file, and its folder as the sign that the client is there.
func in(dir, name string) (string, []string, error) {
	if dir == "" {
		return "", nil, errNoHome
	}
	return filepath.Join(dir, name), []string{dir}, nil
}

// claudeDesktop: on Windows it is installed as a package of the system, whose
// files are kept apart; programs that were installed in the old way are not.
func (m machine) claudeDesktop() (string, []string, error) {
	const name = "claude_desktop_config.json"
	if m.goos == "windows" {
		local := first(m.env("LocalAppData"), under(m.home(), "AppData", "Local"))
		packages, _ := filepath.Glob(filepath.Join(local, "Packages", "Claude_*", "LocalCache", "Roaming", "Claude")) // the pattern is right
		switch {
		case len(packages) == 1:
			return in(packages[0], name)
		case len(packages) > 1:
			return "", nil, fmt.Errorf("there is more than one Claude Desktop, in %s: name the file with --config", strings.Join(packages, " and in "))
		}
	}
	return in(under(m.settings(), "Claude"), name)
}

func (m machine) claudeCode() (string, []string, error) {
	if dir := m.env("CLAUDE_CONFIG_DIR"); dir != "" {
		return in(dir, ".claude.json")
	}
	home := m.home()
	if home == "" {
		return "", nil, errNoHome
	}
	file := filepath.Join(home, ".claude.json")
	return file, []string{file, filepath.Join(home, ".claude")}, nil
}

func (m machine) cursor() (string, []string, error) {
	return in(under(m.home(), ".cursor"), "mcp.json")
}

func (m machine) codex() (string, []string, error) {
	return in(first(m.env("CODEX_HOME"), under(m.home(), ".codex")), "config.toml")
}

// vscode is the file of the default profile of a product.
func vscode(product string) func(machine) (string, []string, error) {
	return func(m machine) (string, []string, error) {
		return in(under(m.settings(), product, "User"), "mcp.json")
	}
}

// found reports whether one of the signs of a client is there.
func found(signs []string) bool {
	for _, sign := range signs {
		if _, err := os.Stat(sign); err == nil {
			return true
		}
	}
	return false
}
