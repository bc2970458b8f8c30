package config

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Size is a number of bytes.
type Size int64

// Units of Size.
const (
	KiB Size = 1 << 10
	MiB Size = 1 << 20
	GiB Size = 1 << 30
)

// sizeUnits are the suffixes of a size, longest first where one ends in another.
var sizeUnits = []struct {
	suffix string
	bytes  Size
}{
	{"GiB", GiB},
	{"MiB", MiB},
	{"KiB", KiB},
	{"GB", 1e9},
	{"MB", 1e6},
	{"kB", 1e3},
	{"KB", 1e3},
	{"B", 1},
	{"", 1},
}

var errSize = errors.New("not a size, write for example 4MiB, 10MB or 65536 (bytes)")

// ParseSize reads a size: a whole number of bytes, or one with a unit: B, kB, MB, GB
// (powers of 1000), KiB, MiB or GiB (powers of 1024).
func ParseSize(s string) (Size, error) {
	for _, u := range sizeUnits {
		digits, ok := strings.CutSuffix(s, u.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSuffix(digits, " "), 10, 64)
		switch {
		case errors.Is(err, strconv.ErrRange) || err == nil && (n > math.MaxInt64/int64(u.bytes) || n < math.MinInt64/int64(u.bytes)):
			return 0, errors.New("more bytes than can be counted")
		case err != nil:
			return 0, errSize
		}
		return Size(n) * u.bytes, nil
	}
	return 0, errSize
}

// String writes the size so that ParseSize reads the same back: in the largest
// binary unit that divides it, else in bytes.
func (s Size) String() string {
	for _, u := range sizeUnits[:3] {
		if s != 0 && s%u.bytes == 0 {
			return strconv.FormatInt(int64(s/u.bytes), 10) + u.suffix
		}
	}
	return strconv.FormatInt(int64(s), 10)
}

// parseDuration reads a Go duration string for the key whose last word is name.
func parseDuration(name, s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err == nil {
		return d, nil
	}
	if _, numErr := strconv.ParseInt(s, 10, 64); numErr == nil {
		return 0, fmt.Errorf("parsing %s %q: a duration needs a unit, did you mean %ss?", name, s, s)
	}
	return 0, fmt.Errorf("parsing %s %q: not a duration, write for example 30s, 5m or 1h30m", name, s)
}

// formatDuration is d.String without the units that are zero: 1h, not 1h0m0s.
func formatDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

const day = 24 * time.Hour

// parseAge reads a number of days, such as 90d, or a duration for the key whose last word is name.
func parseAge(name, s string) (time.Duration, error) {
	if digits, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.ParseInt(digits, 10, 64)
		switch {
		case errors.Is(err, strconv.ErrRange) || err == nil && (n > math.MaxInt64/int64(day) || n < math.MinInt64/int64(day)):
			return 0, fmt.Errorf("parsing %s %q: more time than can be counted", name, s)
		case err != nil:
			return 0, fmt.Errorf("parsing %s %q: not an age, write for example 90d or 36h", name, s)
		}
		return time.Duration(n) * day, nil
	}
	if _, err := strconv.ParseInt(s, 10, 64); err == nil && s != "0" {
		return 0, fmt.Errorf("parsing %s %q: an age needs a unit, did you mean %sd?", name, s, s)
	}
	return parseDuration(name, s)
}

// formatAge writes an age so that parseAge reads the same back.
func formatAge(d time.Duration) string {
	switch {
	case d == 0:
		return "0"
	case d%day == 0:
		return strconv.FormatInt(int64(d/day), 10) + "d"
	}
	return formatDuration(d)
}
