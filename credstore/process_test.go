package credstore_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/credstore/credstoretest"
)

// TestMain is also the other processes: the tests run this binary again in a
// role, with a home.
func TestMain(m *testing.M) {
	role := os.Getenv("ENLIST_TEST_ROLE")
	if role == "" {
		os.Exit(m.Run())
	}
	dir := os.Getenv("ENLIST_TEST_DIR")
	o := credstore.Options{
		Mode: os.Getenv("ENLIST_TEST_MODE"), Now: now,
		Home: filepath.Join(dir, "home"), ConfigDir: filepath.Join(dir, "config"),
	}
	name, arg, _ := strings.Cut(role, " ")
	if err := roles()[name](context.Background(), o, arg); err != nil {
		fmt.Println("failed:", err)
		os.Exit(1)
	}
	fmt.Println("done")
}

func roles() map[string]func(context.Context, credstore.Options, string) error {
	all := map[string]func(context.Context, credstore.Options, string) error{
		"lock":  roleLock,
		"put":   rolePut,
		"stop":  roleStop,
		"count": roleCount,
	}
	maps.Copy(all, keyringRoles())
	return all
}

// another starts this binary in a role; say returns the lines it says.
func another(t *testing.T, role string, o credstore.Options, env ...string) (cmd *exec.Cmd, say *bufio.Scanner) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd = exec.Command(self)
	end := func() { _ = cmd.Process.Kill() }
	if len(env) > 0 && env[0] == "with-keyring" {
		env = env[1:]
		cmd = exec.Command("../.ci/with-keyring", self)
		end = func() {} // it ends by itself and clears up
	}
	cmd.Env = append(os.Environ(), append(env,
		"ENLIST_TEST_ROLE="+role, "ENLIST_TEST_DIR="+filepath.Dir(o.Home), "ENLIST_TEST_MODE="+o.Mode)...)
	cmd.Stderr = t.Output()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		end()
		_ = cmd.Wait()
	})
	return cmd, bufio.NewScanner(out)
}

// wantSay wants the next thing that another process says.
func wantSay(t *testing.T, say *bufio.Scanner, want string) {
	t.Helper()
	if !say.Scan() || say.Text() != want {
		t.Fatalf("it said %q, %v, want %q", say.Text(), say.Err(), want)
	}
}

func kill(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
}

func roleLock(ctx context.Context, o credstore.Options, agent string) error {
	s, err := credstore.Open(o)
	if err != nil {
		return err
	}
	if _, err := s.Lock(ctx, credstoretest.Lona(agent).Key); err != nil {
		return err
	}
	fmt.Println("locked")
	select {} // until it is killed
}

func TestLockEndsWithItsProcessAndWhoWaitsSaysSo(t *testing.T) {
	o := options(t, credstore.ModeFile)
	cmd, say := another(t, "lock my-agent", o)
	wantSay(t, say, "locked")

	logs, w := io.Pipe()
	o.Logger = slog.New(slog.NewTextHandler(w, nil))
	s := openOn(t, o, credstore.QuickSystem())
	k := credstoretest.Lona("my-agent").Key
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() {
		defer w.Close()
		_, err := s.Lock(ctx, k)
		wantRemedy(t, err, context.Canceled)
		unlock, err := s.Lock(t.Context(), k) // ends when the other process does
		if err != nil {
			t.Error(err)
			return
		}
		unlock()
		unlock, err = s.Lock(t.Context(), credstoretest.Lona("other").Key) // nobody has it
		if err != nil {
			t.Error(err)
			return
		}
		unlock()
	})
	lines := bufio.NewScanner(logs)
	for range 2 {
		if !lines.Scan() || !strings.Contains(lines.Text(), "waiting for another enlist process") || !strings.Contains(lines.Text(), "agent=my-agent") {
			t.Errorf("got the log %q", lines.Text())
		}
		cancel()
	}
	kill(t, cmd)
	if lines.Scan() {
		t.Errorf("it said more: %q", lines.Text())
	}
	wg.Wait()
}

func TestLockFilesNameNobody(t *testing.T) {
	o := options(t, credstore.ModeFile)
	s := openOn(t, o, credstore.QuickSystem())
	unlock, err := s.Lock(t.Context(), credstoretest.Lona("my-agent").Key)
	if err != nil {
		t.Fatal(err)
	}
	unlock()
	entries, err := os.ReadDir(filepath.Join(o.Home, "locks"))
	if err != nil || len(entries) != 1 || strings.Contains(entries[0].Name(), "my-agent") {
		t.Errorf("got %v, %v, want one file, still there", entries, err)
	}
	wantPrivate(t, o.Home)
}

