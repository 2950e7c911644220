package main

import "io/fs"

// ownerOf has nothing to tell here.
func ownerOf(fs.FileInfo) [2]uint32 { return [2]uint32{} }
