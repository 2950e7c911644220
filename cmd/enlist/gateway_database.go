package main

import (
	"errors"
	"net/url"
	"strings"
)

var (
	// errWantDatabase does not say what there was: that may hold a password.
	errWantDatabase = errors.New("want sqlite:PATH, or postgres://USER@HOST/DATABASE without a password")
	// errPassword is about what every process of the machine could read.
	errPassword = errors.New("it holds a password, which every user of this machine could read in the list of processes: " +
		"give the URL in ENLIST_DATABASE_URL or in a file (database_url_file), or leave the password to PGPASSFILE or PGPASSWORD")
	errPasswordInFile = errors.New("a secret is not put into this file: give the URL in a file of its own (database_url_file) " +
		"or in ENLIST_DATABASE_URL, or leave the password to PGPASSFILE or PGPASSWORD")
)

// checkDatabase finds what is wrong with a database. Only where nobody else can
// read it may it hold a password.
func checkDatabase(database string, at originKind) error {
	if path, ok := strings.CutPrefix(database, "sqlite:"); ok && path != "" {
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
	query := u.Query()
	switch secret := inUser || query.Has("password") || query.Has("sslpassword"); {
	case secret && at == fromFlag:
		return errPassword
	case secret && at == fromFile:
		return errPasswordInFile
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
