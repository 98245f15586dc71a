//go:build !unix

package logging

import "io/fs"

// deviceAndInode is empty where there is no journal.
func deviceAndInode(fs.FileInfo) string { return "" }
