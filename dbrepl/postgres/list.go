package postgres

import "strings"

// lists are the settings whose value is a list of names, each of which a server
// stores quoted where it has to be. Those of true take a name that is not in
// quotes for one of small letters. Lists that a server stores as they were
// given (DateStyle) are not among them.
var lists = map[string]bool{
	"search_path": true, "temp_tablespaces": true,
	"local_preload_libraries": false, "session_preload_libraries": false, "shared_preload_libraries": false, "unix_socket_directories": false,
}

// elements returns the names of a list as literals, since a statement takes no empty
// name in double quotes. A list without any is one empty literal. It is false for
// what is no list.
func elements(value string, folds bool) (all []string, ok bool) {
	const blank = " \t\n\r\f\v"
	rest := strings.Trim(value, blank)
	if rest == "" {
		return []string{literal("")}, true
	}
	for {
		var name string
		if strings.HasPrefix(rest, `"`) {
			if name, rest, ok = quotedName(rest[1:]); !ok {
				return nil, false
			}
		} else {
			n := strings.IndexAny(rest, ","+blank)
			if n < 0 {
				n = len(rest)
			}
			if name, rest = rest[:n], rest[n:]; name == "" {
				return nil, false
			}
			if folds {
				name = strings.ToLower(name)
			}
		}
		all = append(all, literal(name))
		if rest = strings.TrimLeft(rest, blank); rest == "" {
			return all, true
		}
		if rest[0] != ',' {
			return nil, false
		}
		rest = strings.TrimLeft(rest[1:], blank)
	}
}

// quotedName reads a name up to the double quote that ends it.
func quotedName(s string) (name, rest string, ok bool) {
	for {
		part, after, found := strings.Cut(s, `"`)
		if name += part; !found {
			return "", "", false
		}
		if !strings.HasPrefix(after, `"`) {
			return name, after, true
		}
		name, s = name+`"`, after[1:]
	}
}
