package cputime

import (
	"errors"
	"testing"
	"time"
)

func TestItsOwnTimeIsCountedAndNotTheClocks(t *testing.T) {
	failed := errors.New("failed")
	began := time.Now()
	took, err := Of(func() error {
		time.Sleep(200 * time.Millisecond)
		for before := Thread(); Thread()-before < 20*time.Millisecond; {
		}
		return failed
	})
	if err != failed {
		t.Errorf("got the error %v", err)
	}
	if elapsed := time.Since(began); took < 20*time.Millisecond || took > elapsed-150*time.Millisecond {
		t.Errorf("it took %v of %v", took, elapsed)
	}
}
