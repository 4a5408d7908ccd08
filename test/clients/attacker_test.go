package clients

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// attackerName is the first argument that makes this test program the attacker,
// who runs under `postern run` as the agent would.
const attackerName = "attacker"

// target is what the attacker was told of the host. It knows every path.
type target struct {
	Home     string   `json:"home"`     // of the user
	Start    string   `json:"start"`    // where the user's start-up files are
	Postern  string   `json:"postern"`  // Postern's own directory
	Program  string   `json:"program"`  // Postern itself
	Dir      string   `json:"dir"`      // of the agent
	Token    string   `json:"token"`    // what the host's services say to who reaches them
	TCP      []string `json:"tcp"`      // addresses of a service of the host
	Port     string   `json:"port"`     // of the same service
	Abstract string   `json:"abstract"` // a socket without a path
	Sockets  []string `json:"sockets"`  // sockets with one
	Handle   []byte   `json:"handle"`   // of the root key, made outside
	HandleOf int32    `json:"handleOf"` // and its type
	Memory   int      `json:"memory"`   // key of a shared memory segment
	Key      string   `json:"key"`      // description of a key in the user's keyring
	Broker   int      `json:"broker"`   // process id of `postern run`, as the host counts
	Inode    uint64   `json:"inode"`    // of the root key
}

// attack is one attempt; what it gained, or why it gained nothing.
type attack struct {
	name string
	try  func(t target) (gain string, err error)
}

// attackerMain makes all attempts, or a single one that was begun by another, and
// prints a line of JSON for each.
func attackerMain(args []string) {
	if len(args) > 1 && args[1] == "raw" {
		sendRaw(args[0])
		return
	}
	var t target
	if err := json.Unmarshal([]byte(args[0]), &t); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	list := append(append(fileAttacks(), processAttacks()...), networkAttacks()...)
	switch {
	case len(args) > 1 && args[1] == "key":
		list = []attack{{"put a key into the user's keyring", putKey}}
	case len(args) > 1:
		list = nestedAttacks()
	}
	for _, a := range list {
		r := result{Name: a.name}
		gain, err := a.try(t)
		r.Gain = gain
		if err != nil {
			r.Why = err.Error()
		}
		line, err := json.Marshal(r)
		if err != nil {
			os.Exit(1)
		}
		fmt.Println(string(line))
	}
}

// result is what comes of one attempt.
type result struct {
	Name string `json:"name"`
	Gain string `json:"gain,omitempty"`
	Why  string `json:"why,omitempty"`
}

// results reads what the attacker printed.
func results(text string) (list []result) {
	lines := bufio.NewScanner(strings.NewReader(text))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var r result
		if json.Unmarshal(lines.Bytes(), &r) == nil && r.Name != "" {
			list = append(list, r)
		}
	}
	return list
}

// rootKey is the file that opens the safe.
func (t target) rootKey() string { return filepath.Join(t.Postern, "root.key") }

// read gains what a file holds.
func read(path string) (string, error) {
	data, err := os.ReadFile(path)
	if err == nil && len(data) == 0 {
		err = errors.New("it is empty")
	}
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s: %d bytes", path, len(data)), nil
}

// any gains the first of many.
func anyOf[T any](list []T, try func(T) (string, error)) (string, error) {
	err := errors.New("there is nothing to try")
	for _, one := range list {
		var gain string
		if gain, err = try(one); err == nil && gain != "" {
			return gain, nil
		}
	}
	return "", err
}

