package load

import (
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// A Proxy stands between a client and a server. It is safe for concurrent use.
type Proxy struct {
	// Delay is added to what goes through, in each direction.
	Delay time.Duration

	l      net.Listener
	target string
	all    sync.WaitGroup

	mu      sync.Mutex
	conns   map[net.Conn]bool
	drops   int
	stalled chan struct{} // not nil: nothing goes through until it is closed

	up, down atomic.Int64 // bytes
	accepted atomic.Int64
}

// NewProxy listens on a loopback port until Close.
func NewProxy(target string) (*Proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &Proxy{l: l, target: target, conns: map[net.Conn]bool{}}
	p.all.Go(p.accept)
	return p, nil
}

// Addr returns host:port; URL the same for MQTT.
func (p *Proxy) Addr() string { return p.l.Addr().String() }

// URL returns the proxy's address as an MQTT URL.
func (p *Proxy) URL() string { return "mqtt://" + p.Addr() }

// Bytes returns what went to the server and to the client.
func (p *Proxy) Bytes() (up, down int64) { return p.up.Load(), p.down.Load() }

// Accepted returns how many connections were made.
func (p *Proxy) Accepted() int64 { return p.accepted.Load() }

// Drop ends all connections, by a reset or, with quiet, by an orderly end.
func (p *Proxy) Drop(quiet bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.drops++
	for c := range p.conns {
		if t, ok := c.(*net.TCPConn); ok && !quiet {
			t.SetLinger(0)
		}
		c.Close()
	}
}

// Stall lets nothing through any more, also no end of a connection, as a cable that was cut; on false
// it goes on.
func (p *Proxy) Stall(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if on && p.stalled == nil {
		p.stalled = make(chan struct{})
	} else if !on && p.stalled != nil {
		close(p.stalled)
		p.stalled = nil
	}
}

// Close ends the proxy.
func (p *Proxy) Close() {
	p.l.Close()
	p.Stall(false)
	p.Drop(false)
	p.all.Wait()
}

func (p *Proxy) gate() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stalled
}

func (p *Proxy) accept() {
	for {
		client, err := p.l.Accept()
		if err != nil {
			return
		}
		p.mu.Lock()
		drops := p.drops
		p.mu.Unlock()
		p.accepted.Add(1)
		p.all.Go(func() {
			if g := p.gate(); g != nil {
				<-g
			}
			server, err := net.DialTimeout("tcp", p.target, 5*time.Second)
			if err != nil {
				client.Close()
				return
			}
			p.mu.Lock()
			p.conns[client], p.conns[server] = true, true
			dropped := p.drops != drops
			p.mu.Unlock()
			if dropped { // while it was being made
				client.Close()
				server.Close()
			}
			p.all.Go(func() { p.copy(server, client, &p.up) })
			p.copy(client, server, &p.down)
		})
	}
}

type chunk struct {
	due  time.Time
	data []byte
}

// copy carries bytes one way; what is under way does not hold up what is read.
func (p *Proxy) copy(dst, src net.Conn, n *atomic.Int64) {
	pipe := make(chan chunk, 4096)
	p.all.Go(func() {
		buf := make([]byte, 64<<10)
		for {
			k, err := src.Read(buf)
			if k > 0 {
				pipe <- chunk{time.Now().Add(p.Delay), append([]byte(nil), buf[:k]...)}
			}
			if err != nil {
				close(pipe)
				return
			}
		}
	})
	for c := range pipe {
		if wait := time.Until(c.due); wait > 0 {
			time.Sleep(wait)
		}
		if g := p.gate(); g != nil {
			<-g
		}
		if _, err := dst.Write(c.data); err != nil {
			break
		}
		n.Add(int64(len(c.data)))
	}
	src.Close()
	dst.Close()
	for range pipe { // the reader ends with its connection
	}
	p.mu.Lock()
	delete(p.conns, src)
	delete(p.conns, dst)
	p.mu.Unlock()
}
