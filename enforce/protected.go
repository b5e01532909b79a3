package enforce

import (
	"iter"
	"path"
	"slices"
	"strings"
)

// protectedUnits are units that a machine or its operator cannot do without. A name
// is exact, but one * in it stands for any part of a name.
var protectedUnits = []string{
	// breakerd
	"breakerd.service", "breaker-enforcer.service",
	// systemd and its helpers
	"init.scope", "systemd-*.service", "dbus.service", "dbus-broker.service", "polkit.service",
	// the ways in
	"ssh.service", "sshd.service", "ssh@*.service", "sshd@*.service", "getty@*.service",
	"serial-getty@*.service", "console-getty.service", "display-manager.service", "gdm.service",
	"lightdm.service", "sddm.service", "sssd.service", "sssd-*.service", "tailscaled.service",
	"qemu-guest-agent.service", "open-vm-tools.service", "vmtoolsd.service",
	"amazon-ssm-agent.service", "google-guest-agent.service", "walinuxagent.service", "waagent.service",
	"snap.amazon-ssm-agent.*.service",
	// the network
	"NetworkManager.service", "networking.service", "wpa_supplicant.service", "iwd.service", "connman.service",
	"dhcpcd.service", "firewalld.service", "nftables.service", "wg-quick@*.service",
	// storage and files
	"iscsid.service", "multipathd.service", "lvm2-*.service", "dm-event.service", "rpcbind.service",
	"nfs-server.service", "ceph-*.service",
	// logs, audit, time
	"auditd.service", "rsyslog.service", "syslog-ng.service", "chrony.service", "chronyd.service",
	// containers and virtual machines
	"kubelet.service", "containerd.service", "docker.service", "crio.service", "cri-docker.service",
	"etcd.service", "kube-apiserver.service", "snap.docker.*.service", "snap.microk8s.*.service",
	"podman.service", "k3s.service", "k3s-agent.service", "rke2-server.service", "rke2-agent.service",
	"lxc.service", "lxcfs.service", "libvirtd.service", "virtqemud.service", "virtlogd.service",
}

// trustedDirs are where the programs of a distribution or of root lie. Only there
// does a file's name say what it is: /home/joe/sshd is nobody's sshd.
var trustedDirs = []string{
	"/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/libexec", "/usr/local/sbin", "/usr/local/bin",
	"/usr/lib/openssh", "/usr/libexec/openssh", "/usr/lib/ssh", "/usr/libexec/ssh", "/usr/lib/gdm3", "/usr/lib/polkit-1", "/usr/lib/podman", "/usr/libexec/podman",
	"/usr/lib/sssd", "/usr/libexec/sssd", "/usr/lib/iwd",
}

// trustedSnaps are snaps that bring protected programs. A program of a snap lies below the number
// of its revision, which root alone can mount there:
//
//	/snap/docker/2932/bin/dockerd
//	/var/lib/snapd/snap/microk8s/7180/kubelite
var trustedSnaps = []string{"amazon-ssm-agent", "docker", "microk8s"}

// snapDirs are where snaps are mounted.
var snapDirs = []string{"/snap/", "/var/lib/snapd/snap/"}

// systemdDirs hold nothing but systemd's own programs.
var systemdDirs = []string{"/usr/lib/systemd", "/lib/systemd"}

// protectedNames are names of programs that are protected in the trusted directories.
var protectedNames = []string{
	"breakerd", "breaker-enforcer",
	"init", "runit", "s6-svscan", "openrc-init", "dbus-daemon", "dbus-broker", "dbus-broker-launch", "polkitd",
	"sshd", "sshd-session", "sshd-auth", "dropbear", "agetty", "login", "tailscaled",
	"gdm-session-worker", "lightdm", "sddm", "sddm-helper", "qemu-ga",
	"vmtoolsd", "amazon-ssm-agent", "google_guest_agent",
	"sssd", "sssd_be", "sssd_nss", "sssd_pam", "sssd_ssh", "sssd_sudo", "sssd_pac", "sssd_autofs", "sssd_ifp", "sssd_kcm",
	"NetworkManager", "wpa_supplicant", "iwd", "dhclient", "dhcpcd", "connmand",
	"iscsid", "multipathd", "dmeventd", "rpcbind", "lxcfs", "mount.fuse",
	"auditd", "rsyslogd", "syslog-ng", "chronyd", "ntpd",
	"kubelet", "kubelite", "kube-apiserver", "etcd", "k8s-dqlite", "containerd", "containerd-shim", "containerd-shim-runc-v2", "dockerd", "docker-proxy",
	"crio", "conmon", "cri-dockerd", "podman", "k3s", "rke2", "runc", "crun", "libvirtd", "virtqemud", "virtlogd",
}

// systemdClients are programs of systemd's that a script of anybody's calls or is wrapped
// in, and that nobody depends on but their caller. systemd-run may be somebody's way in.
var systemdClients = []string{"systemd-notify", "systemd-cat", "systemd-inhibit"}

// deleted is what the kernel adds to the name of a program whose file was removed
// or replaced, as an upgrade does while the old one runs on.
const deleted = " (deleted)"

// protectedExe reports whether a program is protected: a name of ours in a trusted
// directory, systemd's, or exactly what the operator lists.
func protectedExe(exe string, extra []string) bool {
	for _, name := range []string{exe, strings.TrimSuffix(exe, deleted)} {
		dir, base := path.Split(name)
		dir = path.Clean(dir)
		switch {
		case slices.Contains(extra, name),
			slices.Contains(systemdDirs, dir),
			(slices.Contains(trustedDirs, dir) || inTrustedSnap(dir)) && slices.Contains(protectedNames, base),
			slices.Contains(trustedDirs, dir) && strings.HasPrefix(base, "systemd-") && !slices.Contains(systemdClients, base):
			return true
		}
	}
	return false
}

// inTrustedSnap reports whether a directory is the one of a revision of a trusted snap, or that of
// its programs.
func inTrustedSnap(dir string) bool {
	for _, snaps := range snapDirs {
		rest, ok := strings.CutPrefix(dir, snaps)
		name, rest, _ := strings.Cut(rest, "/")
		revision, below, _ := strings.Cut(rest, "/")
		number := revision != "" && strings.Trim(revision, "x0123456789") == "" // x1 was installed from a file
		if ok && slices.Contains(trustedSnaps, name) && number && (below == "" || below == "bin") {
			return true
		}
	}
	return false
}

// protectedComm judges by the name that a process gives itself, of which the kernel
// keeps 15 bytes. Anybody can choose it, so it never frees anybody who is written to.
func protectedComm(comm string) bool {
	const kept = 15 // TASK_COMM_LEN less the zero byte
	return comm == "systemd" || strings.HasPrefix(comm, "systemd-") || strings.HasPrefix(comm, "(sd-") ||
		slices.ContainsFunc(protectedNames, func(name string) bool { return name[:min(len(name), kept)] == comm })
}

// unitMatches compares a unit's name with a pattern that may hold one *.
func unitMatches(pattern, name string) bool {
	before, after, wild := strings.Cut(pattern, "*")
	if !wild {
		return pattern == name
	}
	return len(name) >= len(before)+len(after) && strings.HasPrefix(name, before) && strings.HasSuffix(name, after)
}

func components(p string) iter.Seq[string] {
	return strings.SplitSeq(strings.TrimPrefix(p, "/"), "/")
}
