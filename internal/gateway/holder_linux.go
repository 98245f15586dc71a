package gateway

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// portHolder says which process listens on a TCP port, as far as this user may see: "mosquitto (pid
// 812)", or "" where it cannot be told.
func portHolder(port int) string {
	inode := listenerInode(port)
	if inode == "" {
		return ""
	}
	links, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil && target == "socket:["+inode+"]" {
			pid := strings.Split(link, "/")[2]
			name, err := os.ReadFile("/proc/" + pid + "/comm")
			if err != nil {
				return "pid " + pid
			}
			return fmt.Sprintf("%s (pid %s)", strings.TrimSpace(string(name)), pid)
		}
	}
	return ""
}

// listenerInode finds the socket that listens on the port in the kernel's tables (proc(5)): columns
// are slot, local address, remote address, state (0A is LISTEN), …, and the inode is the tenth.
func listenerInode(port int) string {
	suffix := fmt.Sprintf(":%04X", port)
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		f, err := os.Open(table)
		if err != nil {
			continue
		}
		scanner := bufio.NewScanner(f)
		for scanner.Scan() {
			col := strings.Fields(scanner.Text())
			if len(col) > 9 && strings.HasSuffix(col[1], suffix) && col[3] == "0A" {
				if _, err := strconv.ParseUint(col[9], 10, 64); err == nil {
					f.Close()
					return col[9]
				}
			}
		}
		f.Close()
	}
	return ""
}
