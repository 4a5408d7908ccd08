package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// ownProcess is what Postern calls its own process inside of the sandbox; the
// agent cannot look into it, and nor can we without being root.
const ownProcess = "postern-stage2"

// process is one of the agent's.
type process struct {
	pid  int
	name string
}

// insideOf lists the processes below pid that live in a process namespace of
// their own; those that only Postern can look into are left out.
func insideOf(pid int) ([]process, error) {
	outside, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		return nil, err
	}
	var list []process
	for _, child := range below(pid) {
		command, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", child))
		if err != nil || len(command) == 0 {
			continue // it ended
		}
		first, _, _ := strings.Cut(string(command), "\x00")
		if filepath.Base(first) == ownProcess {
			continue
		}
		namespace, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", child))
		if err != nil {
			return nil, fmt.Errorf("looking into process %s: %w", first, err)
		}
		if namespace != outside {
			list = append(list, process{child, filepath.Base(first)})
		}
	}
	return list, nil
}

// below are all the processes that descend from pid.
func below(pid int) []int {
	var all []int
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		return nil
	}
	for _, list := range lists {
		data, err := os.ReadFile(list)
		if err != nil {
			continue // a thread that ended
		}
		for _, field := range strings.Fields(string(data)) {
			if child, err := strconv.Atoi(field); err == nil {
				all = append(append(all, child), below(child)...)
			}
		}
	}
	return all
}

// inspect looks for values in all that the agent's processes hold: environment,
// command line, memory, and the files below places as they see them.
func inspect(pid int, places []string, s *searcher, f *findings) error {
	processes, err := insideOf(pid)
	if err != nil {
		return err
	}
	if len(processes) == 0 {
		return errors.New("the agent runs in no sandbox, or has ended")
	}
	for _, p := range processes {
		for _, part := range []string{"environ", "cmdline"} {
			data, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", p.pid, part))
			if err != nil {
				return fmt.Errorf("reading the environment of %s: %w", p.name, err)
			}
			s.in(data, f.at("the environment of "+p.name))
		}
		if err := inMemory(p, s, f); err != nil {
			return err
		}
		f.programs = append(f.programs, p.name)
	}
	root := fmt.Sprintf("/proc/%d/root", processes[0].pid)
	for _, place := range places {
		if err := inFiles(root, place, s, f); err != nil {
			return err
		}
	}
	return nil
}

// inMemory looks into every mapping that can be read.
func inMemory(p process, s *searcher, f *findings) error {
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", p.pid))
	if err != nil {
		return fmt.Errorf("reading the memory map of %s: %w", p.name, err)
	}
	memory, err := os.Open(fmt.Sprintf("/proc/%d/mem", p.pid))
	if err != nil {
		return fmt.Errorf("reading the memory of %s: %w", p.name, err)
	}
	defer memory.Close()
	for line := range bytes.Lines(maps) {
		var from, to int64
		var mode string
		if n, _ := fmt.Sscanf(string(line), "%x-%x %s", &from, &to, &mode); n != 3 || mode[0] != 'r' {
			continue
		}
		n, err := s.through(io.NewSectionReader(memory, from, to-from), f.at("the memory of "+p.name))
		if err != nil && !errors.Is(err, syscall.EIO) && !errors.Is(err, syscall.EFAULT) {
			return fmt.Errorf("reading the memory of %s: %w", p.name, err)
		}
		f.bytes += n // a mapping of the kernel, or behind the end of a file, gives less
		f.maps++
	}
	return nil
}

// inFiles looks into the files below place as those see them whose root is root.
// What they may not read we may not either, unless we are root.
func inFiles(root, place string, s *searcher, f *findings) error {
	return filepath.WalkDir(root+place, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("looking through the agent's files: %w", err)
		}
		if !d.Type().IsRegular() {
			return nil
		}
		file, err := os.Open(path)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("looking through the agent's files: %w", err)
		}
		defer file.Close()
		n, err := s.through(file, f.at("the file "+strings.TrimPrefix(path, root)))
		f.bytes += n
		f.files++
		return err
	})
}
