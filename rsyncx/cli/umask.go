package cli

import (
	"os"
	"strconv"
	"strings"
)

// Umask returns the process's mask. It is read where it cannot be changed by the
// reading, which umask(2) would do for every goroutine.
func Umask() uint32 {
	status, err := os.ReadFile("/proc/self/status")
	if err == nil {
		for line := range strings.Lines(string(status)) {
			if value, ok := strings.CutPrefix(line, "Umask:"); ok {
				if n, err := strconv.ParseUint(strings.TrimSpace(value), 8, 32); err == nil {
					return uint32(n)
				}
			}
		}
	}
	return 0o022
}
