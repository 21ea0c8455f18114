package app_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/drsync/drsync/internal/app"
)

const activeYAML = `## a comment
configVersion: 1
shared:
  extraJavaOpts: "-server -Xms512m -Xmx4g"
  security:
    joinKey: tWQ9kP.aesgcm256.AAAA-one
  node:
    id: active
    ip: 10.0.0.1
  jfrogUrl: http://active:8082
  database:
    type: mysql
    url: jdbc:mysql://10.0.0.1/artdb
    password: plain-secret
access:
  database:
    url: jdbc:mysql://10.0.0.1/artdb
  http:
    port: 8040
artifactory:
  tomcat:
    connector:
      maxThreads: 200
  lists: [a, b]
router:
`

func TestCompareSystemYAML(t *testing.T) {
	standby := strings.NewReplacer("10.0.0.1", "10.0.0.2", "id: active", "id: standby", "//active", "//standby", "plain-secret", "other-secret", "AAAA-one", "BBBB-two").Replace(activeYAML)
	for _, c := range []struct {
		name, standby string
		want          []string
	}{
		{"only the host differs", standby, nil},
		{"the same", activeYAML, nil},
		{"a number", strings.Replace(standby, "maxThreads: 200", "maxThreads: 300", 1), []string{"artifactory.tomcat.connector.maxThreads"}},
		{"a list", strings.Replace(standby, "[a, b]", "[a, c, d]", 1), []string{"artifactory.lists[1]", "artifactory.lists[2]"}},
		{"only here", standby + "metadata:\n  secret: hidden-value\n", []string{"metadata.secret"}},
		{"key not yet encrypted", strings.Replace(standby, "tWQ9kP.aesgcm256.BBBB-two", "plainkey", 1), []string{"shared.security.joinKey"}},
		{"empty", "", []string{"access.http.port", "artifactory.lists[0]", "artifactory.lists[1]", "artifactory.tomcat.connector.maxThreads", "configVersion", "shared.extraJavaOpts", "shared.security.joinKey"}},
	} {
		got, err := app.CompareSystemYAML([]byte(activeYAML), []byte(c.standby))
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, %v, want %q", c.name, got, err, c.want)
		}
	}
}

func TestCompareSystemYAMLRefuses(t *testing.T) {
	deep := strings.Builder{}
	for i := range 2000 {
		fmt.Fprintf(&deep, "%sa:\n", strings.Repeat(" ", i))
	}
	for name, text := range map[string]string{
		"syntax":        "shared:\n  password: top-secret\n bad: [",
		"duplicate key": "a: top-secret\na: top-secret2\n",
		"two documents": "a: 1\n---\na: 2\n",
		"a list":        "- top-secret\n",
		"alias":         "a: &x top-secret\nb: *x\n",
		"big":           strings.Repeat("# comment\n", 100_000),
		"brackets":      "a: " + strings.Repeat("[", 100_000),
		"dashes":        strings.Repeat("- ", 100_000),
		"deep":          deep.String(),
	} {
		_, err := app.CompareSystemYAML([]byte(text), nil)
		if err == nil || !strings.Contains(err.Error(), "of the active") || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := app.CompareSystemYAML(nil, []byte(text)); err == nil || !strings.Contains(err.Error(), "of the standby") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzCompareSystemYAML(f *testing.F) {
	f.Add([]byte(activeYAML), []byte("shared:\n  x: 1\n"))
	f.Add([]byte("a: {b: [1, 2]}\n"), []byte("a: &x 1\nb: *x\n"))
	f.Add([]byte("? a\n: b\n"), []byte("a: |\n  text\n"))
	f.Fuzz(func(t *testing.T, active, standby []byte) {
		got, err := app.CompareSystemYAML(active, standby)
		if err != nil {
			return
		}
		back, err := app.CompareSystemYAML(standby, active)
		if err != nil || !slices.Equal(got, back) {
			t.Fatalf("%q one way, %q the other, %v", got, back, err)
		}
		if same, err := app.CompareSystemYAML(active, active); err != nil || len(same) > 0 && !strings.Contains(string(active), "nan") && !strings.Contains(string(active), "NaN") {
			t.Fatalf("differs from itself: %q, %v", same, err)
		}
	})
}
