//go:build ignore

// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
/*
 * What breakerd sees of a kernel. Nothing here changes anything outside its own
 * maps, and the programs need CAP_BPF and CAP_PERFMON only.
 *
 * sched.h measures who made whom wait for a CPU, proc.h follows processes, doze.h wakes
 * who dozes.
 * Counting is done here, so that a reader that stalls loses records but never a
 * count.
 */
#include "kernel.h"
#include "event.h"
#include "counts.h"

/* The license that the kernel asks for before it lends its GPL-only helpers. */
char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* Types that no map holds are described to Go by these; nothing uses the pointers. */
struct fork_event *describe_fork __attribute__((unused));
struct exec_event *describe_exec __attribute__((unused));
struct exit_event *describe_exit __attribute__((unused));
struct task_record *describe_task __attribute__((unused));
enum lost_kind *describe_lost __attribute__((unused));

#include "doze.h"
#include "sched.h"
#include "proc.h"
