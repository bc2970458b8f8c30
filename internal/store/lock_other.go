//go:build !unix

package store

import "os"

// A lock keeps a second process away from a database. Here the operating system does not let a
// file that is open be removed, which is the lock.
type lock struct {
	f    *os.File
	path string
}

func acquireLock(path string) (*lock, error) {
	_ = os.Remove(path) // left by a process that died; fails while one is alive
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	return &lock{f, path}, nil
}

// tryLock takes no lock here: a backup that is made while files expire may find that one is missing,
// says so, and can be repeated.
func tryLock(string) (*lock, error) { return &lock{}, nil }

func shareLock(string) (*lock, error) { return &lock{}, nil }

func (l *lock) release() error {
	if l.f == nil {
		return nil
	}
	if err := l.f.Close(); err != nil {
		return err
	}
	return os.Remove(l.path)
}
