package enforce

import (
	"fmt"
	"net"
	"os"
	"os/user"
	"slices"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/breakerd/breakerd/internal/peercred"
)

// peer is who is at the other end of a connection, as the kernel says.
type peer struct {
	pid    int32
	uid    uint32
	groups []uint32
}

func (p peer) String() string { return fmt.Sprintf("uid %d (pid %d)", p.uid, p.pid) }

// access says who may do what.
type access struct {
	self  uint32
	user  uint32 // breakerd's
	group uint32
	users bool // user is known on this machine
	named bool // group is known on this machine

	approvers []uint32
}

// newAccess looks up the configured user and group, either of which may be missing.
func newAccess(c AllowConfig) access {
	a := access{self: uint32(os.Geteuid())}
	if u, err := user.Lookup(c.User); err == nil {
		if n, err := strconv.ParseUint(u.Uid, 10, 32); err == nil {
			a.user, a.users = uint32(n), true
		}
	}
	if g, err := user.LookupGroup(c.Group); err == nil {
		if n, err := strconv.ParseUint(g.Gid, 10, 32); err == nil {
			a.group, a.named = uint32(n), true
		}
	}
	for _, name := range c.Approvers {
		if u, err := user.Lookup(name); err == nil {
			if n, err := strconv.ParseUint(u.Uid, 10, 32); err == nil {
				a.approvers = append(a.approvers, uint32(n))
			}
		}
	}
	return a
}

// mayApprove never is breakerd's user: who asks cannot say yes.
func (a access) mayApprove(p peer) bool {
	if a.users && p.uid == a.user && p.uid != 0 {
		return false
	}
	return p.uid == 0 || slices.Contains(a.approvers, p.uid)
}

// mayPropose is also who counts as breakerd's heartbeat.
func (a access) mayPropose(p peer) bool {
	return p.uid == 0 || p.uid == a.self || a.users && p.uid == a.user
}

// MayApprove reports whether a user may say yes to what only a person may.
func (c AllowConfig) MayApprove(uid uint32) bool { return newAccess(c).mayApprove(peer{uid: uid}) }

func (a access) mayRelease(p peer) bool {
	return a.mayPropose(p) || a.named && slices.Contains(p.groups, a.group)
}

// peerOf asks the kernel who connected (SO_PEERCRED), and for all of their groups
// (SO_PEERGROUPS, since 4.13).
func peerOf(c *net.UnixConn) (peer, error) {
	var groups []uint32
	cred, err := peercred.Of(c, func(fd uintptr) { groups = peerGroups(fd) })
	if err != nil {
		return peer{}, err
	}
	return peer{pid: cred.Pid, uid: cred.Uid, groups: append(groups, cred.Gid)}, nil
}

// peerGroups has no wrapper in x/sys. Who is in more groups than fit is taken to be
// in none of them.
func peerGroups(fd uintptr) []uint32 {
	var groups [256]uint32
	size := uint32(unsafe.Sizeof(groups))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_PEERGROUPS,
		uintptr(unsafe.Pointer(&groups)), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return nil
	}
	return slices.Clone(groups[:size/4])
}
