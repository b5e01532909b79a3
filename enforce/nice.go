package enforce

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// autogroup is where the kernel has the nice value of this process's session.
const autogroup = "/proc/self/autogroup"

// niceEverywhere has the nice value of this process hold against the processes of other
// sessions, too: where the kernel groups tasks by session (autogroup, sched(7)), it counts within
// one only, and each service is one of its own. Who has to wait for a CPU undoes late. Only the
// leader of a session does so, for it is alone in there where systemd started it: the group of a
// shell is not ours to change.
func niceEverywhere() error {
	if session, err := unix.Getsid(0); err != nil || session != os.Getpid() {
		return err
	}
	priority, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
	if err != nil {
		return err
	}
	nice := 20 - priority // the call's own form: 40 for -20, 1 for 19
	if nice == 0 {
		return nil
	}
	f, err := os.OpenFile(autogroup, os.O_WRONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // a kernel without: the value holds already
	}
	if err != nil {
		return err
	}
	if _, err := f.WriteString(strconv.Itoa(nice)); err != nil {
		return errors.Join(fmt.Errorf("set the nice value of this session to %d: %w", nice, err), f.Close())
	}
	return f.Close()
}
