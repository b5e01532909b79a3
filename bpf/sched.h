/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * Who made whom wait for a CPU, from sched_switch alone.
 *
 * When sched_switch fires, the task about to run still carries the time at which
 * it was queued (sched_info.last_queued), by the clock of its run queue. Each CPU
 * keeps a short ring of its last slices; walking it back from now to the queueing
 * time splits the wait exactly among the cgroups that ran meanwhile. No hook on
 * wake-ups and no state per task is needed.
 *
 * Limits: a wait is seen when it ends; the part of it spent on another CPU's queue
 * is not seen; and a wait that was longer than the ring reaches is unknown in its
 * older part.
 */

/* Slices remembered per CPU. At 3 ms a slice this reaches back 190 ms. */
#define RING 64
/* Cgroups whose time is gathered per CPU before it is added to the shared table. */
#define GATHER 16
/* The longest that time stays gathered while its cgroup goes on running: 10 ms. */
#define GATHER_NS 10000000ULL
/* Stands for kernel threads and the idle task. No kernfs id is that large. */
#define KERNEL_ID (~0ULL)

struct slice {
	__u64 start;
	__u64 who;
};

struct gathered {
	__u64 cgroup;
	__u64 since;
	__u64 run;
	__u64 wait;
	__u64 wait_self;
	__u64 wait_kernel;
};

struct cpu_state {
	__u64 since; /* when the current slice began; 0 before the first switch */
	__u64 head;
	struct slice ring[RING];
	struct gathered gather[GATHER];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct cpu_state);
} cpus SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 32768);
	__type(key, struct wait_cell);
	__type(value, __u64);
} waits SEC(".maps");

static __always_inline void flush(struct gathered *g)
{
	struct cgroup_counts *c = counts_of(g->cgroup);
	if (c) {
		__sync_fetch_and_add(&c->run, g->run);
		__sync_fetch_and_add(&c->wait, g->wait);
		__sync_fetch_and_add(&c->wait_self, g->wait_self);
		__sync_fetch_and_add(&c->wait_kernel, g->wait_kernel);
	}
	g->run = g->wait = g->wait_self = g->wait_kernel = 0;
}

/* Where to gather for a cgroup on this CPU; makes room where another one's is. */
static __always_inline struct gathered *gather(struct cpu_state *cpu, __u64 cgroup, __u64 now)
{
	struct gathered *g = &cpu->gather[cgroup % GATHER];
	if (g->cgroup == cgroup && now - g->since < GATHER_NS)
		return g;
	if (g->cgroup)
		flush(g);
	g->cgroup = cgroup;
	g->since = now;
	return g;
}

static __always_inline void blame(__u64 offender, __u64 victim, __u64 ns)
{
	struct wait_cell cell = {.offender = offender, .victim = victim};
	__u64 *total = bpf_map_lookup_elem(&waits, &cell);
	if (total) {
		__sync_fetch_and_add(total, ns);
		return;
	}
	if (bpf_map_update_elem(&waits, &cell, &ns, BPF_NOEXIST) == 0)
		return;
	total = bpf_map_lookup_elem(&waits, &cell); /* another CPU was faster, or it is full */
	if (total)
		__sync_fetch_and_add(total, ns);
	else
		count_lost(LOST_CELLS);
}

static __always_inline void charge(struct gathered *g, __u64 who, __u64 ns)
{
	if (who == g->cgroup)
		g->wait_self += ns;
	else if (who == KERNEL_ID)
		g->wait_kernel += ns;
	else
		blame(who, g->cgroup, ns);
}

/* Splits the wait from queued to now among those whose slices lie in it. */
static __always_inline void split_wait(struct cpu_state *cpu, struct gathered *g, __u64 queued, __u64 now)
{
	__u64 end = now, who = 0, ns = 0;

	/* One wait often spans many slices of one cgroup: they are charged at once. */
	for (__u32 i = 1; i <= RING; i++) {
		struct slice *s = &cpu->ring[(cpu->head - i) % RING];
		__u64 from = s->start;
		if (from == 0 || from > end)
			break;
		if (s->who != who) {
			if (ns)
				charge(g, who, ns);
			who = s->who;
			ns = 0;
		}
		if (from <= queued) {
			ns += end - queued;
			end = queued;
			break;
		}
		ns += end - from;
		end = from;
	}
	if (ns)
		charge(g, who, ns);
	if (end > queued)
		charge(g, 0, end - queued);
}

SEC("tp_btf/sched_switch")
int BPF_PROG(on_sched_switch, bool preempt, struct task_struct *prev, struct task_struct *next)
{
	__u32 zero = 0;
	struct cpu_state *cpu = bpf_map_lookup_elem(&cpus, &zero);
	if (!cpu)
		return 0;

	/* The clock that last_queued was taken from. */
	__u64 now = next->se.cfs_rq->rq->clock;
	__u64 since = cpu->since;
	cpu->since = now;
	if (since == 0 || since > now)
		return 0;

	__u64 who = KERNEL_ID;
	if (!(prev->flags & PF_KTHREAD) && prev->pid != 0) {
		who = cgroup_of(prev);
		gather(cpu, who, now)->run += now - since;
	}
	struct slice *last = &cpu->ring[cpu->head % RING];
	last->start = since;
	last->who = who;
	cpu->head++;

	__u64 queued = next->sched_info.last_queued;
	if (queued == 0 || queued >= now || next->pid == 0 || next->flags & PF_KTHREAD)
		return 0;
	struct gathered *g = gather(cpu, cgroup_of(next), now);
	g->wait += now - queued;
	split_wait(cpu, g, queued, now);
	return 0;
}
