/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * The tables that the programs of both objects count in: collector.bpf.c makes them,
 * io.bpf.c is given the same ones.
 */
#ifndef BREAKERD_COUNTS_H
#define BREAKERD_COUNTS_H

/* Stands for kernel threads and the idle task. No kernfs id is that large. */
#define KERNEL_ID (~0ULL)

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

#endif
