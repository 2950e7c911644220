package pgtest

import (
	"errors"
	"io"
	"os"
	"os/exec"
)

func own(...string) error { return nil }

func demote(*exec.Cmd) {}

func reap(int, string) (io.Closer, error) {
	return nil, errors.New("PostgreSQL is run by tests on Unix only")
}

func crashSignal() os.Signal { return os.Kill }
