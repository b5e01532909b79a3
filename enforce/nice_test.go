package enforce

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// niceProbe is the nice value that this process is to have, and to have hold; then it shows what
// became of its session.
const niceProbe = "BREAKERD_TEST_NICE"

func probeNice(nice string) {
	err := func() error {
		runtime.LockOSThread()
		n, err := strconv.Atoi(nice)
		if err != nil {
			return err
		}
		if err := unix.Setpriority(unix.PRIO_PROCESS, 0, n); err != nil {
			return err
		}
		return keepNice()
	}()
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	// The case before was within the 100 ms in which the kernel refuses it.
	Program{Log: slog.New(slog.NewTextHandler(os.Stderr, nil))}.comeFirst(context.Background())
	group, err := os.ReadFile(autogroup)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Print(string(group))
	os.Exit(0)
}

// keepNice gives up every capability of this thread but the one for nice values, in the place of
// which the unit has a limit: with CAP_SYS_ADMIN the kernel would not say EAGAIN.
func keepNice() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	keep := [2]unix.CapUserData{{Effective: 1 << unix.CAP_SYS_NICE, Permitted: 1 << unix.CAP_SYS_NICE}}
	return unix.Capset(&header, &keep[0])
}

func TestTheNiceValueHoldsAgainstOtherSessionsOnlyInOneOfItsOwn(t *testing.T) {
	_, missing := os.Stat(autogroup) // of a kernel that has none: nothing is to be done
	for _, tt := range []struct {
		name   string
		nice   string
		leader bool
		want   string
	}{
		{"in a session of its own", "-20", true, " nice -20\n"},
		{"in one of its own, and later than others", "5", true, " nice 5\n"},
		{"without a nice value", "0", true, " nice 0\n"},
		{"in the session of a shell", "-20", false, " nice 0\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			// The shell leads the session, or becomes the program, which then leads it.
			script := `exec "$0"`
			if !tt.leader {
				script = `"$0"; exit $?`
			}
			cmd := exec.Command("/bin/sh", "-c", script, os.Args[0])
			cmd.Env = append(os.Environ(), niceProbe+"="+tt.nice)
			cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
			out, err := cmd.CombinedOutput()
			want := tt.want
			if missing != nil {
				want = ""
			}
			if err != nil || !strings.HasSuffix(string(out), want) {
				t.Errorf("%v: %q, want …%q", err, out, want)
			}
		})
	}
}
