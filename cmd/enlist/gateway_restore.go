package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/enlist-mcp/enlist/embeddedgateway"
	"github.com/enlist-mcp/enlist/embeddedgateway/store"
)

// restored is what a restore did, as the command prints it.
type restored struct {
	Database        string `json:"database"`
	Aside           string `json:"aside,omitempty"`
	Version         int64  `json:"version"`
	Agents          int    `json:"agents"`
	Credentials     int    `json:"credentials"`
	Compared        bool   `json:"compared"`
	AsItWas         bool   `json:"as_it_was"`
	KeysRevoked     int    `json:"keys_revoked_since"`
	AgentsSuspended int    `json:"agents_suspended_since"`
	TicketsUsed     int    `json:"tickets_used_since"`
	KeysLost        int    `json:"keys_lost"`
	KeysBack        int    `json:"keys_back"`
}

func (p *program) gatewayRestoreCommand(database *string) *cobra.Command {
	var asItWas, asJSON bool
	cmd := &cobra.Command{
		Use:   "restore FILE",
		Short: "Put a backup in the place of a gateway's SQLite database",
		Long: `Put a backup in the place of a gateway's SQLite database. The gateway must not be
running, the backup must be whole and of this version or an older one, and the
server key that of the backup. The database that was there is kept beside it, as
NAME.before-restore-TIME.

What was registered or issued after the backup is unknown afterwards. What was
ended after it (keys revoked, agents suspended, invites and codes used) stays
ended, as far as the database that is replaced can be read; --as-it-was brings
that back too. It says how much there is of each.`,
		Example: "  enlist gateway restore --database sqlite:gateway.db gateway-monday.db",
		Args:    cobra.ExactArgs(1),
		RunE: run(func(cmd *cobra.Command, args []string) error {
			path, config, err := p.sqlitePath(*database, func(url string) string {
				return "pg_restore --clean --if-exists --single-transaction --dbname=" + url + " " + args[0] + ", while no gateway runs"
			})
			if err != nil {
				return err
			}
			if err := makeFolder(path); err != nil {
				return err
			}
			waited := p.waits().wait("restoring")
			done, err := embeddedgateway.Restore(cmd.Context(), config, args[0], path, asItWas)
			waited()
			if errors.Is(err, store.ErrInUse) {
				return fmt.Errorf("%w. Nothing was changed", err)
			}
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(p.stdout, restored{
					path, done.Aside, done.Version, done.Agents, done.Credentials, done.Compared, asItWas,
					done.KeysRevoked, done.AgentsSuspended, done.TicketsUsed, done.KeysLost, done.KeysBack,
				})
			}
			return p.sayRestored(path, args[0], done, asItWas)
		}),
	}
	cmd.Flags().BoolVar(&asItWas, "as-it-was", false, "bring back what was ended after the backup, too")
	jsonFlag(cmd, &asJSON, `an object: database, aside (where the previous one is), version (of
the tables), agents, credentials, as_it_was, compared (whether the previous
database could be read, and is a later state of the backup; if not, the rest is 0
and unknown), keys_revoked_since, agents_suspended_since, tickets_used_since,
keys_lost (issued since), keys_back (that the previous database had no record of).`)
	return cmd
}

func (p *program) sayRestored(path, from string, done store.Restored, asItWas bool) error {
	fmt.Fprintf(p.stdout, "Restored %s from %s: %s, %s.\n", path, from,
		counted(done.Agents, "agent"), counted(done.Credentials, "credential"))
	if done.Aside != "" {
		fmt.Fprintf(p.stdout, "The database that was there is %s: delete it when you are sure.\n", done.Aside)
	}
	if !done.Compared {
		_, err := fmt.Fprintln(p.stdout, "Keys that were issued after the backup are unknown now, and those that were ended after it work again:\n"+
			"there is no database to tell which those are.")
		return err
	}
	fmt.Fprintf(p.stdout, "Issued after the backup, and unknown now: %s.\n", counted(done.KeysLost, "key"))
	then := "and stay so"
	if asItWas {
		then = "and work again"
	}
	fmt.Fprintf(p.stdout, "Ended after the backup, %s: %s revoked, %s suspended, %d invites and codes used.\n", then,
		counted(done.KeysRevoked, "key"), counted(done.AgentsSuspended, "agent"), done.TicketsUsed)
	if done.KeysBack == 0 {
		return nil
	}
	_, err := fmt.Fprintf(p.stdout, "Deleted after the backup, and back: %s.\n", counted(done.KeysBack, "key"))
	return err
}
