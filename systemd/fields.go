package systemd

// Field is a journal field of ours: journalctl BREAKER_KIND=fork_storm.
type Field string

// The fields. Units stand in the name.
const (
	FieldIncident   Field = "BREAKER_INCIDENT"
	FieldKind       Field = "BREAKER_KIND"
	FieldLevel      Field = "BREAKER_LEVEL"    // info, warning, critical
	FieldSeverity   Field = "BREAKER_SEVERITY" // 0 to 1
	FieldCgroup     Field = "BREAKER_CGROUP"
	FieldUnit       Field = "BREAKER_UNIT"
	FieldPID        Field = "BREAKER_PID"  // root of the culprit's tree
	FieldComm       Field = "BREAKER_COMM" // its name
	FieldProcesses  Field = "BREAKER_PROCESSES"
	FieldDecision   Field = "BREAKER_DECISION"
	FieldAction     Field = "BREAKER_ACTION"
	FieldScope      Field = "BREAKER_SCOPE"
	FieldForMS      Field = "BREAKER_FOR_MS"
	FieldGuard      Field = "BREAKER_GUARD" // that refused; "policy" where a deny spoke
	FieldPolicy     Field = "BREAKER_POLICY"
	FieldPolicyHash Field = "BREAKER_POLICY_HASH"
	FieldLease      Field = "BREAKER_LEASE"
	FieldExpires    Field = "BREAKER_EXPIRES"
	FieldEndReason  Field = "BREAKER_END_REASON"
	FieldNote       Field = "BREAKER_NOTE"
	FieldReason     Field = "BREAKER_REASON"
	FieldError      Field = "BREAKER_ERROR"
	FieldDryRun     Field = "BREAKER_DRY_RUN" // true or false
	FieldMode       Field = "BREAKER_MODE"
	FieldVersion    Field = "BREAKER_VERSION"
	FieldProgram    Field = "BREAKER_PROGRAM"
	FieldChanged    Field = "BREAKER_CHANGED"     // keys of the configuration
	FieldPending    Field = "BREAKER_PENDING"     // keys that need a restart
	FieldLeftOut    Field = "BREAKER_LEFT_OUT"    // entries
	FieldLeftOutID  Field = "BREAKER_LEFT_OUT_ID" // of this MESSAGE_ID
	FieldApproval   Field = "BREAKER_APPROVAL"    // the question to a person
	FieldBy         Field = "BREAKER_BY"          // who said yes
	FieldState      Field = "BREAKER_STATE"       // of a breaker: closed, open, half_open
	FieldGeneration Field = "BREAKER_GENERATION"  // of a breaker
	FieldOpened     Field = "BREAKER_OPENED"      // how often it opened of late
	FieldEffect     Field = "BREAKER_EFFECT"      // unknown, relieved, partial, none
	FieldMissing    Field = "BREAKER_MISSING"     // what cannot be seen on this machine
	FieldFile       Field = "BREAKER_FILE"
	FieldLog        Field = "BREAKER_DECISION_LOG" // an entry of OPA's decision log, as JSON
	FieldInputHash  Field = "BREAKER_INPUT_HASH"
)

// Unknown stands where an entry must say something and nothing is known.
const Unknown = "unknown"
