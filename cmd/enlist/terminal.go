package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"
)

// terminal returns a standard stream as a file, if it is a terminal.
func terminal(stream any) (*os.File, bool) {
	f, ok := stream.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return nil, false
	}
	return f, true
}

// ask asks a person at the terminal for one line. Where standard input is none
// that is an error which names instead, what does without asking.
func (p *program) ask(prompt, instead string) (string, error) {
	f, ok := terminal(p.stdin)
	if !ok {
		return "", errors.New("this is asked about on a terminal, and standard input is none: " + instead)
	}
	fmt.Fprint(p.stderr, prompt)
	line, err := bufio.NewReader(f).ReadString('\n')
	if err != nil && (err != io.EOF || line == "") {
		return "", fmt.Errorf("read from the terminal: %w", err)
	}
	return strings.TrimSpace(line), nil
}
