package systemd

import (
	"fmt"
	"net"

	"github.com/coreos/go-systemd/v22/activation"
)

// Listener is the Unix socket that the service manager opened for this process and
// handed over (sd_listen_fds(3)); nil where it handed over none.
func Listener() (*net.UnixListener, error) {
	files := activation.Files(true)
	defer func() {
		for _, f := range files {
			f.Close() // a listener has a copy of its own
		}
	}()
	switch len(files) {
	case 0:
		return nil, nil
	case 1:
	default:
		return nil, fmt.Errorf("take over the service manager's socket: it handed over %d", len(files))
	}
	l, err := net.FileListener(files[0])
	if err != nil {
		return nil, fmt.Errorf("take over the service manager's socket: %w", err)
	}
	u, ok := l.(*net.UnixListener)
	if !ok {
		l.Close()
		return nil, fmt.Errorf("take over the service manager's socket: %s is no Unix stream socket", l.Addr())
	}
	return u, nil
}
