package host

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestFindCgroup2(t *testing.T) {
	const v1 = "33 31 0:30 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"
	tests := []struct {
		name, mountinfo string
		hidden          string
		want            CgroupMount
	}{
		{
			name:      "a machine with cgroup2 alone",
			mountinfo: "32 23 0:25 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:10 - cgroup2 cgroup2 rw,nsdelegate\n",
			want:      CgroupMount{Point: "/sys/fs/cgroup", Root: "/"},
		},
		{
			name:      "a hybrid machine, without optional fields",
			mountinfo: v1 + "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n",
			want:      CgroupMount{Point: "/sys/fs/cgroup/unified", Root: "/"},
		},
		{
			name:      "several optional fields",
			mountinfo: "41 31 0:38 / /cg rw shared:4 master:7 propagate_from:2 unbindable - cgroup2 none rw\n",
			want:      CgroupMount{Point: "/cg", Root: "/"},
		},
		{
			name:      "an odd place with a space and a backslash",
			mountinfo: `41 31 0:38 / /mnt/my\040c\134groups rw - cgroup2 cgroup2 rw` + "\n",
			want:      CgroupMount{Point: `/mnt/my c\groups`, Root: "/"},
		},
		{
			name: "a part of the hierarchy comes before the whole",
			mountinfo: "41 31 0:38 /docker/ab /srv/ab/cgroup rw - cgroup2 cgroup2 rw\n" +
				"42 31 0:38 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
			want: CgroupMount{Point: "/sys/fs/cgroup", Root: "/"},
		},
		{
			name:      "there is only a part",
			mountinfo: "41 31 0:38 /docker/ab /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
			want:      CgroupMount{Point: "/sys/fs/cgroup", Root: "/docker/ab"},
		},
		{
			name: "the first is hidden by a mount on top of it",
			mountinfo: "41 31 0:38 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n" +
				"42 41 0:39 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n" +
				"43 42 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
			hidden: "/sys/fs/cgroup",
			want:   CgroupMount{Point: "/sys/fs/cgroup/unified", Root: "/"},
		},
		{
			name: "a file system that only looks like it",
			mountinfo: "41 31 0:38 / /srv/cgroup2 rw - tmpfs cgroup2 rw\n" +
				"42 31 0:38 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
			want: CgroupMount{Point: "/sys/fs/cgroup", Root: "/"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			proc := t.TempDir()
			write(t, filepath.Join(proc, "self/mountinfo"), tt.mountinfo)
			got, err := findCgroup2(proc, func(point string) bool { return point != tt.hidden })
			if err != nil || got != tt.want {
				t.Errorf("got %+v, %v; want %+v", got, err, tt.want)
			}
		})
	}
}

func TestFindCgroup2WithoutOneSaysWhatToDo(t *testing.T) {
	proc := t.TempDir()
	write(t, filepath.Join(proc, "self/mountinfo"), "33 31 0:30 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n")
	_, err := FindCgroup2(proc)
	if !errors.Is(err, ErrNoCgroup2) || !strings.Contains(err.Error(), "systemd.unified_cgroup_hierarchy=1") {
		t.Errorf("got %v", err)
	}
	write(t, filepath.Join(proc, "self/mountinfo"), "nonsense\n")
	if _, err := FindCgroup2(proc); err == nil || !strings.Contains(err.Error(), "mountinfo line 1:") {
		t.Errorf("got %v", err)
	}
}

func TestFixturesHaveCgroup2(t *testing.T) {
	everything := func(string) bool { return true }
	for name, want := range map[string]string{
		"debian-5.10": "/sys/fs/cgroup", "debian-6.1": "/sys/fs/cgroup", "hybrid-6.18": "/sys/fs/cgroup/unified",
	} {
		got, err := findCgroup2(fixture(t, name).ProcRoot, everything)
		if err != nil || got != (CgroupMount{Point: want, Root: "/"}) {
			t.Errorf("%s: got %+v, %v", name, got, err)
		}
	}
}

func TestControllers(t *testing.T) {
	tests := map[string][]string{
		"debian-6.1":  {"cpuset", "cpu", "io", "memory", "hugetlb", "pids", "rdma", "misc"},
		"hybrid-6.18": {"hugetlb"},
	}
	for name, want := range tests {
		got, err := fixture(t, name).Controllers()
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%s: %v %s", name, err, diff)
		}
	}
}
