package bpf

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// ErrKept says that the capabilities were not given up; what it is wrapped in says why.
var ErrKept = errors.New("the capabilities are kept")

// DropCapabilities gives up every capability of the process once nothing is to be attached
// any more, where this kernel lets all that is done from then on be done without. That is
// tried, not guessed: they are first put aside, then everything is done once, and only
// then are they given up or taken back. Nothing else may use the collector meanwhile.
//
// Linux 5.19 and later ask for no capability to use a map or an iterator that is open.
// Until then CAP_BPF is needed for each call of bpf(2), where
// kernel.unprivileged_bpf_disabled is set, as it is by default.
func (c *Collector) DropCapabilities() error {
	if os.Geteuid() == 0 {
		return fmt.Errorf("%w: root has others that are worth more", ErrKept)
	}
	before, err := capabilities()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrKept, err)
	}
	aside := before
	aside.Effective = [2]uint32{}
	if err := aside.set(); err != nil {
		return fmt.Errorf("%w: put them aside: %w", ErrKept, err)
	}
	if refused := c.tryAll(); refused != nil {
		if err := before.set(); err != nil {
			return fmt.Errorf("take back the capabilities: %w", err) // and nothing will work
		}
		return fmt.Errorf("%w: this kernel asks for them when what is attached is read (before Linux 5.19): %w", ErrKept, refused)
	}
	if err := (capabilitySets{}).set(); err != nil {
		return fmt.Errorf("%w: give them up: %w", ErrKept, err)
	}
	return nil
}

// tryAll does once everything that is done with each tick: whatever is added there is to
// be tried here.
func (c *Collector) tryAll() error {
	// The plainest call comes first: where one of the others is refused, the library looks
	// whether the kernel knows it at all, and would remember that it does not.
	var lost []uint64 // one a CPU
	if err := c.programs.Lost.Lookup(uint32(0), &lost); err != nil {
		return fmt.Errorf("look up what was lost: %w", err)
	}
	var cursor ebpf.MapBatchCursor
	if _, err := c.cgroups.table.BatchLookup(&cursor, c.cgroups.keys, c.cgroups.vals, nil); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("look up a batch: %w", err)
	}
	const nobody = uint64(0) // is no cgroup
	var counts collectorCgroupCounts
	err := c.cgroups.table.LookupAndDelete(nobody, &counts)
	if errors.Is(err, ebpf.ErrNotSupported) {
		err = c.cgroups.table.Lookup(nobody, &counts)
	}
	if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("look up a key: %w", err)
	}
	if err := c.cgroups.table.Delete(nobody); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("delete a key: %w", err)
	}
	if err := c.SettleWaits(); err != nil {
		return err
	}
	it, err := c.programs.tasks.Open()
	if err != nil {
		return fmt.Errorf("open the task iterator: %w", err)
	}
	defer it.Close()
	_, err = readTasks(it, c.scanBuf)
	return err
}

// capabilitySets are those of a thread, as capget(2) has them: 64 bits in two halves.
type capabilitySets struct {
	Effective, Permitted, Inheritable [2]uint32
}

func capabilities() (s capabilitySets, err error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return s, fmt.Errorf("read the capabilities: %w", err)
	}
	for i := range data {
		s.Effective[i], s.Permitted[i], s.Inheritable[i] = data[i].Effective, data[i].Permitted, data[i].Inheritable
	}
	return s, nil
}

// set changes the capabilities of every thread of the process: the kernel knows only a
// thread's own. A program with C in it cannot do that (ENOTSUP).
func (s capabilitySets) set() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	for i := range data {
		data[i] = unix.CapUserData{Effective: s.Effective[i], Permitted: s.Permitted[i], Inheritable: s.Inheritable[i]}
	}
	_, _, errno := syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&header)), uintptr(unsafe.Pointer(&data[0])), 0)
	if errno != 0 {
		return errno
	}
	return nil
}
