package store

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"coven-gateway/internal/conversation"
	"coven-gateway/internal/fault"
)

// Blobs keeps the content of files in a folder, each under its SHA-256. Only rows of the table files
// refer to it.
//
// A content is stored before the row that refers to it and removed after the last of these rows. In
// between its name is held: whoever stores it pins it until the row is committed, whoever removes it
// makes others wait who want to store it again.
type Blobs struct {
	dir string

	mu       sync.Mutex
	pins     map[string]int           // how many have stored a content and not released it
	removing map[string]chan struct{} // closed when the content is gone, or stays

	failure atomic.Pointer[error] // of the last content that could not be written; nil when one could
}

var _ conversation.Files = (*Blobs)(nil)

// OpenBlobs returns the files below dir, which is created when the first one is stored.
func OpenBlobs(dir string) *Blobs {
	return &Blobs{dir: dir, pins: make(map[string]int), removing: make(map[string]chan struct{})}
}

// Put implements conversation.Files. Data that is there already is kept as it is.
func (b *Blobs) Put(ctx context.Context, data []byte) (string, error) {
	sum := sha256.Sum256(data)
	name := hex.EncodeToString(sum[:])
	if err := b.pin(ctx, name); err != nil {
		return "", err
	}
	if err := b.put(name, data); err != nil {
		b.Release(name)
		return "", b.failed(err)
	}
	return name, nil
}

func (b *Blobs) put(name string, data []byte) error {
	path := b.path(name)
	if fi, err := os.Stat(path); err == nil && fi.Size() == int64(len(data)) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	err := writeDurably(path, data)
	if err == nil {
		b.failure.Store(nil)
	}
	return err
}

// pin keeps a content from being removed, and waits while that is happening.
func (b *Blobs) pin(ctx context.Context, name string) error {
	for {
		b.mu.Lock()
		gone := b.removing[name]
		if gone == nil {
			b.pins[name]++
			b.mu.Unlock()
			return nil
		}
		b.mu.Unlock()
		select {
		case <-gone:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Release implements conversation.Files.
func (b *Blobs) Release(name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.pins[name]--; b.pins[name] == 0 {
		delete(b.pins, name)
	}
}

// Remove implements conversation.Files. What a power cut brings back is a stray.
func (b *Blobs) Remove(name string, used func() (bool, error)) (settled bool, removed int64, err error) {
	b.mu.Lock()
	if b.pins[name] > 0 || b.removing[name] != nil {
		b.mu.Unlock()
		return false, 0, nil
	}
	gone := make(chan struct{})
	b.removing[name] = gone
	b.mu.Unlock()
	defer func() {
		b.mu.Lock()
		delete(b.removing, name)
		b.mu.Unlock()
		close(gone)
	}()
	// A backup copies contents after the database that refers to them.
	lock, err := tryLock(b.dir + backupLock)
	if lock == nil {
		return false, 0, err
	}
	defer func() { err = errors.Join(err, lock.release()) }()
	if yes, err := used(); yes || err != nil {
		return err == nil, 0, err
	}
	fi, err := os.Stat(b.path(name))
	if errors.Is(err, fs.ErrNotExist) {
		return true, 0, nil
	}
	if err == nil {
		err = os.Remove(b.path(name))
	}
	if err != nil {
		return false, 0, err
	}
	return true, fi.Size(), nil
}

// Strays implements conversation.Files. Files that a killed process was writing are removed.
func (b *Blobs) Strays(before time.Time, each func(string) error) error {
	return filepath.WalkDir(b.dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // there is nothing yet, or not any more
		}
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		fi, err := d.Info()
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil || !fi.ModTime().Before(before):
			return err
		case strings.HasPrefix(d.Name(), newPrefix):
			return os.Remove(path)
		case isSum(d.Name()):
			return each(d.Name())
		}
		return nil
	})
}

func isSum(name string) bool {
	raw, err := hex.DecodeString(name)
	return err == nil && len(raw) == sha256.Size
}

// newPrefix begins the names of files that are being written.
const newPrefix = ".new-"

// writeDurably makes a file appear with all of its content, or not at all.
func writeDurably(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), newPrefix+"*") // mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	// The name, and the folder it is in, have to survive a power cut too.
	for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) {
		d, err := os.Open(dir)
		if err != nil {
			return err
		}
		if err := errors.Join(d.Sync(), d.Close()); err != nil {
			return err
		}
		if len(filepath.Base(dir)) != 2 {
			return nil
		}
	}
}

// Open returns the content of a file, or a NotFound fault. The caller closes it.
func (b *Blobs) Open(sha256 string) (io.ReadSeekCloser, error) {
	if !isSum(sha256) {
		return nil, fmt.Errorf("%q is no SHA-256", sha256)
	}
	f, err := os.Open(b.path(sha256))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.Wrap(err, fault.NotFound, "the content of this file is gone")
	}
	return f, err
}

// Get returns a content, which has size bytes, or a NotFound fault.
func (b *Blobs) Get(_ context.Context, sha256 string, size int64) ([]byte, error) {
	f, err := b.Open(sha256)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data := make([]byte, size)
	if _, err := io.ReadFull(f, data); err != nil {
		return nil, fmt.Errorf("content %s: %w", sha256, err)
	}
	return data, nil
}

func (b *Blobs) path(name string) string { return filepath.Join(b.dir, name[:2], name) }
