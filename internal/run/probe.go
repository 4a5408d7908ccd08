package run

import (
	"context"
	"errors"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"postern/internal/fail"
)

// Probe says whether sandboxes can be made here, by making an empty one. The
// error names the command that would allow them, where one is known.
func Probe() error {
	_, err := Way()
	return err
}

// Way says how the connections of a sandbox would be led to the broker here.
func Way() (string, error) {
	p, err := open(context.Background(), Spec{Dir: "/"})
	if err != nil {
		return "", err
	}
	defer p.listener.Close()
	defer p.abandon()
	return p.Way(), nil
}

// forbidden says why the system refuses namespaces.
func forbidden(err error) error {
	e := fail.New(fail.Unavailable, "P-E120", "the system does not allow namespaces to this user").Wrap(err)
	switch {
	case setting("/proc/sys/kernel/unprivileged_userns_clone") == "0":
		return e.Because("kernel.unprivileged_userns_clone is 0").Hint("sudo sysctl -w kernel.unprivileged_userns_clone=1")
	case setting("/proc/sys/user/max_user_namespaces") == "0":
		return e.Because("user.max_user_namespaces is 0").Hint("sudo sysctl -w user.max_user_namespaces=15000")
	case setting("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1":
		return e.Because("AppArmor keeps unprivileged users from namespaces").Hint("sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0")
	case errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES):
		return e.Because("it was refused: a container without its own namespaces, or a security module")
	}
	return e
}

func setting(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}
