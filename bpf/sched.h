/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * Who made whom wait for a CPU.
 *
 * When sched_switch fires, the task about to run still carries the time at which
 * it was queued (sched_info.last_queued), by the clock of its run queue. Each CPU
 * keeps a short ring of its last slices; walking it back from now to the queueing
 * time splits the wait exactly among the cgroups that ran meanwhile. No hook on
 * wake-ups is needed.
 *
 * A wait is settled, which is to say split and counted, at three places:
 *
 *   on_sched_switch   when it ends;
 *   on_sched_migrate  when the task is moved, still waiting, to another CPU's queue,
 *                     with the ring of the CPU that it leaves;
 *   settle_waits      when it goes on as the tick ends.
 *
 * What ties them together is the kernel's own total of a task's waits, run_delay, to
 * which it adds when a task is put on a CPU and when it is taken off a queue. A slot
 * of each task says how much of that total has been settled. What has not lies right
 * before now, on the queue where the task is or just was.
 *
 * Limits: of a wait that is longer than the ring reaches, the older part comes from
 * the epochs, which tell only what is certain; and a task that was not seen to be put
 * on a CPU since the programs were attached (or lost its slot to another one whose pid
 * ends in the same 15 bits) has only its present stay on a queue seen, and nothing of
 * one that a move has just ended.
 */

/* Slices remembered per CPU. At 3 ms a slice this reaches back 190 ms. */
#define RING 64
/* Where slices are short the ring reaches back less than a wait is long. So each CPU
 * also keeps, of longer spans, who ran most: with these two 256 ms at least, and a wait
 * is settled once a tick of 250 ms. */
#define EPOCHS 64
#define EPOCH_NS 4000000ULL
#define EPOCH_TOP 4
/* Cgroups, and cells of the blame matrix, whose time is gathered per CPU before it is
 * added to the shared tables: a line of a small array costs a few ns, a hash table and
 * an atomic add 20 to 30 (bench/README.md). Powers of two, see place(). */
#define GATHER_BITS 6
#define CELL_BITS 8
/* As much is gathered before it is added: 1 ms. So no more than that, of a cgroup or of
 * a cell and on each CPU, is not in the shared tables yet. */
#define GATHER_NS 1000000ULL
/* Tasks that have a slot of their own; the kernel gives pids out in order, so that this
 * many in a row do not meet. */
#define SLOTS 32768
/* A wait that has not ended is settled when this much of it is not. */
#define SETTLE_NS 20000000ULL

/* Read once and in this order, of what another CPU may be writing. */
#define NOW(x) (*(volatile typeof(x) *)&(x))

/* From start until the next one's start one cgroup ran, by one task or several. */
struct slice {
	__u64 start;
	__u64 who;
};

/* From start until the next one's start, who ran most, and how long. The rest of the
 * time nobody is known to have run. */
struct epoch {
	__u64 start; /* 0 while it is being written */
	__u64 kernel;
	__u64 who[EPOCH_TOP];
	__u64 ns[EPOCH_TOP];
};

struct gathered {
	__u64 cgroup;
	__u64 run;
	__u64 wait;
	__u64 wait_self;
	__u64 wait_kernel;
	__u64 wait_asked;
	__u64 epoch_run; /* since the epoch began */
};

struct gathered_cell {
	struct wait_cell cell;
	__u64 ns;
};

struct cpu_state {
	__u64 since; /* when the current task was put on the CPU; 0 before the first switch */
	__u64 who;   /* whose it is */
	__u64 head;
	__u64 epoch_start; /* of the one that goes on */
	__u64 epoch_kernel;
	__u64 epoch_head;
	__u64 asked;	   /* the wait that is being split was asked for: see asked_to_wait() */
	__u64 apart;	   /* the next CPU's lines are its own */
	struct epoch look; /* the one that is being split, or ended */
	struct slice ring[RING];
	struct epoch epochs[EPOCHS];
	struct gathered gather[1 << GATHER_BITS];
	struct gathered_cell cells[1 << CELL_BITS];
};

