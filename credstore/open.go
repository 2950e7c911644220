package credstore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"
)

// The modes of [Options]; all but ModeAuto are also what Backend returns.
const (
	ModeAuto    = "auto"    // what was chosen before, or else the keyring if it works, or else the file
	ModeKeyring = "keyring" // the OS keyring, one item a secret
	ModeFile    = "file"    // an encrypted file in the home
	ModeMemory  = "memory"  // nothing outlives the process
)

// Options say where credentials are kept.
type Options struct {
	// Mode is one of the modes above; "" is auto.
	Mode string
	// Home is the folder of the index, the locks and the encrypted file. It
	// is made at the first write, for the user alone. Two homes share nothing,
	// in the one keyring of the user neither: a home that chooses the keyring
	// names its items apart from all others and records the name.
	Home string
	// ConfigDir is the folder of the encrypted file's key file, apart from
	// Home, so that who copies the one does not have the other. "": there is
	// none, and without a Passphrase the file is refused.
	ConfigDir string
	// Passphrase returns what unlocks the encrypted file. It is called when
	// the file is first read or written. nil: the key file unlocks it.
	Passphrase func() (Secret, error)
	// Now is the clock.
	Now func() time.Time
	// Logger may be nil.
	Logger *slog.Logger
}

// system is what a store stands on. Tests replace parts of it by faulty ones.
type system struct {
	files      files
	ring       ring
	argon      derivation    // the cost of a passphrase
	answer     time.Duration // how long the keyring may take
	first      time.Duration // how long it may take when auto asks for the first time
	writeWait  time.Duration
	repairWait time.Duration
	pragmas    string                      // for the index
	pause      func(context.Context) error // of the index
}

func realSystem() system {
	return system{
		files: osFiles{},
		ring:  osRing{},
		// The second choice of RFC 9106, for machines without 2 GiB to spare.
		argon:      derivation{Time: 3, Memory: 64 << 10, Threads: 4},
		answer:     10 * time.Second,
		first:      3 * time.Second,
		writeWait:  10 * time.Second,
		repairWait: 3 * time.Second,
		pause:      pause,
	}
}

// Open returns the store of a home. It is cheap: nothing is read before the
// first use, so that a home that cannot be used is the error of a call, which
// can say so, and not of the program's start. The Store also implements
// [io.Closer].
//
// A mode other than the recorded choice is refused at every use while there are
// credentials: they would seem to be gone, and later be in two places. Memory
// (ENLIST_STORE=memory) is exempt: it is asked for to leave the home alone, so
// it neither reads nor writes anything there and is never refused.
func Open(o Options) (Store, error) {
	return open(o, realSystem())
}

func open(o Options, on system) (Store, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Mode == "" {
		o.Mode = ModeAuto
	}
	if o.Now == nil {
		return nil, errors.New("credstore: Options.Now is missing")
	}
	switch o.Mode {
	case ModeMemory:
		return newMemory(o.Now, o.Logger), nil
	case ModeAuto, ModeKeyring, ModeFile:
	default:
		return nil, &Error{
			Op: "open", Place: "credential store", Cause: fmt.Errorf("there is no store %q", o.Mode),
			Remedy: "set ENLIST_STORE to auto, keyring, file or memory",
		}
	}
	home, err := filepath.Abs(o.Home)
	if o.Home == "" || err != nil {
		return nil, &Error{
			Op: "open", Place: "credential store", Cause: errors.New("there is no folder for it"),
			Remedy: "set ENLIST_HOME",
		}
	}
	return newDurable(o, home, on), nil
}

func newDurable(o Options, home string, on system) *durable {
	return &durable{
		mode: o.Mode, home: home, on: on.files, now: o.Now, logger: o.Logger,
		locks:   newLocks(on.files, filepath.Join(home, "locks")),
		index:   &index{on: on.files, path: filepath.Join(home, "index.db"), pragmas: on.pragmas, pause: on.pause},
		keyring: newKeyringVault(on.ring, "", on.answer),
		file: &fileVault{
			on: on.files, path: filepath.Join(home, credentialsFile),
			configDir: o.ConfigDir, passphrase: o.Passphrase, cost: on.argon,
		},
		probe:     newKeyringVault(on.ring, "", on.first).probe,
		writeWait: on.writeWait, repairWait: on.repairWait,
	}
}
