package config

import (
	"math"
	"testing"
	"time"
)

func TestParseSize(t *testing.T) {
	for in, want := range map[string]Size{
		"0": 0, "1": 1, "65536": 65536, "12B": 12, "3KB": 3000, "3kB": 3000, "10MB": 10_000_000, "2GB": 2_000_000_000,
		"3KiB": 3072, "4MiB": 4 << 20, "1GiB": 1 << 30, "4 MiB": 4 << 20, "-1KiB": -1024,
		"9223372036854775807": math.MaxInt64, "-9223372036854775808": math.MinInt64,
	} {
		got, err := ParseSize(in)
		if err != nil || got != want {
			t.Errorf("ParseSize(%q) = %d, %v, want %d", in, got, err, want)
		}
		if back, err := ParseSize(got.String()); back != got || err != nil {
			t.Errorf("ParseSize(%q) = %d, %v, want %d", got, back, err, got)
		}
	}
	for _, in := range []string{"", "MiB", "1.5MiB", "4M", "4mib", "4  MiB", "0x10", "1_000", "many", "9223372036854775808", "9007199254740992KiB", "-9007199254740993KiB"} {
		if got, err := ParseSize(in); err == nil {
			t.Errorf("ParseSize(%q) = %d, want an error", in, got)
		}
	}
}

func TestSizeString(t *testing.T) {
	for in, want := range map[Size]string{0: "0", 1: "1", 1024: "1KiB", 1536: "1536", 1536 << 10: "1536KiB", 4 * MiB: "4MiB", 3 * GiB: "3GiB", 10_000_000: "10000000"} {
		if got := in.String(); got != want {
			t.Errorf("Size(%d) = %q, want %q", int64(in), got, want)
		}
	}
}

func TestFormatDuration(t *testing.T) {
	for in, want := range map[time.Duration]string{
		0: "0s", time.Second: "1s", 10 * time.Second: "10s", 90 * time.Second: "1m30s", time.Minute: "1m", 10 * time.Minute: "10m",
		time.Hour: "1h", 90 * time.Minute: "1h30m", time.Hour + time.Second: "1h0m1s", 1500 * time.Millisecond: "1.5s", 100 * time.Hour: "100h",
	} {
		got := formatDuration(in)
		if got != want {
			t.Errorf("formatDuration(%v) = %q, want %q", in, got, want)
		}
		if back, err := time.ParseDuration(got); back != in || err != nil {
			t.Errorf("%q reads back as %v, %v", got, back, err)
		}
	}
}

func TestAge(t *testing.T) {
	for in, want := range map[string]time.Duration{"0": 0, "0d": 0, "0s": 0, "90d": 90 * day, "36h": 36 * time.Hour, "1h30m": 90 * time.Minute, "-2d": -2 * day, "106751d": 106751 * day} {
		got, err := parseAge("events", in)
		if err != nil || got != want {
			t.Errorf("parseAge(%q) = %v, %v, want %v", in, got, err, want)
		}
		if back, err := parseAge("events", formatAge(got)); back != got || err != nil {
			t.Errorf("%q reads back as %v, %v", formatAge(got), back, err)
		}
	}
	for _, in := range []string{"", "d", "1.5d", "90", "90 d", "1d12h", "106752d", "9223372036854775808d"} {
		if got, err := parseAge("events", in); err == nil {
			t.Errorf("parseAge(%q) = %v, want an error", in, got)
		}
	}
}
