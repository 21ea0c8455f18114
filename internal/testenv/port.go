package testenv

import (
	"math/rand/v2"
	"net"
	"strconv"
	"testing"
)

// Ports that the kernel does not give to outgoing connections, so that a
// server which was stopped finds its own free when it comes back.
const firstPort, lastPort = 15_000, 32_000

// freePort returns a port of loopback that nobody listens on.
func freePort(t testing.TB) int {
	t.Helper()
	for range 100 {
		port := firstPort + rand.IntN(lastPort-firstPort)
		l, err := net.Listen("tcp", address(port))
		if err == nil {
			_ = l.Close()
			return port
		}
	}
	t.Fatalf("no port from %d to %d is free", firstPort, lastPort)
	return 0
}

func address(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
