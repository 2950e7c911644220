// Package pgtest runs a real PostgreSQL server for tests: the one that is
// installed, on a loopback port, with its data in a temporary folder that goes
// away. A test is skipped where none is installed.
//
//	store.Open(ctx, store.Options{URL: pgtest.URL(t), Now: time.Now})
package pgtest

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"

	"github.com/enlist-mcp/enlist/embeddedgateway/store"
)

const (
	owner = "enlist"
	// password is not a secret: the server listens to this machine, for the time
	// of a test. It is looked for in what is logged.
	password = "p%s w/rd:of@a?test#" //nolint:gosec // see above

	bootTime = 60 * time.Second
	pollTime = 20 * time.Millisecond
)

// Server is a PostgreSQL server.
type Server struct {
	bin, dir string
	port     int
	args     []string

	mu     sync.Mutex
	cmd    *exec.Cmd
	exited chan struct{}
	log    bytes.Buffer

	made atomic.Int64
}

// common is the server that the tests of a process share. It ends with the
// process, however that ends.
type common struct {
	mu     sync.Mutex
	server *Server
	ready  bool
	alive  io.Closer // kept open: its end ends the server
}

var shared common //nolint:gochecknoglobals // one server for all tests of a process: to start one takes a second

// readyName is the database that those of [Ready] are copies of.
const readyName = "ready"

// URL returns an empty database of the test's own, on a server that the tests of
// this process share.
func URL(t testing.TB) string {
	t.Helper()
	return shared.get(t).make(t, "")
}

// Ready is URL, but the database has its tables already.
func Ready(t testing.TB) string {
	t.Helper()
	s := shared.get(t)
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if !shared.ready {
		s.Exec(t, "CREATE DATABASE "+readyName)
		db, err := store.Open(t.Context(), store.Options{URL: s.url(readyName), Now: time.Now}) //nolint:forbidigo // for what nobody reads
		if err != nil {
			t.Fatalf("make the tables: %v", err)
		}
		if err := db.Close(); err != nil {
			t.Fatalf("make the tables: %v", err)
		}
		shared.ready = true
	}
	return s.make(t, " TEMPLATE "+readyName)
}

// get starts the server, the first time.
func (c *common) get(t testing.TB) *Server {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.server == nil {
		s := boot(t, "-c", "fsync=off", "-c", "full_page_writes=off", "-c", "max_connections=400")
		alive, err := reap(s.cmd.Process.Pid, s.dir)
		if err != nil {
			s.remove(t)
			t.Fatal(err)
		}
		c.alive = alive
		c.server = s
	}
	return c.server
}

// Start starts a server of the test's own, which may be stopped and started. It
// writes to the disk as one in production does. Args are given to it.
func Start(t testing.TB, args ...string) *Server {
	t.Helper()
	s := boot(t, args...)
	t.Cleanup(func() { s.remove(t) })
	return s
}

func boot(t testing.TB, args ...string) *Server {
	t.Helper()
	bin, err := installed()
	if err != nil {
		t.Skip(err)
	}
	dir, err := os.MkdirTemp("", "enlist-pg-") // not t.TempDir: the server's user may not enter that
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{bin: bin, dir: dir, args: args}
	if err := s.initdb(t.Context()); err != nil {
		_ = os.RemoveAll(dir)
		t.Fatal(err)
	}
	s.Start(t)
	return s
}

// installed returns the folder of the newest server of this machine.
func installed() (string, error) {
	folders, err := filepath.Glob("/usr/lib/postgresql/*/bin")
	if err != nil {
		return "", err
	}
	for i := len(folders) - 1; i >= 0; i-- {
		if _, err := os.Stat(filepath.Join(folders[i], "initdb")); err == nil {
			return folders[i], nil
		}
	}
	if path, err := exec.LookPath("initdb"); err == nil {
		return filepath.Dir(path), nil
	}
	return "", errors.New("PostgreSQL is not installed (Debian: postgresql)")
}

func (s *Server) initdb(ctx context.Context) error {
	pass := filepath.Join(s.dir, "password")
	if err := os.WriteFile(pass, []byte(password+"\n"), 0o600); err != nil {
		return err
	}
	if err := own(s.dir, pass); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, filepath.Join(s.bin, "initdb"), //nolint:gosec // the server of this machine
		"--pgdata", filepath.Join(s.dir, "data"), "--username", owner, "--pwfile", pass,
		"--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C.UTF-8", "--no-sync")
	cmd.Dir = s.dir
	demote(cmd)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, out)
	}
	return nil
}

