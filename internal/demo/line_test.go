package demo

import (
	"io"
	"net"
	"testing"
)

func TestALineThatIsCutRefusesAndIsMendedOnTheSameAddress(t *testing.T) {
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

	l, err := newLine("127.0.0.1:0", server.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer l.cut()
	echo := func() net.Conn {
		t.Helper()
		c, err := net.Dial("tcp", l.addr)
		if err != nil {
			t.Fatal(err)
		}
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
	if c, err := net.Dial("tcp", l.addr); err == nil {
		c.Close()
		t.Error("a line that is cut took a connection")
	}
	if err := l.mend(); err != nil {
		t.Fatal(err)
	}
	echo().Close()
}
