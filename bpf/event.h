/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * Everything that crosses from the kernel programs to the collector. bpf2go makes
 * the Go types from here; there is no second description of them.
 *
 * Times are nanoseconds: of CLOCK_BOOTTIME where they say when a process started,
 * of the run queue's clock where they measure waiting and running.
 */
#ifndef BREAKERD_EVENT_H
#define BREAKERD_EVENT_H

#define COMM_LEN 16
/* Enough to know a command by; the rest of a long command line is cut. */
#define ARGS_LEN 192

enum event_kind {
	EVENT_FORK = 1,
	EVENT_EXEC = 2,
	EVENT_EXIT = 3,
	EVENT_STIR = 4, /* nothing but its kind: somebody waited while the collector dozed */
};

/* The identity of a process: a pid alone is given out again. */
struct proc_id {
	__u32 pid;
	__u32 reserved;
	__u64 start_boottime;
};

struct fork_event {
	enum event_kind kind;
	__u32 uid;
	struct proc_id child;
	struct proc_id parent; /* who called fork, whoever adopts the child */
	__u64 cgroup;
	__u64 parent_cgroup; /* now: it may have been moved since it was made itself */
	__u8 comm[COMM_LEN];
};

struct exec_event {
	enum event_kind kind;
	__u32 args_len;
	struct proc_id proc;
	__u8 comm[COMM_LEN];
	__u8 args[ARGS_LEN]; /* as in /proc/PID/cmdline, separated by NUL */
};

struct exit_event {
	enum event_kind kind;
	__u32 reserved;
	struct proc_id proc;
	__u64 life;
	__u64 cpu; /* used by all its threads */
};

/* What is counted for a cgroup since it was first seen. */
struct cgroup_counts {
	__u64 run;	   /* time on a CPU */
	__u64 wait;	   /* time runnable and not running, settled (sched.h) */
	__u64 wait_self;   /* the part in which the cgroup's own tasks ran */
	__u64 wait_kernel; /* the part in which a kernel thread ran, or an idle CPU woke up */
	__u64 wait_asked;  /* the part that its tasks asked for: see asked_to_wait() */
	__u64 forks;
	__u64 execs;
	__u64 exits;
	__u64 short_exits; /* of processes that lived less than a second */
	__u64 io_held;	   /* time its block requests were at a device, each for itself */
	__u64 io_requests;
	__u64 io_bytes;	   /* read and written */
};

/* A cell of the blame matrix. Offender 0: nobody knows. */
struct wait_cell {
	__u64 offender;
	__u64 victim;
};

/* Whose requests were at which block device. */
struct hold_cell {
	__u64 cgroup;
	__u32 device; /* as the kernel keeps it: its major number << 20, and its minor one. 0: not known */
	__u32 reserved;
};

struct hold_time {
	__u64 held;   /* from where the device was given a request to where it was done */
	__u64 waited; /* from where a bio was queued, of those for which somebody may wait */
};

enum lost_kind {
	LOST_EVENTS,
	LOST_CELLS,
	LOST_CGROUPS,
	LOST_HOLDS,
	LOST_KINDS,
};

/* One task of the process table, as iter/task writes it. */
struct task_record {
	struct proc_id proc;   /* of the thread group */
	struct proc_id parent;
	__u64 cgroup;
	__u64 cpu;	       /* of this thread, and in the leader's record also of those that ended */
	__u64 rss_pages;
	__u64 file_pages;      /* of them, files that are mapped */
	__u32 uid;
	__u8 leader;
	__u8 kernel;
	__u8 gone;	       /* every thread has exited; waits for its parent */
	__u8 reserved;
	__u8 comm[COMM_LEN];
};

#endif
