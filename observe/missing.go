package observe

import (
	"errors"
	"slices"
	"strings"

	"github.com/breakerd/breakerd/bpf"
	"github.com/breakerd/breakerd/host"
	"github.com/breakerd/breakerd/model"
)

// kernelSide is what the kernel programs see: *bpf.Collector, or blind.
type kernelSide interface {
	Collect(s *model.Sample, scan bool) error
	Unread() (bytes int)
	SettleWaits() error
	Doze() (stirred <-chan struct{}, err error)
	Awake() error
	Programs() []string
	Problems() []string
	DropCapabilities() error
	Close() error
}

// blind is a kernel in which nothing can be attached.
type blind struct{}

func (blind) Collect(*model.Sample, bool) error { return nil }
func (blind) Unread() int                       { return 0 }
func (blind) Doze() (<-chan struct{}, error)    { return nil, nil }
func (blind) Awake() error                      { return nil }
func (blind) SettleWaits() error                { return nil }
func (blind) Programs() []string                { return []string{} }
func (blind) Problems() []string                { return nil }
func (blind) DropCapabilities() error           { return nil }
func (blind) Close() error                      { return nil }

// Missing is something that this machine does not have, so that less is seen.
type Missing struct {
	What string // in a few words, for a line of status
	Text string // what follows from it, and what to do
}

// Missing says what cannot be seen on this machine.
func (o *Observer) Missing() []Missing { return o.missing }

func missing(r host.Reader, k kernelSide) []Missing {
	var all []Missing
	if _, none := k.(blind); none {
		all = append(all, Missing{"BTF", "no kernel program is attached, so that only the machine's pressure is seen and nobody is blamed for anything: " + bpf.ErrNoBTF.Error()})
	}
	for _, problem := range k.Problems() {
		all = append(all, Missing{"block devices", problem})
	}
	if _, err := r.Pressure(); errors.Is(err, host.ErrPressureOff) {
		all = append(all, Missing{"pressure stall information", "pressure stall information is off: cpu_contention, memory_pressure, io_pressure and psi_saturation cannot be seen. Boot with psi=1 on the kernel's command line"})
	}
	if controllers, err := r.Controllers(); err == nil {
		var lacking []string
		for _, name := range []string{"cpu", "memory", "io"} {
			if !slices.Contains(controllers, name) {
				lacking = append(lacking, name)
			}
		}
		if len(lacking) > 0 {
			names := strings.Join(lacking, ", ")
			all = append(all, Missing{"cgroup2 controllers " + names, "cgroup2 has no controllers " + names +
				" here (a hybrid machine keeps them in v1): limits and quotas are not seen, and memory is estimated from processes. For all of it boot with systemd.unified_cgroup_hierarchy=1"})
		}
	}
	return all
}

// dropCapabilities gives up what was needed to attach, once the first sample is there.
func (o *Observer) dropCapabilities() {
	said := "given up"
	if err := o.collector.DropCapabilities(); err != nil {
		said = err.Error()
	}
	o.privilege.Store(&said)
}

// Privileges says what became of the capabilities that were needed to attach: "given up",
// or why they are kept; "" before the first sample.
func (o *Observer) Privileges() string {
	if said := o.privilege.Load(); said != nil {
		return *said
	}
	return ""
}
