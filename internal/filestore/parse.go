package filestore

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Bounds of a binarystore.xml; real ones have a few hundred elements at most.
const (
	maxChainBytes    = 1 << 20
	maxChainDepth    = 16
	maxChainElements = 4096
)

// Parse reads a binarystore.xml. A nil file stands for one that does not exist,
// which means the template file-system, as it does for the application. An
// unknown template or provider type is an error that names it.
func Parse(file []byte) (Chain, error) {
	c, err := parse(file)
	if err != nil {
		return Chain{}, fmt.Errorf("binarystore.xml: %w", err)
	}
	return c, nil
}

func parse(file []byte) (Chain, error) {
	if file == nil {
		root, _ := template("file-system")
		return Chain{Template: "file-system", Root: root.clone()}, nil
	}
	config, err := readXML(file)
	if err != nil {
		return Chain{}, err
	}
	if config.name != "config" {
		return Chain{}, fmt.Errorf("the outermost element is <%s>, not <config>", config.name)
	}
	c := Chain{Version: config.attr["version"]}
	var chain *element
	var outside []Provider
	for _, e := range config.children {
		switch e.name {
		case "chain":
			if chain != nil {
				return Chain{}, errors.New("more than one <chain>")
			}
			chain = e
		case string(Plain):
			p, err := readProvider(e)
			if err != nil {
				return Chain{}, err
			}
			if len(p.Children) > 0 {
				return Chain{}, fmt.Errorf("provider %s (%s) wraps other providers but stands outside the chain", p.ID, p.Type)
			}
			outside = append(outside, p)
		default:
			return Chain{}, fmt.Errorf("unknown element <%s>", e.name)
		}
	}
	if chain == nil {
		return Chain{}, errors.New("no <chain>")
	}
	if err := c.readChain(chain); err != nil {
		return Chain{}, err
	}
	if err := c.apply(outside); err != nil {
		return Chain{}, err
	}
	return c, c.check()
}

// readChain fills in Template and Root. Providers that are spelled out win over
// the template that the chain also names.
func (c *Chain) readChain(e *element) error {
	var spelled []Provider
	for _, child := range e.children {
		if child.name != string(Plain) {
			return fmt.Errorf("unknown element <%s> in the chain", child.name)
		}
		p, err := readProvider(child)
		if err != nil {
			return err
		}
		spelled = append(spelled, p)
	}
	c.Template = strings.TrimSpace(e.attr["template"])
	var byName Provider
	if c.Template != "" {
		var ok bool
		if byName, ok = template(c.Template); !ok {
			return fmt.Errorf("unknown chain template %q (known: %s)", c.Template, templateNames())
		}
	}
	switch {
	case len(spelled) > 1:
		return fmt.Errorf("the chain has %d outermost providers, %s and %s; it must have one", len(spelled), spelled[0].ID, spelled[1].ID)
	case len(spelled) == 1:
		c.Root = spelled[0]
	case c.Template == "":
		return errors.New("the chain is empty and names no template")
	default:
		c.Root = byName.clone()
		_ = c.Root.each(func(p *Provider) error { clear(p.Settings); return nil })
	}
	return nil
}

