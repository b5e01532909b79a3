package blame

import "github.com/breakerd/breakerd/model"

// EstimatedMost is how sure an estimate can be, 0 to 1.
const EstimatedMost = 0.7

// Verdict says who made a victim wait most, and how sure that is.
type Verdict struct {
	Offender   model.CgroupID // 0: nobody is accused
	NS         uint64         // that it accounts for
	Share      float64        // of the victim's whole wait, 0 to 1
	Margin     float64        // Share minus that of the next suspect, the victim itself among them
	Confidence float64        // 0 to 1
}

// Verdict accuses the worst neighbour, or nobody: where none accounts for more than the
// victim itself, its quota, a limit of ours, the kernel, the hypervisor, and what is not
// known. The confidence is 1 less the unknown part and Doubt; an estimate's is at most 0.7.
func (s *Shares) Verdict() Verdict {
	if len(s.Neighbours) == 0 || s.WaitNS == 0 {
		return Verdict{}
	}
	worst := s.Neighbours[0]
	others := max(s.SelfNS, s.OwnQuotaNS, s.OurThrottleNS, s.KernelNS, s.StealNS)
	if worst.NS <= others || worst.NS <= s.UnknownNS {
		return Verdict{}
	}
	next := others
	if len(s.Neighbours) > 1 {
		next = max(next, s.Neighbours[1].NS)
	}
	whole := float64(s.WaitNS)
	v := Verdict{Offender: worst.Offender, NS: worst.NS, Share: min(1, float64(worst.NS)/whole)}
	v.Margin = max(0, v.Share-float64(next)/whole)
	v.Confidence = max(0, 1-float64(s.UnknownNS)/whole-min(1, max(0, s.Doubt)))
	if s.Estimated {
		v.Confidence = min(v.Confidence, EstimatedMost)
	}
	return v
}
