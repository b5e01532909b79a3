/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * Who holds the block devices.
 *
 * block_bio_queue fires where a task hands a bio to the block layer, so that the task is
 * who asked for it. The owner is remembered by the bio's address until it is done: with
 * its request, or (block_bio_complete) by a device that makes no requests, such as a
 * device mapper's.
 * block_rq_issue says when the device was given the request that the bio became part of,
 * block_rq_complete when the device was done. Each disk is counted for itself: who fills one
 * mostly keeps nobody waiting who uses another.
 *
 * A kernel thread works for somebody else. Where the io controller is of cgroup2, writeback
 * tells for whom (bio->bi_blkg); else it is the kernel's, and nobody's.
 *
 * Limits: a request counts when it ends. What a stacked device (loop) does again below
 * counts again. A part split off a large bio that is given to the device only after the
 * rest was done is nobody's. Of a request merged of more than MERGED bios, the owner of the last that
 * was looked at has the rest.
 */

/* A request of 1 MB in bios of 64 kB. Readahead and writeback make larger ones. */
#define MERGED 16
#define REQ_OP_MASK 0xff
#define REQ_OP_READ 0
#define REQ_OP_WRITE 1 /* all others move no data of anybody's */

/* Its place has moved with the number of flags before it. */
enum req_flag_bits {
	__REQ_SYNC = 11,
};

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct cgroup_root {
	int hierarchy_id;
};

struct cgroup___with_root {
	struct kernfs_node *kn;
	struct cgroup_root *root;
	int level;
};

struct cgroup_subsys_state {
	struct cgroup *cgroup;
};

struct blkcg {
	struct cgroup_subsys_state css;
};

struct blkcg_gq {
	struct blkcg *blkcg;
};

struct bvec_iter {
	unsigned int bi_size;
};

struct bio {
	struct bio *bi_next;
	struct bvec_iter bi_iter;
	void *bi_private;
	struct blkcg_gq *bi_blkg; /* where there is CONFIG_BLK_CGROUP */
};

struct request {
	struct request_queue *q;
	unsigned int cmd_flags;
	struct bio *bio;
};

struct gendisk {
	int major;
	int first_minor;
};

struct request_queue {
	struct gendisk *disk; /* since 5.15 */
};

struct request___until_5_16 {
	struct gendisk *rq_disk;
};

#pragma clang attribute pop

struct bio_owner {
	__u64 cgroup;
	__u64 queued;
	__u64 issued; /* 0 until then, and of all but the first bio of a request */
};

/* As many as can be under way: a disk's queue is 32 to 1024 deep. The oldest make room. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, __u64);
	__type(value, struct bio_owner);
} bios SEC(".maps");

/* Who held which device, since the table was last emptied: drained like the blame matrix. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8192);
	__type(key, struct hold_cell);
	__type(value, struct hold_time);
} holds SEC(".maps");

/* The whole disk that a request is for. */
static __always_inline __u32 device_of(struct request *rq)
{
	struct request___until_5_16 *old = (void *)rq;
	struct gendisk *disk = NULL;

	if (bpf_core_field_exists(rq->q->disk))
		disk = rq->q->disk;
	else if (bpf_core_field_exists(old->rq_disk))
		disk = old->rq_disk;
	if (!disk)
		return 0;
	return (__u32)disk->major << 20 | disk->first_minor;
}

/* The cgroup for which a kernel thread submits. */
static __always_inline __u64 beneficiary(struct bio *bio)
{
	if (!bpf_core_field_exists(bio->bi_blkg))
		return KERNEL_ID;
	struct cgroup___with_root *cgroup = (void *)BPF_CORE_READ(bio, bi_blkg, blkcg, css.cgroup);
	/* The root's is what nobody was found for. Hierarchy 0 is cgroup2. */
	if (!cgroup || BPF_CORE_READ(cgroup, level) == 0 || BPF_CORE_READ(cgroup, root, hierarchy_id) != 0)
		return KERNEL_ID;
	__u64 id = BPF_CORE_READ(cgroup, kn, id);
	return id ? id : KERNEL_ID;
}

static __always_inline int queued(struct bio *bio)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	__u64 key = (__u64)bio;
	struct bio_owner owner = {.queued = bpf_ktime_get_ns()};

	if (BPF_CORE_READ(task, flags) & PF_KTHREAD)
		owner.cgroup = beneficiary(bio);
	else
		owner.cgroup = bpf_get_current_cgroup_id();
	bpf_map_update_elem(&bios, &key, &owner, BPF_ANY);
	return 0;
}

SEC("tp_btf/block_bio_queue")
int BPF_PROG(on_bio_queue, struct bio *bio)
{
	return queued(bio);
}

SEC("tp_btf/block_bio_queue")
int BPF_PROG(on_bio_queue_until_5_10, struct request_queue *q, struct bio *bio)
{
	return queued(bio);
}

/* Whose a bio is. A large one is split, and the parts that are split off were never
 * queued; they lead to the whole by bi_private (bio_chain). */
static __always_inline struct bio_owner *owner_of(struct bio *bio)
{
	__u64 key = (__u64)bio;
	struct bio_owner *owner = bpf_map_lookup_elem(&bios, &key);
	if (owner)
		return owner;
	key = (__u64)bio->bi_private;
	return bpf_map_lookup_elem(&bios, &key);
}

