//go:build !linux

package harness

import (
	"errors"
	"math"
)

// Unlimited is the size of files without a limit.
const Unlimited = math.MaxUint64

func limitFiles(int, uint64) error { return errors.ErrUnsupported }
