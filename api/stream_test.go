package api

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// lines writes a line, and one more for each value of next, and ends as daemon does.
func lines(next <-chan string) func(context.Context, io.Writer) error {
	return func(ctx context.Context, w io.Writer) error {
		fmt.Fprintln(w, "header")
		for {
			select {
			case <-ctx.Done():
				_, err := fmt.Fprintln(w, "end")
				return err
			case line, ok := <-next:
				if !ok {
					return errors.New("the recording was read too slowly")
				}
				fmt.Fprintln(w, line)
			}
		}
	}
}

func ended(t *testing.T, src *source) {
	t.Helper()
	select {
	case <-src.recorded:
	case <-time.After(5 * time.Second):
		t.Fatal("the server still records")
	}
}

func TestEachRecordComesAtOnceAndTheServerNoticesThatTheClientLeft(t *testing.T) {
	src, next := newSource(), make(chan string)
	src.record = lines(next)
	dir, _ := serve(t, src)
	ctx, leave := context.WithCancel(t.Context())
	stream, err := NewClient(dir).Record(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	in := bufio.NewScanner(stream)
	for _, want := range []string{"header", "one", "two"} {
		if want != "header" {
			next <- want
		}
		if !in.Scan() || in.Text() != want {
			t.Fatalf("read %q, error %v, want %q", in.Text(), in.Err(), want)
		}
	}
	leave()
	ended(t, src)
}

func TestARecordingThatFailsBreaksOff(t *testing.T) {
	src, next := newSource(), make(chan string)
	src.record = lines(next)
	dir, _ := serve(t, src)
	stream, err := NewClient(dir).Record(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	close(next)
	text, err := io.ReadAll(stream)
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("read %q and error %v: want that it breaks off", text, err)
	}
	ended(t, src)
}

func TestAShutdownEndsAnOpenStreamWithItsEnd(t *testing.T) {
	src := newSource()
	src.record = lines(nil)
	dir, stop := serve(t, src)
	stream, err := NewClient(dir).Record(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-src.recorded:
	default:
		t.Error("the server returned while it still recorded")
	}
	text, err := io.ReadAll(stream)
	if err != nil || string(text) != "header\nend\n" {
		t.Errorf("read %q, error %v, want a whole recording", text, err)
	}
}

func TestAShutdownDoesNotWaitForAClientThatDoesNotRead(t *testing.T) {
	src := newSource()
	src.record = func(ctx context.Context, w io.Writer) error {
		for {
			if _, err := io.WriteString(w, strings.Repeat("x", 1<<16)); err != nil {
				return err
			}
		}
	}
	dir, stop := serve(t, src)
	conn, err := net.Dial("unix", filepath.Join(dir, SocketName))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "GET /recording HTTP/1.1\r\nHost: breakerd\r\n\r\n")
	if _, err := io.ReadFull(conn, make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("the shutdown took %v", took)
	}
	ended(t, src)
}
