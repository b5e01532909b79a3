package main

import (
	"testing"

	"github.com/breakerd/breakerd/internal/manual"
)

func TestTheManualIsThatOfTheProgram(t *testing.T) {
	page := manual.Command(command(), 8, "breakerctl(1)", "breaker-enforcer(8)", "breakerd.yaml(5)", "breakerd-incidents(7)", "breakerd-policies(7)")
	manual.Committed(t, "../../packaging/man/breakerd.8", page)
}