/* Indexed by CPU, and no per-CPU map: a move reads the ring of another CPU, and
 * bpf_map_lookup_percpu_elem is there only since 5.18. The collector says how many CPUs
 * there can be; one place more is where settle_waits gathers, which can be preempted, so
 * that no CPU's place is its own. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, struct cpu_state);
} cpus SEC(".maps");

const volatile __u32 settler = 1;

/*
 * What has been settled of a task's run_delay is the sum of two numbers, each of which
 * has one writer: the switch and the move hold the lock of the run queue on which the
 * task is, and settle_waits runs once at a time. So no number is lost without an atomic
 * operation. Where both settle the same part of a wait at the same moment it counts
 * twice, but then both sums have grown, more is settled than the task has waited, and
 * its next waits are left out until that is made good.
 */
struct slot {
	__u64 check;   /* the pid, crossed with settled: tells halves of two writers apart */
	__u64 settled; /* by switches and moves, ns; can be "below zero" */
	__u64 ticked;  /* by settle_waits, of all tasks that had this slot; only grows */
	__u64 reserved;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SLOTS);
	__type(key, __u32);
	__type(value, struct slot);
} slots SEC(".maps");

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

/* What is rare are functions that the verifier looks at by themselves, and once: within the
 * loops of their callers it took half as long again, or did not come to an end. Before
 * 5.12 such a function takes numbers only, hence the CPUs' numbers in place of pointers. */

/* Adds what a CPU has gathered for a cgroup, the at-th, to the shared counts. */
__noinline int flush(__u32 here, __u32 at)
{
	struct cpu_state *cpu = bpf_map_lookup_elem(&cpus, &here);
	if (!cpu)
		return 0;
	struct gathered *g = &cpu->gather[at % (1 << GATHER_BITS)];
	struct cgroup_counts *c = counts_of(g->cgroup);
	if (c) {
		__sync_fetch_and_add(&c->run, g->run);
		__sync_fetch_and_add(&c->wait, g->wait);
		__sync_fetch_and_add(&c->wait_self, g->wait_self);
		__sync_fetch_and_add(&c->wait_kernel, g->wait_kernel);
		__sync_fetch_and_add(&c->wait_asked, g->wait_asked);
	}
	g->run = g->wait = g->wait_self = g->wait_kernel = g->wait_asked = 0;
	return 0;
}

/* Where to gather for a cgroup on this CPU; makes room where another one's is. What that
 * one ran in this epoch is nobody's then. */
static __always_inline struct gathered *gather(__u32 here, struct cpu_state *cpu, __u64 cgroup)
{
	__u32 at = place(cgroup, GATHER_BITS);
	struct gathered *g = &cpu->gather[at];
	if (g->cgroup != cgroup) {
		if (g->cgroup)
			flush(here, at);
		g->epoch_run = 0;
		g->cgroup = cgroup;
	}
	return g;
}

/* Adds what a CPU has gathered for a cell, the at-th, to the shared matrix. */
__noinline int flush_cell(__u32 here, __u32 at)
{
	struct cpu_state *cpu = bpf_map_lookup_elem(&cpus, &here);
	if (!cpu)
		return 0;
	struct gathered_cell *g = &cpu->cells[at % (1 << CELL_BITS)];
	struct wait_cell cell = g->cell;
	__u64 ns = g->ns;

	g->ns = 0;
	__u64 *total = bpf_map_lookup_elem(&waits, &cell);
	if (total) {
		__sync_fetch_and_add(total, ns);
		return 0;
	}
	if (bpf_map_update_elem(&waits, &cell, &ns, BPF_NOEXIST) == 0)
		return 0;
	total = bpf_map_lookup_elem(&waits, &cell); /* another CPU was faster, or it is full */
	if (total)
		__sync_fetch_and_add(total, ns);
	else
		count_lost(LOST_CELLS);
	return 0;
}

static __always_inline void blame(__u32 here, struct cpu_state *cpu, __u64 offender, __u64 victim, __u64 ns)
{
	/* Turned, so that a pair and its reverse have different places. */
	__u32 at = place(offender ^ (victim << 32 | victim >> 32), CELL_BITS);
	struct gathered_cell *g = &cpu->cells[at];
	if (g->cell.offender != offender || g->cell.victim != victim) {
		if (g->ns)
			flush_cell(here, at);
		g->cell.offender = offender;
		g->cell.victim = victim;
	}
	g->ns += ns;
	if (g->ns >= GATHER_NS)
		flush_cell(here, at);
}

