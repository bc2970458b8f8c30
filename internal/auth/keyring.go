package auth

import (
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/crypto/chacha20poly1305"
)

// KeySize is the size of a key that seals secrets, in bytes.
const KeySize = chacha20poly1305.KeySize

// keyIDSize is how many bytes of a key's hash stand in front of what it has sealed.
const keyIDSize = 8

// A Keyring seals and opens secrets with XChaCha20-Poly1305. The first key seals, all open.
type Keyring struct {
	state *keyringState
}

type keyringState struct {
	file string // where the keys are kept; "" when they are not ours to change

	mu   sync.Mutex
	keys [][KeySize]byte
}

// FixedKeyring returns a keyring with a key that comes from outside. The keys in a file, if it
// exists, open what was sealed before.
func FixedKeyring(key [KeySize]byte, path string) (Keyring, error) {
	k := Keyring{&keyringState{keys: [][KeySize]byte{key}}}
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return k, nil
	}
	old, err := OpenKeyring(path)
	if err == nil {
		k.state.keys = append(k.state.keys, old.state.keys...)
	}
	return k, err
}

// OpenKeyring reads the keys in a file, one in hex on each line, and makes the file with a new key,
// mode 0600, where there is none.
func OpenKeyring(path string) (Keyring, error) {
	k := Keyring{&keyringState{file: path}}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		_, err := k.Add()
		return k, err
	}
	if err != nil {
		return k, err
	}
	for i, line := range strings.Fields(string(b)) {
		var key [KeySize]byte
		if n, err := hex.Decode(key[:], []byte(line[:min(len(line), 2*KeySize)])); err != nil || n != KeySize || len(line) != 2*KeySize {
			return k, fmt.Errorf("%s: key %d is not %d bytes in hex", path, i+1, KeySize)
		}
		k.state.keys = append(k.state.keys, key)
	}
	if len(k.state.keys) == 0 {
		return k, fmt.Errorf("%s holds no key: it is needed to read the stored secrets", path)
	}
	return k, nil
}

// Add puts a new key in front of the others and returns it. What was sealed before can still be
// opened. Where the first key comes from outside, whoever gave it has put a new one there already.
func (k Keyring) Add() (key [KeySize]byte, err error) {
	st := k.state
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.file == "" {
		return st.keys[0], nil
	}
	_, _ = rand.Read(key[:]) // never fails
	return key, st.write(append([][KeySize]byte{key}, st.keys...))
}

// Forget drops the keys that are older than one, once nothing needs them. Newer ones stay, and those
// that somebody else has dropped already are no fault.
func (k Keyring) Forget(olderThan [KeySize]byte) error {
	st := k.state
	st.mu.Lock()
	defer st.mu.Unlock()
	i := slices.Index(st.keys, olderThan)
	if st.file == "" || i < 0 {
		return nil
	}
	return st.write(st.keys[: i+1 : i+1])
}

// write replaces the file and the keys. st.mu is held.
func (st *keyringState) write(keys [][KeySize]byte) error {
	var b strings.Builder
	for _, key := range keys {
		b.WriteString(hex.EncodeToString(key[:]) + "\n")
	}
	if err := replaceFile(st.file, b.String()); err != nil {
		return err
	}
	st.keys = keys
	return nil
}

// replaceFile writes a file with mode 0600 so that a crash leaves the old one or the new one.
func replaceFile(path, text string) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	d, err := os.Open(filepath.Dir(path)) // what is sealed next must not outlive the key
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func keyID(key [KeySize]byte) [keyIDSize]byte {
	sum := sha256.Sum256(key[:])
	return [keyIDSize]byte(sum[:])
}

func aead(key [KeySize]byte) cipher.AEAD {
	a, err := chacha20poly1305.NewX(key[:])
	if err != nil {
		panic(err) // the size is right
	}
	return a
}

// seal encrypts a value so that it opens only under the same label.
func (k Keyring) seal(value, label string) []byte {
	k.state.mu.Lock()
	key := k.state.keys[0]
	k.state.mu.Unlock()
	a, id := aead(key), keyID(key)
	out := append(id[:], make([]byte, a.NonceSize())...)
	_, _ = rand.Read(out[keyIDSize:]) // never fails
	return a.Seal(out, out[keyIDSize:], []byte(value), []byte(label))
}

// open decrypts a value.
func (k Keyring) open(sealed []byte, label string) (string, error) {
	k.state.mu.Lock()
	keys := k.state.keys
	k.state.mu.Unlock()
	if len(sealed) < keyIDSize+chacha20poly1305.NonceSizeX {
		return "", errors.New("a stored secret is damaged")
	}
	for _, key := range keys {
		if keyID(key) != [keyIDSize]byte(sealed[:keyIDSize]) {
			continue
		}
		a := aead(key)
		rest := sealed[keyIDSize:]
		value, err := a.Open(nil, rest[:a.NonceSize()], rest[a.NonceSize():], []byte(label))
		if err != nil {
			return "", errors.New("a stored secret is damaged")
		}
		return string(value), nil
	}
	return "", errors.New("the key that sealed a stored secret is not here")
}
