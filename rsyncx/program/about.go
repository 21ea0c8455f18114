package program

import (
	"encoding/json"
	"strings"

	"github.com/drsync/drsync/rsyncx/cli"
)

// about prints what the line asks about the program itself and reports whether it did.
func (r *run) about() bool {
	switch {
	case r.c.Version > 1:
		r.out.write(capabilities(r.Version))
	case r.c.Version == 1:
		r.out.write(version(r.Version))
	case r.c.Help:
		r.out.write(version(r.Version) + "\n" + usageText + cli.OptionHelp() + "\nRefused, because\n\n" + cli.RefusedHelp() + "\n" + statusText)
	case r.c.HelpFlags || r.c.HelpDebug:
		r.out.write(r.c.FlagHelp())
	default:
		return false
	}
	return true
}

const usageText = `Usage: drsync rsync [OPTION]... SRC [SRC]... DEST
  or   drsync rsync [OPTION]... [USER@]HOST:SRC [:SRC]... DEST
  or   drsync rsync [OPTION]... SRC              to list what it has

Copies trees as rsync does, from this host or from one with drsync on it, to this host.
All decisions are made here; what is copied becomes visible in one step at the end, and
what is deleted goes last. Nothing is written to the source, and nothing is pushed.

  drsync rsync -vvah --del --progress --exclude-from=excludes active:/home/app/ /home/app/

Options

`

const statusText = `Exit status: those of rsync; 0 done, 1 usage, 3 files or directories of the line, 4 not supported,
10 connection, 11 file I/O, 12 protocol stream, 20 interrupted, 23 partial transfer, 24 vanished files,
25 deletions were limited, 30 timeout, 35 timeout of connecting, 127 no drsync there, 255 the remote shell.
`

var (
	checksums    = []string{"xxh128", "xxh3", "xxh64", "md5", "sha1", "md4", "none"}
	compressions = []string{"zstd", "none"}
)

// version is what --version prints.
func version(v string) string {
	return "drsync  version " + v + "  (command line of rsync 3.5)\n" +
		"Capabilities:\n    64-bit files, 64-bit inums, 64-bit timestamps, symlinks, symtimes, hardlinks,\n" +
		"    hardlink-specials, hardlink-symlinks, inplace, append, ACLs, xattrs, no crtimes,\n    no atimes, no batchfiles, no iconv\n" +
		"Checksum list:\n    " + strings.Join(checksums, " ") + "\nCompress list:\n    " + strings.Join(compressions, " ") + "\n"
}

// capabilities is what -VV prints: the fields of rsync's, filled in for drsync.
func capabilities(v string) string {
	text, err := json.MarshalIndent(struct {
		Program      string         `json:"program"`
		Version      string         `json:"version"`
		Compatible   string         `json:"compatible_with"`
		Capabilities map[string]any `json:"capabilities"`
		Checksums    []string       `json:"checksum_list"`
		Compressions []string       `json:"compress_list"`
		Auth         []string       `json:"daemon_auth_list"`
	}{
		"drsync", v, "rsync 3.5 command line",
		map[string]any{
			"file_bits": 64, "inum_bits": 64, "timestamp_bits": 64, "long_int_bits": 64, "symlinks": true, "symtimes": true,
			"hardlinks": true, "hardlink_specials": true, "hardlink_symlinks": true, "IPv6": true, "inplace": true, "append": true,
			"ACLs": true, "xattrs": true, "secluded_args": "always", "atimes": false, "crtimes": false, "batchfiles": false,
			"iconv": false, "prealloc": false, "stop_at": false,
		},
		checksums, compressions, []string{},
	}, "", "  ")
	if err != nil {
		panic("internal error: " + err.Error())
	}
	return string(text) + "\n"
}