static __always_inline int issued(struct request *rq)
{
	struct bio *bio = rq->bio;
	if (!bio)
		return 0;
	__u64 key = (__u64)bio, now = bpf_ktime_get_ns();
	struct bio_owner *owner = bpf_map_lookup_elem(&bios, &key);
	if (owner) {
		owner->issued = now;
		return 0;
	}
	__u64 whole = (__u64)bio->bi_private;
	owner = bpf_map_lookup_elem(&bios, &whole);
	if (!owner)
		return 0;
	struct bio_owner part = {.cgroup = owner->cgroup, .queued = owner->queued, .issued = now};
	bpf_map_update_elem(&bios, &key, &part, BPF_ANY);
	return 0;
}

SEC("tp_btf/block_rq_issue")
int BPF_PROG(on_rq_issue, struct request *rq)
{
	return issued(rq);
}

SEC("tp_btf/block_rq_issue")
int BPF_PROG(on_rq_issue_until_5_10, struct request_queue *q, struct request *rq)
{
	return issued(rq);
}

/* Whether a task may stand still until the request is done: nobody does for what is written back
 * in the background. */
static __always_inline bool waited_for(unsigned int flags)
{
	if ((flags & REQ_OP_MASK) != REQ_OP_WRITE)
		return (flags & REQ_OP_MASK) == REQ_OP_READ;
	unsigned int sync = __REQ_SYNC;
	if (bpf_core_enum_value_exists(enum req_flag_bits, __REQ_SYNC))
		sync = bpf_core_enum_value(enum req_flag_bits, __REQ_SYNC);
	return flags >> (sync & 31) & 1;
}

static __noinline int hold(__u64 cgroup, __u32 device, __u64 held, __u64 waited)
{
	struct hold_cell cell = {.cgroup = cgroup, .device = device};
	struct hold_time *at = bpf_map_lookup_elem(&holds, &cell), first = {held, waited};

	if (!at) {
		if (!bpf_map_update_elem(&holds, &cell, &first, BPF_NOEXIST))
			return 0;
		at = bpf_map_lookup_elem(&holds, &cell); /* another CPU was first, or the table is full */
	}
	if (!at) {
		count_lost(LOST_HOLDS);
		return 0;
	}
	__sync_fetch_and_add(&at->held, held);
	__sync_fetch_and_add(&at->waited, waited);
	return 0;
}

static __noinline int count(__u64 cgroup, __u64 held, __u64 bytes, __u64 requests)
{
	struct cgroup_counts *c = counts_of(cgroup);
	if (c) {
		__sync_fetch_and_add(&c->io_held, held);
		__sync_fetch_and_add(&c->io_bytes, bytes);
		if (requests)
			__sync_fetch_and_add(&c->io_requests, requests);
	}
	return 0;
}

/* Fires with each part of a request that is done, before its bios end. */
SEC("tp_btf/block_rq_complete")
int BPF_PROG(on_rq_complete, struct request *rq, int error, unsigned int nr_bytes)
{
	struct bio *bio = rq->bio;
	if (!bio)
		return 0; /* of nobody's: a flush that serves several */
	struct bio_owner *owner = owner_of(bio);
	if (!owner)
		return 0; /* queued before the programs were attached */

	__u64 now = bpf_ktime_get_ns(), queued = owner->queued, since = owner->issued ? owner->issued : queued;
	__u64 held = since < now ? now - since : 0;
	__u64 whole = nr_bytes, left = nr_bytes, cgroup = owner->cgroup;
	__u32 device = device_of(rq);
	bool waited = waited_for(rq->cmd_flags);
	bool data = (rq->cmd_flags & REQ_OP_MASK) <= REQ_OP_WRITE;

	/* A bio that is not done yet is still needed, for the rest of the request. */
	if (!bio->bi_next) {
		__u64 key = (__u64)bio;
		if (bio->bi_iter.bi_size <= whole)
			bpf_map_delete_elem(&bios, &key);
		hold(cgroup, device, held, waited && queued < now ? now - queued : 0);
		return count(cgroup, held, data ? whole : 0, 1);
	}

	/* Merged of several bios, of different owners now and then: each has held the device
	 * by its part of the bytes. */
	__u64 requests = 1;
	for (int i = 0; i < MERGED; i++) {
		__u64 key = (__u64)bio, size = bio->bi_iter.bi_size;
		if (size > left)
			break;
		owner = owner_of(bio);
		if (owner) {
			cgroup = owner->cgroup;
			queued = owner->queued;
		}
		bpf_map_delete_elem(&bios, &key);
		__u64 part = whole ? held * size / whole : 0;
		hold(cgroup, device, part, waited && queued < now ? now - queued : 0);
		count(cgroup, part, data ? size : 0, requests);
		requests = 0;
		left -= size;
		bio = bio->bi_next;
		if (!bio)
			break;
	}
	if (left) {
		hold(cgroup, device, held * left / whole, 0);
		count(cgroup, held * left / whole, data ? left : 0, requests);
	}
	return 0;
}

SEC("tp_btf/block_bio_complete")
int BPF_PROG(on_bio_complete, struct request_queue *q, struct bio *bio)
{
	__u64 key = (__u64)bio;
	bpf_map_delete_elem(&bios, &key);
	return 0;
}
