package main

import (
	"io/fs"
	"os"
)

// keepOwner does nothing: here a new file in a folder has that folder's owner.
func keepOwner(*os.File, fs.FileInfo) error { return nil }
