package main

import (
	"bufio"
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// BenchmarkColdStart starts `enlist mcp` and a bare mcp-go server with one tool
// by turns, each until it has answered tools/list over stdio, and reports how the
// medians of the time and of the resident memory then compare:
//
//	go test ./cmd/enlist -run '^$' -bench ColdStart -benchtime 40x
func BenchmarkColdStart(b *testing.B) {
	enlist, bare, env := servers(b)
	var ours, theirs struct{ took, resident []float64 }
	for b.Loop() {
		took, resident := coldStart(b, env, bare)
		theirs.took, theirs.resident = append(theirs.took, took), append(theirs.resident, resident)
		took, resident = coldStart(b, env, enlist, "mcp")
		ours.took, ours.resident = append(ours.took, took), append(ours.resident, resident)
	}
	b.ReportMetric(0, "ns/op") // it would be of both
	b.ReportMetric(median(ours.took), "ms")
	b.ReportMetric(median(ours.took)/median(theirs.took), "×bare-time")
	b.ReportMetric(median(ours.resident), "KiB")
	b.ReportMetric(median(ours.resident)/median(theirs.resident), "×bare-memory")
}

// TestAServerIsNoTwiceABareOne: of its memory, when it has answered.
func TestAServerIsNoTwiceABareOne(t *testing.T) {
	enlist, bare, env := servers(t)
	var ours, theirs []float64
	for range 3 {
		_, resident := coldStart(t, env, bare)
		theirs = append(theirs, resident)
		_, resident = coldStart(t, env, enlist, "mcp")
		ours = append(ours, resident)
	}
	t.Logf("%g KiB are resident, and %g of a bare server", median(ours), median(theirs))
	if ours, theirs := median(ours), median(theirs); ours > 2*theirs {
		t.Errorf("%g KiB are resident, and %g of a bare server", ours, theirs)
	}
}

// TestAnIdleServerIsLittleMoreThanABareOne: of its memory, half as much again at most.
// What the start needs it gives back when it has been through with that for a moment,
// however long that takes on a machine that has much to do.
func TestAnIdleServerIsLittleMoreThanABareOne(t *testing.T) {
	enlist, bare, env := servers(t)
	var theirs []float64
	for range 3 {
		_, resident := coldStart(t, env, bare)
		theirs = append(theirs, resident)
	}
	most := 1.5 * median(theirs)
	p := coldStarted(t, env, enlist, "mcp")
	defer p.end()
	first := float64(residentKiB(t, p.cmd.Process.Pid))
	late, tick := time.After(time.Minute), time.NewTicker(50*time.Millisecond)
	defer tick.Stop()
	for done := false; !done; {
		select {
		case <-tick.C:
			done = float64(residentKiB(t, p.cmd.Process.Pid)) <= min(most, first-1024)
		case <-late:
			t.Fatalf("%d KiB are resident (%g at first), want at most %g", residentKiB(t, p.cmd.Process.Pid), first, most)
		}
	}
}

// servers builds both, and returns an environment for them.
func servers(b testing.TB) (enlist, bare string, env []string) {
	b.Helper()
	dir := b.TempDir()
	enlist, bare = filepath.Join(dir, "enlist"), filepath.Join(dir, "bare")
	build(b, enlist, ".")
	build(b, bare, "./testdata/bare")
	return enlist, bare, []string{"HOME=" + dir, "ENLIST_HOME=" + filepath.Join(dir, "home"), "ENLIST_STORE=file", "PATH=" + os.Getenv("PATH")}
}

func build(b testing.TB, binary, pkg string) {
	b.Helper()
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", binary, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("go build %s: %v\n%s", pkg, err, out)
	}
}

// coldStart runs a server until it has answered tools/list, and returns how many
// milliseconds that took and how many KiB are resident then.
func coldStart(b testing.TB, env []string, command ...string) (took, resident float64) {
	b.Helper()
	p := coldStarted(b, env, command...)
	defer p.end()
	return p.took, float64(residentKiB(b, p.cmd.Process.Pid))
}

// started is a server that has answered tools/list.
type started struct {
	b    testing.TB
	cmd  *exec.Cmd
	in   io.Closer
	took float64 // milliseconds
}

func (p started) end() {
	_ = p.in.Close()
	if err := p.cmd.Wait(); err != nil {
		p.b.Error(err)
	}
}

func coldStarted(b testing.TB, env []string, command ...string) started {
	b.Helper()
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Env = env
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	began := time.Now()
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	_, err = io.WriteString(in, `{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"bench","version":"1"}}}
{"jsonrpc":"2.0","method":"notifications/initialized"}
{"jsonrpc":"2.0","id":2,"method":"tools/list"}
`)
	if err != nil {
		b.Fatal(err)
	}
	lines := bufio.NewReader(out)
	var last []byte
	for range 2 {
		if last, err = lines.ReadBytes('\n'); err != nil {
			b.Fatal(err)
		}
	}
	took := float64(time.Since(began).Microseconds()) / 1000
	if !bytes.Contains(last, []byte(`"tools"`)) {
		b.Fatalf("got %s", last)
	}
	return started{b, cmd, in, took}
}

func median(values []float64) float64 {
	slices.Sort(values)
	return values[len(values)/2]
}
