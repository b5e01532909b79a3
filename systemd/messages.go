package systemd

// MessageID names a kind of journal entry, for journalctl MESSAGE_ID=… and the
// catalog (breakerd.catalog). They are for ever: other people's scripts wait for
// them.
type MessageID string

// One for each change of state that breakerd tells.
const (
	MsgStarted             MessageID = "f545b0cfbfff4fd583e2b479eef00864" // breakerd or the enforcer is at work
	MsgStopped             MessageID = "d9199f9c2f804d14af56fd440c13c11b" // it ended in good order
	MsgIncidentOpened      MessageID = "e78374db2a70495d987b65240c819216" // something goes wrong because of somebody
	MsgIncidentClosed      MessageID = "af4040cab4bf4946accef8527f01366b" // it is over
	MsgDecisionMade        MessageID = "9df270161f104f748bef05b8890ac43e" // an action passed the guards (in a dry run: would have been taken)
	MsgDecisionRefused     MessageID = "52c2cd59a1cc42c09c3b82fd05378691" // a policy or a guard said no
	MsgDecisionFailed      MessageID = "ecbccae913f6474e8abcc7514372e96e" // an action passed the guards and could not be carried out
	MsgLeaseHeld           MessageID = "93a4dfbd49ae4a8c97f314001bd50bad" // a culprit is held
	MsgLeaseEased          MessageID = "055a2ac235a245c2b5bf98f45e938dc1" // its limits are loosened half way
	MsgLeaseEnded          MessageID = "7b7be3f2f4af4c72903edd72594cd37b" // it is let go
	MsgLeaseRecovered      MessageID = "4d5b13c2688c42d5a592ebe5066a0f14" // it was still held at the enforcer's start, and is let go
	MsgLeaseStuck          MessageID = "2c8cab20149e4a1e8e85c0c6d27e1bd8" // it could not be let go
	MsgPoliciesLoaded      MessageID = "0b7602efc7374613aa17f07917c288c2" // a set of policies is in force
	MsgPoliciesRefused     MessageID = "56ebde1f69014fedbb07480bd6eeb9ff" // a set of policies was refused
	MsgPoliciesTried       MessageID = "55f72f053993493fa1421dfed1c73f8c" // a set of policies is tried beside the one in force
	MsgPoliciesWithheld    MessageID = "7905fc5685cc4cc68c7b6a0ac3bfb582" // it does not come into force by itself
	MsgPoliciesAnswered    MessageID = "0017c104ef074d66b7bb2e1e297655c9" // what policies answered about an incident, in the form of OPA's decision log
	MsgObservationDegraded MessageID = "78db2b03ae064acfb65b2ebffe018de0" // something that matters cannot be seen
	MsgMachineLacks        MessageID = "d928c2588a6e4b83b6de6c9861e7eda3" // this machine does not have what something needs
	MsgObservationWhole    MessageID = "5b20102757ed42d9b7c10dc9b97a4ff8" // it is seen again
	MsgEnforcerLost        MessageID = "d4ee085a7ee04b0d80c622722e4657b3" // the enforcer does not answer
	MsgEnforcerBack        MessageID = "03a7070cffa7416da8720256ed950658" // it answers again
	MsgConfigLoaded        MessageID = "897c6dc9ecd44c2f8bace22eaa412a2e" // the configuration was read again
	MsgConfigRefused       MessageID = "f21a92535e2b4291b56b6535ac18d0ef" // it was refused, and the old one stays
	MsgApprovalAsked       MessageID = "b347eca8703b481392e49683b2fe2ce7" // a policy wants something done only with a person's yes
	MsgApprovalGiven       MessageID = "1f203c092e654d7aa4bb5611e2e64164" // a person has said yes
	MsgApprovalExpired     MessageID = "74f28df55154491ebbdfc31c34ea989d" // nobody did in time
	MsgBreakerSwitched     MessageID = "d31428744191425384bd04abae5b8873" // a breaker opened, is half-open, or closed
	MsgBreakerMeasured     MessageID = "c9b065d5036943eb8f232827065deae0" // it was seen whether holding a culprit helps its victims
	MsgHistoryStopped      MessageID = "5c2b17bdbfcc4e8db22b125964726e1a" // what happens cannot be kept
	MsgHistoryBack         MessageID = "07f8baed00804a3fb599c698cd1c0d20" // it is kept again
	MsgHistorySetAside     MessageID = "da41627fd77745d3b41303d0266e91c4" // what was kept is damaged, and a new file begins
	MsgEntriesLeftOut      MessageID = "317175a6a53d4be9b256f8ba916392d7" // there were too many entries of one kind
)

// MessageIDs lists them all.
func MessageIDs() []MessageID {
	return []MessageID{
		MsgStarted,
		MsgStopped,
		MsgIncidentOpened,
		MsgIncidentClosed,
		MsgDecisionMade,
		MsgDecisionRefused,
		MsgDecisionFailed,
		MsgLeaseHeld,
		MsgLeaseEased,
		MsgLeaseEnded,
		MsgLeaseRecovered,
		MsgLeaseStuck,
		MsgPoliciesLoaded,
		MsgPoliciesRefused,
		MsgPoliciesTried,
		MsgPoliciesAnswered,
		MsgPoliciesWithheld,
		MsgObservationDegraded,
		MsgMachineLacks,
		MsgObservationWhole,
		MsgEnforcerLost,
		MsgEnforcerBack,
		MsgConfigLoaded,
		MsgConfigRefused,
		MsgApprovalAsked,
		MsgApprovalGiven,
		MsgApprovalExpired,
		MsgBreakerSwitched,
		MsgBreakerMeasured,
		MsgHistoryStopped,
		MsgHistoryBack,
		MsgHistorySetAside,
		MsgEntriesLeftOut,
	}
}
