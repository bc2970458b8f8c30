package harness

import (
	"math"
	"os"
	"syscall"
	"unsafe"
)

// Unlimited is the size of files without a limit.
const Unlimited = math.MaxUint64

func limitFiles(pid int, size uint64) error {
	limit := syscall.Rlimit{Cur: size, Max: Unlimited}
	if _, _, errno := syscall.RawSyscall6(syscall.SYS_PRLIMIT64, uintptr(pid), syscall.RLIMIT_FSIZE, uintptr(unsafe.Pointer(&limit)), 0, 0, 0); errno != 0 {
		return os.NewSyscallError("prlimit", errno)
	}
	return nil
}
