/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * Processes: who forked whom, what they became, when they ended; and the table of
 * those that are. Threads are not processes: clone(CLONE_THREAD) is no fork here
 * and a thread's end is no exit.
 */

/* A process that lived less is a short-lived job: 1 s. */
#define SHORT_LIFE_NS 1000000000ULL

/* Processes whose end has been counted: several threads of a process that end at once
 * can each find that nobody else is left. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct proc_id);
	__type(value, __u8);
} ended SEC(".maps");

static __always_inline struct proc_id id_of(struct task_struct *task)
{
	struct task_struct *leader = task->group_leader;
	struct proc_id id = {.pid = task->tgid, .start_boottime = leader->start_boottime};
	return id;
}

SEC("tp_btf/sched_process_fork")
int BPF_PROG(on_fork, struct task_struct *parent, struct task_struct *child)
{
	/* What kthreadd makes are the kernel's own threads: the scan tells of them. Helpers that
	 * the kernel starts, such as for a core dump, are a worker's. */
	if (child->pid != child->tgid || parent->tgid == KTHREADD)
		return 0;

	/* Who forked pays, wherever the child was put (CLONE_INTO_CGROUP, since 5.7). */
	struct cgroup_counts *c = counts_of(cgroup_of(parent));
	if (c)
		__sync_fetch_and_add(&c->forks, 1);

	struct fork_event *e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);
	if (!e) {
		count_lost(LOST_EVENTS);
		return 0;
	}
	e->kind = EVENT_FORK;
	e->uid = child->real_cred->uid.val;
	e->child = id_of(child);
	e->parent = id_of(parent);
	e->cgroup = cgroup_of(child);
	e->parent_cgroup = cgroup_of(parent);
	bpf_probe_read_kernel(e->comm, sizeof(e->comm), child->comm);
	bpf_ringbuf_submit(e, wakeup());
	return 0;
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(on_exec, struct task_struct *task, int old_pid, struct linux_binprm *bprm)
{
	struct cgroup_counts *c = counts_of(cgroup_of(task));
	if (c)
		__sync_fetch_and_add(&c->execs, 1);

	struct exec_event *e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);
	if (!e) {
		count_lost(LOST_EVENTS);
		return 0;
	}
	e->kind = EVENT_EXEC;
	e->proc = id_of(task);
	bpf_probe_read_kernel(e->comm, sizeof(e->comm), task->comm);

	/* The new program's arguments were written a moment ago, so they are in memory. */
	unsigned long from = task->mm->arg_start, len = task->mm->arg_end - from;
	if (len > ARGS_LEN)
		len = ARGS_LEN;
	if (bpf_probe_read_user(e->args, len, (void *)from) != 0)
		len = 0;
	e->args_len = len;
	bpf_ringbuf_submit(e, wakeup());
	return 0;
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(on_exit, struct task_struct *task)
{
	if (task->signal->live.counter != 0)
		return 0;
	struct proc_id id = id_of(task);
	__u8 yes = 1;
	/* Any other error, as of a table with no place free at the moment, is no reason to
	 * leave an exit uncounted. It is an int: before 6.4 the upper half is not set. */
	if ((int)bpf_map_update_elem(&ended, &id, &yes, BPF_NOEXIST) == -EEXIST)
		return 0;

	__u64 life = bpf_ktime_get_boot_ns() - id.start_boottime;
	struct cgroup_counts *c = counts_of(cgroup_of(task));
	if (c) {
		__sync_fetch_and_add(&c->exits, 1);
		if (life < SHORT_LIFE_NS)
			__sync_fetch_and_add(&c->short_exits, 1);
	}

	struct exit_event *e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);
	if (!e) {
		count_lost(LOST_EVENTS);
		return 0;
	}
	e->kind = EVENT_EXIT;
	e->reserved = 0;
	e->proc = id;
	e->life = life;
	/* The threads that have been released are added up already. The leader is not
	 * released before its parent has waited for it, however early it ended. Threads
	 * that end together with this one may be missing; see Collector.collectEvents. */
	e->cpu = task->signal->sum_sched_runtime + task->se.sum_exec_runtime;
	if (task->pid != task->tgid)
		e->cpu += task->group_leader->se.sum_exec_runtime;
	bpf_ringbuf_submit(e, wakeup());
	return 0;
}

/* A counter that each CPU (since 6.2) or thread (until 6.1) updates only now and then
 * can be below zero for a moment; the kernel reads that as zero too. */
static __always_inline __u64 positive(long long count)
{
	return count > 0 ? count : 0;
}

static __always_inline void count_pages(struct task_record *r, struct mm_struct *mm)
{
	struct mm_struct___until_6_1 *old = (void *)mm;

	/* File, anonymous and shared pages; the third is swap. */
	if (bpf_core_field_exists(old->rss_stat.count)) {
		r->file_pages = positive(BPF_CORE_READ(old, rss_stat.count[0].counter));
		r->rss_pages = r->file_pages + positive(BPF_CORE_READ(old, rss_stat.count[1].counter)) +
			       positive(BPF_CORE_READ(old, rss_stat.count[3].counter));
		return;
	}
	r->file_pages = positive(BPF_CORE_READ(mm, rss_stat[0].count));
	r->rss_pages = r->file_pages + positive(BPF_CORE_READ(mm, rss_stat[1].count)) +
		       positive(BPF_CORE_READ(mm, rss_stat[3].count));
}

SEC("iter/task")
int list_tasks(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	if (!task)
		return 0;

	struct task_record r = {};
	r.proc = id_of(task);
	r.cpu = task->se.sum_exec_runtime;
	r.leader = task->pid == task->tgid;
	if (r.leader) {
		r.parent = id_of(task->real_parent);
		r.cgroup = cgroup_of(task);
		r.cpu += task->signal->sum_sched_runtime;
		r.uid = task->real_cred->uid.val;
		r.kernel = (task->flags & PF_KTHREAD) != 0;
		r.gone = task->signal->live.counter == 0;
		if (task->mm)
			count_pages(&r, task->mm);
		bpf_probe_read_kernel(r.comm, sizeof(r.comm), task->comm);
	}
	bpf_seq_write(ctx->meta->seq, &r, sizeof(r));
	return 0;
}
