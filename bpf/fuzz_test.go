package bpf

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"
	"testing/iotest"
	"unicode/utf8"
	"unsafe"

	"github.com/breakerd/breakerd/model"
)

// bytesOf is a record as the kernel writes it.
func bytesOf[T any](v T) []byte {
	return bytes.Clone(unsafe.Slice((*byte)(unsafe.Pointer(&v)), unsafe.Sizeof(v)))
}

// Records as Linux 6.18 wrote them, of one process: its fork, its exec, its end.
var (
	realFork = unhex(`
		0100000000000000d2730000000000004111c6f87c030000b77300000000000022185bf27c0300000100000000000000
		6270662e746573740000000000000000`)
	realExec = unhex(`
		0200000017000000d2730000000000004111c6f87c030000657865000000000000000000000000002f70726f632f7365
		6c662f6578650032003130306d7300000000000000000000000000000000000000000000000000000000000000000000
		000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000
		000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000
		00000000000000000000000000000000000000000000000000000000000000000000000000000000`)
	realExit = unhex(`
		0300000000000000d2730000000000004111c6f87c03000012c7590600000000c30f650a00000000`)
)

// A scan's records of kthreadd and of a process with several threads.
var realTasks = unhex(`
		02000000000000005b75d00800000000000000000000000000000000000000000100000000000000dd0bc00100000000
		0000000000000000000000000000000000000000010100006b746872656164640000000000000000677c000000000000
		f1d79042e63b00003c7c000000000000c7da8a04e53b0000010000000000000047115112000000005b12000000000000
		5b0a00000000000000000000010000006270662e746573740000000000000000677c000000000000f1d79042e63b0000
		000000000000000000000000000000000000000000000000b0f4a6000000000000000000000000000000000000000000
		000000000000000000000000000000000000000000000000677c000000000000f1d79042e63b00000000000000000000
		00000000000000000000000000000000631f7b0000000000000000000000000000000000000000000000000000000000
		00000000000000000000000000000000677c000000000000f1d79042e63b000000000000000000000000000000000000
		00000000000000008cd81300000000000000000000000000000000000000000000000000000000000000000000000000
		0000000000000000`)

func unhex(text string) []byte {
	b, err := hex.DecodeString(strings.Join(strings.Fields(text), ""))
	if err != nil {
		panic(err)
	}
	return b
}

func FuzzDecodeEvent(f *testing.F) {
	f.Add(realFork)
	f.Add(realExec)
	f.Add(realExit)
	stir := []byte{byte(collectorEventKindEVENT_STIR), 0, 0, 0}
	f.Add(stir)
	f.Add([]byte{})
	f.Add([]byte{9, 0, 0, 0})
	f.Add(realExec[:40])
	f.Add(bytesOf(collectorExecEvent{Kind: collectorEventKindEVENT_EXEC, ArgsLen: 1 << 31}))
	f.Fuzz(func(t *testing.T, raw []byte) {
		before := bytes.Clone(raw)
		var into model.ProcChanges
		err := decodeEvent(raw, &into)
		if !bytes.Equal(raw, before) {
			t.Error("the record was changed")
		}
		n := len(into.Forked) + len(into.Execed) + len(into.Exited)
		want := 1
		if err != nil || bytes.Equal(raw[:4], stir) { // which says nothing of a process
			want = 0
		}
		if n != want {
			t.Errorf("%d changes, error %v", n, err)
		}
		for _, p := range into.Forked {
			if !utf8.ValidString(p.Comm) || len([]rune(p.Comm)) > 16 {
				t.Errorf("comm %q", p.Comm)
			}
		}
		for _, e := range into.Execed {
			if !utf8.ValidString(e.Comm) || !utf8.ValidString(e.Cmdline) || len([]rune(e.Cmdline)) > 192 {
				t.Errorf("comm %q, command line %q", e.Comm, e.Cmdline)
			}
		}
	})
}

func FuzzReadTasks(f *testing.F) {
	f.Add(realTasks, uint8(0))
	f.Add(realTasks, uint8(1))
	f.Add(realTasks[:len(realTasks)-1], uint8(2))
	f.Add([]byte{}, uint8(0))
	f.Fuzz(func(t *testing.T, raw []byte, how uint8) {
		whole, err := readTasks(bytes.NewReader(raw), make([]byte, 64<<10))
		if (err != nil) != (len(raw)%taskRecordSize != 0) {
			t.Errorf("%d bytes in records of %d: %v", len(raw), taskRecordSize, err)
		}
		if err != nil {
			return
		}
		if len(whole) > len(raw)/taskRecordSize {
			t.Errorf("%d processes of %d records", len(whole), len(raw)/taskRecordSize)
		}
		for id, p := range whole {
			if p.ProcID != id || !utf8.ValidString(p.Comm) {
				t.Errorf("process %v is %+v", id, p)
			}
		}
		// However the reads fall, the table is the same.
		r := []func() (map[model.ProcID]*process, error){
			func() (map[model.ProcID]*process, error) {
				return readTasks(iotest.OneByteReader(bytes.NewReader(raw)), make([]byte, taskRecordSize))
			},
			func() (map[model.ProcID]*process, error) {
				return readTasks(iotest.HalfReader(bytes.NewReader(raw)), make([]byte, taskRecordSize+7))
			},
			func() (map[model.ProcID]*process, error) {
				return readTasks(iotest.DataErrReader(bytes.NewReader(raw)), make([]byte, 3*taskRecordSize-1))
			},
		}[how%3]
		parts, err := r()
		if err != nil || len(parts) != len(whole) {
			t.Fatalf("in parts: %d processes, error %v; at once %d", len(parts), err, len(whole))
		}
		for id, p := range whole {
			if parts[id] == nil || *parts[id] != *p {
				t.Errorf("in parts %+v, at once %+v", parts[id], p)
			}
		}
	})
}
