package main

import (
	"os"

	"golang.org/x/sys/windows"
)

// sequences has a console understand the sequences that colour text. Windows'
// does so when it is told to, since Windows 10.
func sequences(f *os.File) bool {
	console := windows.Handle(f.Fd())
	var mode uint32
	if err := windows.GetConsoleMode(console, &mode); err != nil {
		return false
	}
	return windows.SetConsoleMode(console, mode|windows.ENABLE_VIRTUAL_TERMINAL_PROCESSING) == nil
}
