package detect

import (
	"cmp"
	"slices"
	"time"

	"github.com/breakerd/breakerd/model"
)

// table is the process table as the samples tell it. A process hangs on who forked
// it. When a process ends, its children go to its own parent in the table, not to
// whoever adopts them in the kernel: so a tree keeps together when it daemonises, and
// what a short-lived process did is charged to its nearest surviving ancestor. Nobody
// inherits from another user: who started a job as its owner, such as a cron daemon, would
// answer for whatever that left behind.
type table struct {
	nodes map[model.ProcID]*node
	// cgroups holds the processes of each, but no kernel threads: those answer for nothing.
	cgroups map[model.CgroupID]map[*node]struct{}
	own     map[model.CgroupID]uint64 // bytes of their own, of all processes of each
	rest    map[model.CgroupID]*node  // stands for those that ended and that no process answers for
	self    *node                     // breakerd; nil where the samples do not tell

	// A walk over all processes tells of those that changed: who is not in the last one
	// used nothing since the one before.
	walkedNS, walkedBefore int64 // boot time
}

type node struct {
	model.Proc
	cpuNS    uint64
	rssBytes uint64
	ownBytes uint64 // of them, what is no file
	// What it had of its own a minute or two ago; nothing, if it was made since and not found.
	ownBefore, ownMark uint64
	marked             int64  // boot time of ownMark
	bornNS             int64  // boot time when it came into the table
	readNS             int64  // boot time of the last walk that told of it
	grewNS             uint64 // CPU time that it told of then
	// CPU time of late, as of a tick: see window.cpuUsed.
	usedNS float64
	usedIn uint64
	// The storm that it is part of, as of a tick: see window.lasting.
	storm    int
	stormIn  uint64
	measured bool // cpuNS has been read at least once
	up       *node
	down     map[*node]struct{}
	left     bool // who started it has ended, and left it to another
	ended    bool
}

// charges is what one sample's changes add to each process's account. The process may
// have ended since; alive finds who answers for it.
type charges struct {
	forks map[*node]int
	exits map[*node]int
	short map[*node]int // exits of those that lived less than shortLife
	cpuNS []cpuUse
}

// cpuUse is CPU time that one process used.
type cpuUse struct {
	by *node
	ns uint64
}

func newTable() *table {
	return &table{
		nodes: make(map[model.ProcID]*node), cgroups: make(map[model.CgroupID]map[*node]struct{}),
		own: make(map[model.CgroupID]uint64), rest: make(map[model.CgroupID]*node),
	}
}

// enter puts a process into a cgroup.
func (t *table) enter(n *node, cgroup model.CgroupID) {
	n.Cgroup = cgroup
	if n.Kernel {
		return
	}
	members := t.cgroups[cgroup]
	if members == nil {
		members = make(map[*node]struct{})
		t.cgroups[cgroup] = members
	}
	members[n] = struct{}{}
	t.own[cgroup] += n.ownBytes
}

// leave takes a process out of its cgroup.
func (t *table) leave(n *node) {
	members := t.cgroups[n.Cgroup]
	if _, is := members[n]; !is {
		return
	}
	delete(members, n)
	t.own[n.Cgroup] -= n.ownBytes
	if len(members) == 0 {
		delete(t.cgroups, n.Cgroup)
		delete(t.own, n.Cgroup)
		delete(t.rest, n.Cgroup)
	}
}

// watcher reports whether a cgroup is that of breakerd alone. Who watches is no victim:
// nobody is accused, and nothing done, because breakerd itself has to wait.
func (t *table) watcher(cgroup model.CgroupID) bool {
	return t.self != nil && !t.self.ended && t.self.Cgroup == cgroup && len(t.cgroups[cgroup]) == 1
}

func (t *table) move(n *node, cgroup model.CgroupID) {
	if n.Cgroup != cgroup {
		t.leave(n)
		t.enter(n, cgroup)
	}
}

// alive is the process, or who answers for it: its nearest ancestor that has not ended, or
// the rest of its cgroup; nil if there is none.
func (n *node) alive() *node {
	for n != nil && n.ended {
		n = n.up
	}
	return n
}

// apply takes in the changes of one sample.
func (t *table) apply(s *model.Sample) charges {
	if s.Keyframe {
		*t = *newTable()
	}
	if len(s.Procs.Usage) > 0 {
		t.walkedBefore, t.walkedNS = t.walkedNS, s.BootNS
	}
	ch := charges{forks: map[*node]int{}, exits: map[*node]int{}, short: map[*node]int{}}
	if len(s.Procs.Usage) > 0 {
		ch.cpuNS = make([]cpuUse, 0, len(s.Procs.Usage)+len(s.Procs.Exited))
	}
	fresh := make([]*node, 0, len(s.Procs.Forked))
	for _, p := range s.Procs.Forked {
		if t.nodes[p.ProcID] != nil {
			continue
		}
		n := &node{Proc: p, measured: !p.Found, bornNS: s.BootNS}
		t.nodes[p.ProcID] = n
		t.enter(n, p.Cgroup)
		if p.Self {
			t.self = n
		}
		fresh = append(fresh, n)
	}
	for _, n := range fresh { // a parent may stand behind its child in the list
		t.adopt(n, t.nodes[n.Parent])
		if n.Cmdline == "" && n.up != nil && n.up.Comm == n.Comm {
			n.Cmdline = n.up.Cmdline
		}
		if !n.Found && n.up != nil {
			ch.forks[n.up]++
			// Processes are often put into their cgroup after they were made, and this is
			// how it is seen before the next walk over all of them.
			t.move(n.up, cmp.Or(n.ParentCgroup, n.Cgroup))
		}
	}
	for _, e := range s.Procs.Execed {
		if n := t.nodes[e.ProcID]; n != nil {
			n.Comm, n.Cmdline = e.Comm, e.Cmdline
		}
	}
	for _, u := range s.Procs.Usage {
		if n := t.nodes[u.ProcID]; n != nil {
			t.move(n, u.Cgroup)
			if own := u.OwnBytes(); !n.Kernel && own != n.ownBytes {
				t.own[n.Cgroup] += own - n.ownBytes // wraps around, and back
			}
			n.hold(&u, s.BootNS)
			n.readNS, n.grewNS = s.BootNS, 0
			if n.measured && u.CPUNS > n.cpuNS {
				n.grewNS = u.CPUNS - n.cpuNS
			}
			ch.use(n, u.CPUNS)
		}
	}
	for _, e := range s.Procs.Exited {
		if n := t.nodes[e.ProcID]; n != nil {
			ch.use(n, e.CPUNS)
			ch.exits[n]++
			if e.LifeNS < uint64(shortLife) {
				ch.short[n]++
			}
			t.end(n)
		}
	}
	return ch
}

