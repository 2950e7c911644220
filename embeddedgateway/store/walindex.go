package store

// walHeader is what SQLite keeps in the memory that all who have a database open
// share (its file ends in -shm), and changes with every commit, whichever process
// makes it: https://www.sqlite.org/walformat.html, "The WAL-Index Header". SQLite
// itself looks at it to learn whether what it has in its cache still holds. The
// zero value is that of no database.
type walHeader [48]byte

// walIndex reads the header of a database that is open.
type walIndex struct {
	memory []byte // the first page of the file: the header, and the header again
	file   *walFile
}

// header is the header as it is now. What was committed before the call, by
// whatever process, has changed it. It may be in the midst of a change, and is then
// like none that stable returns.
func (x *walIndex) header() walHeader { return walHeader(x.memory) }

// stable is the header, but no header where it does not come to rest.
func (x *walIndex) stable() walHeader {
	const tries = 100 // a change takes some nanoseconds
	for range tries {
		// A change begins with the second.
		if h := x.header(); h == walHeader(x.memory[len(h):]) {
			return h
		}
	}
	return walHeader{}
}
