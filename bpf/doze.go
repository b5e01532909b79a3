package bpf

import (
	"fmt"
	"time"
)

const (
	// StirBytes of records are those of two processes that were forked, exec'd and ended,
	// or of seven that were forked.
	StirBytes = 560
	// StirWait is what all tasks together wait for CPUs: a fiftieth of a tick of 250 ms, and
	// a fifth of the least waiting that opens an incident by default (noisy_neighbour).
	StirWait = 5 * time.Millisecond
)

// Doze has the kernel programs tell, once, as soon as records of StirBytes wait to be
// collected or somebody has waited for StirWait since. Call Awake before Collect.
func (c *Collector) Doze() (stirred <-chan struct{}, err error) {
	select {
	case <-c.stirred: // of the last time
	default:
	}
	c.dozing.Store(true)
	if err := c.programs.Dozed.Set(uint64(0)); err != nil {
		return nil, fmt.Errorf("count anew what stirs: %w", err)
	}
	if err := c.programs.Dozing.Set(uint32(1)); err != nil {
		return nil, fmt.Errorf("ask to be woken: %w", err)
	}
	return c.stirred, nil
}

// Awake ends what Doze began.
func (c *Collector) Awake() error {
	c.dozing.Store(false)
	if err := c.programs.Dozing.Set(uint32(0)); err != nil {
		return fmt.Errorf("ask to be woken no more: %w", err)
	}
	return nil
}

// wake is told by the reader that something was read.
func (c *Collector) wake() {
	if c.dozing.Swap(false) {
		select {
		case c.stirred <- struct{}{}:
		default:
		}
	}
}
