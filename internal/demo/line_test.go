package demo

import (
	"io"
	"net"
	"testing"
)

func TestALineThatIsCutPassesNothingUntilItIsMended(t *testing.T) {
	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	go func() {
		for {
			c, err := server.Accept()
			if err != nil {
				return
			}
			go io.Copy(c, c)
		}
	}()

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := newLine(listener, server.Addr().String())
	defer l.close()
	dial := func() net.Conn {
		t.Helper()
		c, err := net.Dial("tcp", listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	echo := func() net.Conn {
		t.Helper()
		c := dial()
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		return c
	}
	c := echo()
	l.cut()
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("the connection outlived the line")
	}
	if _, err := dial().Read(make([]byte, 1)); err == nil {
		t.Error("a line that is cut took a connection")
	}
	l.mend()
	echo()
}
