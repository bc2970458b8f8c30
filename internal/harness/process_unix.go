//go:build unix

package harness

import (
	"os"
	"os/exec"
	"syscall"
)

const terminate = syscall.SIGTERM

func separate(cmd *exec.Cmd)      { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }
func pause(p *os.Process) error   { return p.Signal(syscall.SIGSTOP) }
func unpause(p *os.Process) error { return p.Signal(syscall.SIGCONT) }