/* A wait that a task asked for is nobody else's doing: one of less than the ordinary weight
 * (nice above 0, SCHED_IDLE) told the kernel to let others go first, and how much it would
 * have got of them otherwise says nothing of what it is entitled to. */
#define ORDINARY 1024
static __always_inline bool asked_to_wait(struct task_struct *task)
{
	return task->prio >= 100 && task->se.load.weight >> 10 < ORDINARY;
}

static __always_inline void charge(__u32 here, struct cpu_state *into, struct gathered *g, __u64 who, __u64 ns)
{
	if (into->asked)
		g->wait_asked += ns;
	else if (who == g->cgroup)
		g->wait_self += ns;
	else if (who == KERNEL_ID)
		g->wait_kernel += ns;
	else
		blame(here, into, who, g->cgroup, ns);
}

/* Epochs are needed rarely, too. */

/* Who ran so long in the epoch that into looks at: among the most? */
__noinline int offer(__u32 into, __u64 who, __u64 ns)
{
	struct cpu_state *cpu = bpf_map_lookup_elem(&cpus, &into);
	if (!cpu)
		return 0;
	struct epoch *e = &cpu->look;

	for (int k = 0; k < EPOCH_TOP; k++) {
		if (ns <= e->ns[k])
			continue;
		__u64 less = e->ns[k], whose = e->who[k];
		e->ns[k] = ns, e->who[k] = who;
		ns = less, who = whose;
	}
	return 0;
}

/* Has into look at the epoch that goes on, on a CPU. */
__noinline int look_at_open(__u32 into, __u32 ran)
{
	struct cpu_state *to = bpf_map_lookup_elem(&cpus, &into);
	struct cpu_state *cpu = bpf_map_lookup_elem(&cpus, &ran);
	if (!to || !cpu)
		return 0;
	for (int k = 0; k < EPOCH_TOP; k++)
		to->look.ns[k] = to->look.who[k] = 0;
	to->look.kernel = NOW(cpu->epoch_kernel);
	for (__u32 i = 0; i < 1 << GATHER_BITS; i++) {
		struct gathered *g = &cpu->gather[i];
		__u64 who = NOW(g->cgroup), ns = NOW(g->epoch_run);
		if (ns && NOW(g->cgroup) == who)
			offer(into, who, ns);
	}
	return 0;
}

/* Ends the CPU's epoch, where its lock is held. */
__noinline int end_epoch(__u32 this, __u64 now)
{
	struct cpu_state *cpu = bpf_map_lookup_elem(&cpus, &this);
	if (!cpu)
		return 0;
	look_at_open(this, this);
	struct epoch *e = &cpu->epochs[(cpu->epoch_head + 1) % EPOCHS];
	NOW(e->start) = 0;
	NOW(e->kernel) = cpu->look.kernel;
	for (int k = 0; k < EPOCH_TOP; k++) {
		NOW(e->who[k]) = cpu->look.who[k];
		NOW(e->ns[k]) = cpu->look.ns[k];
	}
	NOW(e->start) = cpu->epoch_start;
	NOW(cpu->epoch_head) = cpu->epoch_head + 1;
	NOW(cpu->epoch_start) = now;
	cpu->epoch_kernel = 0;
	for (__u32 i = 0; i < 1 << GATHER_BITS; i++)
		cpu->gather[i].epoch_run = 0;
	return 0;
}

__noinline int charge_rarely(__u32 into, __u64 victim, __u64 who, __u64 ns)
{
	struct cpu_state *cpu = bpf_map_lookup_elem(&cpus, &into);
	if (!cpu || ns == 0)
		return 0;
	struct gathered *g = gather(into, cpu, victim);
	charge(into, cpu, g, who, ns);
	return 0;
}

/* Of a part of an epoch only so much is certain: who ran longer in all of it than what
 * is left out of it lasts must have run for the difference. The rest is nobody's. */
static __always_inline __u64 certain(__u64 ns, __u64 left_out, __u64 rest)
{
	ns = ns > left_out ? ns - left_out : 0;
	return ns < rest ? ns : rest;
}

