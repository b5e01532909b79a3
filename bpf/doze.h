/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/*
 * A calm machine is not looked at each tick: the collector dozes, and what stirs here
 * wakes it, once.
 */

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 2 << 20);
} events SEC(".maps");

/* The collector empties the buffer once a tick; it is woken earlier only where more
 * than this waits in it, so that an event costs no wake-up. */
const volatile __u64 wake_bytes = (2 << 20) / 4;

/* While it dozes it is woken by as many bytes of records, and by as much waiting for
 * CPUs, of all tasks together. */
const volatile __u64 stir_bytes = 1 << 20;
const volatile __u64 stir_ns = 1000000000;

volatile __u32 dozing;
/* What was waited for meanwhile. Added to without a lock: a wait that is lost of two at
 * the same moment is made good by the next. */
volatile __u64 dozed;

static __always_inline __u64 wakeup(void)
{
	__u64 unread = bpf_ringbuf_query(&events, BPF_RB_AVAIL_DATA);

	if (dozing && unread >= stir_bytes) {
		dozing = 0;
		return BPF_RB_FORCE_WAKEUP;
	}
	return unread > wake_bytes ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP;
}

/* Somebody waited so long, while it dozes. Rare, and a call. */
static __noinline void stir(__u64 ns)
{
	dozed += ns;
	if (dozed < stir_ns)
		return;
	dozing = 0;
	enum event_kind kind = EVENT_STIR;
	bpf_ringbuf_output(&events, &kind, sizeof(kind), BPF_RB_FORCE_WAKEUP);
}
