package policy

import (
	"cmp"
	"slices"

	"github.com/breakerd/breakerd/model"
)

// sortRequests puts the request that wins first. What is held to a dry run stands in nobody's
// way and goes last. A higher priority goes first, then the milder action: throttle before
// freeze, a tree before a cgroup, one that a person has to say yes to before one that just
// happens, a shorter time, fewer limits, of each limit the one that leaves more (no limit
// leaves most), and fewer actions that follow. What is left equal does the same to the culprit;
// then the alphabet decides, by package and by reason, so that the answer is always the same.
func sortRequests(rs []Request) {
	slices.SortFunc(rs, func(x, y Request) int {
		a, b := &x.Action, &y.Action
		return cmp.Or(
			cmp.Compare(dryLast(x), dryLast(y)),
			cmp.Compare(b.Priority, a.Priority),
			cmp.Compare(strength(a.Kind), strength(b.Kind)),
			cmp.Compare(reach(a.Scope), reach(b.Scope)),
			cmp.Compare(asksNobody(a), asksNobody(b)),
			cmp.Compare(a.ForMS, b.ForMS),
			compareForce(a, b),
			cmp.Compare(len(a.Then), len(b.Then)),
			cmp.Compare(b.EaseMS, a.EaseMS),
			cmp.Compare(b.ApprovalMS, a.ApprovalMS),
			cmp.Compare(x.Policy, y.Policy),
			cmp.Compare(a.Reason, b.Reason),
			slices.CompareFunc(a.Then, b.Then, func(a, b model.Action) int {
				return cmp.Or(compareForce(&a, &b), cmp.Compare(a.ForMS, b.ForMS), cmp.Compare(b.EaseMS, a.EaseMS), cmp.Compare(b.ApprovalMS, a.ApprovalMS), cmp.Compare(a.Reason, b.Reason))
			}),
		)
	})
}

// compareForce compares what two actions do to a culprit, however long: below 0 where the
// first is milder.
func compareForce(a, b *model.Action) int {
	return cmp.Or(
		cmp.Compare(strength(a.Kind), strength(b.Kind)),
		cmp.Compare(reach(a.Scope), reach(b.Scope)),
		cmp.Compare(limitCount(a), limitCount(b)),
		milder(a.CPUPercent, b.CPUPercent),
		milder(a.IOPercent, b.IOPercent),
		milder(float64(a.MemoryHigh), float64(b.MemoryHigh)),
		milder(float64(a.PIDsMax), float64(b.PIDsMax)),
	)
}

func asksNobody(a *model.Action) int {
	if a.ApprovalMS > 0 {
		return 0
	}
	return 1
}

func dryLast(r Request) int {
	if r.DryRun {
		return 1
	}
	return 0
}

func strength(k model.ActionKind) int {
	if k == model.Throttle {
		return 0
	}
	return 1
}

func reach(s model.Scope) int {
	if s == model.ScopeTree {
		return 0
	}
	return 1
}

// milder compares two limits, where 0 is none.
func milder(a, b float64) int {
	switch {
	case a == b:
		return 0
	case a == 0:
		return -1
	case b == 0:
		return 1
	}
	return cmp.Compare(b, a)
}

func limitCount(a *model.Action) int {
	n := 0
	for _, set := range []bool{a.CPUPercent != 0, a.IOPercent != 0, a.MemoryHigh != 0, a.PIDsMax != 0} {
		if set {
			n++
		}
	}
	return n
}
