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

	"coven-gateway/internal/fault"
)

// Blobs keeps the content of files in a folder, each under its SHA-256.
type Blobs struct{ dir string }

// OpenBlobs returns the files below dir, which is created when the first one is stored.
func OpenBlobs(dir string) Blobs { return Blobs{dir} }

// Put stores data durably and returns its SHA-256 in hex. Data that is there already is kept as it
// is.
func (b Blobs) Put(_ context.Context, data []byte) (string, error) {
	sum := sha256.Sum256(data)
	name := hex.EncodeToString(sum[:])
	path := b.path(name)
	if fi, err := os.Stat(path); err == nil && fi.Size() == int64(len(data)) {
		return name, nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return "", err
	}
	if err := writeDurably(path, data); err != nil {
		return "", err
	}
	return name, nil
}

// writeDurably makes a file appear with all of its content, or not at all.
func writeDurably(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*") // mode 0600
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
func (b Blobs) Open(sha256 string) (io.ReadSeekCloser, error) {
	if raw, err := hex.DecodeString(sha256); err != nil || len(raw) != 32 {
		return nil, fmt.Errorf("%q is no SHA-256", sha256)
	}
	f, err := os.Open(b.path(sha256))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.Wrap(err, fault.NotFound, "the content of this file is gone")
	}
	return f, err
}

func (b Blobs) path(name string) string { return filepath.Join(b.dir, name[:2], name) }
