// Package sim holds simulated devices behind real transports, pseudo-terminals, sockets and register
// models, for the demo and for tests: the gateway's own drivers talk to them and cannot tell.
package sim