// apply gives the providers of the chain the settings that stand outside of it,
// matched by id and type together, and then the application's defaults for what
// is still not set.
func (c *Chain) apply(outside []Provider) error {
	for _, o := range outside {
		used := false
		err := c.Root.each(func(p *Provider) error {
			if p.ID != o.ID || p.Type != o.Type {
				return nil
			}
			used = true
			for k, v := range o.Settings {
				if err := p.set(k, v); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		if !used {
			c.Unused = append(c.Unused, fmt.Sprintf("provider %s (%s) is not in the chain", o.ID, o.Type))
		}
	}
	defaults := defaultSettings(c.Template)
	return c.Root.each(func(p *Provider) error {
		for k, v := range defaults[[2]string{p.ID, p.Type}] {
			if _, set := p.Settings[k]; !set {
				p.Settings[k] = v
			}
		}
		return nil
	})
}

// defaultSettings returns what the application sets for an id and type when the
// file does not: for the shards of its own templates in any chain, for other
// providers in the chain of that template.
func defaultSettings(templateName string) map[[2]string]map[string]string {
	defaults := map[[2]string]map[string]string{}
	for name, t := range templates() {
		_ = t.each(func(p *Provider) error {
			if name == templateName || p.Type == "state-aware" && p.Settings["fileStoreDir"] != "" {
				defaults[[2]string{p.ID, p.Type}] = p.Settings
			}
			return nil
		})
	}
	return defaults
}

// set takes one setting; a second value for it is an error, since which of them
// the application would use is its secret.
func (p *Provider) set(name, value string) error {
	value = strings.TrimSpace(value)
	if old, ok := p.Settings[name]; ok && old != value {
		return fmt.Errorf("provider %s (%s): %s is set twice, to different values", p.ID, p.Type, name)
	}
	p.Settings[name] = value
	return nil
}

// check holds what every chain must satisfy, whether drsync can carry it or not.
func (c *Chain) check() error {
	types := providerTypes()
	return c.Root.each(func(p *Provider) error {
		kind, known := types[p.Type]
		if !known {
			return fmt.Errorf("unknown provider type %q (provider %s)", p.Type, p.ID)
		}
		if kind == wrapper && len(p.Children) != 1 {
			return fmt.Errorf("provider %s (%s) must wrap one provider, not %d", p.ID, p.Type, len(p.Children))
		}
		if (kind == files || kind == database) && len(p.Children) != 0 {
			return fmt.Errorf("provider %s (%s) cannot wrap another provider", p.ID, p.Type)
		}
		if kind == shards && len(p.Children) == 0 {
			return fmt.Errorf("provider %s (%s) has no sub-provider", p.ID, p.Type)
		}
		for _, name := range []string{"redundancy", "maxCacheSize"} {
			if _, _, err := p.Number(name); err != nil && !strings.Contains(p.Settings[name], "${") {
				return err
			}
		}
		return nil
	})
}

func readProvider(e *element) (Provider, error) {
	p := Provider{ID: strings.TrimSpace(e.attr["id"]), Type: strings.TrimSpace(e.attr["type"]), Role: Role(e.name), Settings: map[string]string{}}
	if p.ID == "" || p.Type == "" {
		return Provider{}, fmt.Errorf("a <%s> without id or type (id %q, type %q)", e.name, p.ID, p.Type)
	}
	for _, child := range e.children {
		var err error
		switch child.name {
		case string(Plain), string(Sub), string(Dynamic):
			var inner Provider
			if inner, err = readProvider(child); err == nil {
				p.Children = append(p.Children, inner)
			}
		case "property":
			if child.attr["name"] == "" {
				return Provider{}, fmt.Errorf("provider %s (%s): a <property> without name", p.ID, p.Type)
			}
			err = p.set(child.attr["name"], child.attr["value"])
		default:
			if len(child.children) > 0 {
				return Provider{}, fmt.Errorf("provider %s (%s): setting <%s> contains elements", p.ID, p.Type, child.name)
			}
			err = p.set(child.name, string(child.text))
		}
		if err != nil {
			return Provider{}, err
		}
	}
	return p, nil
}

// element is an XML element without namespaces, comments and order of attributes.
type element struct {
	name     string
	attr     map[string]string
	text     []byte
	children []*element
}

func readXML(file []byte) (*element, error) {
	if len(file) > maxChainBytes {
		return nil, fmt.Errorf("%d bytes are more than a chain can need (%d)", len(file), maxChainBytes)
	}
	d := xml.NewDecoder(bytes.NewReader(bytes.TrimPrefix(file, []byte("\ufeff"))))
	var root *element
	var open []*element
	count := 0
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, withoutContent(err)
		}
		switch t := token.(type) {
		case xml.StartElement:
			if count++; count > maxChainElements || len(open) >= maxChainDepth {
				return nil, fmt.Errorf("more than %d elements, or nested deeper than %d", maxChainElements, maxChainDepth)
			}
			e := &element{name: t.Name.Local, attr: map[string]string{}}
			for _, a := range t.Attr {
				e.attr[a.Name.Local] = a.Value
			}
			switch {
			case len(open) > 0:
				open[len(open)-1].children = append(open[len(open)-1].children, e)
			case root == nil:
				root = e
			default:
				return nil, errors.New("more than one outermost element")
			}
			open = append(open, e)
		case xml.EndElement:
			open = open[:len(open)-1]
		case xml.CharData:
			if len(open) > 0 {
				top := open[len(open)-1]
				top.text = append(top.text, t...)
			}
		}
	}
	if root == nil {
		return nil, errors.New("the file is empty")
	}
	return root, nil
}

// withoutContent keeps the line of a syntax error but not the text around it,
// which may be a secret.
func withoutContent(err error) error {
	var s *xml.SyntaxError
	if errors.As(err, &s) {
		return fmt.Errorf("not well-formed XML at line %d", s.Line)
	}
	return errors.New("not well-formed XML")
}
