package main

import (
	"crypto/rand"
	"fmt"
	mrand "math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// dataFile is the name of the file that a scenario's workers read.
const dataFile = "data"

// makeFile gives the path of a file of -mb MB that nothing is known about but its size.
// Where another worker has made it, that one serves.
func (w *worker) makeFile() (string, error) {
	if w.mb <= 0 || w.mb > mostMB {
		return "", fmt.Errorf("a file of %d MB: at least 1, at most %d", w.mb, mostMB)
	}
	path := filepath.Join(w.temp, fmt.Sprintf("%s-%d", w.file, w.mb))
	if st, err := os.Stat(path); err == nil && st.Size() == int64(w.mb)*mebibyte {
		return path, nil
	}
	f, err := os.Create(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	block := make([]byte, mebibyte)
	for i := range w.mb {
		if i%16 == 0 { // not the same everywhere, and cheap to make
			_, _ = rand.Read(block)
		}
		if _, err := f.Write(block); err != nil {
			return "", err
		}
	}
	if err := f.Sync(); err != nil {
		return "", err
	}
	// What was just written is not to be found in the page cache.
	_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
	return path, nil
}

// read reads a file of -mb MB in blocks of -block bytes from -threads threads until its
// life ends: -mode sequential and random past the page cache, cached through it and once.
func (w *worker) read() error {
	path, err := w.makeFile()
	if err != nil {
		return err
	}
	flags := unix.O_RDONLY
	if w.mode != "cached" {
		flags |= unix.O_DIRECT
	}
	fd, err := unix.Open(path, flags, 0)
	if err != nil {
		return err
	}
	blocks := int64(w.mb) * mebibyte / int64(w.block)
	return w.everywhere(func() {
		buffer, err := unix.Mmap(-1, 0, w.block, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
		if err != nil {
			return
		}
		at := mrand.Int64N(blocks)
		if w.mode == "cached" {
			at = 0
		}
		for end := time.Now().Add(w.life); time.Now().Before(end); at++ {
			if w.mode == "random" {
				at = mrand.Int64N(blocks)
			}
			if w.mode == "cached" && at == blocks {
				time.Sleep(w.life)
			}
			if _, err := unix.Pread(fd, buffer, at%blocks*int64(w.block)); err != nil {
				return
			}
			if w.every > 0 {
				time.Sleep(w.every)
			}
		}
	})
}

// append adds -block bytes to a file of its own -every so often, in each of -threads
// threads; in -mode sync each must be on the disk before the next. Where the file has
// -upto MB it begins again.
func (w *worker) append() error {
	return w.everywhere(func() {
		f, err := os.CreateTemp(w.temp, "log")
		if err != nil {
			return
		}
		defer f.Close()
		block := make([]byte, w.block)
		most := int64(w.upto) * mebibyte
		at := int64(0)
		for end := time.Now().Add(w.life); time.Now().Before(end); time.Sleep(w.every) {
			if at+int64(w.block) > most {
				at = 0
			}
			if _, err := f.WriteAt(block, at); err != nil {
				return
			}
			at += int64(w.block)
			if w.mode == "sync" && f.Sync() != nil {
				return
			}
		}
	})
}
