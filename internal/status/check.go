package status

import (
	"fmt"
	"math"
	"strings"

	"github.com/drsync/drsync/internal/role"
	"github.com/drsync/drsync/internal/show"
	"github.com/drsync/drsync/rsyncx"
)

// Exit codes of monitoring plugins.
const (
	OK       = 0
	Warning  = 1
	Critical = 2
	Unknown  = 3
)

var words = []string{OK: "OK", Warning: "WARNING", Critical: "CRITICAL", Unknown: "UNKNOWN"}

// Check condenses s to what monitoring plugins return: an exit code and one
// line with performance data. The loss is a warning above the target and
// critical above twice the target.
func Check(s Status) (code int, line string) {
	code, text := judge(s)
	// A bar would begin the performance data.
	text = strings.ReplaceAll(rsyncx.Printable(text), "|", "/")
	return code, fmt.Sprintf("DRSYNC %s - %s%s", words[code], text, perfdata(s))
}

func judge(s Status) (int, string) {
	switch {
	case len(s.Unreadable) > 0:
		return Unknown, strings.Join(s.Unreadable, "; ")
	case s.Role == role.Active:
		return OK, fmt.Sprintf("active, epoch %d", s.Epoch)
	case s.Role == role.Promoting && s.Running == nil:
		return Critical, fmt.Sprintf("a failover to epoch %d was interrupted", s.Epoch)
	case s.Role == role.Promoting:
		return Warning, fmt.Sprintf("failover to epoch %d under way", s.Epoch)
	case s.Failover.ExpectedLoss == nil:
		return Critical, "standby without a snapshot"
	}
	loss := *s.Failover.ExpectedLoss
	code := OK
	said := []string{fmt.Sprintf("standby, %s behind", show.Duration(seconds(loss)))}
	worse := func(c int, format string, args ...any) {
		code = max(code, c)
		said = append(said, fmt.Sprintf(format, args...))
	}
	if s.RPO != nil && !s.RPO.Met {
		c := Warning
		if loss > 2*s.RPO.Target {
			c = Critical
		}
		worse(c, "target is %s", show.Duration(seconds(s.RPO.Target)))
	}
	if s.Last != nil && !s.Last.Complete {
		worse(Warning, "the last snapshot is incomplete%s", missingText(" (%s)", s.Last.Missing))
	}
	switch v := s.Verify; {
	case v == nil:
	case v.Difference != "":
		worse(Critical, "the database differs from the active's")
	case v.Overdue:
		worse(Warning, "the database was last compared %s ago", show.Duration(s.Time.Sub(v.Equal)))
	}
	if s.Last != nil && s.Last.FromFuture {
		worse(Warning, "its time lies in the future")
	}
	switch {
	case s.Interrupted && s.Publish.Failure != "":
		worse(Critical, "the publish of %s could not be finished %s ago: %s", s.Publish.ID, show.Duration(max(0, s.Time.Sub(s.Publish.Failed))), s.Publish.Failure)
	case s.Interrupted:
		worse(Warning, "the publish of %s was interrupted", s.Publish.ID)
	}
	return code, strings.Join(said, ", ")
}

// perfdata is "'label'=value[unit];warning;critical;minimum" for each number.
func perfdata(s Status) string {
	var data []string
	if loss := s.Failover.ExpectedLoss; loss != nil {
		limits := ";"
		if s.RPO != nil {
			limits = fmt.Sprintf("%.0f;%.0f", s.RPO.Target, 2*s.RPO.Target)
		}
		data = append(data, fmt.Sprintf("loss=%.0fs;%s;0", math.Ceil(*loss), limits))
	}
	if s.Last != nil {
		data = append(data, fmt.Sprintf("missing=%d;0;;0", s.Last.Missing))
	}
	data = append(data, fmt.Sprintf("snapshots=%d;;;0", s.Snapshots), fmt.Sprintf("epoch=%d", s.Epoch))
	return " | " + strings.Join(data, " ")
}

// missingText puts a number of missing blobs into format; none is "".
func missingText(format string, n int64) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf(format, show.Plural(n, "missing blob", "missing blobs"))
}
