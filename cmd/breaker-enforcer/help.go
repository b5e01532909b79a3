package main

const long = `breaker-enforcer is the only program of breakerd that writes a cgroup. It waits on
a Unix socket for decisions of breakerd, asks its guards, and if every one of them
agrees it freezes the cgroup for a limited time. It is not needed to watch: without
it breakerd can do nothing to anybody.

What it promises:
  It never kills. It only writes cgroup.freeze, and only where that holds 0.
  Every freeze is a lease that is on disk before the write, and it is undone
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
  SIGKILL          is survived: the next start, or --undo, thaws everything

Files:
  /etc/breakerd/enforcer.yaml             configuration; must belong to root
  /run/breakerd/enforcer.sock             the socket (in --runtime-dir)
  /var/lib/breakerd/enforcer.lock         taken by the one that runs (in --state-dir)
  /var/lib/breakerd/leases/active/        leases that are held
  /var/lib/breakerd/leases/ended/         leases that were undone, the last 1000
  /var/lib/breakerd/leases/unreadable/    records that were spoilt, for you to look at

Configuration, with its defaults:
  max_lease: 10m            the longest lease; a longer wish is shortened
  heartbeat_timeout: 10s    how long breakerd may be silent
  confirm_timeout: 1s       how long the kernel may take to confirm a freeze
  rate:
    per_target: {every: 10s, burst: 3}
    overall: {every: 6s, burst: 10}
  reach:
    leases: 3               at once
    processes_percent: 25   of the machine's processes, those younger than
    young: 1m               this not counted
  protected:                added to the built-in list
    units: []               such as postgresql@*.service or database.slice
    exes: []                such as /usr/sbin/haproxy
    cgroups: []             such as /system.slice/billing.service
  allow:
    user: breakerd          may propose, besides root
    group: breakerd         may release

Exit codes:
  0  it was told to stop, and everything is undone
  1  it could not start, or something could not be undone; the message says what`
