package main

import "runtime/debug"

// gatewayGarbage is how much garbage there may be before it is collected, in percent
// of what is in use. A gateway has little in use and makes much garbage: at Go's 100
// it collects so often under load that it takes a twentieth of the processor's time.
const gatewayGarbage = 200

// collectLess has the garbage collected less often, unless the operator has said how
// often.
func collectLess(env func(string) string) {
	if env("GOGC") == "" {
		debug.SetGCPercent(gatewayGarbage)
	}
}
