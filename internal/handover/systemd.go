//go:build unix

package handover

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"time"
)

// States of sd_notify(3).
const (
	Ready     = "READY=1"
	Stopping  = "STOPPING=1"
	Reloading = "RELOADING=1"
	Watchdog  = "WATCHDOG=1"
)

// notifyTime bounds a notification: systemd may be busy, and people wait for the gateway.
const notifyTime = time.Second

// Supervised reports whether systemd wants to be told of states.
func Supervised() bool { return os.Getenv("NOTIFY_SOCKET") != "" }

// MainPID tells systemd that another process is the service's from now on.
func MainPID(pid int) string { return fmt.Sprintf("MAINPID=%d\n%s", pid, Ready) }

// Notify tells systemd a state, if it wants to know (Type=notify).
func Notify(state string) error {
	name := os.Getenv("NOTIFY_SOCKET")
	if name == "" {
		return nil
	}
	if name[0] == '@' {
		name = "\x00" + name[1:] // an abstract socket
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("notify systemd: %w", err)
	}
	defer conn.Close()
	if err := conn.SetWriteDeadline(time.Now().Add(notifyTime)); err != nil {
		return fmt.Errorf("notify systemd: %w", err)
	}
	if _, err := conn.Write([]byte(state)); err != nil {
		return fmt.Errorf("notify systemd: %w", err)
	}
	return nil
}

// WatchdogInterval is how often systemd has to hear from this process (WatchdogSec=); 0 for never.
func WatchdogInterval() time.Duration {
	us, err := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 64)
	if err != nil || us <= 0 || !Supervised() {
		return 0
	}
	if pid := os.Getenv("WATCHDOG_PID"); pid != "" && pid != strconv.Itoa(os.Getpid()) {
		return 0
	}
	return time.Duration(us) * time.Microsecond / 2
}
