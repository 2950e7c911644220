package main

import (
	"errors"
	"net/url"
	"strings"
)

var (
	// errWantDatabase does not say what there was: that may hold a password.
	errWantDatabase = errors.New("--database: want sqlite:PATH, or postgres://USER@HOST/DATABASE without a password")
	// errPassword is about what every process of the machine could read.
	errPassword = errors.New("--database holds a password, which every user of this machine could read in the list of processes: " +
		"give the URL in ENLIST_DATABASE_URL, or leave the password to PGPASSFILE or PGPASSWORD")
)

// checkDatabase finds what is wrong with a database that the command line names.
func checkDatabase(database string) error {
	if database == "" || strings.HasPrefix(database, "sqlite:") {
		return nil
	}
	if !isPostgres(database) {
		return errWantDatabase
	}
	u, err := url.Parse(database)
	if err != nil {
		return errWantDatabase
	}
	_, inUser := u.User.Password()
	if query := u.Query(); inUser || query.Has("password") || query.Has("sslpassword") {
		return errPassword
	}
	return nil
}

func isPostgres(database string) bool {
	return strings.HasPrefix(database, "postgres://") || strings.HasPrefix(database, "postgresql://")
}

// shownDatabase is a database as people may see it: of a URL nothing but the
// server and the name.
func shownDatabase(database string) string {
	if !isPostgres(database) {
		return database
	}
	u, err := url.Parse(database)
	if err != nil {
		return "postgres://…"
	}
	return "postgres://" + u.Host + u.EscapedPath()
}
