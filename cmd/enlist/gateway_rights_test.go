//go:build unix

package main

import (
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/enlist-mcp/enlist/embeddedgateway/store/pgtest"
)

// asNobody is the program as a user without rights runs it: root has all of them.
func asNobody(t *testing.T) (folder string, enlist func(args ...string) (said string, code int)) {
	t.Helper()
	folder, err := os.MkdirTemp("", "enlist-rights-") // not t.TempDir: only its user may enter that
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = filepath.WalkDir(folder, func(path string, _ os.DirEntry, _ error) error { return os.Chmod(path, 0o700) })
		if err := os.RemoveAll(folder); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	from, err := os.Open(self)
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	program := filepath.Join(folder, "enlist") // by this name it is the program
	to, err := os.OpenFile(program, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(to, from); err != nil {
		t.Fatal(err)
	}
	if err := to.Close(); err != nil {
		t.Fatal(err)
	}
	return folder, func(args ...string) (string, int) {
		cmd := exec.Command(program, args...)
		cmd.Dir = folder
		cmd.Env = []string{"HOME=" + folder, "ENLIST_HOME=" + filepath.Join(folder, "home")}
		if os.Geteuid() == 0 {
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		}
		out, err := cmd.CombinedOutput()
		if err != nil && cmd.ProcessState == nil {
			t.Fatal(err)
		}
		return string(out), cmd.ProcessState.ExitCode()
	}
}

// TestADatabaseWithoutRightsIsRefused: at the start and by the check, with the
// name of the setting, and nothing is made.
func TestADatabaseWithoutRightsIsRefused(t *testing.T) {
	folder, enlist := asNobody(t)
	for name, c := range map[string]struct {
		folder, file os.FileMode // 0: there is no file
	}{
		"a folder that is only read":            {0o555, 0},
		"a folder that is not entered":          {0o000, 0},
		"a file that is only read":              {0o777, 0o444},
		"a file that is not read":               {0o777, 0o000},
		"a folder that is only read, a file is": {0o555, 0o666},
	} {
		t.Run(name, func(t *testing.T) {
			at := filepath.Join(folder, strings.ReplaceAll(name, " ", "-"))
			if err := os.Mkdir(at, 0o755); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(at, "gateway.db")
			if c.file != 0 || strings.HasPrefix(name, "a file") {
				p := newPerson(t)
				p.does("gateway", "check", "--listen", "127.0.0.1:0", "--admin-listen", "off", "--database", "sqlite:"+path)
				if err := os.WriteFile(path, nil, 0o600); err != nil {
					t.Fatal(err)
				}
				if err := os.Chmod(path, c.file); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.Chmod(at, c.folder); err != nil {
				t.Fatal(err)
			}
			for _, command := range [][]string{{"gateway"}, {"gateway", "check"}} {
				said, code := enlist(append(command, "--listen", "127.0.0.1:0", "--admin-listen", "off", "--database", "sqlite:"+path)...)
				if code != exitFailure || !strings.Contains(said, "--database: ") || !strings.Contains(said, "permission denied") {
					t.Errorf("%v: got %d:\n%s", command, code, said)
				}
			}
			if err := os.Chmod(at, 0o755); err != nil {
				t.Fatal(err)
			}
			left, err := os.ReadDir(at)
			if err != nil || len(left) > 1 && c.folder != 0o777 {
				t.Errorf("left are %v, %v", left, err)
			}
		})
	}
}

// TestTheCheckSaysForWhomItSpeaks: root may write everywhere, which says nothing of
// the user that the gateway runs as.
func TestTheCheckSaysForWhomItSpeaks(t *testing.T) {
	check := []string{"gateway", "check", "--listen", "127.0.0.1:0", "--admin-listen", "off"}
	folder, enlist := asNobody(t)
	said, _ := enlist(append(check, "--database", "sqlite:"+filepath.Join(folder, "gateway.db"))...)
	if strings.Contains(said, "as root") {
		t.Errorf("as another user:\n%s", said)
	}
	p := newPerson(t)
	said = p.does(append(check, "--database", "sqlite:"+filepath.Join(folder, "gateway.db"))...)
	if strings.Contains(said, "note     the check runs as root") != (os.Geteuid() == 0) {
		t.Errorf("as the user %d:\n%s", os.Geteuid(), said)
	}
}

// TestAPostgresWithoutRightsIsRefused: the user may log in and read, and no more.
func TestAPostgresWithoutRightsIsRefused(t *testing.T) {
	database := pgtest.URL(t)
	guest, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	role := "guest_of_" + strings.Trim(guest.Path, "/") // the server is shared
	pgtest.Exec(t, database, "CREATE ROLE "+role+" LOGIN PASSWORD 'the-password-of-a-guest'")
	pgtest.Exec(t, database, "REVOKE CREATE ON SCHEMA public FROM PUBLIC")
	guest.User = url.UserPassword(role, "the-password-of-a-guest")
	p := newPerson(t)
	p.set["ENLIST_SERVER_KEY"] = strings.Repeat("ab", 32)
	p.set["ENLIST_DATABASE_URL"] = guest.String()
	for _, command := range [][]string{{"gateway"}, {"gateway", "check"}} {
		code := p.try(append(command, "--listen", "127.0.0.1:0", "--admin-listen", "off")...)
		said := p.stdout.String() + p.stderr.String()
		if code != exitFailure || !strings.Contains(said, "ENLIST_DATABASE_URL: ") || !strings.Contains(said, "GRANT CREATE") {
			t.Errorf("%v: got %d:\n%s", command, code, said)
		}
		if strings.Contains(said, "the-password") {
			t.Errorf("%v: the password is in\n%s", command, said)
		}
	}
	pgtest.Exec(t, database, "GRANT CREATE, USAGE ON SCHEMA public TO "+role)
	said := p.does("gateway", "check", "--listen", "127.0.0.1:0", "--admin-listen", "off")
	if !strings.Contains(said, "can start") || !strings.Contains(said, "no tables yet") {
		t.Errorf("with the right: got\n%s", said)
	}
	p.set["ENLIST_DATABASE_URL"] = strings.Replace(guest.String(), "the-password-of-a-guest", "a-wrong-one", 1)
	if code := p.try("gateway", "check", "--listen", "127.0.0.1:0", "--admin-listen", "off"); code != exitFailure ||
		!strings.Contains(p.stdout.String(), "does not let this user in") || strings.Contains(p.stdout.String(), "a-wrong-one") {
		t.Errorf("with a wrong password: got %d:\n%s", code, &p.stdout)
	}
}
