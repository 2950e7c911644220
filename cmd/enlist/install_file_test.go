package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	mcpgo "github.com/mark3labs/mcp-go/client"
	"github.com/mark3labs/mcp-go/mcp"

	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest/leakscan"
)

// installEnvironment is that of a program whose home is a folder of the test.
func installEnvironment(home string) []string {
	return append(os.Environ(), "HOME="+home, "USERPROFILE="+home, "AppData="+home, "LocalAppData="+home, "XDG_CONFIG_HOME=",
		"XDG_DATA_HOME=", "CODEX_HOME=", "CLAUDE_CONFIG_DIR=", "ENLIST_HOME="+filepath.Join(home, "enlist"), "ENLIST_STORE=file",
		leakscan.Variable+"="+os.Getenv(leakscan.Variable))
}

// installWith runs the program.
func installWith(t *testing.T, home string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "enlist", append([]string{"install"}, args...)...)
	cmd.Env = installEnvironment(home)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("enlist install %q: %v\n%s", args, err, out)
	}
}

// TestInstalledStarts installs, and starts what the file then says as a client
// does.
func TestInstalledStarts(t *testing.T) {
	home := t.TempDir()
	t.Cleanup(func() { keepForScan(t, home) })
	for _, c := range mcpClients() {
		t.Run(c.id, func(t *testing.T) {
			path := filepath.Join(home, c.id)
			installWith(t, home, c.id, "--yes", "--config", path, "--embedded", "--services", "lona", "--home", filepath.Join(home, "data"))
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			servers, _ := readAll(t, c, text)[c.key].(map[string]any)
			raw, err := json.Marshal(servers["enlist"])
			if err != nil {
				t.Fatal(err)
			}
			var e entry
			if err := json.Unmarshal(raw, &e); err != nil {
				t.Fatal(err)
			}
			if !filepath.IsAbs(e.Command) {
				t.Errorf("the command is %q, want a whole path", e.Command)
			}
			peer, err := mcpgo.NewStdioMCPClient(e.Command, installEnvironment(home), e.Args...)
			if err != nil {
				t.Fatal(err)
			}
			defer peer.Close()
			var hello mcp.InitializeRequest
			hello.Params.ProtocolVersion = "2025-06-18"
			hello.Params.ClientInfo = mcp.Implementation{Name: "test", Version: "1"}
			if _, err := peer.Initialize(t.Context(), hello); err != nil {
				t.Fatal(err)
			}
			list, err := peer.ListTools(t.Context(), mcp.ListToolsRequest{})
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			for _, tool := range list.Tools {
				names = append(names, tool.Name)
			}
			if all := strings.Join(names, " "); !strings.Contains(all, "lona_register_agent") || strings.Contains(all, "fluxra") {
				t.Errorf("the tools are %s", all)
			}
		})
	}
}

