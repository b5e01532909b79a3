package workload

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestName(t *testing.T) {
	const user = "/user.slice/user-1000.slice/user@1000.service"
	tests := []struct {
		name, path string
		want       Workload
	}{
		{"a service", "/system.slice/nginx.service", Workload{Kind: Service, Unit: "nginx.service", Slice: "system.slice"}},
		{"a template's instance in its own slice", "/system.slice/system-getty.slice/getty@tty1.service",
			Workload{Kind: Service, Unit: "getty@tty1.service", Slice: "system-getty.slice"}},
		{"a cgroup below a service", "/system.slice/systemd-udevd.service/udev",
			Workload{Kind: Service, Unit: "systemd-udevd.service", Slice: "system.slice"}},
		{"pid 1", "/init.scope", Workload{Kind: Scope, Unit: "init.scope"}},
		{"a log-in session", "/user.slice/user-1000.slice/session-3.scope",
			Workload{Kind: Scope, Unit: "session-3.scope", Slice: "user-1000.slice"}},
		{"a user's service", user + "/app.slice/backup.service",
			Workload{Kind: Service, Unit: "backup.service", Slice: "app.slice", Manager: "user@1000.service"}},
		{"a desktop application", user + `/app.slice/app-gnome-org.mozilla.firefox-2815.scope`,
			Workload{Kind: Scope, Unit: "app-gnome-org.mozilla.firefox-2815.scope", Slice: "app.slice", Manager: "user@1000.service"}},
		{"a user manager's own processes", user + "/init.scope",
			Workload{Kind: Scope, Unit: "init.scope", Manager: "user@1000.service"}},
		{"a user manager", user, Workload{Kind: Service, Unit: "user@1000.service", Slice: "user-1000.slice"}},
		{"a slice of a user manager", user + "/app.slice", Workload{Kind: Service, Unit: "user@1000.service", Slice: "user-1000.slice"}},
		{"a slice", "/system.slice", Workload{Kind: Slice, Slice: "system.slice"}},
		{"a mount at the root", "/dev-hugepages.mount", Workload{Kind: Other, Unit: "dev-hugepages.mount"}},
		{"a socket", "/system.slice/ssh.socket", Workload{Kind: Other, Unit: "ssh.socket", Slice: "system.slice"}},
		{"an escaped name is the unit's own", `/system.slice/a-b\x2dc.service`,
			Workload{Kind: Service, Unit: `a-b\x2dc.service`, Slice: "system.slice"}},
		{"a swap device", `/system.slice/dev-disk-by\x2duuid-0b1c.swap`,
			Workload{Kind: Other, Unit: `dev-disk-by\x2duuid-0b1c.swap`, Slice: "system.slice"}},
		{"a name that the kernel could mistake", "/system.slice/_cgroup.service",
			Workload{Kind: Service, Unit: "cgroup.service", Slice: "system.slice"}},
		{"a container of systemd's kind is a scope so far", "/system.slice/docker-4f0a.scope",
			Workload{Kind: Scope, Unit: "docker-4f0a.scope", Slice: "system.slice"}},

		{"a container cannot pose as a unit of the host", "/system.slice/docker-4f0a.scope/system.slice/sshd.service",
			Workload{Kind: Scope, Unit: "docker-4f0a.scope", Slice: "system.slice"}},
		{"a delegated service cannot either", user + "/app.slice/evil.service/sshd.service",
			Workload{Kind: Service, Unit: "evil.service", Slice: "app.slice", Manager: "user@1000.service"}},
		{"a user's own sshd.service is seen to be the user's", user + "/app.slice/sshd.service",
			Workload{Kind: Service, Unit: "sshd.service", Slice: "app.slice", Manager: "user@1000.service"}},
		{"a user manager within a user manager is none", user + "/app.slice/user@0.service/app.slice/x.service",
			Workload{Kind: Service, Unit: "user@0.service", Slice: "app.slice", Manager: "user@1000.service"}},

		{"the root", "/", Workload{}},
		{"not found", "", Workload{}},
		{"a container without systemd", "/docker/4f0a", Workload{}},
		{"a pod without systemd", "/kubepods/burstable/pod1/4f0a", Workload{}},
		{"a unit's name where systemd has none", "/docker/4f0a/system.slice/nginx.service", Workload{}},
		{"a scratch cgroup", "/breakerd-drill-1", Workload{}},
		{"a foreign directory below a slice", "/system.slice/thing", Workload{}},
		{"a suffix alone", "/system.slice/.service", Workload{}},
		{"letters that a unit cannot have", "/system.slice/a b.service", Workload{}},
		{"longer than a unit can be", "/system.slice/" + strings.Repeat("a", 248) + ".service", Workload{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, Name(tt.path)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestReadable(t *testing.T) {
	tests := []struct{ name, unit, want string }{
		{"a hyphen", `dev-disk-by\x2duuid.swap`, "dev-disk-by-uuid.swap"},
		{"nothing to undo", "nginx.service", "nginx.service"},
		{"an escape cut short", `a\x2`, `a\x2`},
		{"an escape that is none", `a\xzz.service`, `a\xzz.service`},
		{"a letter in two bytes", `caf\xc3\xa9.mount`, "café.mount"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := Readable(tt.unit); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func FuzzName(f *testing.F) {
	f.Add("/system.slice/nginx.service")
	f.Add("/user.slice/user-1000.slice/user@1000.service/app.slice/a.scope/b")
	f.Add(`//_\x.scope/`)
	f.Fuzz(func(t *testing.T, path string) {
		w := Name(path)
		if (w.Unit == "") != (w.Kind == Unknown || w.Kind == Slice) {
			t.Errorf("%+v", w)
		}
		if w.Unit != "" && !strings.Contains(path, w.Unit) {
			t.Errorf("%q is not of %q", w.Unit, path)
		}
		_ = Readable(w.Unit)
	})
}
