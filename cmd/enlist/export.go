package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/enlist-mcp/enlist/credstore"
)

const (
	// archivePassphraseVariable names a file, never the passphrase itself.
	archivePassphraseVariable = "ENLIST_EXPORT_PASSPHRASE_FILE" //nolint:gosec // the name of a variable
	// minPassphrase is the least number of characters of what protects every
	// credential in a file that travels.
	minPassphrase = 12
)

func (p *program) exportCommand() *cobra.Command {
	var passphraseFile string
	var force, asJSON bool
	cmd := &cobra.Command{
		Use:   "export FILE [CREDENTIAL...]",
		Short: "Write the credentials into one encrypted file, to take them to another machine",
		Long: `Write the credentials into one file that only you can read and a passphrase
encrypts, to take them to another machine: enlist import reads it there, and age
(age-encryption.org) opens it, too. Without CREDENTIAL that is everything: what
stands behind a credential, such as a recovery key, and wallets, too. A CREDENTIAL
goes with what stands behind it, and without wallets.

The passphrase is asked for twice on the terminal. Otherwise it is the first line of
the file that --passphrase-file or ENLIST_EXPORT_PASSPHRASE_FILE names.

Both machines then have the same keys: one that is rotated or revoked on either is
dead on both.`,
		Example: "  enlist export credentials.age\n  enlist export lona.age lona/my-agent",
		Args:    cobra.MinimumNArgs(1),
		RunE: run(func(cmd *cobra.Command, args []string) error {
			if err := unused(args[0], force); err != nil {
				return err
			}
			return p.withClient(cmd, func(ctx context.Context, c *client) error {
				keys, err := exported(ctx, c, args[1:])
				if err != nil {
					return err
				}
				passphrase, err := p.archivePassphrase(passphraseFile, true)
				if err != nil {
					return err
				}
				n := 0
				waited := p.waits().wait("encrypting")
				err = writeWhole(args[0], force, func(f *os.File) error {
					n, err = c.Lifecycle.Export(ctx, f, passphrase, keys...)
					return err
				})
				waited()
				if err != nil {
					return err
				}
				if asJSON {
					return printJSON(p.stdout, map[string]any{"file": args[0], "secrets": n})
				}
				p.screen().say(fmt.Sprintf("Wrote %s into %s. With the passphrase, enlist import reads it on another machine.", counted(n, "secret"), plain(args[0])))
				return nil
			})
		}),
	}
	jsonFlag(cmd, &asJSON, "an object: file, secrets (how many).")
	cmd.Flags().StringVar(&passphraseFile, "passphrase-file", "", "read the passphrase from the first line of `FILE` ("+archivePassphraseVariable+")")
	cmd.Flags().BoolVar(&force, "force", false, "replace FILE if there is one")
	return cmd
}

func (p *program) importCommand() *cobra.Command {
	var passphraseFile string
	var replace, asJSON bool
	cmd := &cobra.Command{
		Use:   "import FILE",
		Short: "Take the credentials of an exported file into the store",
		Long: `Take the credentials of a file that enlist export wrote into the store of this
machine. One that is stored already and differs stays as it is; with --replace the
file's takes its place. Importing a file again does no harm.

The passphrase is asked for on the terminal. Otherwise it is the first line of the
file that --passphrase-file or ENLIST_EXPORT_PASSPHRASE_FILE names.`,
		Example: "  enlist import credentials.age",
		Args:    cobra.ExactArgs(1),
		RunE: run(func(cmd *cobra.Command, args []string) error {
			f, err := os.Open(args[0])
			if err != nil {
				return err
			}
			defer f.Close()
			return p.withClient(cmd, func(ctx context.Context, c *client) error {
				passphrase, err := p.archivePassphrase(passphraseFile, false)
				if err != nil {
					return err
				}
				waited := p.waits().wait("decrypting")
				done, err := c.Lifecycle.Import(ctx, f, passphrase, replace)
				waited()
				return p.printImported(c, done, asJSON, err)
			})
		}),
	}
	cmd.Flags().StringVar(&passphraseFile, "passphrase-file", "", "read the passphrase from the first line of `FILE` ("+archivePassphraseVariable+")")
	cmd.Flags().BoolVar(&replace, "replace", false, "replace what is stored and differs")
	jsonFlag(cmd, &asJSON, `an array of objects, one a secret: credential (its handle), kind,
outcome (added, replaced, same or kept). If it fails in the middle: an object with
error, and with that array as imported.`)
	return cmd
}

