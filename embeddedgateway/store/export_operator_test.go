package store

// OperatorQueries are the statements behind what an operator sees that must not
// read whole tables, and the indexes that they are to go by.
func OperatorQueries() map[string]string {
	return map[string]string{
		selectNewest:            "INTEGER PRIMARY KEY",
		selectNewestActive:      "INTEGER PRIMARY KEY",
		selectNewestSuspended:   "agents_suspended",
		selectNewestOf:          "agents_protocol",
		selectNewestActiveOf:    "agents_protocol",
		selectNewestSuspendedOf: "agents_suspended",
		selectFound:             "agent_terms_term (protocol=? AND (term,agent_id)>(?,?) AND term<?)",
		nextProtocol:            "agents_protocol",
		selectUnfound:           "agents_unfound",
		deleteTerm:              "agent_terms_term",
		selectInvites:           "tickets_invites",
		selectAgentKey:          "credentials_agent",
		selectAgentActive:       "credentials_agent",
		selectAgentRevoked:      "credentials_agent",
		countAgents:             "INTEGER PRIMARY KEY",
		countKeys:               "INTEGER PRIMARY KEY",
		countEvents:             "events_at",
		countSealed:             "sealed",
	}
}
