package pgtest

import (
	"os"
	"os/exec"
)

func own(...string) error { return nil }

func demote(*exec.Cmd) {}

func crashSignal() os.Signal { return os.Kill }
