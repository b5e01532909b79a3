package bpf

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"
)

// Sizes are the bounds of the maps, all of which the kernel allocates at once.
type Sizes struct {
	Cgroups     uint32 // cgroups counted at a time, and pairs of one and a disk; 144 and 96 bytes each
	Cells       uint32 // cells of the blame matrix; 80 bytes each
	EventsBytes uint32 // ring buffer of fork, exec and exit records; a power of two
}

// DefaultSizes take 8.4 MB of kernel memory, and 16 KB more a possible CPU.
var DefaultSizes = Sizes{Cgroups: 8192, Cells: 32768, EventsBytes: 2 << 20}

// kernelBTF is what CO-RE needs of a kernel (CONFIG_DEBUG_INFO_BTF, since 5.4).
const kernelBTF = "/sys/kernel/btf/vmlinux"

// ErrNoBTF says that the kernel has no description of its types, without which the
// programs cannot be fitted to it.
var ErrNoBTF = errors.New("this kernel has no BTF (" + kernelBTF + " is missing): boot one built with CONFIG_DEBUG_INFO_BTF=y, as every Debian, Ubuntu and Fedora kernel since 2020 is")

// programs are the loaded kernel programs and their maps.
type programs struct {
	collectorObjects
	links  []link.Link
	tasks  *link.Iter
	settle *link.Iter
	ring   *ringbuf.Reader
}

func loadPrograms(sizes Sizes, kernel *btf.Cache) (_ *programs, err error) {
	if _, err := os.Stat(kernelBTF); errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNoBTF
	}
	// Kernels before 5.11 charge maps to the memlock limit, and raising that needs
	// CAP_SYS_RESOURCE. Later ones need nothing, so that a refusal says nothing yet.
	limitErr := rlimit.RemoveMemlock()

	spec, err := loadCollector()
	if err != nil {
		return nil, fmt.Errorf("read the embedded kernel programs: %w", err)
	}
	spec.Maps[collectorMapCgroups].MaxEntries = sizes.Cgroups
	spec.Maps[collectorMapWaits].MaxEntries = sizes.Cells
	spec.Maps[collectorMapEvents].MaxEntries = sizes.EventsBytes
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return nil, fmt.Errorf("count the CPUs that there can be: %w", err)
	}
	spec.Maps[collectorMapCpus].MaxEntries = uint32(cpus) + 1
	if err := spec.Variables[collectorVarSettler].Set(uint32(cpus)); err != nil {
		return nil, fmt.Errorf("set where waits that go on are gathered: %w", err)
	}
	if err := spec.Variables[collectorVarWakeBytes].Set(uint64(sizes.EventsBytes / 4)); err != nil {
		return nil, fmt.Errorf("set when the event buffer wakes its reader: %w", err)
	}
	if err := errors.Join(spec.Variables[collectorVarStirBytes].Set(uint64(StirBytes)), spec.Variables[collectorVarStirNs].Set(uint64(StirWait))); err != nil {
		return nil, fmt.Errorf("set what wakes a reader that dozes: %w", err)
	}

	p := &programs{}
	defer func() {
		if err != nil {
			p.Close()
		}
	}()
	if err := spec.LoadAndAssign(&p.collectorObjects, &ebpf.CollectionOptions{Cache: kernel}); err != nil {
		return nil, explainLoad(err, limitErr)
	}
	// Moves before switches: from a task's first switch on, none of its moves is missed.
	for _, prog := range []*ebpf.Program{p.OnFork, p.OnExec, p.OnExit, p.OnSchedMigrate, p.OnSchedSwitch} {
		l, err := link.AttachTracing(link.TracingOptions{Program: prog})
		if err != nil {
			return nil, fmt.Errorf("attach %s: %w", prog, err)
		}
		p.links = append(p.links, l)
	}
	if p.tasks, err = link.AttachIter(link.IterOptions{Program: p.ListTasks}); err != nil {
		return nil, fmt.Errorf("attach the task iterator (Linux 5.8 and later have it): %w", err)
	}
	if p.settle, err = link.AttachIter(link.IterOptions{Program: p.SettleWaits}); err != nil {
		return nil, fmt.Errorf("attach the iterator over waiting tasks: %w", err)
	}
	if p.ring, err = ringbuf.NewReader(p.Events); err != nil {
		return nil, fmt.Errorf("open the event buffer: %w", err)
	}
	return p, nil
}

// explainLoad says what a person can do about programs that the kernel refused.
func explainLoad(err, limitErr error) error {
	var verifier *ebpf.VerifierError
	switch {
	case errors.Is(err, unix.EPERM) && limitErr != nil:
		return fmt.Errorf("load the kernel programs: %w: run as root, or give the process CAP_BPF and CAP_PERFMON (before Linux 5.11 also CAP_SYS_RESOURCE, or LimitMEMLOCK=infinity)", err)
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("load the kernel programs: %w: run as root, or give the process CAP_BPF and CAP_PERFMON", err)
	case errors.As(err, &verifier):
		return fmt.Errorf("load the kernel programs: this kernel's verifier refuses them: %w", err)
	}
	return fmt.Errorf("load the kernel programs: %w", err)
}

// Close detaches every program and frees the maps.
func (p *programs) Close() error {
	var errs []error
	if p.ring != nil {
		errs = append(errs, p.ring.Close())
	}
	if p.tasks != nil {
		errs = append(errs, p.tasks.Close())
	}
	if p.settle != nil {
		errs = append(errs, p.settle.Close())
	}
	for _, l := range p.links {
		errs = append(errs, l.Close())
	}
	errs = append(errs, p.collectorObjects.Close())
	return errors.Join(errs...)
}
