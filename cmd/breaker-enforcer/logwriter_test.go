package main

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"time"
)

func TestALogThatNobodyReadsBlocksNobody(t *testing.T) {
	out, in := io.Pipe() // a write to it waits for a reader
	w := newLogWriter(in)
	began := time.Now()
	for range 2 * queuedLines {
		if n, err := w.Write([]byte("x\n")); n != 2 || err != nil {
			t.Fatalf("wrote %d, %v", n, err)
		}
	}
	if took := time.Since(began); took > time.Second {
		t.Errorf("it took %s", took)
	}
	var got bytes.Buffer
	read := make(chan struct{})
	go func() {
		defer close(read)
		io.Copy(&got, out)
	}()
	w.Close()
	w.Write([]byte("too late\n"))
	in.Close()
	<-read
	text := got.String()
	if n := strings.Count(text, "x\n"); n < queuedLines || n > queuedLines+1 || !strings.Contains(text, `"count":25`) || strings.Contains(text, "too late") {
		t.Errorf("%d lines came out: %s", n, text)
	}
}

func TestALogThatIsNeverReadDoesNotKeepTheProgramFromEnding(t *testing.T) {
	_, in := io.Pipe()
	w := newLogWriter(in)
	w.Write([]byte("x\n"))
	began := time.Now()
	w.Close()
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %s", took)
	}
}