/* Splits a part of the epoch that into looks at, of which left_out is not in the part. */
__noinline int split_epoch(__u32 into, __u64 victim, __u64 part, __u64 left_out)
{
	struct cpu_state *cpu = bpf_map_lookup_elem(&cpus, &into);
	if (!cpu)
		return 0;
	__u64 ns = certain(cpu->look.kernel, left_out, part);
	charge_rarely(into, victim, KERNEL_ID, ns);
	part -= ns;
	for (int k = 0; k < EPOCH_TOP; k++) {
		ns = certain(cpu->look.ns[k], left_out, part);
		charge_rarely(into, victim, cpu->look.who[k], ns);
		part -= ns;
	}
	charge_rarely(into, victim, 0, part);
	return 0;
}

static __always_inline __u64 later(__u64 a, __u64 b)
{
	return a > b ? a : b;
}

/* Splits [from, to] by the epochs of a CPU. */
__noinline int split_by_epochs(__u32 into, __u32 ran, __u64 victim, __u64 from, __u64 to)
{
	struct cpu_state *mine = bpf_map_lookup_elem(&cpus, &into);
	struct cpu_state *cpu = bpf_map_lookup_elem(&cpus, &ran);
	if (!mine || !cpu)
		return 0;
	__u64 start = NOW(cpu->epoch_start), end = NOW(cpu->since), head = NOW(cpu->epoch_head);

	/* The one that goes on holds what ended before the current task was put on the CPU. */
	if (start && start < to && to <= end) {
		__u64 begin = later(start, from);
		look_at_open(into, ran);
		if (NOW(cpu->epoch_start) == start) {
			split_epoch(into, victim, to - begin, end - start - (to - begin));
			to = begin;
		}
	}
	end = start;
	for (__u32 i = 0; i < EPOCHS && to > from; i++) {
		struct epoch *e = &cpu->epochs[(head - i) % EPOCHS];
		start = NOW(e->start);
		if (start == 0 || start >= end)
			break;
		if (start < to && to <= end) {
			__u64 begin = later(start, from);
			mine->look.kernel = NOW(e->kernel);
			for (int k = 0; k < EPOCH_TOP; k++) {
				mine->look.who[k] = NOW(e->who[k]);
				mine->look.ns[k] = NOW(e->ns[k]);
			}
			if (NOW(e->start) != start) /* it is written anew */
				break;
			split_epoch(into, victim, to - begin, end - start - (to - begin));
			to = begin;
		}
		end = start;
	}
	if (to > from)
		charge_rarely(into, victim, 0, to - from);
	return 0;
}

/* What may be assumed of a ring that is read. */
enum ring_is {
	RING_COMPLETE, /* nobody writes, and it goes up to now */
	RING_STILL,    /* nobody writes */
	RING_WRITTEN,  /* its CPU goes on */
};

/* Splits the wait from queued to now among those whose slices on the CPU lie in it.
 * What is older than the ring, the epochs may know.
 *
 * settle_waits does not hold the lock of the run queue, so that the CPU may write
 * meanwhile. It writes a slice before it overwrites since and who with the next one's,
 * and a slice's start before who, and now was read before anything here. So a slice in
 * which since and who do not belong together begins after now, where it has no part;
 * and one in the ring that is overwritten while it is read has another start after. */
static __always_inline void split_wait(__u32 here, struct cpu_state *into, __u32 there,
				       struct cpu_state *ran, struct gathered *g, __u64 queued, __u64 now,
				       enum ring_is ring)
{
	__u64 end = now;
	__u64 from = NOW(ran->since), who = NOW(ran->who);

	/* Who runs there now is not in the ring yet. */
	if (ring != RING_COMPLETE && from && from < end && NOW(ran->since) == from) {
		charge(here, into, g, who, end - later(from, queued));
		if (from <= queued)
			return;
		end = from;
	}
	__u64 head = NOW(ran->head);
	for (__u32 i = 0; i < RING; i++) {
		struct slice *s = &ran->ring[(head - i) % RING];
		from = NOW(s->start);
		who = NOW(s->who);
		if (from == 0 || from > end || (ring == RING_WRITTEN && NOW(s->start) != from))
			break;
		charge(here, into, g, who, end - later(from, queued));
		if (from <= queued)
			return;
		end = from;
	}
	split_by_epochs(here, there, g->cgroup, queued, end);
}

static __always_inline struct slot *slot_of(struct task_struct *task)
{
	__u32 i = (__u32)task->pid % SLOTS;
	return bpf_map_lookup_elem(&slots, &i);
}