func fileAttacks() []attack {
	return []attack{
		{"read the root key", func(t target) (string, error) { return read(t.rootKey()) }},
		{"list Postern's directory", func(t target) (string, error) {
			entries, err := os.ReadDir(t.Postern)
			if len(entries) > 0 {
				return entries[0].Name(), nil
			}
			return "", err
		}},
		{"read it by a symbolic link", func(t target) (string, error) {
			link := filepath.Join(t.Dir, "link")
			defer os.Remove(link)
			if err := os.Symlink(t.Postern, link); err != nil {
				return "", err
			}
			return read(filepath.Join(link, "root.key"))
		}},
		{"read it by a hard link", func(t target) (string, error) {
			link := filepath.Join(t.Dir, "hard")
			defer os.Remove(link)
			if err := os.Link(t.rootKey(), link); err != nil {
				return "", err
			}
			return read(link)
		}},
		{"move Postern's directory away", func(t target) (string, error) {
			away := t.Postern + "-away"
			if err := os.Rename(t.Postern, away); err != nil {
				return "", err
			}
			return "moved", os.Rename(away, t.Postern)
		}},
		{"move the directory above it away", func(t target) (string, error) {
			if err := os.Rename(t.Home, t.Home+"-away"); err != nil {
				return "", err
			}
			return "moved", os.Rename(t.Home+"-away", t.Home)
		}},
		{"read it by other processes' roots", func(t target) (string, error) {
			found, err := filepath.Glob("/proc/[0-9]*/root")
			if err != nil {
				return "", err
			}
			return anyOf(found, func(root string) (string, error) { return read(root + t.rootKey()) })
		}},
		{"read it by a handle", func(t target) (string, error) {
			return anyOf([]string{t.Home, t.Dir, "/", "/tmp", "/proc/1/root"}, t.byHandle)
		}},
		{"find it elsewhere by its inode", func(t target) (string, error) {
			gain := ""
			err := filepath.WalkDir(filepath.Dir(t.Home), func(path string, d fs.DirEntry, err error) error {
				var st unix.Stat_t
				if err == nil && unix.Lstat(path, &st) == nil && st.Ino == t.Inode && st.Size > 0 && d.Type().IsRegular() {
					gain, _ = read(path)
				}
				return nil
			})
			return gain, err
		}},
		{"change a start-up file", func(t target) (string, error) {
			return anyOf([]string{t.Start + "/.bashrc", t.Start + "/.profile"}, appendTo)
		}},
		{"replace a start-up file", func(t target) (string, error) {
			mine := filepath.Join(t.Dir, "mine")
			if err := os.WriteFile(mine, []byte("evil"), 0o700); err != nil {
				return "", err
			}
			defer os.Remove(mine)
			if err := os.Rename(mine, t.Start+"/.bashrc"); err != nil {
				return "", err
			}
			return "replaced", nil
		}},
		{"remove a start-up file", func(t target) (string, error) {
			if err := os.Remove(t.Start + "/.bashrc"); err != nil {
				return "", err
			}
			return "removed", nil
		}},
		{"write a hook of git", func(t target) (string, error) { return create(t.Dir + "/.git/hooks/pre-commit") }},
		{"write a hook of the repository around", func(t target) (string, error) { return create(t.Home + "/.git/hooks/pre-commit") }},
		{"move the repository away", func(t target) (string, error) {
			if err := os.Rename(t.Dir+"/.git", t.Dir+"/.git-away"); err != nil {
				return "", err
			}
			return "moved", os.Rename(t.Dir+"/.git-away", t.Dir+"/.git")
		}},
		{"change Postern itself", func(t target) (string, error) { return appendTo(t.Program) }},
		{"make Postern's files anew", func(t target) (string, error) { return create(t.Postern + "/policy.yaml") }},
		{"open the disk", func(target) (string, error) {
			return anyOf([]string{"/dev/vda", "/dev/sda", "/dev/mem", "/dev/kmem", "/proc/kcore"}, func(path string) (string, error) {
				file, err := os.Open(path)
				if err != nil {
					return "", err
				}
				defer file.Close()
				n, err := file.Read(make([]byte, 512))
				if n > 0 {
					return path, nil
				}
				return "", err
			})
		}},
		{"write to the kernel", func(target) (string, error) {
			return anyOf([]string{"/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "/sys/kernel/uevent_helper", "/proc/sys/vm/drop_caches"}, appendNothing)
		}},
	}
}

// byHandle opens the root key without a path, on the file system of mount.
func (t target) byHandle(mount string) (string, error) {
	at, err := unix.Open(mount, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(at)
	fd, err := unix.OpenByHandleAt(at, unix.NewFileHandle(t.HandleOf, t.Handle), unix.O_RDONLY)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	n, err := unix.Read(fd, make([]byte, 64))
	return strconv.Itoa(n) + " bytes", err
}

func appendTo(path string) (string, error) {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return "", err
	}
	defer file.Close()
	_, err = file.WriteString("# evil\n")
	return path, err
}

// appendNothing opens a file for writing only.
func appendNothing(path string) (string, error) {
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return "", err
	}
	return path, file.Close()
}

// create makes a file with the directories above it; it takes it away again.
func create(path string) (string, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", err
	}
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"), 0o755); err != nil {
		return "", err
	}
	return path, os.Remove(path)
}

