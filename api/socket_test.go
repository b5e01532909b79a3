package api

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestTheSocketIsForItsOwnerAndGroup(t *testing.T) {
	before := syscall.Umask(0)
	defer syscall.Umask(before)
	path := filepath.Join(t.TempDir(), SocketName)
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := info.Mode(), fs.ModeSocket|0o660; got != want {
		t.Errorf("mode %v, want %v", got, want)
	}
}

func TestASocketThatADeadProcessLeftIsReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), SocketName)
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	dead.Close()
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}

func TestWhatIsNoDeadSocketIsLeftAlone(t *testing.T) {
	tests := []struct {
		name string
		make func(t *testing.T, path string)
		want string
	}{
		{"a breakerd that answers", func(t *testing.T, path string) {
			l, err := Listen(path)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { l.Close() })
		}, "a running breakerd already answers there"},
		{"a file", func(t *testing.T, path string) {
			if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
				t.Fatal(err)
			}
		}, "something else than a socket is there"},
		{"a folder", func(t *testing.T, path string) {
			if err := os.Mkdir(path, 0o700); err != nil {
				t.Fatal(err)
			}
		}, "something else than a socket is there"},
		{"a link to a file", func(t *testing.T, path string) {
			target := filepath.Join(t.TempDir(), "precious")
			if err := errors.Join(os.WriteFile(target, nil, 0o600), os.Symlink(target, path)); err != nil {
				t.Fatal(err)
			}
		}, "something else than a socket is there"},
		{"a named pipe", func(t *testing.T, path string) {
			if err := syscall.Mkfifo(path, 0o600); err != nil {
				t.Fatal(err)
			}
		}, "something else than a socket is there"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), SocketName)
			tt.make(t, path)
			before, err := os.Lstat(path)
			if err != nil {
				t.Fatal(err)
			}
			l, err := Listen(path)
			if err == nil {
				l.Close()
				t.Fatal("it was taken")
			}
			if !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), path) {
				t.Errorf("%q does not say that %s", err, tt.want)
			}
			if after, err := os.Lstat(path); err != nil || !os.SameFile(before, after) {
				t.Errorf("it is not there any more: %v", err)
			}
		})
	}
}

func TestListenSaysWhyItCannot(t *testing.T) {
	for _, tt := range []struct{ name, path, want string }{
		{"no such folder", filepath.Join(t.TempDir(), "none", SocketName), "no such file or directory"},
		{"too long a path", filepath.Join(t.TempDir(), strings.Repeat("x", 108)), "longer than a socket's can be"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if l, err := Listen(tt.path); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("listener %v, error %v, want that it says %s", l, err, tt.want)
			}
		})
	}
}

// answering listens as breakerd does, and answers every connection with a text.
func answering(t *testing.T, text string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	l, err := Listen(filepath.Join(dir, SocketName))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if text != "" {
				_, _ = c.Read(make([]byte, 4096))
				_, _ = c.Write([]byte(text))
			}
			c.Close()
		}
	}()
	return dir
}

func TestTheClientSaysWhatIsWrongAndWhatToDo(t *testing.T) {
	ok := "HTTP/1.1 200 OK\r\nContent-Length: "
	tests := []struct {
		name string
		dir  func(t *testing.T) string
		want []string
	}{
		{"no server", func(t *testing.T) string { return t.TempDir() }, []string{"does not answer on DIR/api.sock", "is it running?", "--runtime-dir"}},
		{"a dead server", func(t *testing.T) string {
			dir := t.TempDir()
			l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, SocketName), Net: "unix"})
			if err != nil {
				t.Fatal(err)
			}
			l.SetUnlinkOnClose(false)
			l.Close()
			return dir
		}, []string{"does not answer on DIR/api.sock", "is it running?"}},
		{"no HTTP", func(t *testing.T) string { return answering(t, "SSH-2.0-OpenSSH\r\n") }, []string{"talk to breakerd on DIR/api.sock", "malformed HTTP"}},
		{"nothing", func(t *testing.T) string { return answering(t, "") }, []string{"talk to breakerd on DIR/api.sock"}},
		{"no JSON", func(t *testing.T) string { return answering(t, ok+"5\r\n\r\nhello") }, []string{"read the answer to /status", "invalid character 'h'"}},
		{"half an answer", func(t *testing.T) string { return answering(t, ok+"50\r\n\r\n{\"pid\":1") }, []string{"read the answer to /status", "unexpected EOF"}},
		{"an error without a word", func(t *testing.T) string { return answering(t, "HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n") }, []string{"GET /status", "500"}},
		{"an error in words", func(t *testing.T) string {
			return answering(t, "HTTP/1.1 500 Oh\r\nContent-Length: 9\r\n\r\ndisk full")
		}, []string{"disk full"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := tt.dir(t)
			_, err := NewClient(dir).Status(t.Context())
			if err == nil {
				t.Fatal("no error")
			}
			for _, want := range tt.want {
				if want = strings.ReplaceAll(want, "DIR", dir); !strings.Contains(err.Error(), want) {
					t.Errorf("%q does not say %q", err, want)
				}
			}
		})
	}
}

func TestTheClientThatMayNotSaysSo(t *testing.T) {
	c := NewClient("/run/x")
	err := c.explain(&net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.EACCES)})
	if want := "may not talk to breakerd on /run/x/api.sock: run as root, or as a member of the socket's group"; err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestARequestEndsWithItsContext(t *testing.T) {
	dir := t.TempDir()
	l, err := net.Listen("unix", filepath.Join(dir, SocketName)) // nobody accepts
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := NewClient(dir).Status(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want that it was cancelled", err)
	}
}
