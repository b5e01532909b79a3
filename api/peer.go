package api

import (
	"context"
	"fmt"
	"net"
	"net/http"

	"github.com/breakerd/breakerd/internal/peercred"
)

// connKey is where a request's context has the connection that it came on.
type connKey struct{}

func withConn(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, c)
}

// caller is who made a request. Who it is has to be known for what not everybody may.
func caller(r *http.Request) (Caller, error) {
	if c, ok := r.Context().Value(connKey{}).(*net.UnixConn); ok {
		if cred, err := peercred.Of(c, nil); err == nil {
			return Caller{UID: cred.Uid, PID: cred.Pid}, nil
		}
	}
	return Caller{}, fmt.Errorf("%w: the kernel does not say who asks: use the socket", ErrForbidden)
}
