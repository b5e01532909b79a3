package e2e

import "syscall"

const hangUp = syscall.SIGHUP

// storm leaves about 50 processes a second behind for a few seconds.
const storm = "i=0; while [ $i -lt 300 ]; do sleep 20 & sleep 0.02; i=$((i+1)); done; wait"

const freezeAll = `package breaker.all

import rego.v1

action contains {"kind": "freeze", "scope": "tree", "for": "2s", "reason": "test"} if input.incident.kind == "fork_storm"
`
