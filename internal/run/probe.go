package run

import (
	"errors"
	"os"
	osexec "os/exec"
	"strings"

	"golang.org/x/sys/unix"

	"postern/internal/fail"
)

// Probe says whether sandboxes can be made here. The error names the command that
// would allow them.
func Probe() error {
	cmd := &osexec.Cmd{Path: "/proc/self/exe", Args: []string{stageName, probeWord}, Env: []string{}, Dir: "/", SysProcAttr: namespaces()}
	err := cmd.Run()
	if err == nil {
		return nil
	}
	return forbidden(err)
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
