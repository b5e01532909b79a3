package main

const long = `breakerd watches the kernel with eBPF and pressure stall information. It sees which
process tree keeps which others from running, opens an incident with the culprit, the
victims and the figures, asks your Rego policies what to do about it, and tells it all
to the journal and to breakerctl.

By itself it only watches: it has no way to write a cgroup. What acts is
breaker-enforcer, and only in enforce mode, where a policy asks for it and every guard
agrees.

Modes:
  monitor   watch and tell (the default)
  dry-run   go through everything, guards and leases included, and write nothing
  enforce   ask breaker-enforcer, which must be running with the same --runtime-dir

Privileges:
  CAP_BPF and CAP_PERFMON; on Linux before 5.11 the memlock limit must allow 8 MB, too.
  It needs Linux 5.10 or later with BTF (/sys/kernel/btf/vmlinux) and a mounted cgroup2.
  Without pressure stall information (psi=1) cpu_contention, memory_pressure,
  io_pressure and psi_saturation are not seen.

Policies:
  No policy means that nothing is ever done. A set with an error is refused whole, with
  file, line and column; at the start breakerd then runs and acts on nothing.

Signals:
  SIGTERM, SIGINT  stop
  SIGHUP           load the policies again; a bad set leaves the old one in force

Files:
  /etc/breakerd/breakerd.yaml   configuration
  /run/breakerd/api.sock        for breakerctl and others: HTTP (in --runtime-dir)
  /run/breakerd/enforcer.sock   breaker-enforcer's

Configuration, with its defaults:
  mode: monitor
  tick: 250ms                   between two samples
  runtime_dir: /run/breakerd
  policies: []                  directories or files
  detect:
    fork_storm:
      forks_per_second: 10      by one tree
      hold: 2s
    cpu_contention:
      some_percent: 40          CPU pressure of the host
      use_percent: 90           of all CPUs
      victim_ms_per_second: 50  that a cgroup is made to wait to be a victim
      deprived_percent: 10      by which it gets less than it is entitled to
      own_quota_part_at_most: 0.25
      hold: 2s
    noisy_neighbour:
      victim_ms_per_second: 100 that one cgroup may make another wait
      deprived_percent: 10      by which the other gets less than it is entitled to
      own_quota_part_at_most: 0.25
      hold: 3s
    short_lived_jobs:
      exits_per_second: 20      of processes of one tree that lived less than 1 s
      victim_ms_per_second: 50  that a cgroup is unfairly made to wait to be a victim
      hold: 10s
    memory_leak:
      horizon: 1h               within which it would meet its limit
      min_growth_mb: 64
      min_growth_percent: 5     of what it had
      rising_percent: 80        of its steps
      min_observation: 10s
    memory_pressure:
      full_percent: 10          of the time everything with work is held up for memory
      victim_ms_per_second: 50  that a cgroup is held up to be a victim
      hold: 5s
    io_pressure:
      full_percent: 40
      victim_ms_per_second: 50
      hold: 5s
    psi_saturation:
      some_percent: 80          of the time somebody is held up, for any one resource
      victim_ms_per_second: 50
      hold: 15s
    hysteresis:
      close_below: 0.8          of the threshold
      close_after: 5s

Exit codes:
  0  it was told to stop
  1  it could not start or go on; the message says why and what to do`
