package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/enlist-mcp/enlist/gateway"
	"github.com/enlist-mcp/enlist/gateway/eip191"
)

func (p *program) walletCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "wallet",
		Short: "Import, list and delete the wallets that sign for the agent",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(p.walletDeleteCommand(), p.walletImportCommand(), p.walletListCommand())
	return cmd
}

// walletFields are the fields of gateway.Wallet, for the help.
const walletFields = "name, origin, address."

func (p *program) walletImportCommand() *cobra.Command {
	var shared, asJSON bool
	var passphraseFile string
	cmd := &cobra.Command{
		Use:   "import NAME FILE",
		Short: "Store a wallet that you have already",
		Long: `Store a wallet that you have already, for the Lumina that LUMINA_API_URL says.

FILE holds a private key in hex, or is an Ethereum keystore (version 3), whose
passphrase is asked for on the terminal. With - as FILE the private key itself
is asked for there. Neither is ever shown again, and no tool takes one.

What a wallet signs names no service, so a wallet is used at one of them only;
--shared allows this one at another.`,
		Example: "  enlist wallet import trading ./UTC--2026-02-06--f39fd6e5.json",
		Args:    cobra.ExactArgs(2),
		RunE: run(func(cmd *cobra.Command, args []string) error {
			in := gateway.WalletImport{Name: args[0], Shared: shared}
			var err error
			if in.File, err = p.walletFile(args[1]); err != nil {
				return err
			}
			if eip191.IsKeystore(in.File) {
				if in.Passphrase, err = p.walletPassphrase(passphraseFile); err != nil {
					return err
				}
			}
			return p.withClient(cmd, func(ctx context.Context, c *client) error {
				waited := p.waits().wait("opening the wallet")
				w, err := c.Lumina.ImportWallet(ctx, in)
				waited()
				if err != nil {
					return err
				}
				if asJSON {
					return printJSON(p.stdout, w)
				}
				fmt.Fprintf(p.stdout, "Stored the wallet %s (%s) for %s.\n", w.Name, w.Address, w.Origin)
				return nil
			})
		}),
	}
	jsonFlag(cmd, &asJSON, "the wallet, an object: "+walletFields)
	cmd.Flags().BoolVar(&shared, "shared", false, "the wallet may be used at another service already")
	cmd.Flags().StringVar(&passphraseFile, "passphrase-file", "", "read the keystore's passphrase from the first line of `FILE`")
	return cmd
}

func (p *program) walletDeleteCommand() *cobra.Command {
	var force, asJSON bool
	cmd := &cobra.Command{
		Use:   "delete NAME",
		Short: "Delete a wallet from this machine for good",
		Long: `Delete a wallet, of the Lumina that LUMINA_API_URL says, from this machine. Its
private key is gone then, unless you have it elsewhere. This asks on the terminal
first, and refuses while credentials hang on the wallet.`,
		Args: cobra.ExactArgs(1),
		RunE: run(func(cmd *cobra.Command, args []string) error {
			return p.withClient(cmd, func(ctx context.Context, c *client) error {
				w, err := c.Lumina.Wallet(ctx, args[0])
				if err != nil {
					return err
				}
				if !force {
					prompt := fmt.Sprintf("The private key of %s (%s) will be gone. Type the wallet's name to delete it: ", w.Name, w.Address)
					if err := p.confirm(prompt, w.Name); err != nil {
						return err
					}
				}
				if w, err = c.Lumina.DeleteWallet(ctx, args[0], force); err != nil {
					return err
				}
				if asJSON {
					return printJSON(p.stdout, w)
				}
				fmt.Fprintf(p.stdout, "Deleted the wallet %s (%s) for %s.\n", w.Name, w.Address, w.Origin)
				return nil
			})
		}),
	}
	jsonFlag(cmd, &asJSON, "the wallet that is gone, an object: "+walletFields)
	cmd.Flags().BoolVar(&force, "force", false, "do not ask, and delete it even if credentials hang on it")
	return cmd
}

// confirm asks on the terminal for a word, and fails unless it is given.
func (p *program) confirm(prompt, word string) error {
	f, ok := p.stdin.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return errors.New("this is asked about on a terminal, and standard input is none: --force does not ask")
	}
	fmt.Fprint(p.stderr, prompt)
	line, err := bufio.NewReader(f).ReadString('\n')
	if err != nil {
		return fmt.Errorf("read from the terminal: %w", err)
	}
	if strings.TrimSpace(line) != word {
		return errors.New("nothing was deleted: another word was typed")
	}
	return nil
}

func (p *program) walletListCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the stored wallets, never their keys",
		Args:  cobra.NoArgs,
		RunE: run(func(cmd *cobra.Command, _ []string) error {
			return p.withClient(cmd, func(ctx context.Context, c *client) error {
				all, err := c.Lumina.Wallets(ctx)
				if err != nil {
					return err
				}
				if asJSON {
					return printJSON(p.stdout, append([]gateway.Wallet{}, all...))
				}
				if len(all) == 0 {
					p.screen().say("No wallets yet. Registering at Lumina makes one.")
					return nil
				}
				t := titled("WALLET", "ADDRESS", "FOR")
				for _, one := range all {
					t.row(one.Name, one.Address, one.Origin)
				}
				return p.screen().print(t)
			})
		}),
	}
	jsonFlag(cmd, &asJSON, "an array of objects, one a wallet: "+walletFields)
	return cmd
}

// walletFile reads the file of a wallet, or a private key from the terminal.
func (p *program) walletFile(path string) ([]byte, error) {
	if path == "-" {
		key, err := p.askSecret("Private key (64 hex digits): ")
		return []byte(key), err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read the wallet: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, eip191.MaxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read the wallet: %w", err)
	}
	return text, nil
}

// walletPassphrase reads a passphrase from a file or, without one, from the
// terminal.
func (p *program) walletPassphrase(path string) (string, error) {
	if path == "" {
		return p.askSecret("Passphrase of the keystore: ")
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read the passphrase: %w", err)
	}
	line, _, _ := strings.Cut(string(text), "\n")
	return strings.TrimSuffix(line, "\r"), nil
}

// askSecret asks for a secret on the terminal, which does not show it.
func (p *program) askSecret(prompt string) (string, error) {
	f, ok := p.stdin.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return "", errors.New("a secret is asked for on a terminal, and standard input is none: give it in a file instead (--help says how)")
	}
	fmt.Fprint(p.stderr, prompt)
	text, err := term.ReadPassword(int(f.Fd()))
	fmt.Fprintln(p.stderr)
	if err != nil {
		return "", fmt.Errorf("read from the terminal: %w", err)
	}
	return string(text), nil
}
