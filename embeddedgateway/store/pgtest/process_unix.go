//go:build unix

package pgtest

import (
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"syscall"
)

// serverUser is who the server runs as where the tests run as root, which it
// refuses to: the user that its package has made, or else nobody.
func serverUser() (uid, gid int) {
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, errUID := strconv.Atoi(u.Uid)
		gid, errGID := strconv.Atoi(u.Gid)
		if errUID == nil && errGID == nil {
			return uid, gid
		}
	}
	return 65534, 65534
}

// own gives files to the user of the server.
func own(paths ...string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	uid, gid := serverUser()
	for _, path := range paths {
		if err := os.Chown(path, uid, gid); err != nil {
			return err
		}
	}
	return nil
}

// demote makes a program run as the user of the server, and end with the test
// even if that is killed.
func demote(cmd *exec.Cmd) {
	cmd.SysProcAttr = attributes()
	if os.Geteuid() == 0 {
		uid, gid := serverUser()
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)} //nolint:gosec // they are no larger
	}
}

// crashSignal is what ends a server at once, with all its processes.
func crashSignal() os.Signal { return syscall.SIGQUIT }
