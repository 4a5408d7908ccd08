package app

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// mostFiles bounds, in bytes, what a measuring process reads of the agent's
// directory.
const mostFiles = 256 << 20

// MeasureInside is what runs inside for the proofs: it calls host with the
// placeholder, tries to get around the broker to bait, sends what came of it to
// out in one line, then everything that an agent could read, then end. It waits
// for the end of in, so that its memory can be looked at.
func MeasureInside(ctx context.Context, host, placeholder, bait, end string, in io.Reader, out io.Writer) error {
	// The measuring process looks into this one, as it could into an agent.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0); err != nil {
		return err
	}
	m := callCanary(ctx, host, placeholder)
	m.Direct, m.UDP = goAround(bait)
	line, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if _, err := out.Write(append(line, '\n')); err != nil {
		return err
	}
	if err := sendEverything(out); err != nil {
		return err
	}
	if _, err := io.WriteString(out, end); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, in)
	return err
}

func callCanary(ctx context.Context, host, placeholder string) Inside {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+host+"/", nil)
	if err != nil {
		return Inside{Error: err.Error()}
	}
	request.Header.Set("Authorization", "Bearer "+placeholder)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return Inside{Error: err.Error()}
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 1<<16))
	m := Inside{Status: response.StatusCode, Body: fmt.Sprint(response.Header) + string(body)}
	if err != nil {
		m.Error = err.Error()
	}
	return m
}

// goAround tries a service of the host and a public resolver.
func goAround(bait string) (direct, udp string) {
	direct, udp = "connected", "answered"
	conn, err := net.DialTimeout("tcp", bait, 2*time.Second)
	if err != nil {
		direct = err.Error()
	} else {
		_ = conn.Close()
	}
	packets, err := net.DialTimeout("udp", "192.0.2.1:53", 2*time.Second)
	if err == nil {
		defer packets.Close()
		_ = packets.SetDeadline(time.Now().Add(500 * time.Millisecond))
		if _, err = packets.Write([]byte("?")); err == nil {
			_, err = packets.Read(make([]byte, 1))
		}
	}
	if err != nil {
		udp = err.Error()
	}
	return direct, udp
}

// sendEverything sends all environments and, up to a bound, all files of the
// current directory that can be read.
func sendEverything(out io.Writer) error {
	environments, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		return err
	}
	for _, path := range environments {
		if _, err := sendFile(out, path, 1<<20); err != nil {
			return err
		}
	}
	left := int64(mostFiles)
	return filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || left <= 0 {
			if d != nil && d.IsDir() && strings.HasSuffix(path, "/.git/objects") {
				return filepath.SkipDir
			}
			return nil
		}
		n, err := sendFile(out, path, left)
		left -= n
		return err
	})
}

// sendFile sends a file, or nothing where it cannot be read.
func sendFile(out io.Writer, path string, most int64) (int64, error) {
	file, err := os.Open(path)
	if err != nil {
		return 0, nil
	}
	defer file.Close()
	n, err := io.Copy(out, io.LimitReader(file, most))
	if _, isPath := err.(*fs.PathError); isPath {
		return n, nil // it went away, or cannot be read after all
	}
	return n, err
}
