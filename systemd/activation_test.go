package systemd

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// activatedVar makes TestASocketIsTakenOver the process that is handed a socket: its
// value is what sets LISTEN_PID, which only that process itself can know.
const activatedVar = "BREAKERD_TEST_ACTIVATED"

func TestASocketIsTakenOver(t *testing.T) {
	if os.Getenv(activatedVar) != "" {
		os.Setenv("LISTEN_PID", fmt.Sprint(os.Getpid()))
		l, err := Listener()
		switch {
		case err != nil:
			fmt.Println("error:", err)
		case l == nil:
			fmt.Println("none")
		default:
			fmt.Printf("listens on %s, and LISTEN_FDS is %q\n", l.Addr(), os.Getenv("LISTEN_FDS"))
		}
		return
	}
	stream := func(t *testing.T) *os.File {
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "s"), Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		f, err := l.File()
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	tests := []struct {
		name  string
		files func(*testing.T) []*os.File
		want  string
	}{
		{"none was handed over", func(*testing.T) []*os.File { return nil }, "none"},
		{"one", func(t *testing.T) []*os.File { return []*os.File{stream(t)} }, `/s, and LISTEN_FDS is ""`},
		{"two", func(t *testing.T) []*os.File { return []*os.File{stream(t), stream(t)} }, "it handed over 2"},
		{"a file that is no socket", func(t *testing.T) []*os.File {
			f, err := os.Open(os.DevNull)
			if err != nil {
				t.Fatal(err)
			}
			return []*os.File{f}
		}, "error: take over the service manager's socket"},
		{"a socket for TCP", func(t *testing.T) []*os.File {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { l.Close() })
			f, err := l.(*net.TCPListener).File()
			if err != nil {
				t.Fatal(err)
			}
			return []*os.File{f}
		}, "is no Unix stream socket"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			files := tt.files(t)
			cmd := exec.Command(os.Args[0], "-test.run=^TestASocketIsTakenOver$")
			cmd.Env = []string{activatedVar + "=1"}
			if len(files) > 0 {
				cmd.Env = append(cmd.Env, fmt.Sprintf("LISTEN_FDS=%d", len(files)))
			}
			cmd.ExtraFiles = files
			out, err := cmd.CombinedOutput()
			for _, f := range files {
				f.Close()
			}
			if err != nil || !strings.Contains(string(out), tt.want) {
				t.Errorf("%v: %s, want %s", err, out, tt.want)
			}
		})
	}
}