// Start starts a server that is not running and returns when it answers. The
// first time it takes a free port, which it keeps.
func (s *Server) Start(t testing.TB) {
	t.Helper()
	fresh := s.port == 0
	for try := 0; ; try++ {
		if fresh {
			s.port = freePort(t)
		}
		err := s.start(t)
		if err == nil {
			return
		}
		if try == 3 {
			t.Fatalf("start PostgreSQL: %v\n%s", err, s.said())
		}
	}
}

func (s *Server) start(t testing.TB) error {
	t.Helper()
	args := append([]string{
		"-D", filepath.Join(s.dir, "data"), "-k", s.dir, "-h", "127.0.0.1", "-p", strconv.Itoa(s.port),
	}, s.args...)
	// It ends with the test, not with a context: an end by signal 9 would leave
	// its shared memory behind.
	cmd := exec.Command(filepath.Join(s.bin, "postgres"), args...) //nolint:gosec,noctx // the server of this machine
	cmd.Dir = s.dir
	cmd.Stdout, cmd.Stderr = writer{s}, writer{s}
	demote(cmd)
	if err := cmd.Start(); err != nil {
		return err
	}
	exited := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(exited)
	}()
	s.mu.Lock()
	s.cmd, s.exited = cmd, exited
	s.mu.Unlock()
	return s.answers(exited)
}

// answers waits until the server does.
func (s *Server) answers(exited <-chan struct{}) error {
	ctx, cancel := context.WithTimeout(context.Background(), bootTime)
	defer cancel()
	tick := time.NewTicker(pollTime)
	defer tick.Stop()
	for {
		conn, err := pgconn.Connect(ctx, s.url("postgres"))
		if err == nil {
			return conn.Close(ctx)
		}
		select {
		case <-exited:
			return errors.New("it ended")
		case <-ctx.Done():
			return err
		case <-tick.C:
		}
	}
}

// Stop ends the server as an administrator does who is in a hurry: it ends all
// connections and transactions.
func (s *Server) Stop(t testing.TB) {
	t.Helper()
	s.end(t, os.Interrupt)
}

// Crash ends the server without any warning, as a power cut does that spares the
// disk. What it left is put right when it starts again.
func (s *Server) Crash(t testing.TB) {
	t.Helper()
	s.end(t, crashSignal())
}

func (s *Server) end(t testing.TB, by os.Signal) {
	t.Helper()
	s.mu.Lock()
	cmd, exited := s.cmd, s.exited
	s.mu.Unlock()
	if cmd == nil {
		return
	}
	if err := cmd.Process.Signal(by); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("end PostgreSQL: %v", err)
	}
	<-exited
}

func (s *Server) remove(t testing.TB) {
	t.Helper()
	s.Stop(t)
	if err := os.RemoveAll(s.dir); err != nil {
		t.Errorf("remove the data of PostgreSQL: %v", err)
	}
}

// URL makes an empty database and returns its URL. It holds a password.
func (s *Server) URL(t testing.TB) string {
	t.Helper()
	return s.make(t, "")
}

func (s *Server) make(t testing.TB, how string) string {
	t.Helper()
	name := "test" + strconv.FormatInt(s.made.Add(1), 10)
	s.Exec(t, "CREATE DATABASE "+name+how)
	return s.url(name)
}

// Near returns the URL of a database by way of the server's socket, which is how a
// program on the same machine asks it.
func Near(t testing.TB, database string) string {
	t.Helper()
	u, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := pgconn.Connect(t.Context(), database)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
	answer, err := conn.Exec(t.Context(), "SHOW unix_socket_directories").ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	u.RawQuery = url.Values{"host": {string(answer[0].Rows[0][0])}, "port": {u.Port()}, "sslmode": {"disable"}}.Encode()
	u.Host = ""
	return u.String()
}

// Exec runs a statement as the administrator, in the database postgres.
func (s *Server) Exec(t testing.TB, q string) { t.Helper(); Exec(t, s.url("postgres"), q) }

// Exec runs a statement in the database of a URL.
func Exec(t testing.TB, in, q string) {
	t.Helper()
	db, err := sql.Open("pgx", in)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	if _, err := db.ExecContext(t.Context(), q); err != nil {
		t.Fatalf("%s: %v", q, err)
	}
}

func (s *Server) url(database string) string {
	u := url.URL{
		Scheme: "postgres", User: url.UserPassword(owner, password),
		Host: net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)), Path: "/" + database, RawQuery: "sslmode=disable",
	}
	return u.String()
}

// Password is that of the URLs: a test may look for it where it must not be.
func Password() string { return password }

func freePort(t testing.TB) int {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // at once
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	return ln.Addr().(*net.TCPAddr).Port //nolint:forcetypeassert // it is one
}

// writer keeps what the server says.
type writer struct{ *Server }

// Write implements [io.Writer].
func (w writer) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.log.Write(b)
}

func (s *Server) said() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.log.String()
}
