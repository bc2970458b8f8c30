//go:build !unix

package upstream

import (
	"os/exec"
	"syscall"
)

// ownGroup does nothing: there are no process groups here.
func ownGroup(*exec.Cmd) {}

// signal ends the program, whatever the signal: this system has no others. What it has started may live on.
func (p *process) signal(syscall.Signal) { _ = p.cmd.Process.Kill() } // it may be gone
