// Package peercred asks the kernel who is at the other end of a Unix socket.
package peercred

import (
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// Of gives who connected, as it was when he did (SO_PEERCRED). also is called with the
// connection's descriptor, for what else is to be asked of it; it may be nil.
func Of(c *net.UnixConn, also func(fd uintptr)) (*unix.Ucred, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("read peer credentials: %w", err)
	}
	var cred *unix.Ucred
	var cerr error
	err = raw.Control(func(fd uintptr) {
		if cred, cerr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); cerr == nil && also != nil {
			also(fd)
		}
	})
	if err == nil {
		err = cerr
	}
	if err != nil {
		return nil, fmt.Errorf("read peer credentials: %w", err)
	}
	return cred, nil
}