// rolePut puts some credentials.
func rolePut(ctx context.Context, o credstore.Options, name string) error {
	s, err := credstore.OpenOn(o, credstore.QuickSystem())
	if err != nil {
		return err
	}
	for i := range 8 {
		if err := s.Put(ctx, credstoretest.Lona(fmt.Sprintf("%s-%d", name, i))); err != nil {
			return err
		}
	}
	return nil
}

func TestProcessesThatStartTogetherShareAHome(t *testing.T) {
	o := options(t, credstore.ModeFile)
	var says []*bufio.Scanner
	want := []string{}
	for _, name := range []string{"a", "b", "c", "d"} {
		_, say := another(t, "put "+name, o)
		says = append(says, say)
		for i := range 8 {
			want = append(want, fmt.Sprintf("%s-%d", name, i))
		}
	}
	for _, say := range says {
		wantSay(t, say, "done")
	}
	s := openOn(t, o, credstore.QuickSystem())
	wantListed(t, s, want...)
	for _, agent := range want {
		wantGet(t, s, credstoretest.Lona(agent))
	}
}

// roleCount counts in a file under a lock.
func roleCount(ctx context.Context, o credstore.Options, path string) error {
	s, err := credstore.Open(o)
	if err != nil {
		return err
	}
	for range 50 {
		unlock, err := s.Lock(ctx, credstoretest.Lona("my-agent").Key)
		if err != nil {
			return err
		}
		text, err := os.ReadFile(path)
		if err == nil {
			err = os.WriteFile(path, append(text, '.'), 0o600)
		}
		unlock()
		if err != nil {
			return err
		}
	}
	return nil
}

func TestLockHasOneHolderInAllProcesses(t *testing.T) {
	o := options(t, credstore.ModeFile)
	path := filepath.Join(t.TempDir(), "count")
	write(t, path, "", 0o600)
	var says []*bufio.Scanner
	for range 4 {
		_, say := another(t, "count "+path, o)
		says = append(says, say)
	}
	for _, say := range says {
		wantSay(t, say, "done")
	}
	wantFile(t, path, strings.Repeat(".", 4*50))
}

// roleStop puts or deletes a credential and stops before or after the vault has done it.
func roleStop(ctx context.Context, o credstore.Options, arg string) error {
	op, when, _ := strings.Cut(arg, " ")
	ready := false
	stop := func(step, path string) error {
		if step == "rename" && filepath.Base(path) == "credentials.enc" {
			ready = true
		}
		if ready && (when == "before" || step == "syncdir") {
			fmt.Println("stopped")
			select {}
		}
		return nil
	}
	s, err := credstore.OpenOn(o, credstore.QuickSystem().WithFiles(faultyFiles{fault: stop}))
	if err != nil {
		return err
	}
	c := credstoretest.Lona("my-agent")
	c.KeyID, c.Secret = "next", credstore.NewSecret("next")
	if op == "delete" {
		return s.Delete(ctx, c.Key)
	}
	return s.Put(ctx, c)
}

func TestKilledProcessLeavesWhatCanBeUsed(t *testing.T) {
	tests := []struct {
		role   string
		former bool
		want   string // the key id that is left
	}{
		{"stop put before", false, ""},
		{"stop put after", false, "next"},
		{"stop put before", true, "a1B2c3D4e5F6"},
		{"stop put after", true, "next"},
		{"stop delete before", true, "a1B2c3D4e5F6"},
		{"stop delete after", true, ""},
	}
	for _, test := range tests {
		name := test.role + " without a former one"
		if test.former {
			name = test.role + " with a former one"
		}
		t.Run(name, func(t *testing.T) {
			o := options(t, credstore.ModeFile)
			c := credstoretest.Lona("my-agent")
			if test.former {
				put(t, openOn(t, o, credstore.QuickSystem()), c)
			}
			cmd, say := another(t, test.role, o)
			wantSay(t, say, "stopped")
			s := openOn(t, o, credstore.QuickSystem())
			infos, err := s.List(t.Context(), "") // while it is under way
			if want := map[bool]int{true: 1, false: 0}[test.former]; err != nil || len(infos) != want {
				t.Errorf("list: got %v, %v, want what was there before", infos, err)
			}
			kill(t, cmd)

			infos, err = s.List(t.Context(), "")
			got := ""
			if len(infos) > 0 {
				got = infos[0].KeyID
			}
			if err != nil || got != test.want || len(infos) > 1 {
				t.Errorf("list: got %v, %v, want %q", infos, err, test.want)
			}
			back, err := s.Get(t.Context(), c.Key)
			if back.KeyID != test.want || (test.want == "") != errors.Is(err, credstore.ErrNotFound) {
				t.Errorf("get: got %q, %v, want %q", back.KeyID, err, test.want)
			}
			put(t, s, c) // over whatever it left
			wantGet(t, s, c)
			wantNoFile(t, filepath.Join(o.Home, "credentials.enc.new"))
		})
	}
}
