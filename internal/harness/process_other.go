//go:build !unix

package harness

import (
	"errors"
	"os"
	"os/exec"
)

var terminate = os.Interrupt

func separate(*exec.Cmd)        {}
func pause(*os.Process) error   { return errors.ErrUnsupported }
func unpause(*os.Process) error { return errors.ErrUnsupported }