/* No pid is 0 here, so that an empty slot is nobody's. */
static __always_inline __u64 mark_of(struct task_struct *task)
{
	return (__u64)(__u32)task->pid << 32;
}

static __always_inline bool is_slot_of(struct slot *slot, __u64 mark)
{
	return (slot->check ^ slot->settled) == mark;
}

static __always_inline void set_slot(struct slot *slot, __u64 mark, __u64 settled)
{
	slot->settled = settled;
	slot->check = settled ^ mark;
}

/* The lowest bit of a mark: the kernel says since when the task waits, but it sleeps. */
#define ASLEEP 1ULL

/* From 6.12 on, a task that goes to sleep can stay on its queue for a while. If it is
 * moved then, enqueue_task notes it as waiting, and nothing takes that back when its
 * sleep goes on without a place on the queue: its whole sleep becomes run delay. */
static __always_inline bool sleeps(struct task_struct *task)
{
	struct sched_entity___since_6_12 *se = (void *)&task->se;

	return bpf_core_field_exists(se->sched_delayed) && BPF_CORE_READ(se, sched_delayed);
}

/* How much of the wait is not settled that the task has been in since it was queued;
 * and takes note that it is. */
static __always_inline __u64 settle(struct task_struct *task, __u64 queued, __u64 now)
{
	struct slot *slot = slot_of(task);
	if (!slot)
		return 0;
	__u64 mark = mark_of(task), waits = now - queued;
	__u64 total = task->sched_info.run_delay + waits, ticked = slot->ticked;

	if (is_slot_of(slot, mark)) {
		__s64 open = total - slot->settled - ticked;
		if (open > 0) {
			set_slot(slot, mark, total - ticked);
			return open;
		}
		/* More is settled than it has waited; or it has never run, and what is here
		 * was another task's with the same pid. */
		if (open == 0 || task->sched_info.pcount)
			return 0;
	}
	bool asleep = is_slot_of(slot, mark | ASLEEP);
	set_slot(slot, mark, total - ticked);
	if (asleep)
		return 0;
	/* All of what has never run is open: it would have a slot, had it been moved. */
	return task->sched_info.pcount ? waits : total;
}

SEC("tp_btf/sched_switch")
int BPF_PROG(on_sched_switch, bool preempt, struct task_struct *prev, struct task_struct *next)
{
	__u32 this = bpf_get_smp_processor_id();
	struct cpu_state *cpu = bpf_map_lookup_elem(&cpus, &this);
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
	if (since && since <= now) {
		if (who == KERNEL_ID) {
			cpu->epoch_kernel += now - since;
		} else {
			struct gathered *g = gather(this, cpu, who);
			g->epoch_run += now - since;
			g->run += now - since;
			if (g->run >= GATHER_NS)
				flush(this, place(who, GATHER_BITS));
		}
		/* Slices of one cgroup in a row are one: the ring reaches further back, and
		 * walking it takes fewer steps. */
		struct slice *last = &cpu->ring[cpu->head % RING];
		if (last->who != who || last->start == 0) {
			last = &cpu->ring[(cpu->head + 1) % RING];
			NOW(last->start) = since;
			NOW(last->who) = who;
			NOW(cpu->head) = cpu->head + 1;
		}
	}
	NOW(cpu->since) = now;
	NOW(cpu->who) = cgroup;
	if (now - cpu->epoch_start >= EPOCH_NS)
		end_epoch(this, now);

	if (cgroup == KERNEL_ID)
		return 0;
	__u64 queued = next->sched_info.last_queued;
	if (queued == 0 || queued > now)
		return 0;
	__u64 open = settle(next, queued, now);
	if (open == 0)
		return 0;
	if (dozing)
		stir(open);
	struct gathered *g = gather(this, cpu, cgroup);
	g->wait += open;
	cpu->asked = asked_to_wait(next);
	if (open > now - queued) {
		/* On a queue that it has left, unseen. */
		charge_rarely(this, cgroup, 0, open - (now - queued));
		open = now - queued;
	}
	split_wait(this, cpu, this, cpu, g, now - open, now, RING_COMPLETE);
	if (g->wait >= GATHER_NS)
		flush(this, place(cgroup, GATHER_BITS));
	return 0;
}

