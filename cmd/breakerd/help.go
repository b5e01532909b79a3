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
  CAP_BPF and CAP_PERFMON, to attach the kernel programs; on Linux before 5.11 the memlock
  limit must allow 16 MB, too. Run as another user than root it gives them up once all is
  attached, where the kernel then still lets it read (Linux 5.19 and later, or with
  kernel.unprivileged_bpf_disabled=0).

Needs:
  Linux 5.10 or later and a mounted cgroup2. Without BTF (/sys/kernel/btf/vmlinux) only
  the machine's pressure is seen, and nobody is blamed. Without pressure stall information
  (psi=1) cpu_contention, memory_pressure, io_pressure and psi_saturation are not seen.
  breakerctl doctor says what is missing here, and what to do.

Policies:
  No policy means that nothing is ever done. A set with an error is refused whole, with
  file, line and column; at the start breakerd then runs and acts on nothing.

Signals:
  SIGTERM, SIGINT  stop
  SIGHUP           read the configuration and the policies again; what is refused leaves
                   the old in force, and the journal says what needs a restart

Files:
  /etc/breakerd/breakerd.yaml       configuration: see breakerd.yaml(5)
  /etc/breakerd/breakerd.yaml.d/    files that change it, in the order of their names
  /etc/breakerd/policies/           policies
  /var/lib/breakerd/history/        what happened, in an SQLite file (in --state-dir)
  /run/breakerd/api.sock            for breakerctl and others: HTTP (in --runtime-dir)
  /run/breakerd/enforcer.sock       breaker-enforcer's

Configuration:
  breakerctl config show    every key with its value, and the file and line it comes from
  breakerctl config check   whether it would be loaded

Exit codes:
  0  it was told to stop
  1  it could not start or go on; the message says why and what to do`
