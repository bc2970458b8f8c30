package auth

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"golang.org/x/crypto/argon2"

	"coven-gateway/internal/fault"
)

// Bounds of passwords. There is no rule about what kinds of characters they have. The least length is
// that of NIST SP 800-63B-4 for a password that is all one needs.
const (
	MinPassword = 15  // characters
	MaxPassword = 256 // bytes
)

// How passwords are hashed, and bounds of what is read back.
const (
	argonMemory  = 19 << 10 // KiB
	argonTime    = 2
	argonThreads = 1
	saltSize     = 16
	hashSize     = 32

	maxArgonMemory = 64 << 10
	maxArgonTime   = 10

	// maxHashing bounds the passwords that are hashed at once, each with 19 MiB, and maxHashWaiting
	// those that wait for it.
	maxHashing     = 2
	maxHashWaiting = 64
)

// A phc is a hashed password.
type phc struct {
	memory, time uint32
	threads      uint8
	salt, hash   []byte
}

// String is the form of the PHC.
func (p phc) String() string {
	b := base64.RawStdEncoding.Strict()
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, p.memory, p.time, p.threads, b.EncodeToString(p.salt), b.EncodeToString(p.hash))
}

// parsePHC reads what String writes, with parameters that are not larger than is good for us.
func parsePHC(s string) (p phc, err error) {
	bad := errors.New("not a password hash")
	parts := strings.Split(s, "$")
	if len(parts) != 6 || parts[0] != "" || parts[1] != "argon2id" || parts[2] != "v="+strconv.Itoa(argon2.Version) {
		return p, bad
	}
	if n, err := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &p.memory, &p.time, &p.threads); err != nil || n != 3 {
		return p, bad
	}
	b := base64.RawStdEncoding.Strict()
	if p.salt, err = b.DecodeString(parts[4]); err != nil {
		return p, bad
	}
	if p.hash, err = b.DecodeString(parts[5]); err != nil {
		return p, bad
	}
	if p.memory < 8 || p.memory > maxArgonMemory || p.time < 1 || p.time > maxArgonTime || p.threads < 1 || p.threads > 4 ||
		len(p.salt) < 8 || len(p.salt) > 64 || len(p.hash) < 16 || len(p.hash) > 64 || p.String() != s {
		return p, bad
	}
	return p, nil
}

func (p phc) matches(password string) bool {
	return subtle.ConstantTimeCompare(argon2.IDKey([]byte(password), p.salt, p.time, p.memory, p.threads, uint32(len(p.hash))), p.hash) == 1
}

// A hasher hashes few passwords at once.
type hasher struct {
	slots   chan struct{}
	waiting atomic.Int32
}

func newHasher() *hasher { return &hasher{slots: make(chan struct{}, maxHashing)} }

// do runs f when there is room, or returns a Limited fault.
func (h *hasher) do(ctx context.Context, f func()) error {
	if h.waiting.Add(1) > maxHashWaiting {
		h.waiting.Add(-1)
		return fault.TooOften(time.Second, "too many people sign in at this moment; try again")
	}
	defer h.waiting.Add(-1)
	select {
	case h.slots <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-h.slots }()
	f()
	return nil
}

// hash returns a new hash of a password.
func (h *hasher) hash(ctx context.Context, password string) (string, error) {
	p := phc{memory: argonMemory, time: argonTime, threads: argonThreads, salt: make([]byte, saltSize)}
	_, _ = rand.Read(p.salt) // never fails
	err := h.do(ctx, func() {
		p.hash = argon2.IDKey([]byte(password), p.salt, p.time, p.memory, p.threads, hashSize)
	})
	return p.String(), err
}

// nobodysPassword is compared with where there is no password, so that it takes as long.
var nobodysPassword = phc{memory: argonMemory, time: argonTime, threads: argonThreads, salt: make([]byte, saltSize), hash: make([]byte, hashSize)}

// check reports whether a password is the one that was hashed; "" is no password.
func (h *hasher) check(ctx context.Context, password, hashed string) (ok bool, err error) {
	p, there := nobodysPassword, hashed != ""
	if there {
		if p, err = parsePHC(hashed); err != nil {
			return false, err
		}
	}
	err = h.do(ctx, func() { ok = p.matches(password) && there })
	return ok, err
}

// common are passwords of the least length or more that everybody tries first.
var common = strings.Fields(`
	passwordpassword password12345678 password123456789 1qaz2wsx3edc4rfv qwertyuiopasdfgh qwertyuiopasdfghjkl
	qwertyuiop123456 q1w2e3r4t5y6u7i8 administrator123 adminadminadmin correcthorsebatterystaple letmeinletmeinletmein
	iloveyouiloveyou welcome123456789 thisismypassword mypassword123456 changemechangeme coven-gateway-password covengateway12345
	abcdefghijklmno abcdefghijklmnop abcdefghijklmnopqrstuvwxyz 0987654321098765 trustno1trustno1 supersecretpassword`)

// checkPassword refuses a password that is too short, too long, or among the first that are tried.
func checkPassword(password, name string) error {
	switch n := utf8.RuneCountInString(password); {
	case !utf8.ValidString(password):
		return fault.New(fault.Invalid, "password must be UTF-8")
	case n < MinPassword:
		return fault.New(fault.Invalid, "password must have at least %d characters; this one has %d", MinPassword, n)
	case len(password) > MaxPassword:
		return fault.New(fault.Invalid, "password must not be longer than %d bytes; this one has %d", MaxPassword, len(password))
	}
	low := strings.ToLower(password)
	if slices.Contains(common, low) {
		return fault.New(fault.Invalid, "password is one that everybody tries first")
	}
	if repeats(low) || strings.HasPrefix(strings.Repeat("1234567890", 30), low) || strings.HasPrefix(strings.Repeat("0123456789", 30), low) ||
		name != "" && strings.ReplaceAll(low, name, "") == "" {
		return fault.New(fault.Invalid, "password is too easy: it repeats itself, or is nothing but your name or digits in order")
	}
	return nil
}

// repeats reports whether a text is a few characters again and again.
func repeats(s string) bool {
	for n := 1; n <= 4; n++ {
		if strings.HasPrefix(strings.Repeat(s[:n], len(s)/n+1), s) {
			return true
		}
	}
	return false
}