/*
 * A task is about to be moved to another CPU. One that wakes up is not on a queue and has
 * not waited; for one that waits, the kernel has just added its wait to run_delay
 * (dequeue_task, sched_info_dequeue), and set_task_cpu has not changed its run queue yet.
 * The lock of that run queue is held (move_queued_task, detach_task, push_rt_task and the
 * others), so that its clock and its ring stand still; and interrupts are off, so that
 * this CPU's gathered sums are ours. Read in 5.10, 6.1, 6.12 and 6.18.
 */
SEC("tp_btf/sched_migrate_task")
int BPF_PROG(on_sched_migrate, struct task_struct *task, int dest_cpu)
{
	if (task->on_rq != TASK_ON_RQ_MIGRATING || task->flags & PF_KTHREAD)
		return 0;
	struct rq *rq = task->se.cfs_rq->rq;
	__u64 now = rq->clock;
	__u32 here = bpf_get_smp_processor_id(), there = rq->cpu;
	struct cpu_state *into = bpf_map_lookup_elem(&cpus, &here);
	struct cpu_state *ran = bpf_map_lookup_elem(&cpus, &there);
	if (!into || !ran)
		return 0;

	if (sleeps(task)) {
		struct slot *slot = slot_of(task);
		if (slot)
			set_slot(slot, mark_of(task) | ASLEEP, 0);
		return 0;
	}
	__u64 open = settle(task, now, now);
	if (open == 0 || open > now)
		return 0;
	if (dozing)
		stir(open);
	struct gathered *g = gather(here, into, cgroup_of(task));
	g->wait += open;
	into->asked = asked_to_wait(task);
	split_wait(here, into, there, ran, g, now - open, now, RING_STILL);
	if (g->wait >= GATHER_NS)
		flush(here, place(g->cgroup, GATHER_BITS));
	return 0;
}

/* The waits that go on as the tick ends. A CPU on whose queue somebody waits is not
 * idle, so that its clock is at most a timer tick behind (1 to 10 ms). */
SEC("iter/task")
int settle_waits(struct bpf_iter__task *ctx)
{
	__u32 here = settler;
	struct cpu_state *into = bpf_map_lookup_elem(&cpus, &here);
	if (!into)
		return 0;
	struct task_struct *task = ctx->task;
	if (!task) { /* that was the last */
		for (__u32 i = 0; i < 1 << GATHER_BITS; i++)
			if (into->gather[i].cgroup)
				flush(here, i);
		for (__u32 i = 0; i < 1 << CELL_BITS; i++)
			if (into->cells[i].ns)
				flush_cell(here, i);
		return 0;
	}

	__u64 queued = NOW(task->sched_info.last_queued);
	if (queued == 0 || task->on_rq != TASK_ON_RQ_QUEUED || task->flags & PF_KTHREAD || sleeps(task))
		return 0;
	struct rq *rq = task->se.cfs_rq->rq;
	__u32 there = rq->cpu;
	__u64 now = NOW(rq->clock), delay = NOW(task->sched_info.run_delay);
	/* The wait ended meanwhile, or another began: these do not belong together. */
	if (NOW(task->sched_info.last_queued) != queued || now < queued + SETTLE_NS)
		return 0;
	struct slot *slot = slot_of(task);
	struct cpu_state *ran = bpf_map_lookup_elem(&cpus, &there);
	if (!slot || !ran)
		return 0;

	__u64 mark = mark_of(task), ticked = slot->ticked;
	if (is_slot_of(slot, mark | ASLEEP))
		return 0;
	if (!is_slot_of(slot, mark)) /* it has not been put on a CPU since we look */
		set_slot(slot, mark, delay - ticked);
	__s64 open = delay + (now - queued) - slot->settled - ticked;
	if (open < (__s64)SETTLE_NS)
		return 0;
	slot->ticked = ticked + open;

	struct gathered *g = gather(here, into, cgroup_of(task));
	g->wait += open;
	into->asked = asked_to_wait(task);
	if (open > now - queued) {
		/* On a queue that it has left, unseen. */
		charge_rarely(here, g->cgroup, 0, open - (now - queued));
		open = now - queued;
	}
	split_wait(here, into, there, ran, g, now - open, now, RING_WRITTEN);
	return 0;
}