// TestInstallsAtOnce has many processes write one file: nothing is lost, and each
// has kept what it found.
func TestInstallsAtOnce(t *testing.T) {
	const count = 8
	home := t.TempDir()
	path := filepath.Join(home, "mcp.json")
	if err := os.WriteFile(path, []byte("{}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	for i := range count {
		running.Go(func() {
			installWith(t, home, "cursor", "--yes", "--config", path, "--name", fmt.Sprintf("enlist-%d", i))
		})
	}
	running.Wait()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var all struct{ McpServers map[string]entry }
	if err := json.Unmarshal(text, &all); err != nil || len(all.McpServers) != count {
		t.Errorf("%d entries, want %d; %v", len(all.McpServers), count, err)
	}
	backups, err := filepath.Glob(path + backupInfix + "*")
	if err != nil || len(backups) != count {
		t.Errorf("%d backups, want %d; %v", len(backups), count, err)
	}
	left, err := filepath.Glob(filepath.Join(home, ".mcp.json-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %q, %v", left, err)
	}
}

func openForTest(t *testing.T, path string) *clientFile {
	t.Helper()
	f, err := openClientFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// TestClientFileKeeps keeps mode, owner, link and byte order mark.
func TestClientFileKeeps(t *testing.T) {
	if runtime.GOOS == "windows" {
		return // it has neither the modes nor, for everybody, the links
	}
	dir := t.TempDir()
	dotfiles := filepath.Join(dir, "dotfiles")
	if err := os.Mkdir(dotfiles, 0o700); err != nil {
		t.Fatal(err)
	}
	real, link := filepath.Join(dotfiles, "mcp.json"), filepath.Join(dir, "mcp.json")
	if err := errors.Join(os.WriteFile(real, []byte("\xef\xbb\xbf{}"), 0o600), os.Chmod(real, 0o640), os.Symlink(filepath.Join("dotfiles", "mcp.json"), link)); err != nil {
		t.Fatal(err)
	}
	if os.Getuid() == 0 {
		if err := os.Chown(real, 1234, 5678); err != nil {
			t.Fatal(err)
		}
	}
	before, err := os.Stat(real)
	if err != nil {
		t.Fatal(err)
	}
	f := openForTest(t, link)
	if string(f.body) != "{}" {
		t.Errorf("read %q, want {}", f.body)
	}
	backup, err := f.backUp(time.Unix(0, 0))
	if err != nil || backup != link+".enlist-backup-19700101T000000Z" {
		t.Errorf("backup %q, %v", backup, err)
	}
	if err := f.write([]byte(`{"a":1}`)); err != nil {
		t.Fatal(err)
	}
	if target, err := os.Readlink(link); err != nil || target != filepath.Join("dotfiles", "mcp.json") {
		t.Errorf("the link leads to %q, %v", target, err)
	}
	if text, err := os.ReadFile(real); err != nil || string(text) != "\xef\xbb\xbf{\"a\":1}" {
		t.Errorf("the file says %q, %v", text, err)
	}
	after, err := os.Stat(real)
	if err != nil {
		t.Fatal(err)
	}
	if after.Mode() != before.Mode() || ownerOf(after) != ownerOf(before) {
		t.Errorf("mode %v, owner %v; want %v, %v", after.Mode(), ownerOf(after), before.Mode(), ownerOf(before))
	}
	kept, err := os.Stat(backup)
	if err != nil || kept.Mode().Perm() != 0o600 {
		t.Errorf("the backup has mode %v, %v; want 0600", kept.Mode(), err)
	}
	if again, err := f.backUp(time.Unix(0, 0)); err != nil || again != backup+"-02" {
		t.Errorf("another backup of the same second: %q, %v", again, err)
	}
	if earlier := f.earlier(); len(earlier) != 2 || string(earlier[0]) != "{}" {
		t.Errorf("the earlier states are %q", earlier)
	}
}

// TestClientFileNotices writes nothing over what somebody else has written.
func TestClientFileNotices(t *testing.T) {
	for name, c := range map[string]struct{ before, meanwhile string }{
		"changed":       {"{}", `{"theirs": 1}`},
		"made":          {"", `{"theirs": 1}`},
		"of equal size": {`{"a": 1}`, `{"a": 2}`},
	} {
		for what, body := range map[string][]byte{"replaced": []byte("ours"), "deleted": nil} {
			t.Run(name+", to be "+what, func(t *testing.T) {
				path := filepath.Join(t.TempDir(), "mcp.json")
				if c.before != "" {
					if err := os.WriteFile(path, []byte(c.before), 0o600); err != nil {
						t.Fatal(err)
					}
				}
				f := openForTest(t, path)
				if err := os.WriteFile(path, []byte(c.meanwhile), 0o600); err != nil {
					t.Fatal(err)
				}
				if err := f.write(body); !errors.Is(err, errChanged) {
					t.Errorf("got %v, want %v", err, errChanged)
				}
				if text, err := os.ReadFile(path); err != nil || string(text) != c.meanwhile {
					t.Errorf("the file says %q, %v; want %q", text, err, c.meanwhile)
				}
			})
		}
	}
}

// TestClientFileLock waits for a client that writes, and gives up with a remedy.
func TestClientFileLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), ".claude.json")
	if err := os.WriteFile(path, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	f := openForTest(t, path)
	unlock, err := f.lockFile(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := f.lockFile(ended); err == nil || !strings.Contains(err.Error(), "close the client") {
		t.Errorf("got %v, want what to do", err)
	}
	taken := make(chan error, 1)
	go func() {
		again, err := f.lockFile(t.Context())
		if err == nil {
			again()
		}
		taken <- err
	}()
	unlock()
	if err := <-taken; err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path + ".lock"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the lock is left behind: %v", err)
	}
}
