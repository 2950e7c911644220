//go:build unix

package pgtest

import (
	"io"
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

// reap has a server ended and its folder removed when this process has ended,
// however it did: a shell waits for the end of a pipe that nobody else holds.
func reap(pid int, dir string) (alive io.Closer, err error) {
	cmd := exec.Command("/bin/sh", "-c", //nolint:gosec,noctx // a number and a folder of ours; it outlives us
		`cat; kill -INT "$0"; for i in $(seq 100); do kill -0 "$0" || break; sleep 0.1; done; rm -rf "$1"`,
		strconv.Itoa(pid), dir)
	alive, err = cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	return alive, cmd.Start()
}
