package main

const long = `breaker-enforcer is the only program of breakerd that writes a cgroup. It waits on
a Unix socket for decisions of breakerd, asks its guards, and if every one of them
agrees it freezes or throttles the cgroup for a limited time. It is not needed to watch: without
it breakerd can do nothing to anybody.

What it promises:
  It never kills. It writes cgroup.freeze, cpu.max, memory.high, pids.max and io.max,
    itself or through systemd: a freeze only where nobody else froze, a limit only
    tighter than it was; a tree that is not alone is moved into a cgroup of its own,
    and back.
  Every hold is a lease that is on disk before the write, and it is undone
    when its time is up (10 minutes at most),
    when somebody releases it (breakerctl release),
    when breakerd is not heard of for 10 seconds,
    when the enforcer stops, and
    when it starts again, should it have been killed.
  It never touches pid 1, kernel threads, itself, breakerd, systemd, sshd, container
  runtimes and others like them, nor what its configuration protects, whatever
  breakerd asks for. In doubt it does nothing.

Signals:
  SIGTERM, SIGINT  release every lease, then exit
  SIGUSR2          release every lease, and go on
  SIGHUP           read the configuration again; leases keep their ends
  SIGKILL          is survived: the next start, or --undo, undoes everything

Files:
  /etc/breakerd/enforcer.yaml             configuration: see breakerd.yaml(5); must belong
                                          to root
  /run/breakerd/enforcer.sock             the socket (in --runtime-dir)
  /var/lib/breakerd/enforcer.lock         taken by the one that runs (in --state-dir)
  /var/lib/breakerd/leases/active/        leases that are held
  /var/lib/breakerd/leases/ended/         leases that were undone, the last 1000 of 30 days
  /var/lib/breakerd/leases/unreadable/    records that were spoilt, for you to look at
  /var/lib/breakerd/leases/pause.json     a pause, which outlives restarts
  /run/breakerd/RELEASE,
  /var/lib/breakerd/RELEASE               while one is there everything is let go, and nothing
                                          is begun

Configuration:
  breakerctl config show breaker-enforcer   every key with its value, and where it stands
  breakerctl config check                   whether it would be loaded

Exit codes:
  0  it was told to stop, and everything is undone
  1  it could not start, or something could not be undone; the message says what`
