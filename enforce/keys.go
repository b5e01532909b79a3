package enforce

// The keys of log records.
const (
	keyLease    = "lease"
	keyState    = "state"
	keyCgroup   = "cgroup"
	keyCgroupID = "cgroup_id"
	keyIncident = "incident"
	keyKind     = "incident_kind"
	keyAction   = "action"
	keyPolicy   = "policy"
	keyDecision = "decision"
	keyGuard    = "guard"
	keyReason   = "reason"
	keyNote     = "note"
	keyDryRun   = "dry_run"
	keyExpires  = "expires_at"
	keyError    = "error"
	keyRetryIn  = "retry_in"
	keyCount    = "count"
	keyFile     = "file"
	keyFound    = "found"
	keyPeer     = "peer"
	keyPath     = "path"
)
