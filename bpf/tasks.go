package bpf

import (
	"fmt"
	"io"
	"os"
	"unsafe"

	"github.com/breakerd/breakerd/model"
)

// process is a row of the process table as iter/task gave it.
type process struct {
	model.Proc
	cpuNS     uint64
	rssBytes  uint64
	fileBytes uint64
}

const taskRecordSize = int(unsafe.Sizeof(collectorTaskRecord{}))

// readTasks reads the iterator to its end and adds threads up to processes.
func readTasks(r io.Reader, buf []byte) (map[model.ProcID]*process, error) {
	table := make(map[model.ProcID]*process, 512)
	gone := make(map[model.ProcID]bool)
	filled := 0
	for {
		n, err := r.Read(buf[filled:])
		filled += n
		used := 0
		for ; filled-used >= taskRecordSize; used += taskRecordSize {
			rec, verr := view[collectorTaskRecord](buf[used:])
			if verr != nil {
				return nil, verr
			}
			addTask(table, gone, rec)
		}
		filled = copy(buf, buf[used:filled])
		if err == io.EOF || (err == nil && n == 0) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("read the task iterator: %w", err)
		}
	}
	if filled != 0 {
		return nil, fmt.Errorf("read the task iterator: its last record has %d bytes, want %d", filled, taskRecordSize)
	}
	for id := range gone {
		delete(table, id)
	}
	return table, nil
}

func addTask(table map[model.ProcID]*process, gone map[model.ProcID]bool, rec collectorTaskRecord) {
	id := procID(rec.Proc)
	p := table[id]
	if p == nil {
		p = &process{}
		p.ProcID = id
		table[id] = p
	}
	p.cpuNS += rec.Cpu
	if rec.Leader == 0 {
		return
	}
	if rec.Gone != 0 {
		gone[id] = true
	}
	if rec.Proc.Pid != 0 && rec.Parent.Pid != 0 {
		p.Parent = procID(rec.Parent)
	}
	p.Cgroup = model.CgroupID(rec.Cgroup)
	p.UID = rec.Uid
	p.Comm = cString(rec.Comm[:])
	p.Kernel = rec.Kernel != 0
	p.Found = true
	p.rssBytes, p.fileBytes = rec.RssPages*uint64(os.Getpagesize()), rec.FilePages*uint64(os.Getpagesize())
}
