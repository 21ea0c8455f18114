package dbrepl

import (
	"crypto/tls"
	"errors"
	"fmt"
)

// CertificateHint says what can be done about an error of a connection whose server could not
// prove who it is, or returns "" for any other error.
func CertificateHint(role string, err error) string {
	if wrong := (*tls.CertificateVerificationError)(nil); !errors.As(err, &wrong) {
		return ""
	}
	return fmt.Sprintf("compare the certificate of the %s database server with the ca in the configuration, its names with the address there, and its dates with today", role)
}
