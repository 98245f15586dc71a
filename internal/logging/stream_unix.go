//go:build unix

package logging

import (
	"fmt"
	"io/fs"
	"syscall"
)

func deviceAndInode(info fs.FileInfo) string {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return ""
	}
	return fmt.Sprintf("%d:%d", st.Dev, st.Ino)
}
