// Command release builds the programs for every system that they run on and packs them into archives that
// are the same, byte for byte, wherever and whenever the same commit is built with the same Go.
//
//	go run ./internal/release [-o dist] [-only linux/amd64,…]
package main

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// targets are what is built, as GOOS/GOARCH.
var targets = []string{"linux/amd64", "linux/arm64", "darwin/amd64", "darwin/arm64", "windows/amd64", "windows/arm64"}

// programs are the commands that an archive holds, documents what comes with them.
var (
	programs  = []string{"coven-gateway", "coven-admin"}
	documents = []string{
		"LICENSE", "README.md",
		"deploy/systemd/coven-gateway.service", "deploy/systemd/coven-gateway-grpc.socket", "deploy/systemd/coven-gateway-http.socket",
	}
)

// A release is what is built of one commit.
type release struct {
	version string    // v1.2.3, or the commit
	date    time.Time // of the commit: files in archives have it
	folder  string    // of the archives
}

// A file is an entry of an archive.
type file struct {
	name string
	data []byte
	mode os.FileMode
}

func main() {
	folder := flag.String("o", "dist", "the folder for the archives")
	only := flag.String("only", strings.Join(targets, ","), "the systems to build for")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *folder, strings.Split(*only, ",")); err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, folder string, only []string) error {
	r, err := newRelease(ctx, folder)
	if err != nil {
		return err
	}
	var sums bytes.Buffer
	for _, target := range only {
		if !slices.Contains(targets, target) {
			return fmt.Errorf("%q is not one of %s", target, strings.Join(targets, ", "))
		}
		name, data, err := r.archive(ctx, target)
		if err != nil {
			return fmt.Errorf("%s: %w", target, err)
		}
		if err := os.WriteFile(filepath.Join(folder, name), data, 0o644); err != nil {
			return err
		}
		fmt.Fprintf(&sums, "%x  %s\n", sha256.Sum256(data), name)
		fmt.Printf("%s  %.1f MB\n", name, float64(len(data))/1e6)
	}
	return os.WriteFile(filepath.Join(folder, "SHA256SUMS"), sums.Bytes(), 0o644)
}

// newRelease asks git what is built. A tree with changes is no commit, so it is refused.
func newRelease(ctx context.Context, folder string) (*release, error) {
	changes, err := output(ctx, "git", "status", "--porcelain")
	if err != nil {
		return nil, err
	}
	if changes != "" {
		return nil, errors.New("there are changes that are not committed: what is built would be no release of a commit")
	}
	version, err := output(ctx, "git", "describe", "--tags", "--always", "--match", "v[0-9]*", "--abbrev=12")
	if err != nil {
		return nil, err
	}
	stamp, err := output(ctx, "git", "show", "-s", "--format=%cI", "HEAD")
	if err != nil {
		return nil, err
	}
	date, err := time.Parse(time.RFC3339, stamp)
	if err != nil {
		return nil, err
	}
	return &release{version: version, date: date.UTC(), folder: folder}, os.MkdirAll(folder, 0o755)
}

// archive builds for one system.
func (r *release) archive(ctx context.Context, target string) (name string, data []byte, err error) {
	system, arch, _ := strings.Cut(target, "/")
	work, err := os.MkdirTemp("", "release")
	if err != nil {
		return "", nil, err
	}
	defer os.RemoveAll(work)
	base := fmt.Sprintf("coven-gateway_%s_%s_%s", strings.TrimPrefix(r.version, "v"), system, arch)
	var files []file
	for _, p := range programs {
		if system == "windows" {
			p += ".exe"
		}
		path := filepath.Join(work, p)
		build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=true", "-ldflags=-s -w", "-o", path, "./cmd/"+strings.TrimSuffix(p, ".exe"))
		build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS="+system, "GOARCH="+arch, "GOAMD64=v1", "GOARM64=v8.0", "GOFLAGS=")
		build.Stderr = os.Stderr
		if err := build.Run(); err != nil {
			return "", nil, fmt.Errorf("go build: %w", err)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return "", nil, err
		}
		files = append(files, file{p, b, 0o755})
	}
	for _, d := range documents {
		if system != "linux" && strings.Contains(d, "systemd") {
			continue
		}
		b, err := os.ReadFile(d)
		if err != nil {
			return "", nil, err
		}
		files = append(files, file{filepath.Base(d), b, 0o644})
	}
	slices.SortFunc(files, func(a, b file) int { return cmp.Compare(a.name, b.name) })
	var buf bytes.Buffer
	if system == "windows" {
		err = r.zip(&buf, base, files)
		return base + ".zip", buf.Bytes(), err
	}
	err = r.tar(&buf, base, files)
	return base + ".tar.gz", buf.Bytes(), err
}

func (r *release) tar(w io.Writer, base string, files []file) error {
	z, err := gzip.NewWriterLevel(w, gzip.BestCompression)
	if err != nil {
		return err
	}
	t := tar.NewWriter(z)
	for _, f := range files {
		h := &tar.Header{Name: base + "/" + f.name, Mode: int64(f.mode), Size: int64(len(f.data)), ModTime: r.date, Format: tar.FormatUSTAR}
		if err := t.WriteHeader(h); err != nil {
			return err
		}
		if _, err := t.Write(f.data); err != nil {
			return err
		}
	}
	return errors.Join(t.Close(), z.Close())
}

func (r *release) zip(w io.Writer, base string, files []file) error {
	z := zip.NewWriter(w)
	for _, f := range files {
		h := &zip.FileHeader{Name: base + "/" + f.name, Method: zip.Deflate, Modified: r.date}
		h.SetMode(f.mode)
		e, err := z.CreateHeader(h)
		if err != nil {
			return err
		}
		if _, err := e.Write(f.data); err != nil {
			return err
		}
	}
	return z.Close()
}

// output returns what a command prints, without the last line's end.
func output(ctx context.Context, name string, args ...string) (string, error) {
	c := exec.CommandContext(ctx, name, args...)
	c.Stderr = os.Stderr
	out, err := c.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w", name, err)
	}
	return strings.TrimSpace(string(out)), nil
}
