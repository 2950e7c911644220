package main

import "runtime/debug"

// startGarbage is how much garbage there may be while a server starts, in percent of
// what is in use. A start makes some megabytes of it, at Go's 100 just enough to be
// collected while the client waits for its first answer.
const startGarbage = 400

// startLean gives back what the program needed before its commands, beside the start
// of this one, and puts off the collection of garbage, unless the user has said how
// often it is to be. The function that it returns makes up for that, and gives back
// what the client's first questions needed, and what looks after the credentials at
// the start.
func (p *program) startLean() (settle func()) {
	go releaseCode()
	if p.env("GOGC") != "" {
		return releaseCode
	}
	before := debug.SetGCPercent(startGarbage)
	return func() {
		debug.SetGCPercent(before)
		debug.FreeOSMemory()
		releaseCode()
	}
}
