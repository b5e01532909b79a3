package enforce

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// niceProbe says that this process is to do so, and to show what became of its session.
const niceProbe = "BREAKERD_TEST_NICE"

func probeNice() {
	if err := niceEverywhere(); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	group, err := os.ReadFile(autogroup)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Print(string(group))
	os.Exit(0)
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
			script := `exec nice -n "$1" "$0"`
			if !tt.leader {
				script = `nice -n "$1" "$0"; exit $?`
			}
			cmd := exec.Command("/bin/sh", "-c", script, os.Args[0], tt.nice)
			cmd.Env = append(os.Environ(), niceProbe+"=1")
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
