package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/enlist-mcp/enlist/credstore"
)

// globalFlags are the flags that every command takes. A flag goes before the
// environment, the environment before the default. No secret has a flag: a
// command line can be read by every process of the machine.
type globalFlags struct {
	home     string
	store    string
	embedded bool
	verbose  bool
	colour   colourFlag
}

func (f *globalFlags) register(set *pflag.FlagSet) {
	set.StringVar(&f.home, "home", "", "data `folder` (ENLIST_HOME; default: the platform's folder for user data)")
	set.StringVar(&f.store, "store", "", "where secrets are kept: auto, keyring, file or memory (ENLIST_STORE; default: auto)")
	set.BoolVar(&f.embedded, "embedded", false, "talk to a gateway inside this process, and to nothing else")
	set.Var(&f.colour, "color", "colours: auto, always or never (NO_COLOR, CLICOLOR, CLICOLOR_FORCE)")
	set.BoolVarP(&f.verbose, "verbose", "v", false, "log more, to standard error")
}

// refuseClient returns an error when a flag of the client half is set, for a
// command that has none.
func (f *globalFlags) refuseClient() error {
	if f.store != "" || f.embedded {
		return errors.New("--store and --embedded are for the commands that use credentials")
	}
	return nil
}

// takeEnvironment returns the environment: by name, and all of it for the
// program that exec runs. The secrets in it are taken out of the process's own,
// so that no other program that it starts inherits them, such as the one that
// the system's libraries start to find the keyring's bus.
func takeEnvironment() (env func(string) string, environ func() []string) {
	all := os.Environ()
	taken := map[string]string{}
	for _, name := range []string{
		"ENLIST_SERVER_KEY", "ENLIST_SMTP_URL", "ENLIST_DATABASE_URL", "ENLIST_ADMIN_TOKEN", "ENLIST_PASSPHRASE", "ENLIST_COPY_TO",
		"AGENT_REGISTRATION_SECRET", "LONA_AGENT_REGISTRATION_SECRET", "LONA_API_KEY",
	} {
		taken[name] = os.Getenv(name)
		_ = os.Unsetenv(name)
	}
	env = func(name string) string {
		if value, ok := taken[name]; ok {
			return value
		}
		return os.Getenv(name)
	}
	return env, func() []string { return slices.Clone(all) }
}

// home returns the data folder.
func (p *program) home() (string, error) {
	if dir := first(p.flags.home, p.env("ENLIST_HOME")); dir != "" {
		return filepath.Abs(dir)
	}
	var base string
	switch runtime.GOOS {
	case "windows":
		base = p.env("LocalAppData")
	case "darwin":
		base = under(p.env("HOME"), "Library", "Application Support")
	default:
		base = first(p.env("XDG_DATA_HOME"), under(p.env("HOME"), ".local", "share"))
	}
	if base == "" {
		return "", errors.New("there is no home folder to keep data in: set ENLIST_HOME to a folder")
	}
	return filepath.Join(base, "enlist"), nil
}

// configDir returns the folder of the key file of the encrypted store, which
// is apart from the data so that a copy of one does not open the other.
func (p *program) configDir() string {
	base := first(p.env("XDG_CONFIG_HOME"), under(p.env("HOME"), ".config"))
	if runtime.GOOS == "windows" {
		base = p.env("AppData")
	}
	return under(base, "enlist")
}

// storeOptions says which credential store flags and environment name.
func (p *program) storeOptions() (credstore.Options, error) {
	home, err := p.home()
	if err != nil {
		return credstore.Options{}, err
	}
	o := credstore.Options{
		Mode:      first(p.flags.store, p.env("ENLIST_STORE"), "auto"),
		Home:      home,
		ConfigDir: p.configDir(),
		Now:       p.now,
		Logger:    p.logger(),
	}
	phrase, file := p.env("ENLIST_PASSPHRASE"), p.env("ENLIST_PASSPHRASE_FILE")
	switch {
	case phrase != "" && file != "":
		return o, errors.New("both ENLIST_PASSPHRASE and ENLIST_PASSPHRASE_FILE are set: unset one")
	case phrase != "":
		o.Passphrase = func() (credstore.Secret, error) { return credstore.NewSecret(phrase), nil }
	case file != "":
		o.Passphrase = func() (credstore.Secret, error) { return readPassphrase(file) }
	}
	return o, nil
}

// readPassphrase reads the passphrase of the encrypted file.
func readPassphrase(path string) (credstore.Secret, error) {
	line, err := firstLine("ENLIST_PASSPHRASE_FILE", path)
	if err != nil {
		return credstore.Secret{}, err
	}
	return credstore.NewSecret(line), nil
}

// firstLine reads the first line of a file that a variable names.
func firstLine(variable, path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("read %s: %w", variable, err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, 64<<10))
	if err != nil {
		return "", fmt.Errorf("read %s: %w", variable, err)
	}
	line, _, _ := strings.Cut(string(text), "\n")
	line = strings.TrimSuffix(line, "\r")
	if line == "" {
		return "", fmt.Errorf("%s: the first line of %s is empty", variable, path)
	}
	return line, nil
}

// logger logs to standard error: standard output belongs to the answer, and
// under stdio to the protocol. A command that serves tells what it does; one
// that a person waits for tells what is wrong.
func (p *program) logger() *slog.Logger {
	level := slog.LevelWarn
	if p.serves {
		level = slog.LevelInfo
	}
	if p.flags.verbose {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(p.waits().above(p.stderr), &slog.HandlerOptions{Level: level}))
}

func first(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}

// under joins names to a base, or returns "" if there is no base.
func under(base string, names ...string) string {
	if base == "" {
		return ""
	}
	return filepath.Join(append([]string{base}, names...)...)
}