// ownKept is how long what a process had is remembered, and up to twice as long.
const ownKept = time.Minute

// hold takes in how much memory a process has.
func (n *node) hold(u *model.Usage, now int64) {
	own := u.OwnBytes()
	switch {
	case n.marked == 0: // the first reading
		n.marked, n.ownMark = now, own
		if n.Found {
			n.ownBefore = own
		}
	case now-n.marked >= int64(ownKept):
		n.marked, n.ownBefore, n.ownMark = now, n.ownMark, own
	}
	n.rssBytes, n.ownBytes = u.RSSBytes, own
}

// use charges the growth of a process's CPU time. The first reading of a process that
// ran before breakerd looked is its whole life, and no growth.
func (ch *charges) use(n *node, totalNS uint64) {
	if n.measured && totalNS > n.cpuNS {
		ch.cpuNS = append(ch.cpuNS, cpuUse{n, totalNS - n.cpuNS})
	}
	n.cpuNS = max(n.cpuNS, totalNS)
	n.measured = true
}

// adopt hangs a process on its parent. One that descends from the process is none: no
// kernel says so, but a recording may, and the tree must stay a tree.
func (t *table) adopt(n, parent *node) {
	n.up = nil
	if parent == nil || parent == n || len(n.down) > 0 && parent.within(n) {
		return
	}
	n.up = parent
	if parent.down == nil {
		parent.down = make(map[*node]struct{})
	}
	parent.down[n] = struct{}{}
}

func (t *table) end(n *node) {
	n.ended = true
	delete(t.nodes, n.ProcID)
	t.leave(n)
	heir := n.up.alive()
	if n.up != nil {
		delete(n.up.down, n)
	}
	for child := range n.down {
		t.adopt(child, heir.of(child.UID))
		child.left = true
	}
	n.up, n.down = heir, nil
	if heir == nil || heir.UID != n.UID || heir.PID == 1 || heir.manages() && heir.Cgroup != n.Cgroup {
		n.up = t.restOf(n.Cgroup)
	}
}

// manages says that a process starts services for others, and does not answer for what they leave
// behind: pid 1, a user's systemd, or that of a container. Who only calls himself so has his cgroup
// accused.
func (n *node) manages() bool { return n.PID == 1 || n.Comm == "systemd" }

// answers finds who answers for what a process did: itself, or its nearest ancestor that has not ended.
// One in another cgroup answers only if he, or those he started, sent it there; he does not for what
// was left to him. Else it is the rest of the cgroup in which it was done.
func (t *table) answers(who *node) *node {
	n, sent := who, true
	for n != nil && n.ended {
		sent = sent && !n.left
		n = n.up
	}
	if n == nil || n.Cgroup == who.Cgroup || sent {
		return n
	}
	return t.restOf(who.Cgroup)
}

// of is the process, or its nearest ancestor, of that user. Pid 1 takes anybody's: it
// answers for nobody.
func (n *node) of(uid uint32) *node {
	for n != nil && n.UID != uid && n.PID != 1 {
		n = n.up
	}
	return n
}

// restOf stands for those of a cgroup that ended and that no process answers for; nil where
// nobody is left in it.
func (t *table) restOf(cgroup model.CgroupID) *node {
	if t.cgroups[cgroup] == nil {
		return nil
	}
	if t.rest[cgroup] == nil {
		t.rest[cgroup] = &node{Proc: model.Proc{Cgroup: cgroup}}
	}
	return t.rest[cgroup]
}

// keyframe lists every process with its place in the tree, as the start of a recording.
func (t *table) keyframe() model.ProcChanges {
	var c model.ProcChanges
	for _, n := range t.nodes {
		p := n.Proc
		p.Found = true
		p.Parent = model.ProcID{}
		if n.up != nil {
			p.Parent = n.up.ProcID
		}
		c.Forked = append(c.Forked, p)
		c.Usage = append(c.Usage, model.Usage{ProcID: p.ProcID, Cgroup: p.Cgroup, CPUNS: n.cpuNS, RSSBytes: n.rssBytes, FileBytes: n.rssBytes - n.ownBytes})
	}
	slices.SortFunc(c.Forked, func(a, b model.Proc) int { return compareIDs(a.ProcID, b.ProcID) })
	slices.SortFunc(c.Usage, func(a, b model.Usage) int { return compareIDs(a.ProcID, b.ProcID) })
	return c
}

func compareIDs(a, b model.ProcID) int {
	return cmp.Or(cmp.Compare(a.StartTime, b.StartTime), cmp.Compare(a.PID, b.PID))
}
