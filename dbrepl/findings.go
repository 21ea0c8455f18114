package dbrepl

import (
	"errors"
	"net"
	"strings"

	"github.com/drsync/drsync/internal/hint"
)

// Refuse turns the fatal ones of findings into one error, with what would mend
// them as its hint; nil if there are none.
func Refuse(findings []Finding) error {
	var problems, fixes []string
	for _, f := range findings {
		if !f.Fatal {
			continue
		}
		problems = append(problems, f.Subject+": "+f.Problem)
		if f.Fix != "" {
			fixes = append(fixes, f.Fix)
		}
	}
	if problems == nil {
		return nil
	}
	return hint.With(errors.New(strings.Join(problems, "; ")), strings.Join(fixes, "\n"))
}

// OnThisHost says whether an address, host:port or the path of a socket, is of
// this host for certain.
func OnThisHost(address string) bool {
	if strings.HasPrefix(address, "/") {
		return true
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
