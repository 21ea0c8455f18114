package filestore

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Chain is the application's chain of storage providers, as its
// binarystore.xml describes it with templates spelled out. It is a plain value.
type Chain struct {
	Version  string // of the file; "" when it has none
	Template string // "" when the chain was spelled out without one
	Root     Provider
	// Unused names top-level provider settings that no provider of the chain
	// takes, because id or type differ. The application ignores them, silently.
	Unused []string
}

// Provider is one provider of a chain with the providers it wraps.
type Provider struct {
	ID, Type string
	Role     Role
	Settings map[string]string // as written; may hold secrets
	Children []Provider
}

// Role is how a provider hangs below its parent.
type Role string

const (
	Plain   Role = "provider"
	Sub     Role = "sub-provider"     // one of several equals: a shard
	Dynamic Role = "dynamic-provider" // stands for the other nodes of a cluster
)

// Number returns a numeric setting, which may be written like 5e+10, and
// whether it is set.
func (p Provider) Number(name string) (float64, bool, error) {
	text, ok := p.Settings[name]
	if !ok {
		return 0, false, nil
	}
	n, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
	if err != nil {
		return 0, false, fmt.Errorf("provider %s: setting %s is not a number", p.ID, name)
	}
	return n, true, nil
}

// shown are the settings that String prints: where bytes lie and how often.
// Everything else could be a secret.
var shown = []string{"fileStoreDir", "tempDir", "cacheProviderDir", "maxCacheSize", "redundancy", "writeEnabled", "zone", "bucketName", "containerName", "container", "path", "endpoint"}

// String draws the chain, one provider a line, inner ones indented. It shows no secrets.
func (c Chain) String() string {
	var b strings.Builder
	switch {
	case c.Template != "":
		fmt.Fprintf(&b, "chain, template %s\n", c.Template)
	default:
		b.WriteString("chain, spelled out\n")
	}
	c.Root.write(&b, 1)
	for _, u := range c.Unused {
		fmt.Fprintf(&b, "  unused settings: %s\n", u)
	}
	return b.String()
}

func (p Provider) write(b *strings.Builder, depth int) {
	b.WriteString(strings.Repeat("  ", depth))
	if p.Role != Plain && p.Role != "" {
		fmt.Fprintf(b, "%s ", p.Role)
	}
	b.WriteString(p.Type)
	if p.ID != p.Type {
		fmt.Fprintf(b, " (%s)", p.ID)
	}
	for _, name := range shown {
		if v, ok := p.Settings[name]; ok {
			fmt.Fprintf(b, " %s=%s", name, withoutPassword(v))
		}
	}
	b.WriteByte('\n')
	for _, c := range p.Children {
		c.write(b, depth+1)
	}
}

// withoutPassword hides the user part of a URL: endpoints may carry one.
func withoutPassword(v string) string {
	scheme, rest, ok := strings.Cut(v, "://")
	if !ok {
		return v
	}
	host, path, _ := strings.Cut(rest, "/")
	if at := strings.LastIndexByte(host, '@'); at >= 0 {
		return scheme + "://***@" + strings.TrimSuffix(host[at+1:]+"/"+path, "/")
	}
	return v
}

// clone returns a provider that shares nothing with p.
func (p Provider) clone() Provider {
	settings := make(map[string]string, len(p.Settings))
	for k, v := range p.Settings {
		settings[k] = v
	}
	p.Settings = settings
	p.Children = slices.Clone(p.Children)
	for i := range p.Children {
		p.Children[i] = p.Children[i].clone()
	}
	return p
}

// each calls do for p and every provider below it.
func (p *Provider) each(do func(*Provider) error) error {
	if err := do(p); err != nil {
		return err
	}
	for i := range p.Children {
		if err := p.Children[i].each(do); err != nil {
			return err
		}
	}
	return nil
}
