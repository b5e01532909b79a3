package api

import (
	"context"
	"fmt"
	"net"
	"net/http"

	"golang.org/x/sys/unix"
)

// callerKey is where a request's context has who made it.
type callerKey struct{}

// withCaller notes who is at the other end of a connection.
func withCaller(ctx context.Context, c net.Conn) context.Context {
	caller, err := callerOf(c)
	if err != nil {
		return ctx
	}
	return context.WithValue(ctx, callerKey{}, caller)
}

// callerOf asks the kernel who connected.
func callerOf(c net.Conn) (Caller, error) {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return Caller{}, fmt.Errorf("a %s has no peer credentials", c.LocalAddr().Network())
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return Caller{}, err
	}
	var cred *unix.Ucred
	var cerr error
	if err := raw.Control(func(fd uintptr) { cred, cerr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil {
		return Caller{}, err
	}
	if cerr != nil {
		return Caller{}, cerr
	}
	return Caller{UID: cred.Uid, PID: cred.Pid}, nil
}

// caller is who made a request. Who it is has to be known for what not everybody may.
func caller(r *http.Request) (Caller, error) {
	c, ok := r.Context().Value(callerKey{}).(Caller)
	if !ok {
		return c, fmt.Errorf("%w: the kernel does not say who asks: use the socket", ErrForbidden)
	}
	return c, nil
}
