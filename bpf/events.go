package bpf

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"unsafe"

	"github.com/breakerd/breakerd/model"
)

// nsPerTick turns nanoseconds since boot into the clock ticks of /proc/PID/stat:
// USER_HZ is 100 on every architecture that Debian and Fedora build for.
const nsPerTick = 10_000_000

func procID(id collectorProcId) model.ProcID {
	return model.ProcID{PID: int32(id.Pid), StartTime: id.StartBoottime / nsPerTick}
}

// decodeEvent adds one record of the ring buffer to the changes of the tick.
func decodeEvent(raw []byte, into *model.ProcChanges) error {
	if len(raw) < 4 {
		return fmt.Errorf("decode event: %d bytes are too few for its kind", len(raw))
	}
	switch kind := collectorEventKind(binary.NativeEndian.Uint32(raw)); kind {
	case collectorEventKindEVENT_FORK:
		e, err := view[collectorForkEvent](raw)
		if err != nil {
			return fmt.Errorf("decode fork event: %w", err)
		}
		p := model.Proc{
			ProcID: procID(e.Child),
			Parent: procID(e.Parent),
			Cgroup: model.CgroupID(e.Cgroup),
			UID:    e.Uid,
			Comm:   cString(e.Comm[:]),
		}
		if e.ParentCgroup != e.Cgroup {
			p.ParentCgroup = model.CgroupID(e.ParentCgroup)
		}
		into.Forked = append(into.Forked, p)
	case collectorEventKindEVENT_EXEC:
		e, err := view[collectorExecEvent](raw)
		if err != nil {
			return fmt.Errorf("decode exec event: %w", err)
		}
		args := e.Args[:min(int(e.ArgsLen), len(e.Args))]
		into.Execed = append(into.Execed, model.Exec{
			ProcID:  procID(e.Proc),
			Comm:    cString(e.Comm[:]),
			Cmdline: commandLine(args),
		})
	case collectorEventKindEVENT_EXIT:
		e, err := view[collectorExitEvent](raw)
		if err != nil {
			return fmt.Errorf("decode exit event: %w", err)
		}
		into.Exited = append(into.Exited, model.Exit{ProcID: procID(e.Proc), LifeNS: e.Life, CPUNS: e.Cpu})
	case collectorEventKindEVENT_STIR: // has woken whoever reads it, and says no more
	default:
		return fmt.Errorf("decode event: unknown kind %d", kind)
	}
	return nil
}

// view reads raw as a T of the kernel's. The copy keeps it aligned and alive.
func view[T any](raw []byte) (T, error) {
	var v T
	size := int(unsafe.Sizeof(v))
	if len(raw) < size {
		return v, fmt.Errorf("%d bytes, want %d", len(raw), size)
	}
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&v)), size), raw)
	return v, nil
}

// cString is the text before the first NUL. It is a process's own choice, so it is
// made valid UTF-8 here; control characters are escaped where they are shown.
func cString(b []byte) string {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return strings.ToValidUTF8(string(b), "\uFFFD")
}

// commandLine joins arguments as they stand in memory, each ended by a NUL.
func commandLine(args []byte) string {
	args = bytes.ReplaceAll(bytes.TrimRight(args, "\x00"), []byte{0}, []byte{' '})
	return strings.ToValidUTF8(string(args), "\uFFFD")
}
