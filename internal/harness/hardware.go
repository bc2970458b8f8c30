package harness

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Hardware is what figures were measured on.
type Hardware struct {
	CPU     string  `json:"cpu"`
	Cores   int     `json:"cores"` // that may be used
	Memory  int64   `json:"memory_bytes"`
	System  string  `json:"system"` // operating system, its kernel, architecture
	Go      string  `json:"go"`
	FsyncMS float64 `json:"fsync_p50_ms"` // of 4 KiB more in a file of the disk that holds the data
}

func (h Hardware) String() string {
	return fmt.Sprintf("%s, %d cores, %.1f GB, %s, %s, fsync %.2f ms", h.CPU, h.Cores, float64(h.Memory)/1e9, h.System, h.Go, h.FsyncMS)
}

// ThisMachine looks at the machine; the disk is that of a folder. What the system does not tell is empty.
func ThisMachine(dir string) Hardware {
	h := Hardware{CPU: "unknown processor", Cores: runtime.GOMAXPROCS(0), System: runtime.GOOS + "/" + runtime.GOARCH, Go: runtime.Version(), FsyncMS: fsync(dir)}
	if s := field("/proc/cpuinfo", "model name"); s != "" {
		h.CPU = s
	}
	if kb, err := strconv.ParseInt(strings.TrimSuffix(field("/proc/meminfo", "MemTotal"), " kB"), 10, 64); err == nil {
		h.Memory = kb << 10
	}
	if b, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		h.System += " " + strings.TrimSpace(string(b))
	}
	return h
}

// field returns the first value of a name in a file of lines "name: value".
func field(file, name string) string {
	b, _ := os.ReadFile(file) // not on Linux there is none
	for line := range strings.Lines(string(b)) {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == name {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// fsync measures how long it takes until 4 KiB are on the disk, in milliseconds; 0 where it fails.
func fsync(dir string) float64 {
	name := filepath.Join(dir, "fsync-test")
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return 0
	}
	defer os.Remove(name)
	defer f.Close()
	var took []time.Duration
	for range 51 {
		begin := time.Now()
		if _, err := f.Write(make([]byte, 4<<10)); err != nil || f.Sync() != nil {
			return 0
		}
		took = append(took, time.Since(begin))
	}
	slices.Sort(took)
	return float64(took[len(took)/2].Microseconds()) / 1000
}
