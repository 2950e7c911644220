package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/enlist-mcp/enlist/embeddedgateway/store"
)

// migration is a migration as the command prints it.
type migration struct {
	Version int64  `json:"version"`
	Name    string `json:"name"`
	State   string `json:"state"`
}

func (p *program) gatewayMigrateCommand(database *string) *cobra.Command {
	var status, asJSON bool
	cmd := &cobra.Command{
		Use:   "migrate",
		Short: "Bring the tables of a gateway's database up to date, without serving",
		Long: `Bring the tables of a gateway's database up to date, without serving, and make
it if it is not there. A gateway does the same when it starts: this is for those
who want it done before, by another user of the database, or want to see it.
Gateways that have the database open, of this version and of the one before,
serve on meanwhile. Make a backup first: there is no way back but that.

With --status nothing is changed.`,
		Example: "  enlist gateway migrate --status\n  enlist gateway migrate --database sqlite:gateway.db",
		Args:    cobra.NoArgs,
		RunE: run(func(cmd *cobra.Command, _ []string) error {
			list, err := p.migrate(cmd, *database, status)
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(p.stdout, list)
			}
			if len(list) == 0 {
				fmt.Fprintln(p.stdout, "Nothing to do: the tables are up to date.")
				return nil
			}
			s := p.screen()
			t := titled("VERSION", "NAME", "STATE")
			for _, m := range list {
				t.row(fmt.Sprintf("%04d", m.Version), m.Name, m.State)
			}
			return s.print(t)
		}),
	}
	cmd.Flags().BoolVar(&status, "status", false, "list the migrations and whether they are applied; change nothing")
	jsonFlag(cmd, &asJSON, "an array of objects, one a migration that was applied, or with\n--status one each: version, name, state (\"applied\" or \"pending\").")
	return cmd
}

// migrate applies what is pending and returns that, or only returns the state
// of all.
func (p *program) migrate(cmd *cobra.Command, database string, status bool) ([]migration, error) {
	config, err := p.operatedConfig(database)
	if err != nil {
		return nil, err
	}
	options, err := config.Place()
	if err != nil {
		return nil, err
	}
	do := store.Migrate
	if status {
		do = store.Migrations
	} else if err := makeFolder(options.Path); err != nil {
		return nil, err
	}
	all, err := do(cmd.Context(), options)
	if err != nil {
		return nil, err
	}
	list := make([]migration, 0, len(all))
	for _, m := range all {
		state := "pending"
		if m.Applied {
			state = "applied"
		}
		list = append(list, migration{m.Version, m.Name, state})
	}
	return list, nil
}

// makeFolder makes the folder of a SQLite database; of another, "", there is
// none.
func makeFolder(path string) error {
	if path == "" {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("the folder of the database: %w", err)
	}
	return nil
}
