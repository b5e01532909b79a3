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
/* Cgroups, and cells of the blame matrix, whose time is gathered per CPU before it is
 * added to the shared tables: a line of a small array costs a few ns, a hash table and
 * an atomic add 20 to 30 (bench/README.md). Powers of two, see place(). */
#define GATHER_BITS 6
#define CELL_BITS 8
/* As much is gathered before it is added: 1 ms. So no more than that, of a cgroup or of
 * a cell and on each CPU, is not in the shared tables yet. */
#define GATHER_NS 1000000ULL

/* From start until the next one's start one cgroup ran, by one task or several. */
struct slice {
	__u64 start;
	__u64 who;
};

struct gathered {
	__u64 cgroup;
	__u64 run;
	__u64 wait;
	__u64 wait_self;
	__u64 wait_kernel;
};

struct gathered_cell {
	struct wait_cell cell;
	__u64 ns;
};

struct cpu_state {
	__u64 since; /* when the current task was put on the CPU; 0 before the first switch */
	__u64 who;   /* whose it is */
	__u64 head;
	struct slice ring[RING];
	struct gathered gather[1 << GATHER_BITS];
	struct gathered_cell cells[1 << CELL_BITS];
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

/* Where to look for a key in an array of 1 << bits. Every file of a cgroup takes a
 * kernfs id too, so that ids of cgroups have steps of 19 to 80 between them, and the
 * lowest bits alone would put many in the same place. */
static __always_inline __u32 place(__u64 key, int bits)
{
	return (key * 0x9e3779b97f4a7c15ULL) >> (64 - bits);
}

/* This and flush_cell are rare, and a call each: inlined, they made the object a fifth
 * larger and nothing faster. */
static __noinline void flush(struct gathered *g)
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
static __always_inline struct gathered *gather(struct cpu_state *cpu, __u64 cgroup)
{
	struct gathered *g = &cpu->gather[place(cgroup, GATHER_BITS)];
	if (g->cgroup != cgroup) {
		if (g->cgroup)
			flush(g);
		g->cgroup = cgroup;
	}
	return g;
}

static __noinline void flush_cell(struct gathered_cell *g)
{
	struct wait_cell cell = g->cell;
	__u64 ns = g->ns;

	g->ns = 0;
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

static __always_inline void blame(struct cpu_state *cpu, __u64 offender, __u64 victim, __u64 ns)
{
	/* Turned, so that a pair and its reverse have different places. */
	struct gathered_cell *g = &cpu->cells[place(offender ^ (victim << 32 | victim >> 32), CELL_BITS)];
	if (g->cell.offender != offender || g->cell.victim != victim) {
		if (g->ns)
			flush_cell(g);
		g->cell.offender = offender;
		g->cell.victim = victim;
	}
	g->ns += ns;
	if (g->ns >= GATHER_NS)
		flush_cell(g);
}

static __always_inline void charge(struct cpu_state *cpu, struct gathered *g, __u64 who, __u64 ns)
{
	if (who == g->cgroup)
		g->wait_self += ns;
	else if (who == KERNEL_ID)
		g->wait_kernel += ns;
	else
		blame(cpu, who, g->cgroup, ns);
}

/* Splits the wait from queued to now among those whose slices lie in it. What is older
 * than the ring is nobody's. */
static __always_inline void split_wait(struct cpu_state *cpu, struct gathered *g, __u64 queued, __u64 now)
{
	__u64 end = now;

	for (__u32 i = 0; i <= RING; i++) {
		struct slice *s = &cpu->ring[(cpu->head - i) % RING];
		__u64 from = s->start, who = s->who;
		if (i == RING || from == 0 || from > end) {
			from = queued;
			who = 0;
		}
		if (from <= queued) {
			charge(cpu, g, who, end - queued);
			break;
		}
		charge(cpu, g, who, end - from);
		end = from;
	}
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
	__u64 since = cpu->since, who = cpu->who;

	/* Looked up once, and not again when the task leaves: a slice belongs to the
	 * cgroup in which it began. */
	__u64 cgroup = KERNEL_ID;
	if (!(next->flags & PF_KTHREAD))
		cgroup = cgroup_of(next);
	cpu->since = now;
	cpu->who = cgroup;
	if (since == 0 || since > now)
		return 0;

	if (who != KERNEL_ID) {
		struct gathered *g = gather(cpu, who);
		g->run += now - since;
		if (g->run >= GATHER_NS)
			flush(g);
	}
	/* Slices of one cgroup in a row are one: the ring reaches further back, and
	 * walking it takes fewer steps. */
	struct slice *last = &cpu->ring[cpu->head % RING];
	if (last->who != who || last->start == 0) {
		last = &cpu->ring[++cpu->head % RING];
		last->start = since;
		last->who = who;
	}

	if (cgroup == KERNEL_ID)
		return 0;
	__u64 queued = next->sched_info.last_queued;
	if (queued == 0 || queued >= now)
		return 0;
	struct gathered *g = gather(cpu, cgroup);
	g->wait += now - queued;
	split_wait(cpu, g, queued, now);
	if (g->wait >= GATHER_NS)
		flush(g);
	return 0;
}
