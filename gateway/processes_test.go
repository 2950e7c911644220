package gateway_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/enlist-mcp/enlist/credstore"
	"github.com/enlist-mcp/enlist/gateway"
)

// The environment of another process of a test.
const (
	processDir     = "ENLIST_TEST_DIR"
	processSetting = "ENLIST_TEST_SETTING" // the name of the variable that says where the service is
	processURL     = "ENLIST_TEST_URL"
	processNow     = "ENLIST_TEST_NOW"
	processHandle  = "ENLIST_TEST_HANDLE"
	processPath    = "ENLIST_TEST_PATH"
)

// durableStore returns the store of a home that processes share.
func durableStore(dir string, now func() time.Time, log *slog.Logger) (credstore.Store, error) {
	return credstore.Open(credstore.Options{
		Mode: credstore.ModeFile, Home: filepath.Join(dir, "home"), ConfigDir: filepath.Join(dir, "config"),
		Now: now, Logger: log,
	})
}

// TestProcessThatUsesACredential is the other process of the tests below: they
// run this binary again. It says that it is ready, waits for its input to end,
// and uses a credential.
func TestProcessThatUsesACredential(t *testing.T) {
	dir := os.Getenv(processDir)
	if dir == "" {
		return // nobody runs it as a process
	}
	said, err := use(t.Context(), dir)
	if err != nil {
		said = "failed: " + err.Error()
	}
	fmt.Println("used", said)
}

func use(ctx context.Context, dir string) (said string, err error) {
	at, err := time.Parse(time.RFC3339Nano, os.Getenv(processNow))
	if err != nil {
		return "", err
	}
	now := func() time.Time { return at }
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	store, err := durableStore(dir, now, log)
	if err != nil {
		return "", err
	}
	defer store.(io.Closer).Close()
	c, err := gateway.New(gateway.Options{
		Store: store, Home: filepath.Join(dir, "home"), Now: now, Logger: log,
		Env: func(name string) string {
			if name == os.Getenv(processSetting) {
				return os.Getenv(processURL)
			}
			return ""
		},
	})
	if err != nil {
		return "", err
	}
	defer c.Close()
	i, err := c.Lifecycle.Resolve(ctx, os.Getenv(processHandle))
	if err != nil {
		return "", err
	}
	fmt.Println("ready")
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return "", err
	}
	r, err := c.Lifecycle.Do(ctx, i.Key, get(os.Getenv(processPath)))
	return fmt.Sprint(r.Status), err
}

// TestTwentyProcessesRenewOnce has twenty processes that share a store on disk
// meet what has expired at once. The renewal of the first is held until the
// others wait for it.
func TestTwentyProcessesRenewOnce(t *testing.T) {
	const many = 20
	for _, r := range renewings() {
		t.Run(r.name, func(t *testing.T) {
			gw := r.gateway(t)
			dir := t.TempDir()
			store, err := durableStore(dir, gw.Clock.Now, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			f := r.fixture(t, gw, setup{store: store})
			i := r.join(t, f, gw.Gateway)
			handle := f.Lifecycle.Handle(i.Key)
			if err := store.(io.Closer).Close(); err != nil {
				t.Fatal(err)
			}
			gw.Clock.Advance(2 * r.life)
			gw.forget(0)
			release := make(chan struct{})
			gw.holding(release)
			env := append(os.Environ(),
				processDir+"="+dir, processSetting+"="+r.setting, processURL+"="+gw.URL, processHandle+"="+handle,
				processNow+"="+gw.Clock.Now().Format(time.RFC3339Nano), processPath+"="+r.path(i))

			start := make(chan struct{})
			ready, waiting, results := make(chan struct{}, many), make(chan struct{}, many), make(chan string, many)
			for range many {
				go func() { results <- runProcess(t, env, ready, waiting, start) }()
			}
			for range many {
				<-ready
			}
			close(start)
			for range many - 1 {
				<-waiting
			}
			close(release)

			for range many {
				if got := <-results; got != "used 200" {
					t.Errorf("a process %s", got)
				}
			}
			if got, _ := gw.counted(); got != 1 {
				t.Errorf("got %d renewals, want 1", got)
			}
		})
	}
}

// runProcess runs the other process and returns the last thing that it said.
func runProcess(t *testing.T, env []string, ready, waiting chan<- struct{}, start <-chan struct{}) (said string) {
	isReady := sync.OnceFunc(func() { ready <- struct{}{} })
	waits := sync.OnceFunc(func() { waiting <- struct{}{} })
	defer waits() // whatever happens, the test goes on
	defer isReady()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestProcessThatUsesACredential$", "-test.timeout=80s")
	cmd.Env = env
	stdin, inErr := cmd.StdinPipe()
	stdout, outErr := cmd.StdoutPipe()
	stderr, errErr := cmd.StderrPipe()
	if inErr != nil || outErr != nil || errErr != nil {
		return fmt.Sprint("has no pipes: ", inErr, outErr, errErr)
	}
	if err := cmd.Start(); err != nil {
		return "did not start: " + err.Error()
	}
	var reading sync.WaitGroup
	reading.Go(func() {
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			if strings.Contains(lines.Text(), "waiting for another enlist process") {
				waits()
			}
		}
	})
	for lines := bufio.NewScanner(stdout); lines.Scan(); {
		switch line := lines.Text(); {
		case line == "ready":
			isReady()
			<-start
			_ = stdin.Close()
		case strings.HasPrefix(line, "used "):
			said = line
		}
	}
	reading.Wait()
	if err := cmd.Wait(); err != nil {
		return said + ", and ended with " + err.Error()
	}
	return said
}
