package enforce

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/breakerd/breakerd/model"
)

func TestACgroupInWhichPid1MayHangIsNotFrozen(t *testing.T) {
	const line = "7f2c60200000-7f2c60240000 r--p 00000000 fd:01 1835 /usr/lib/x86_64-linux-gnu/systemd/libsystemd-shared-"
	tests := []struct {
		name, comm, maps, cgroup string
		refused                  bool
	}{
		{"a slice under systemd 257", "systemd", line + "257.so\n", "/batch.slice", true},
		{"a service under systemd 255", "systemd", line + "255.so\n", "/batch.slice/a.service", true},
		{"a service under a distribution's build", "systemd", line + "256.4-1.fc41.so\n", "/batch.slice/a.service", true},
		{"a user's service", "systemd", line + "257.so\n", "/user.slice/user-1000.slice/user@1000.service/app.slice/a.service", true},
		{"a service under systemd 252", "systemd", line + "252.so\n", "/batch.slice/a.service", false},
		{"a scope", "systemd", line + "257.so\n", "/user.slice/user-1000.slice/session-3.scope", false},
		{"a cgroup that a service was given", "systemd", line + "257.so\n", "/batch.slice/a.service/job", false},
		{"a service under a systemd that cannot be told", "systemd", "", "/batch.slice/a.service", true},
		{"a cgroup of that name where pid 1 is another program", "tini", "", "/a.slice", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.process(1, 0, 1, tt.comm, "/usr/lib/systemd/systemd")
			if tt.maps != "" {
				if err := os.WriteFile(filepath.Join(w.proc, "1", "maps"), []byte(tt.maps), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			e := w.open()
			defer w.close()
			d := w.decide(w.tree(tt.cgroup, 300), 300, 1e9)
			out := e.Propose(t.Context(), d)
			if got := out.RefusedBy == "protected"; got != tt.refused {
				t.Errorf("refused by %q: %s", out.RefusedBy, out.Reason)
			}
			if tt.refused && len(e.Leases()) > 0 {
				t.Errorf("it is held: %+v", e.Leases()[0].State)
			}
			_ = e.ReleaseAll(t.Context(), model.EndReleased)
		})
	}
}
