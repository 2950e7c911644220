package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/enlist-mcp/enlist/embeddedgateway"
	"github.com/enlist-mcp/enlist/embeddedgateway/store"
)

// copiedTable is a table as the command prints it.
type copiedTable struct {
	Table    string `json:"table"`
	Rows     int64  `json:"rows"`
	Checksum string `json:"checksum"`
}

func (p *program) gatewayCopyCommand(database *string) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "copy [SOURCE [DEST]]",
		Short: "Copy a gateway's database into an empty one, such as from SQLite to PostgreSQL",
		Long: `Copy a gateway's database into an empty one of any kind: from SQLite to
PostgreSQL, back, or between two of a kind. Every agent, key, invite, limit, event
and what is sealed goes along, so that a gateway on the copy goes on where the
other one stopped. At the end both are read and compared, by the number of rows
and a checksum of each table. The source is not changed.

No gateway may be running on either. If it is broken off, run it again: it goes on
from there, and until it has finished no gateway opens the copy. The copy needs the
server key of its source: ENLIST_SERVER_KEY_FILE or ENLIST_SERVER_KEY, or for
SQLite the file DEST.key.

SOURCE is ENLIST_DATABASE_URL if it is left out, and DEST is ENLIST_COPY_TO. A
password belongs there, or to PGPASSFILE or PGPASSWORD: the list of processes
shows arguments to everybody.`,
		Example: `  ENLIST_SERVER_KEY_FILE=gateway.db.key enlist gateway copy sqlite:gateway.db postgres://enlist@db.example.com/enlist
  ENLIST_COPY_TO=sqlite:copy.db enlist gateway copy sqlite:gateway.db`,
		Args: cobra.MaximumNArgs(2),
		RunE: run(func(cmd *cobra.Command, args []string) error {
			from, config, err := p.copyConfig(*database, args)
			if err != nil {
				return err
			}
			done, err := p.copyDatabase(cmd, from, config)
			if err != nil {
				return err
			}
			if asJSON {
				list := make([]copiedTable, 0, len(done.Tables))
				for _, t := range done.Tables {
					list = append(list, copiedTable{t.Name, t.Rows, t.Checksum})
				}
				return printJSON(p.stdout, list)
			}
			return p.sayCopied(from, config.Database, done)
		}),
	}
	jsonFlag(cmd, &asJSON, "an array of objects, one a table that is the same in both: table,\nrows, checksum.")
	return cmd
}

// copyConfig is what a copy takes from the command line and the environment:
// where from, and the gateway of the copy.
func (p *program) copyConfig(database string, args []string) (from string, config embeddedgateway.Config, err error) {
	if database != "" || p.flags.embedded {
		return "", config, &usageError{errors.New("copy takes SOURCE and DEST, and neither --database nor --embedded")}
	}
	ends := []struct{ name, variable, value string }{
		{"SOURCE", "ENLIST_DATABASE_URL", ""}, {"DEST", "ENLIST_COPY_TO", ""},
	}
	for i := range ends {
		e := &ends[i]
		if i >= len(args) {
			if e.value = p.env(e.variable); e.value == "" {
				return "", config, &usageError{fmt.Errorf("%s is missing: name it, or set %s", e.name, e.variable)}
			}
			if !strings.HasPrefix(e.value, "sqlite:") && !isPostgres(e.value) {
				return "", config, fmt.Errorf("%s: want sqlite:PATH or postgres://USER:PASSWORD@HOST/DATABASE", e.variable)
			}
			continue
		}
		e.value = args[i]
		err := checkDatabase(e.value, fromFlag)
		switch {
		case errors.Is(err, errPassword):
			return "", config, &usageError{fmt.Errorf("%s holds a password, which every user of this machine could read in the list of processes: "+
				"give the URL in %s, or leave the password to PGPASSFILE or PGPASSWORD", e.name, e.variable)}
		case err != nil || e.value == "":
			return "", config, &usageError{fmt.Errorf("%s: want sqlite:PATH, or postgres://USER@HOST/DATABASE without a password", e.name)}
		}
	}
	config, err = p.databaseConfig("")
	config.Database = ends[1].value
	return ends[0].value, config, err
}

func (p *program) copyDatabase(cmd *cobra.Command, from string, config embeddedgateway.Config) (done store.Copied, err error) {
	place, err := config.Place()
	if err != nil {
		return done, err
	}
	if err := makeFolder(place.Path); err != nil {
		return done, err
	}
	waited := p.waits().wait("copying")
	defer waited()
	return embeddedgateway.Copy(cmd.Context(), config, from, nil)
}

func (p *program) sayCopied(from, to string, done store.Copied) error {
	s := p.screen()
	t := titled("TABLE", "ROWS", "CHECKSUM")
	for _, table := range done.Tables {
		t.row(table.Name, table.Rows, table.Checksum[:16])
	}
	if err := s.print(t); err != nil {
		return err
	}
	resumed := ""
	if done.Resumed {
		resumed = ", after it had been broken off"
	}
	_, err := fmt.Fprintf(p.stdout, "Copied %s to %s%s. Both were read and are the same.\n"+
		"Start the gateway on the copy, with the same server key, and not on the other any more.\n",
		shownDatabase(from), shownDatabase(to), resumed)
	return err
}
