package run

import (
	"errors"
	"fmt"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// startPowerless starts a program from a thread that can never regain a
// capability. The thread ends with the goroutine.
func startPowerless(path string, argv []string, attr *syscall.ProcAttr) (pid int, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread is spoiled
		if err = dropBounds(); err != nil {
			return
		}
		if attr.Sys.Credential == nil { // becoming another user drops them as well
			if err = dropCapabilities(); err != nil {
				return
			}
		}
		forgetKeys()
		pid, err = syscall.ForkExec(path, argv, attr)
	}()
	<-done
	return pid, err
}

// dropBounds makes the thread, and what it starts, unable to gain anything by
// starting a program.
func dropBounds() error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("giving up new privileges: %w", err)
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("clearing the ambient set: %w", err)
	}
	for c := range uintptr(64) {
		set, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, c, 0, 0, 0)
		if errors.Is(err, unix.EINVAL) && c > unix.CAP_AUDIT_READ {
			break // past the last one of this kernel
		}
		if err == nil && set == 1 {
			err = unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0)
		}
		if err != nil {
			return fmt.Errorf("dropping capability %d: %w", c, err)
		}
	}
	return nil
}

func dropCapabilities() error {
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	if err := unix.Capset(&head, &none[0]); err != nil {
		return fmt.Errorf("dropping all capabilities: %w", err)
	}
	return nil
}

// dropEverywhere drops the capabilities of every thread of this process but the
// one to give up more, which the commands' threads use up. A program linked with
// C code cannot do that; there the commands' own threads drop theirs all the same.
func dropEverywhere() error {
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var left [2]unix.CapUserData
	left[0].Effective, left[0].Permitted = 1<<unix.CAP_SETPCAP, 1<<unix.CAP_SETPCAP
	_, _, errno := syscall.AllThreadsSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&head)), uintptr(unsafe.Pointer(&left[0])), 0)
	if errno != 0 && errno != unix.ENOTSUP {
		return fmt.Errorf("dropping all capabilities: %w", errno)
	}
	return nil
}

// restrict keeps every thread, and what it starts, from sockets that lead around
// the network namespace (AF_VSOCK is not part of it) and from io_uring, which
// opens sockets behind a filter's back.
func restrict() error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("giving up new privileges: %w", err)
	}
	program := callFilter()
	if program == nil {
		return nil
	}
	filter := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&filter)))
	runtime.KeepAlive(program)
	switch errno {
	case 0, unix.ENOSYS: // a kernel without filters: the namespaces are the wall
		return nil
	}
	return fmt.Errorf("filtering system calls: %w", errno)
}

// callFilter is the filter for this processor; nil where it is not known.
func callFilter() []unix.SockFilter {
	var arch, ring uint32
	switch runtime.GOARCH {
	case "amd64":
		arch, ring = unix.AUDIT_ARCH_X86_64, 425
	case "arm64":
		arch, ring = unix.AUDIT_ARCH_AARCH64, 425
	default:
		return nil
	}
	const (
		load   = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
		equal  = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		larger = unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K
		give   = unix.BPF_RET | unix.BPF_K

		number, architecture, firstArgument = 0, 4, 16 // offsets in seccomp_data, little-endian
		otherABI                            = 0x40000000
	)
	refuse := func(errno unix.Errno) uint32 { return unix.SECCOMP_RET_ERRNO | uint32(errno) }
	return []unix.SockFilter{
		{Code: load, K: architecture},
		{Code: equal, K: arch, Jt: 1},
		{Code: give, K: refuse(unix.ENOSYS)}, // another architecture numbers its calls otherwise
		{Code: load, K: number},
		{Code: larger, K: otherABI, Jt: 9}, // x32
		{Code: equal, K: ring, Jt: 8},
		{Code: equal, K: unix.SYS_SOCKET, Jt: 1},
		{Code: give, K: unix.SECCOMP_RET_ALLOW},
		{Code: load, K: firstArgument},
		{Code: equal, K: unix.AF_UNIX, Jt: 5},
		{Code: equal, K: unix.AF_INET, Jt: 4},
		{Code: equal, K: unix.AF_INET6, Jt: 3},
		{Code: equal, K: unix.AF_NETLINK, Jt: 2},
		{Code: give, K: refuse(unix.EAFNOSUPPORT)},
		{Code: give, K: refuse(unix.ENOSYS)},
		{Code: give, K: unix.SECCOMP_RET_ALLOW},
	}
}

// forgetKeys leaves the keyring of the session behind, in which programs of the
// user may keep secrets. Without keyrings in the kernel there is nothing to do.
func forgetKeys() {
	_, _, _ = unix.Syscall(unix.SYS_KEYCTL, unix.KEYCTL_JOIN_SESSION_KEYRING, 0, 0)
}
