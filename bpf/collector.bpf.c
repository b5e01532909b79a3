//go:build ignore

// SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
/*
 * What breakerd sees of a kernel. Nothing here changes anything outside its own
 * maps, and the programs need CAP_BPF and CAP_PERFMON only.
 *
 * sched.h measures who made whom wait for a CPU, proc.h follows processes.
 * Counting is done here, so that a reader that stalls loses records but never a
 * count.
 */
#include "kernel.h"
#include "event.h"

/* The license that the kernel asks for before it lends its GPL-only helpers. */
char LICENSE[] SEC("license") = "Dual BSD/GPL";

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8192);
	__type(key, __u64);
	__type(value, struct cgroup_counts);
} cgroups SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, LOST_KINDS);
	__type(key, __u32);
	__type(value, __u64);
} lost SEC(".maps");

static __always_inline void count_lost(enum lost_kind which)
{
	__u32 kind = which;
	__u64 *n = bpf_map_lookup_elem(&lost, &kind);
	if (n)
		(*n)++;
}

/* The counts of a cgroup; NULL (and counted as lost) where the table is full. */
static __always_inline struct cgroup_counts *counts_of(__u64 cgroup)
{
	struct cgroup_counts *c = bpf_map_lookup_elem(&cgroups, &cgroup);
	if (c)
		return c;
	struct cgroup_counts zero = {};
	bpf_map_update_elem(&cgroups, &cgroup, &zero, BPF_NOEXIST);
	c = bpf_map_lookup_elem(&cgroups, &cgroup);
	if (!c)
		count_lost(LOST_CGROUPS);
	return c;
}

/* Types that no map holds are described to Go by these; nothing uses the pointers. */
struct fork_event *describe_fork __attribute__((unused));
struct exec_event *describe_exec __attribute__((unused));
struct exit_event *describe_exit __attribute__((unused));
struct task_record *describe_task __attribute__((unused));
enum lost_kind *describe_lost __attribute__((unused));

#include "sched.h"
#include "proc.h"
