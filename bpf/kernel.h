/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * The fields of kernel structures that the programs read, and no others. CO-RE
 * finds where they are on the running kernel, so the order and the gaps here mean
 * nothing. Checked on 5.10, 6.1, 6.12 and 6.18.
 */
#ifndef BREAKERD_KERNEL_H
#define BREAKERD_KERNEL_H

#include <linux/bpf.h>
#include <linux/types.h>
#include <stdbool.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#define PF_KTHREAD 0x00200000
#define KTHREADD 2 /* its pid */
#define EEXIST 17
#define TASK_ON_RQ_QUEUED 1
#define TASK_ON_RQ_MIGRATING 2

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct kernfs_node {
	__u64 id; /* a plain number since 5.5 */
};

struct cgroup {
	struct kernfs_node *kn;
};

struct css_set {
	struct cgroup *dfl_cgrp; /* in the cgroup2 hierarchy, on hybrid hosts too */
};

struct rq {
	__u64 clock;
	int cpu;
};

struct cfs_rq {
	struct rq *rq;
};

struct load_weight {
	unsigned long weight; /* 1024 * 1024 at nice 0, on 64-bit machines */
};

struct sched_entity {
	struct load_weight load; /* by nice alone, of whatever policy the task is; 3 * 1024 if SCHED_IDLE */
	__u64 sum_exec_runtime;
	struct cfs_rq *cfs_rq;
};

/* Asleep, and on the queue still. Since 6.12. */
struct sched_entity___since_6_12 {
	unsigned char sched_delayed;
};

struct sched_info {
	unsigned long pcount;		/* times that it was put on a CPU */
	unsigned long long run_delay;	/* all its waits that have ended */
	unsigned long long last_queued;
};

typedef struct {
	int counter;
} atomic_t;

typedef struct {
	long long counter;
} atomic64_t;

struct signal_struct {
	atomic_t live; /* threads that have not begun to exit */
	unsigned long long sum_sched_runtime;
};

typedef struct {
	unsigned int val;
} kuid_t;

struct cred {
	kuid_t uid;
};

struct percpu_counter {
	long long count;
};

struct mm_struct {
	struct percpu_counter rss_stat[4]; /* since 6.2 */
	unsigned long arg_start;
	unsigned long arg_end;
};

/* Until 6.1. The part behind ___ is not part of the name that CO-RE looks for. */
struct mm_rss_stat {
	atomic64_t count[4];
};

struct mm_struct___until_6_1 {
	struct mm_rss_stat rss_stat;
};

struct task_struct {
	unsigned int flags;
	int pid;
	int tgid;
	int on_rq;
	int prio; /* below 100: real-time, or a deadline */
	struct task_struct *real_parent;
	struct task_struct *group_leader;
	__u64 start_boottime; /* real_start_time before 5.5 */
	struct sched_entity se;
	struct sched_info sched_info;
	struct css_set *cgroups;
	struct signal_struct *signal;
	const struct cred *real_cred;
	struct mm_struct *mm;
	char comm[16];
};

struct linux_binprm;

struct seq_file;

struct bpf_iter_meta {
	struct seq_file *seq;
};

struct bpf_iter__task {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
};

#pragma clang attribute pop

/* The cgroup of a task in the cgroup2 hierarchy. */
static __always_inline __u64 cgroup_of(struct task_struct *task)
{
	return task->cgroups->dfl_cgrp->kn->id;
}

#endif
