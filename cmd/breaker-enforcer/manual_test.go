package main

import (
	"io"
	"testing"

	"github.com/breakerd/breakerd/internal/manual"
)

func TestTheManualIsThatOfTheProgram(t *testing.T) {
	page := manual.Command(command(io.Discard), 8, "breakerd(8)", "breakerctl(1)", "breakerd.yaml(5)")
	manual.Committed(t, "../../packaging/man/breaker-enforcer.8", page)
}
