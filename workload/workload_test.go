package workload

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/breakerd/breakerd/model"
)

func TestName(t *testing.T) {
	const user = "/user.slice/user-1000.slice/user@1000.service"
	tests := []struct {
		name, path string
		want       model.Workload
	}{
		{"a service", "/system.slice/nginx.service", model.Workload{Kind: model.Service, Unit: "nginx.service", Slice: "system.slice"}},
		{"a template's instance in its own slice", "/system.slice/system-getty.slice/getty@tty1.service",
			model.Workload{Kind: model.Service, Unit: "getty@tty1.service", Slice: "system-getty.slice"}},
		{"a cgroup below a service", "/system.slice/systemd-udevd.service/udev",
			model.Workload{Kind: model.Service, Unit: "systemd-udevd.service", Slice: "system.slice"}},
		{"pid 1", "/init.scope", model.Workload{Kind: model.ScopeUnit, Unit: "init.scope"}},
		{"a log-in session", "/user.slice/user-1000.slice/session-3.scope",
			model.Workload{Kind: model.Session, Unit: "session-3.scope", Slice: "user-1000.slice"}},
		{"a log-in session of the machine's display", "/user.slice/user-42.slice/session-c1.scope",
			model.Workload{Kind: model.Session, Unit: "session-c1.scope", Slice: "user-42.slice"}},
		{"below a session, what the user made", "/user.slice/user-1000.slice/session-3.scope/sshd.service",
			model.Workload{Kind: model.Session, Unit: "session-3.scope", Slice: "user-1000.slice"}},
		{"a session where logind makes none", "/system.slice/session-3.scope",
			model.Workload{Kind: model.ScopeUnit, Unit: "session-3.scope", Slice: "system.slice"}},
		{"a user's scope that is called a session", user + "/user-1000.slice/session-3.scope",
			model.Workload{Kind: model.ScopeUnit, Unit: "session-3.scope", Slice: "user-1000.slice", Manager: "user@1000.service"}},
		{"a user's service", user + "/app.slice/backup.service",
			model.Workload{Kind: model.Service, Unit: "backup.service", Slice: "app.slice", Manager: "user@1000.service"}},
		{"a desktop application", user + `/app.slice/app-gnome-org.mozilla.firefox-2815.scope`,
			model.Workload{Kind: model.ScopeUnit, Unit: "app-gnome-org.mozilla.firefox-2815.scope", Slice: "app.slice", Manager: "user@1000.service"}},
		{"a user manager's own processes", user + "/init.scope",
			model.Workload{Kind: model.ScopeUnit, Unit: "init.scope", Manager: "user@1000.service"}},
		{"a user manager", user, model.Workload{Kind: model.Service, Unit: "user@1000.service", Slice: "user-1000.slice"}},
		{"a slice of a user manager", user + "/app.slice", model.Workload{Kind: model.Service, Unit: "user@1000.service", Slice: "user-1000.slice"}},
		{"a slice", "/system.slice", model.Workload{Kind: model.Slice, Slice: "system.slice"}},
		{"a mount at the root", "/dev-hugepages.mount", model.Workload{Kind: model.OtherUnit, Unit: "dev-hugepages.mount"}},
		{"a socket", "/system.slice/ssh.socket", model.Workload{Kind: model.OtherUnit, Unit: "ssh.socket", Slice: "system.slice"}},
		{"an escaped name is the unit's own", `/system.slice/a-b\x2dc.service`,
			model.Workload{Kind: model.Service, Unit: `a-b\x2dc.service`, Slice: "system.slice"}},
		{"a swap device", `/system.slice/dev-disk-by\x2duuid-0b1c.swap`,
			model.Workload{Kind: model.OtherUnit, Unit: `dev-disk-by\x2duuid-0b1c.swap`, Slice: "system.slice"}},
		{"a name that the kernel could mistake", "/system.slice/_cgroup.service",
			model.Workload{Kind: model.Service, Unit: "cgroup.service", Slice: "system.slice"}},
		{"an id too short to be a container's", "/system.slice/docker-4f0a.scope",
			model.Workload{Kind: model.ScopeUnit, Unit: "docker-4f0a.scope", Slice: "system.slice"}},

		{"a container cannot pose as a unit of the host", "/system.slice/docker-4f0a.scope/system.slice/sshd.service",
			model.Workload{Kind: model.ScopeUnit, Unit: "docker-4f0a.scope", Slice: "system.slice"}},
		{"a delegated service cannot either", user + "/app.slice/evil.service/sshd.service",
			model.Workload{Kind: model.Service, Unit: "evil.service", Slice: "app.slice", Manager: "user@1000.service"}},
		{"a user's own sshd.service is seen to be the user's", user + "/app.slice/sshd.service",
			model.Workload{Kind: model.Service, Unit: "sshd.service", Slice: "app.slice", Manager: "user@1000.service"}},
		{"a user manager within a user manager is none", user + "/app.slice/user@0.service/app.slice/x.service",
			model.Workload{Kind: model.Service, Unit: "user@0.service", Slice: "app.slice", Manager: "user@1000.service"}},

		{"the root", "/", model.Workload{}},
		{"not found", "", model.Workload{}},
		{"an id too short without systemd", "/docker/4f0a", model.Workload{}},
		{"a pod without a uid", "/kubepods/burstable/pod1/4f0a", model.Workload{}},
		{"a unit's name where systemd has none", "/docker/4f0a/system.slice/nginx.service", model.Workload{}},
		{"a scratch cgroup", "/breakerd-drill-1", model.Workload{}},
		{"a foreign directory below a slice", "/system.slice/thing", model.Workload{}},
		{"a suffix alone", "/system.slice/.service", model.Workload{}},
		{"letters that a unit cannot have", "/system.slice/a b.service", model.Workload{}},
		{"longer than a unit can be", "/system.slice/" + strings.Repeat("a", 248) + ".service", model.Workload{}},
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
	for _, tt := range containers {
		f.Add(tt.path)
	}
	f.Fuzz(func(t *testing.T, path string) {
		w := Name(path)
		switch w.Kind {
		case model.UnknownWorkload, model.Slice:
			if w.Unit != "" || w.Container != "" || w.PodUID != "" {
				t.Errorf("%+v", w)
			}
		case model.Container:
			if !isID(w.Container) {
				t.Errorf("%+v", w)
			}
		case model.Pod:
			if w.PodUID == "" {
				t.Errorf("%+v", w)
			}
		default:
			if w.Unit == "" || w.Container != "" {
				t.Errorf("%+v", w)
			}
		}
		for _, part := range []string{w.Unit, w.Slice, w.Manager, w.Container} {
			if !strings.Contains(path, part) {
				t.Errorf("%q is not of %q", part, path)
			}
		}
		if uid := strings.ReplaceAll(w.PodUID, "-", "_"); !strings.Contains(strings.ReplaceAll(path, "-", "_"), uid) {
			t.Errorf("%q is not of %q", w.PodUID, path)
		}
		if below := Name(path + "/evil.service"); w.Unit != "" && !isUserManager(w.Unit) && (below.Unit != w.Unit || below.Manager != w.Manager) {
			t.Errorf("what is below %q poses as %+v", path, below)
		}
		_ = Readable(w.Unit)
	})
}