// counted returns a number of things in words.
func counted(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

// exported returns the keys of credentials with what stands behind each; none:
// all that is stored.
func exported(ctx context.Context, c *client, handles []string) ([]credstore.Key, error) {
	var keys []credstore.Key
	for _, handle := range handles {
		info, err := named(ctx, c, handle)
		if err != nil {
			return nil, err
		}
		stored, err := c.Lifecycle.Behind(ctx, info.Key)
		if err != nil {
			return nil, err
		}
		if len(stored) == 0 {
			return nil, fmt.Errorf("%s has no secret any more: forget it, or register again", handle)
		}
		for _, i := range stored {
			keys = append(keys, i.Key)
		}
	}
	return keys, nil
}

// archivePassphrase reads a passphrase from a file or from the terminal. A new
// one is asked for twice, and must not be short.
func (p *program) archivePassphrase(file string, fresh bool) (credstore.Secret, error) {
	none := credstore.Secret{}
	variable := archivePassphraseVariable
	if file != "" {
		variable = "--passphrase-file"
	}
	var phrase string
	var err error
	if file = cmp.Or(file, p.env(archivePassphraseVariable)); file != "" {
		phrase, err = firstLine(variable, file)
	} else {
		phrase, err = p.askSecret("Passphrase of the file: ")
	}
	switch {
	case err != nil:
		return none, err
	case phrase == "":
		return none, errors.New("nothing was done: the passphrase is empty")
	case fresh && utf8.RuneCountInString(phrase) < minPassphrase:
		return none, fmt.Errorf("nothing was written: the passphrase has fewer than %d characters, and whoever guesses it has every key; a few words do", minPassphrase)
	}
	if fresh && file == "" {
		again, err := p.askSecret("The same again: ")
		if err != nil {
			return none, err
		}
		if again != phrase {
			return none, errors.New("nothing was written: the two are not the same")
		}
	}
	return credstore.NewSecret(phrase), nil
}

// unused returns an error if there is a file where one is to be written.
func unused(path string, force bool) error {
	_, err := os.Lstat(path)
	switch {
	case err == nil && !force:
		return fmt.Errorf("%s is there already: choose another name, or replace it with --force", path)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	}
	return nil
}

// writeWhole writes a file that only the user can read: all of it, or none.
func writeWhole(path string, force bool, write func(*os.File) error) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*") // 0600
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }() // the link stays
	err = write(f)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if force {
		return os.Rename(f.Name(), path)
	}
	// A link, unlike a rename, does not replace what came there meanwhile.
	err = os.Link(f.Name(), path)
	if err != nil && !errors.Is(err, fs.ErrExist) { // a file system without links
		if err = unused(path, false); err == nil {
			err = os.Rename(f.Name(), path)
		}
	}
	return err
}

// imported is what came of one secret of a file.
type imported struct {
	Credential string            `json:"credential"`
	Kind       credstore.Kind    `json:"kind"`
	Outcome    credstore.Outcome `json:"outcome"`
}

// printImported says what came of each credential, and what ended the import
// before its end, if that is so.
func (p *program) printImported(c *client, done []credstore.Imported, asJSON bool, why error) error {
	lines, count := []imported{}, map[credstore.Outcome]int{}
	for _, i := range done {
		lines = append(lines, imported{c.Lifecycle.Handle(i.Key), i.Key.Kind, i.Outcome})
		count[i.Outcome]++
	}
	switch {
	case asJSON && why != nil && len(lines) > 0:
		err := printJSON(p.stdout, map[string]any{"error": failed(why), "imported": lines})
		return errors.Join(&runError{err: why, reported: true}, err)
	case asJSON && why == nil:
		return printJSON(p.stdout, lines)
	case asJSON || len(lines) == 0:
		return why
	}
	s := p.screen()
	t := titled("CREDENTIAL", "SECRET", "OUTCOME")
	for _, l := range lines {
		t.row(l.Credential, l.Kind, field{string(l.Outcome), importedLook(l.Outcome)})
	}
	if err := s.print(t); err != nil {
		return errors.Join(why, err)
	}
	s.say(fmt.Sprintf("\n%d added, %d replaced, %d the same already.",
		count[credstore.OutcomeAdded], count[credstore.OutcomeReplaced], count[credstore.OutcomeSame]))
	if n := count[credstore.OutcomeKept]; n > 0 {
		s.say(fmt.Sprintf("%d differ from what is stored here, which was kept: --replace takes the file's instead.", n))
	}
	return why
}

func importedLook(o credstore.Outcome) style {
	switch o {
	case credstore.OutcomeAdded, credstore.OutcomeReplaced:
		return styleGood
	case credstore.OutcomeKept:
		return styleWarning
	}
	return styleQuiet
}
