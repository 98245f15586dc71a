package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"

	"github.com/coder/websocket"
)

// dialWebSocket opens a WebSocket for MQTT: subprotocol mqtt [MQTT-6.0.0-3], binary frames
// [MQTT-6.0.0-1] whose borders mean nothing [MQTT-6.0.0-2].
func (c *Client) dialWebSocket(ctx context.Context, u *url.URL) (net.Conn, error) {
	tr := &http.Transport{
		// The connection to the proxy is made by dialRaw, too.
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return c.dialRaw(ctx, u) },
		DialTLSContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			nc, err := c.dialRaw(ctx, u)
			if err != nil {
				return nil, err
			}
			return c.startTLS(ctx, nc, u)
		},
	}
	// coder/websocket takes the connection out of the transport, which holds nothing afterwards.
	defer tr.CloseIdleConnections()
	target := *u
	target.User = nil // those are MQTT's
	ws, _, err := websocket.Dial(ctx, target.String(), &websocket.DialOptions{
		// Another server than the one that was named is for the options to name: the header may be a secret of that one.
		HTTPClient:   &http.Client{Transport: tr, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
		HTTPHeader:   c.opt.Header,
		Subprotocols: []string{"mqtt"},
	})
	if err != nil {
		if e, ok := errors.AsType[*url.Error](err); ok {
			err = e.Err // without the URL, whose query may be a secret
		}
		return nil, fmt.Errorf("websocket: %w", err)
	}
	if ws.Subprotocol() != "mqtt" {
		ws.CloseNow()
		return nil, fmt.Errorf("websocket: server does not speak the subprotocol mqtt [MQTT-6.0.0-4]")
	}
	ws.SetReadLimit(-1) // packets are bounded by their reader
	// The context of the dialling must not end the connection.
	return &webSocket{websocket.NetConn(context.Background(), ws, websocket.MessageBinary), ws}, nil
}

// A webSocket closes at once: MQTT's own DISCONNECT goes before, and a dead server would not answer
// the close frame.
type webSocket struct {
	net.Conn
	ws *websocket.Conn
}

func (w *webSocket) Close() error {
	err := w.ws.CloseNow()
	w.Conn.Close() // which finds it closed, and lets go of it: a deadline would keep it for as long as it has to run
	return err
}
