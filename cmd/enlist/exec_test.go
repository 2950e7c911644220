package main

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest"
	"github.com/enlist-mcp/enlist/embeddedgateway/gatewaytest/leakscan"
)

// programOfAPerson is what the tests run with `enlist exec`. It uses what it
// finds in its environment and never prints it: what is printed is recorded,
// and looked through for secrets.
//
//	program use PROTOCOL   makes a request; the status is printed
//	program show PREFIX    prints the names that begin with PREFIX
//	program has NAME=VALUE fails unless the environment has exactly that
//	program echo           copies standard input to standard output and to standard error
//	program wait           waits for SIGTERM and ends with code 9
func programOfAPerson() {
	os.Exit(programMain(os.Args[1:]))
}

func programMain(args []string) int {
	switch args[0] {
	case "use":
		return useEnvironment(args[1])
	case "show":
		for _, entry := range slices.Sorted(slices.Values(os.Environ())) {
			if name, _, _ := strings.Cut(entry, "="); strings.HasPrefix(name, args[1]) {
				fmt.Println(name)
			}
		}
	case "has":
		name, value, _ := strings.Cut(args[1], "=")
		if os.Getenv(name) != value {
			return 1
		}
	case "echo":
		if _, err := io.Copy(io.MultiWriter(os.Stdout, os.Stderr), os.Stdin); err != nil {
			return 1
		}
	case "wait":
		got := make(chan os.Signal, 1)
		signal.Notify(got, syscall.SIGTERM)
		fmt.Println("ready")
		<-got
		return 9
	}
	return 0
}

func useEnvironment(protocol string) int {
	header := http.Header{}
	var url string
	switch protocol {
	case "lona":
		url = os.Getenv("LONA_GATEWAY_URL") + "/api/v1/strategies"
		header.Set("X-API-Key", os.Getenv("LONA_API_KEY"))
		header.Set("X-User-Id", os.Getenv("LONA_USER_ID"))
	case "lithtrix":
		url = os.Getenv("LITHTRIX_API_URL") + "/v1/me"
		header.Set("Authorization", "Bearer "+os.Getenv("LITHTRIX_API_KEY"))
	case "agentdoor token":
		url = os.Getenv("AGENTDOOR_URL") + "/whoami"
		header.Set("Authorization", "Bearer "+os.Getenv("AGENTDOOR_TOKEN"))
	case "agentdoor key":
		url = os.Getenv("AGENTDOOR_URL") + "/whoami"
		header.Set("Authorization", "Bearer "+os.Getenv("AGENTDOOR_API_KEY"))
	case "lumina":
		url = os.Getenv("LUMINA_API_URL") + "/api/v1/agent/keys"
		header.Set("x-api-key", os.Getenv("LUMINA_API_KEY"))
	}
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return 1
	}
	req.Header = header
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 1
	}
	defer resp.Body.Close()
	fmt.Println(resp.StatusCode)
	return 0
}

// TestExecPassesSignalsOn sends one to the command; the program under it ends
// as it wants to, and so does the command.
func TestExecPassesSignalsOn(t *testing.T) {
	if os.Getenv("windir") != "" {
		return // there are no signals to send
	}
	gw := gatewaytest.New(t)
	home := t.TempDir()
	t.Cleanup(func() { keepForScan(t, home) })
	enlist := func(args ...string) *exec.Cmd {
		cmd := exec.CommandContext(t.Context(), "enlist", args...)
		cmd.Env = append(os.Environ(),
			"ENLIST_HOME="+filepath.Join(home, "enlist"), "HOME="+home, "XDG_CONFIG_HOME=",
			"ENLIST_STORE=file", "LONA_GATEWAY_URL="+gw.URL, leakscan.Variable+"="+os.Getenv(leakscan.Variable))
		return cmd
	}
	if out, err := enlist("call", "lona_register_agent", `{"agent_id":"my-agent","agent_name":"A"}`).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	cmd := enlist("exec", "lona/my-agent", "--", "program", "wait")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(stdout).ReadString('\n'); err != nil || line != "ready\n" {
		t.Errorf("got %q (%v), want the program to be ready", line, err)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	_ = cmd.Wait()
	if got := cmd.ProcessState.ExitCode(); got != 9 {
		t.Errorf("got the exit code %d, want the program's 9", got)
	}
}
