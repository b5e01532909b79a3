package bpf

import (
	"runtime"
	"strconv"
	"syscall"
	"testing"
	"time"
)

func TestWhoDozesIsWokenOnceByProcessesAndByWaiting(t *testing.T) {
	s := open(t, DefaultSizes)
	cpus := strconv.Itoa(2 * runtime.NumCPU())
	for _, tt := range []struct {
		name string
		stir func(t *testing.T) (rest func())
		by   func(unread int) bool
	}{
		{"ten processes", func(t *testing.T) func() {
			for range 10 {
				pid, err := fork(0, func() {})
				if err != nil {
					t.Fatal(err)
				}
				_, _ = syscall.Wait4(pid, nil, 0, nil)
			}
			return func() {}
		}, func(unread int) bool { return unread >= StirBytes }},
		{"threads that wait for each other", func(t *testing.T) func() {
			h := start(t, nil, "spin", cpus, "1m")
			h.ready()
			s.collect(false) // and its own making is forgotten
			stirred(t, s.c)
			h.tell()
			return func() { _ = h.cmd.Process.Kill() }
		}, func(unread int) bool { return unread < StirBytes }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			// Others on this machine stir, too: it must be told now and then by what it should.
			for range 10 {
				s.collect(false)
				woken := stirred(t, s.c)
				rest := tt.stir(t)
				select {
				case <-woken:
				case <-time.After(5 * time.Second):
					t.Fatal("nobody was woken")
				}
				by := tt.by(s.c.Unread())
				var still uint32
				if err := s.c.programs.Dozing.Get(&still); err != nil || still != 0 {
					t.Fatalf("dozing %d, %v: it is told again and again", still, err)
				}
				select {
				case <-woken:
					t.Error("told twice")
				case <-time.After(50 * time.Millisecond):
				}
				rest()
				if err := s.c.Awake(); err != nil {
					t.Fatal(err)
				}
				if by {
					return
				}
			}
			t.Error("it was always woken by something else")
		})
	}
}

func stirred(t *testing.T, c *Collector) <-chan struct{} {
	t.Helper()
	woken, err := c.Doze()
	if err != nil {
		t.Fatal(err)
	}
	return woken
}
