package gateway

import (
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
)

func TestTheHolderOfATakenPortIsNamed(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	got := portHolder(l.Addr().(*net.TCPAddr).Port)
	if !strings.HasSuffix(got, fmt.Sprintf("(pid %d)", os.Getpid())) {
		t.Errorf("got %q, want this process, pid %d", got, os.Getpid())
	}
	if got := portHolder(0); got != "" {
		t.Errorf("nobody listens on port 0, got %q", got)
	}
}
