package bpf

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
)

// blockPrograms watch the block devices. They count in the collector's own tables.
type blockPrograms struct {
	coll  *ebpf.Collection
	holds *drain[ioHoldCell, ioHoldTime]
	links []link.Link
	names []string // for a person
}

// loadBlockPrograms attaches what the running kernel's block layer has tracepoints for.
// An error means that nothing is attached, and takes nothing else along.
func loadBlockPrograms(counts *programs, kernel *btf.Cache) (_ *blockPrograms, err error) {
	spec, err := loadIo()
	if err != nil {
		return nil, fmt.Errorf("read the embedded io programs: %w", err)
	}
	if err := chooseBlockPrograms(spec, kernel); err != nil {
		return nil, err
	}
	spec.Maps[ioMapCgroups].MaxEntries = counts.Cgroups.MaxEntries()
	spec.Maps[ioMapHolds].MaxEntries = counts.Cgroups.MaxEntries()
	p := &blockPrograms{}
	defer func() {
		if err != nil {
			_ = p.Close()
		}
	}()
	p.coll, err = ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{
		MapReplacements: map[string]*ebpf.Map{ioMapCgroups: counts.Cgroups, ioMapLost: counts.Lost},
		Cache:           kernel,
	})
	if err != nil {
		return nil, fmt.Errorf("load the io programs: %w", err)
	}
	p.holds = newDrain[ioHoldCell, ioHoldTime](p.coll.Maps[ioMapHolds])
	for name, prog := range p.coll.Programs {
		l, err := link.AttachTracing(link.TracingOptions{Program: prog})
		if err != nil {
			return nil, fmt.Errorf("attach %s: %w", name, err)
		}
		p.links = append(p.links, l)
		p.names = append(p.names, "tp_btf/"+spec.Programs[name].AttachTo)
	}
	return p, nil
}

// chooseBlockPrograms leaves in the spec the programs that fit the tracepoints of this
// kernel. Until 5.10 two of them were given the queue as well.
func chooseBlockPrograms(spec *ebpf.CollectionSpec, cache *btf.Cache) error {
	kernel, err := cache.Kernel()
	if err != nil {
		return fmt.Errorf("read the kernel's BTF: %w", err)
	}
	for _, alternative := range []struct {
		tracepoint, now, until5_10 string
	}{
		{"block_bio_queue", ioProgOnBioQueue, ioProgOnBioQueueUntil510},
		{"block_rq_issue", ioProgOnRqIssue, ioProgOnRqIssueUntil510},
	} {
		switch args := traceArgs(kernel, alternative.tracepoint); {
		case len(args) == 1:
			delete(spec.Programs, alternative.until5_10)
		case len(args) == 2 && args[0] == "request_queue":
			delete(spec.Programs, alternative.now)
		default:
			return fmt.Errorf("tracepoint %s of this kernel is not known: it is given %q", alternative.tracepoint, args)
		}
	}
	for tracepoint, want := range map[string][]string{
		"block_rq_complete":  {"request"},
		"block_bio_complete": {"request_queue", "bio"},
	} {
		args := traceArgs(kernel, tracepoint)
		for i, w := range want {
			if i >= len(args) || args[i] != w {
				return fmt.Errorf("tracepoint %s of this kernel is not known: it is given %q", tracepoint, args)
			}
		}
	}
	return nil
}

// traceArgs are the structs that a tracepoint is given pointers to, "" for what is none.
func traceArgs(kernel *btf.Spec, tracepoint string) (names []string) {
	var def *btf.Typedef
	if kernel.TypeByName("btf_trace_"+tracepoint, &def) != nil {
		return nil
	}
	ptr, ok := def.Type.(*btf.Pointer)
	if !ok {
		return nil
	}
	proto, ok := ptr.Target.(*btf.FuncProto)
	if !ok || len(proto.Params) == 0 {
		return nil
	}
	for _, param := range proto.Params[1:] { // the first is the tracepoint's own
		name := ""
		if p, ok := btf.UnderlyingType(param.Type).(*btf.Pointer); ok {
			name = p.Target.TypeName()
		}
		names = append(names, name)
	}
	return names
}

// Close detaches the programs.
func (p *blockPrograms) Close() error {
	var errs []error
	for _, l := range p.links {
		errs = append(errs, l.Close())
	}
	if p.coll != nil {
		p.coll.Close() // its own duplicates of the tables
	}
	return errors.Join(errs...)
}
