package main

import (
	"strings"

	"github.com/enlist-mcp/enlist/embeddedgateway"
)

// sampleHead is how the sample file begins.
const sampleHead = `# The settings of an Enlist gateway: enlist gateway --config gateway.toml
# Every setting is here in a comment, with its default or a sample.
# A flag goes before a variable of the environment, that before this file. Paths
# are beside this file. Secrets are not in it: it names files, 0600, that hold
# them. To see what holds and what is wrong: enlist gateway check --config gateway.toml

`

// sampleRest is what the sample file says of the tables that are no settings.
const sampleRest = `# Which scopes a request to the API needs. Of those that match, the one with the
# longest path counts; a request that none matches needs no scope.
# [[rule]]
# methods = ["POST", "DELETE"]
# path = "/reports"
# scopes = ["reports.write"]

# The protocols' own variables, for those that the environment does not have.
[env]
`

// sampleSettings is a configuration file with every setting, all of them in
// comments.
func sampleSettings() string {
	var b strings.Builder
	b.WriteString(sampleHead)
	defaults := gatewayDefaults()
	at := ""
	tables, order := map[string]*strings.Builder{}, []string{}
	for _, s := range gatewaySettingList() {
		if s.secret {
			continue
		}
		table, key, within := strings.Cut(s.name, ".")
		if !within {
			table, key = "", s.name
		}
		if tables[table] == nil {
			tables[table], order = &strings.Builder{}, append(order, table)
		}
		writeSample(tables[table], s, key, defaults)
	}
	for _, at = range order {
		if at != "" {
			b.WriteString("[" + at + "]\n")
		}
		b.WriteString(tables[at].String())
		b.WriteString("\n")
	}
	b.WriteString(sampleRest)
	for _, name := range embeddedgateway.Variables() {
		if name == partnerSecret {
			name = partnerSecretFile
		}
		b.WriteString("# " + name + " = \"\"\n")
	}
	return b.String()
}

// writeSample writes one setting.
func writeSample(b *strings.Builder, s setting, key string, defaults *gatewaySettings) {
	b.WriteString("# " + strings.ToUpper(s.says[:1]) + s.says[1:])
	var also []string
	if s.flag != "" {
		also = append(also, "--"+s.flag)
	}
	if s.env != "" {
		also = append(also, s.env)
	}
	if len(also) > 0 {
		b.WriteString(" (" + strings.Join(also, ", ") + ")")
	}
	value := s.sample
	if value == "" {
		to := s.to(defaults)
		value = show(to)
		switch to.(type) {
		case *bool, *int:
		default:
			value = quoteTOML(value)
		}
	}
	b.WriteString(".\n# " + key + " = " + value + "\n")
}
