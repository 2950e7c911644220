package embeddedgateway

// Which requests get a line in the log.
const (
	AccessAll    = "all"
	AccessErrors = "errors" // answers of 500 and above
	AccessOff    = "off"
)