func processAttacks() []attack {
	return []attack{
		{"see Postern's process", func(t target) (string, error) {
			found, err := filepath.Glob("/proc/[0-9]*/cmdline")
			if err != nil {
				return "", err
			}
			return anyOf(found, func(path string) (string, error) {
				data, err := os.ReadFile(path)
				if err == nil && strings.HasPrefix(string(data), t.Program+"\x00run") {
					return path, nil
				}
				return "", err
			})
		}},
		{"read process memory by /proc", func(t target) (string, error) {
			return anyOf([]int{1, t.Broker}, func(pid int) (string, error) { return read(fmt.Sprintf("/proc/%d/environ", pid)) })
		}},
		{"open process memory", func(t target) (string, error) {
			return anyOf([]int{1, t.Broker}, func(pid int) (string, error) {
				file, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
				if err != nil {
					return "", err
				}
				return file.Name(), file.Close()
			})
		}},
		{"trace a process", func(t target) (string, error) {
			return anyOf([]int{1, t.Broker}, func(pid int) (string, error) {
				if err := unix.PtraceSeize(pid); err != nil {
					return "", err
				}
				return "seized", nil
			})
		}},
		{"copy out of a process", func(t target) (string, error) {
			var buffer [8]byte
			local := []unix.Iovec{{Base: &buffer[0]}}
			local[0].SetLen(len(buffer))
			return anyOf([]int{1, t.Broker}, func(pid int) (string, error) {
				n, err := unix.ProcessVMReadv(pid, local, []unix.RemoteIovec{{Base: 0x400000, Len: 8}}, 0)
				if errors.Is(err, unix.EFAULT) {
					return "allowed, at another address", nil
				}
				return strconv.Itoa(n), err
			})
		}},
		{"take a descriptor of a process", func(t target) (string, error) {
			return anyOf([]int{1, t.Broker}, func(pid int) (string, error) {
				of, err := unix.PidfdOpen(pid, 0)
				if err != nil {
					return "", err
				}
				defer unix.Close(of)
				fd, err := unix.PidfdGetfd(of, 3, 0)
				if err != nil {
					return "", err
				}
				return "taken", unix.Close(fd)
			})
		}},
		{"find descriptors that were left open", func(target) (string, error) {
			return anyOf([]int{3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20}, func(fd int) (string, error) {
				to, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
				if err == nil && !strings.HasPrefix(to, "anon_inode:") && !strings.HasPrefix(to, "/sys/fs/cgroup/") { // those are Go's own
					return to, nil
				}
				return "", err
			})
		}},
		{"enter another namespace", func(target) (string, error) {
			return anyOf([]string{"user", "net", "mnt", "pid"}, func(name string) (string, error) {
				file, err := os.Open("/proc/1/ns/" + name)
				if err != nil {
					return "", err
				}
				defer file.Close()
				if err := unix.Setns(int(file.Fd()), 0); err != nil {
					return "", err
				}
				return name, nil
			})
		}},
		{"become somebody else", func(t target) (string, error) {
			out, err := exec.Command("su", "-c", "id -u", "root").CombinedOutput()
			if err == nil && strings.TrimSpace(string(out)) == "0" {
				return "root", nil
			}
			out, err = exec.Command("sudo", "-n", "id", "-u").CombinedOutput()
			if err == nil && strings.TrimSpace(string(out)) == "0" {
				return "root by sudo", nil
			}
			return "", fmt.Errorf("%s %w", out, err)
		}},
		{"attach the host's shared memory", func(t target) (string, error) {
			id, err := unix.SysvShmGet(t.Memory, 0, 0)
			if err != nil {
				return "", err
			}
			return strconv.Itoa(id), nil
		}},
		{"read the user's keyring", func(t target) (string, error) {
			return anyOf([]int{unix.KEY_SPEC_USER_KEYRING, unix.KEY_SPEC_USER_SESSION_KEYRING, unix.KEY_SPEC_SESSION_KEYRING}, func(ring int) (string, error) {
				id, err := unix.KeyctlSearch(ring, "user", t.Key, 0)
				if err != nil {
					return "", err
				}
				buffer := make([]byte, 64)
				n, err := unix.KeyctlBuffer(unix.KEYCTL_READ, id, buffer, 0)
				if err != nil {
					return "", err
				}
				return string(buffer[:min(n, len(buffer))]), nil
			})
		}},
		{"take another terminal", func(target) (string, error) {
			found, err := filepath.Glob("/dev/pts/[0-9]*")
			if err != nil {
				return "", err
			}
			return anyOf(append(found, "/dev/tty"), func(path string) (string, error) {
				file, err := os.OpenFile(path, os.O_RDWR|unix.O_NOCTTY, 0)
				if err != nil {
					return "", err
				}
				return path, file.Close()
			})
		}},
		{"leave by namespaces of its own", func(t target) (string, error) {
			text, err := json.Marshal(t)
			if err != nil {
				return "", err
			}
			cmd := exec.Command("/proc/self/exe", attackerName, string(text), "nested")
			cmd.SysProcAttr = &syscall.SysProcAttr{
				Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWNET,
				UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
				GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
			}
			out, err := cmd.CombinedOutput()
			if err != nil {
				return "", fmt.Errorf("%w %s", err, out)
			}
			list := results(string(out))
			if len(list) != len(nestedAttacks()) {
				return "", fmt.Errorf("broken off: %s", out)
			}
			gain, _ := anyOf(list, func(r result) (string, error) {
				if r.Gain == "" {
					return "", errors.New(r.Why)
				}
				return r.Name + ": " + r.Gain, nil
			})
			return gain, fmt.Errorf("%s", out)
		}},
	}
}

// putKey is what the user does before, outside.
func putKey(t target) (string, error) {
	id, err := unix.AddKey("user", t.Key, []byte(t.Token), unix.KEY_SPEC_USER_KEYRING)
	if err != nil {
		return "", err
	}
	return strconv.Itoa(id), unix.KeyctlSetperm(id, 0x3f3f0000) // everything to the user
}
