// Package bpf sees: it loads the kernel programs, empties what they counted once a
// tick, and makes a model.Sample of it.
//
// It needs CAP_BPF and CAP_PERFMON and no other privilege: the programs hang on
// tp_btf tracepoints, the process table comes from iter/task, and everything else
// is read from /proc and cgroupfs by package host.

// The objects are committed, so that building needs no C compiler. `make generate`
// makes them again; the compiler is pinned because its version changes the bytes.
//
//go:generate go tool bpf2go -target bpfel -cc clang-14 -strip llvm-strip-14 -output-stem collector -type fork_event -type exec_event -type exit_event -type task_record -type event_kind -type lost_kind collector collector.bpf.c -- -mcpu=v2 -O2 -Wall -Werror -idirafter /usr/include/x86_64-linux-gnu
//go:generate go tool bpf2go -target bpfel -cc clang-14 -strip llvm-strip-14 -output-stem io -no-global-types -type hold_cell -type hold_time io io.bpf.c -- -mcpu=v2 -O2 -Wall -Werror -idirafter /usr/include/x86_64-linux-gnu
package bpf
