package model

// EvidenceKey is a figure that the evidence of an incident may hold.
type EvidenceKey struct {
	Name  string
	Unit  string
	Doc   string // one sentence
	Kinds []Kind // those that may have it; every kind where it is empty
}

// Of reports whether an incident of a kind may have the figure.
func (k *EvidenceKey) Of(kind Kind) bool {
	for _, of := range k.Kinds {
		if of == kind {
			return true
		}
	}
	return len(k.Kinds) == 0
}

// Evidence lists every figure that there is. A test holds the detectors to it.
var Evidence = []EvidenceKey{
	{"forks_per_second", "processes/s", "Processes that the tree makes.", []Kind{ForkStorm}},
	{"exits_per_second", "processes/s", "Processes of the tree that end.", []Kind{ForkStorm}},
	{"net_growth_per_second", "processes/s", "How fast the tree grows: what it makes without what ends.", []Kind{ForkStorm}},
	{"processes", "processes", "Processes of the tree.", []Kind{ForkStorm, ShortLivedJobs}},
	{"host_cpu_some_percent", "%", "Part of the time in which somebody waited for a CPU.", []Kind{ForkStorm, CPUContention, PSISaturation}},
	{"cpu_use_percent", "%", "How busy all CPUs together are.", []Kind{CPUContention, NoisyNeighbour}},
	{"stall_ms_per_second", "ms/s", "How long the worst victim waits because of the culprit's cgroup.", []Kind{CPUContention, NoisyNeighbour, MemoryPressure, IOPressure}},
	{"offender_share_percent", "%", "Share of the victims' waiting that the culprit's cgroup accounts for.", []Kind{CPUContention, NoisyNeighbour, MemoryPressure, IOPressure, PSISaturation}},
	{"victim_deprived_percent", "%", "How much less of the CPUs the worst victim got than it was entitled to.", []Kind{NoisyNeighbour}},
	{"steal_percent", "%", "Part of the CPU time that the hypervisor took, if it took any.", []Kind{CPUContention}},
	{"short_exits_per_second", "processes/s", "Processes that ended within a second of their start.", []Kind{ShortLivedJobs}},
	{"same_command_percent", "%", "Part of them that ran the same command.", []Kind{ShortLivedJobs}},
	{"memory_mb", "MiB", "Memory that the culprit has.", []Kind{MemoryLeak}},
	{"growth_mb", "MiB", "How much it grew while it was looked at.", []Kind{MemoryLeak}},
	{"growth_mb_per_second", "MiB/s", "How fast it grows.", []Kind{MemoryLeak}},
	{"limit_mb", "MiB", "The limit that it would meet: its own, or the host's memory.", []Kind{MemoryLeak}},
	{"time_left_s", "s", "How long until it meets the limit, at this pace.", []Kind{MemoryLeak}},
	{"observed_s", "s", "How long it was looked at.", []Kind{MemoryLeak}},
	{"rising_percent", "%", "Part of the steps in which it grew.", []Kind{MemoryLeak}},
	{"host_memory_full_percent", "%", "Part of the time in which everybody with work waited for memory.", []Kind{MemoryPressure}},
	{"host_memory_some_percent", "%", "Part of the time in which somebody waited for memory.", []Kind{MemoryPressure, PSISaturation}},
	{"mem_available_mb", "MiB", "Memory that could be had without swapping.", []Kind{MemoryPressure}},
	{"host_io_full_percent", "%", "Part of the time in which everybody with work waited for a device.", []Kind{IOPressure}},
	{"host_io_some_percent", "%", "Part of the time in which somebody waited for a device.", []Kind{IOPressure, PSISaturation}},

	{"lost_events", "records", "Fork, exec and exit records that were lost in the window.", nil},
	{"lost_cells", "waits", "Waits that found no place to be counted in the window.", nil},
	{"lost_cgroups", "cgroups", "Cgroups whose counts were lost in the window.", nil},
	{"late_ms", "ms", "How much the latest tick of the window was late.", nil},
	{"window_discarded_s_ago", "s", "How long ago everything seen was forgotten: a suspend, or a clock that jumped.", nil},
}
