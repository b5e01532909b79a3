package main

const long = `breakerctl asks a running breakerd what it sees, and lets go what it holds.

  breakerctl status          how breakerd is doing, and what is missing
  breakerctl incidents       what goes wrong, because of whom, and what was done
  breakerctl why ID          the cause of an incident, and what was seen when it opened
  breakerctl why-not /CGROUP what was seen of a cgroup or process, beside the thresholds
  breakerctl blame           who made whom wait
  breakerctl ps              the processes that weigh most
  breakerctl top             the same, live, and cgroups and incidents
  breakerctl policy          write policies, test them, see what they would do
  breakerctl config          check and show the configuration
  breakerctl doctor          look for what keeps breakerd from working here
  breakerctl drill           prove the whole chain on this machine
  breakerctl release --all   let everything go, now

Everything is a table for people and, with -o json, JSON for programs. Names of
processes and cgroups are shown with control characters escaped.

Files:
  /run/breakerd/api.sock   breakerd's socket (in --runtime-dir)

Exit codes:
  0  all is well
  1  it is not; the message says what, and what to do
  2  there is no such incident, cgroup or process`
