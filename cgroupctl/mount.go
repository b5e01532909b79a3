package cgroupctl

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// FindRoot finds where cgroup2 is mounted: at /sys/fs/cgroup on most hosts, at
// /sys/fs/cgroup/unified beside the old controllers on a hybrid one.
func FindRoot() (string, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return "", fmt.Errorf("find the cgroup2 mount: %w", err)
	}
	defer f.Close()
	return findRoot(f)
}

// errNoCgroup2 tells the operator what to do.
var errNoCgroup2 = errors.New("find the cgroup2 mount: no cgroup2 file system is mounted; " +
	"boot with systemd.unified_cgroup_hierarchy=1, or mount one (mount -t cgroup2 none /sys/fs/cgroup/unified), or name it with --cgroup-root")

// findRoot reads mountinfo (proc_pid_mountinfo(5)):
//
//	31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
//	41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw
//
// The mount that shows the most of the hierarchy wins: one whose root is "/".
func findRoot(r io.Reader) (string, error) {
	best := ""
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		root, point, fstype, ok := parseMount(lines.Text())
		if !ok || fstype != "cgroup2" {
			continue
		}
		if root == "/" {
			return point, nil
		}
		if best == "" {
			best = point
		}
	}
	if err := lines.Err(); err != nil {
		return "", fmt.Errorf("read mountinfo: %w", err)
	}
	if best == "" {
		return "", errNoCgroup2
	}
	return best, nil
}

func parseMount(line string) (root, point, fstype string, ok bool) {
	before, after, ok := strings.Cut(line, " - ")
	if !ok {
		return "", "", "", false
	}
	left, right := strings.Fields(before), strings.Fields(after)
	if len(left) < 6 || len(right) < 1 {
		return "", "", "", false
	}
	return unescape(left[3]), unescape(left[4]), right[0], true
}

// unescape undoes the kernel's octal escapes for space, tab, newline and backslash.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) && octal(s[i+1]) && octal(s[i+2]) && octal(s[i+3]) {
			b.WriteByte((s[i+1]-'0')<<6 | (s[i+2]-'0')<<3 | (s[i+3] - '0'))
			i += 3
			continue
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func octal(c byte) bool { return '0' <= c && c <= '7' }
