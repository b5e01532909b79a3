package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"

	"github.com/breakerd/breakerd/model"
	"github.com/breakerd/breakerd/recording"
)

// slept is how long the machine slept in the recording.
const slept = 30 * time.Second

// record writes down what breakerd sees until it is stopped, and returns the samples.
func (p *proof) record(ctx context.Context) (stop func() (recording.Header, []recording.Record, error), err error) {
	ctx, cancel := context.WithCancel(ctx)
	body, err := p.watched.client.Record(ctx)
	if err != nil {
		cancel()
		return nil, err
	}
	r, w := io.Pipe()
	go func() {
		_, _ = io.Copy(w, body) // it ends when it is stopped
		_ = body.Close()
		_ = w.Close()
	}()
	var header recording.Header
	var records []recording.Record
	done := make(chan error, 1)
	go func() {
		defer r.Close()
		d, err := recording.NewDecoder(r, "recording")
		if err != nil {
			done <- err
			return
		}
		header = d.Header()
		for {
			rec, err := d.Next()
			if err != nil {
				done <- err
				return
			}
			records = append(records, rec)
		}
	}()
	return func() (recording.Header, []recording.Record, error) {
		cancel()
		err := <-done
		if errors.Is(err, recording.ErrTruncated) || errors.Is(err, io.EOF) {
			err = nil
		}
		return header, records, err
	}, nil
}

// suspend puts a sleep of the machine into samples, in the first one after a moment: the
// clocks go on, and whoever waited for a CPU when it fell asleep seems to have waited all
// night, for whoever ran last.
func suspend(records []recording.Record, after time.Time, web string) {
	done := false
	for _, rec := range records {
		s := rec.Sample
		if s == nil || s.Time.Before(after) {
			continue
		}
		if !done {
			done = true
			s.LengthNS += slept.Nanoseconds()
			s.Lost.SuspendedNS = slept.Nanoseconds()
			wakeLate(s, web)
		}
		s.Time = s.Time.Add(slept)
		s.BootNS += slept.Nanoseconds()
		s.Host.Pressure.CPU.SomeUS += uint64(slept.Microseconds())
		s.Host.Pressure.IO.FullUS += uint64(slept.Microseconds())
		s.Host.Pressure.Memory.FullUS += uint64(slept.Microseconds())
	}
}

func wakeLate(s *model.Sample, web string) {
	var victim, last model.CgroupID
	for i := range s.Cgroups {
		switch c := &s.Cgroups[i]; c.Path {
		case web:
			victim = c.ID
			c.WaitNS += uint64(slept.Nanoseconds())
		default:
			if c.RunNS > 0 {
				last = c.ID
			}
		}
	}
	if victim != 0 && last != 0 {
		s.Waits = append(s.Waits, model.Wait{Resource: model.CPU, By: model.ByCgroup, Offender: last, Victim: victim, NS: uint64(slept.Nanoseconds())})
	}
}

// replayed gives the incidents that breakerctl replay finds in records.
func (p *proof) replayed(ctx context.Context, h recording.Header, records []recording.Record) ([]model.Incident, error) {
	f, err := os.CreateTemp(p.temp, "resume-*.jsonl")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	enc, err := recording.NewEncoder(f, h)
	if err != nil {
		return nil, err
	}
	for _, rec := range records {
		if err := enc.Encode(rec); err != nil {
			return nil, err
		}
	}
	if err := enc.End(); err != nil {
		return nil, err
	}
	out, err := exec.CommandContext(ctx, p.ctl, "replay", f.Name(), "-o", "json").Output()
	if err != nil {
		return nil, fmt.Errorf("breakerctl replay: %w", err)
	}
	var all []model.Incident
	if err := json.Unmarshal(out, &all); err != nil {
		return nil, fmt.Errorf("breakerctl replay: %w", err)
	}
	return all, nil
}
