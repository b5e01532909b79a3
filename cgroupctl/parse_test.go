package cgroupctl

import (
	"strings"
	"testing"
)

func TestFindRoot(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"a pure host", "29 23 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:4 - cgroup2 cgroup2 rw,nsdelegate\n", "/sys/fs/cgroup"},
		{"a hybrid host", "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n" +
			"32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n" +
			"41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n", "/sys/fs/cgroup/unified"},
		{"a path with a space and several optional fields", `41 31 0:38 / /mnt/my\040cgroup\134s rw shared:1 master:2 - cgroup2 none rw` + "\n", `/mnt/my cgroup\s`},
		{"a bind mount of a part comes after the whole", "50 31 0:38 /system.slice /mnt/part rw - cgroup2 cgroup2 rw\n41 31 0:38 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n", "/sys/fs/cgroup"},
		{"only a part is mounted, as in a container", "50 31 0:38 /../.. /sys/fs/cgroup ro - cgroup2 cgroup rw\n", "/sys/fs/cgroup"},
		{"only the old controllers", "32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n", ""},
		{"nothing", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := findRoot(strings.NewReader(c.text))
			if got != c.want || (err == nil) != (c.want != "") {
				t.Errorf("got %q, %v, want %q", got, err, c.want)
			}
		})
	}
}

func FuzzFindRoot(f *testing.F) {
	f.Add("41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw\n")
	f.Add(`1 2 0:3 / /a\040b\13 rw - cgroup2 x y`)
	f.Add(" - \n - cgroup2\n1 2 3 4 5 6 - ")
	f.Fuzz(func(t *testing.T, text string) {
		got, err := findRoot(strings.NewReader(text))
		if (err == nil) != (got != "") {
			t.Errorf("got %q, %v", got, err)
		}
	})
}

func FuzzEventsAndPIDs(f *testing.F) {
	f.Add("populated 1\nfrozen 0\n")
	f.Add("1\n2\n3\n")
	f.Add("0\n-1\n99999999999\n")
	f.Fuzz(func(t *testing.T, text string) {
		_, _ = parseFrozen(text)
		pids, err := appendPIDs(nil, text)
		for _, p := range pids {
			if err == nil && p < 0 {
				t.Errorf("pid %d", p)
			}
		}
	})
}
