package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/enlist-mcp/enlist/embeddedgateway"
	"github.com/enlist-mcp/enlist/embeddedgateway/store"
)

func (p *program) gatewayBackupCommand(database *string) *cobra.Command {
	var force, asJSON bool
	cmd := &cobra.Command{
		Use:   "backup FILE",
		Short: "Write a gateway's SQLite database into a file, while it serves",
		Long: `Write a gateway's SQLite database into one file, as it is at one moment, while it
serves. The file is readable by you only, checked, and there whole or not at all.

The server key is not in it: keep that, but not in the same place. Without it
the backup does not open; with it, whoever has both reads the mail that waits
and signs tokens. For a database in PostgreSQL there is pg_dump.`,
		Example: "  enlist gateway backup --database sqlite:gateway.db gateway-monday.db",
		Args:    cobra.ExactArgs(1),
		RunE: run(func(cmd *cobra.Command, args []string) error {
			path, _, err := p.sqlitePath(*database, func(url string) string {
				return "pg_dump --format=custom --file=" + args[0] + " --dbname=" + url
			})
			if err != nil {
				return err
			}
			if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("there is no database %s: name the gateway's with --database, "+
					"or that of the gateway inside Enlist with --embedded", path)
			}
			waited := p.waits().wait("backing up")
			has, err := store.Backup(cmd.Context(), path, args[0], force)
			waited()
			if errors.Is(err, fs.ErrExist) {
				return fmt.Errorf("%s is there already: choose another name, or replace it with --force", args[0])
			}
			if err != nil {
				return err
			}
			info, err := os.Stat(args[0])
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(p.stdout, map[string]any{
					"file": args[0], "bytes": info.Size(), "version": has.Version,
					"agents": has.Agents, "credentials": has.Credentials,
				})
			}
			fmt.Fprintf(p.stdout, "Wrote %s: %s, %s, %s.\n", args[0], counted(has.Agents, "agent"),
				counted(has.Credentials, "credential"), humanize.Bytes(uint64(max(info.Size(), 0))))
			if _, err := os.Stat(path + ".key"); err == nil {
				fmt.Fprintf(p.stdout, "It is worth nothing without the server key: keep %s.key too, in another place.\n", path)
			}
			return nil
		}),
	}
	cmd.Flags().BoolVar(&force, "force", false, "replace FILE if it is there")
	jsonFlag(cmd, &asJSON, "an object: file, bytes, version (of the tables), agents, credentials.")
	return cmd
}

// sqlitePath is the path of the SQLite database that a command is about. For
// PostgreSQL it says which program of that does the same.
func (p *program) sqlitePath(database string, instead func(url string) string) (path string, config embeddedgateway.Config, err error) {
	config, err = p.operatedConfig(database)
	if err != nil {
		return "", config, err
	}
	place, err := config.Place()
	if err == nil && place.URL != "" {
		err = fmt.Errorf("this database is in PostgreSQL, whose own program does that: %s "+
			"(it takes the password from PGPASSFILE or PGPASSWORD)", instead("'"+withoutPassword(place.URL)+"'"))
	}
	return place.Path, config, err
}

// withoutPassword is the URL of a database as it may stand on a command line.
func withoutPassword(database string) string {
	u, err := url.Parse(database)
	if err != nil {
		return "postgres://USER@HOST/DATABASE"
	}
	if u.User != nil {
		u.User = url.User(u.User.Username())
	}
	q := u.Query()
	for _, name := range []string{"password", "sslpassword", "pool_max_conns"} { // pg_dump does not know the last
		q.Del(name)
	}
	u.RawQuery = q.Encode()
	return u.String()
}
