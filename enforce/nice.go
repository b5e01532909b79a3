package enforce

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// autogroup is where the kernel has the nice value of this process's session.
const autogroup = "/proc/self/autogroup"

// comeFirst has what the unit says of this process's priority hold on a busy machine. The kernel
// lets this be set ten times a second by everybody together, so that the enforcer before this
// one, or anybody who keeps setting his own, may be in the way.
func (p Program) comeFirst(ctx context.Context) {
	err := niceEverywhere()
	for errors.Is(err, unix.EAGAIN) {
		select {
		case <-ctx.Done():
			return
		case <-time.After(20*time.Millisecond + rand.N(100*time.Millisecond)):
			err = niceEverywhere()
		}
	}
	if err != nil {
		p.Log.Warn("on a busy machine an undo may be late", keyError, err)
	}
}

// niceEverywhere has the nice value of this process hold against the processes of other
// sessions, too: where the kernel groups tasks by session (autogroup, sched(7)), it counts within
// one only, and each service is one of its own. Who has to wait for a CPU undoes late. Only the
// leader of a session does so, for it is alone in there where systemd started it: the group of a
// shell is not ours to change.
func niceEverywhere() error {
	if session, err := unix.Getsid(0); err != nil || session != os.Getpid() {
		return err
	}
	priority, err := unix.Getpriority(unix.PRIO_PROCESS, 0) // of this thread: the unit's, as that of all
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
