package cli

// action carries out one option.
type action func(c *Command, value string) error

// option is one option: of rsync, or with ours one that drsync adds.
type option struct {
	long     string
	also     string // another long name
	short    byte   // 0 is none
	arg      string // what its value is called; "" takes none
	help     string
	do       action // nil when it is refused, and then why says for what reason
	no       action // of --no-long and --no-short; nil if rsync has none
	onlyLong bool   // there is no --no-short
	why      string
	// tree says why it has no place among options that stand without paths.
	tree string
	ours bool
}

func (o *option) takes() bool { return o.arg != "" }

func (o *option) named(name string) bool {
	return name != "" && (name == o.long || name == o.also) || len(name) == 1 && o.short == name[0] && !o.onlyLong
}

// table returns every option of rsync 3.5 and those that drsync adds, in the
// order of its help.
func table() []option {
	var all []option
	for _, part := range [][]option{
		shown(), walked(), kept(), compared(), written(), deleted(), connected(), guarded(), refused(),
	} {
		all = append(all, part...)
	}
	return all
}

// Reasons why an option has no place in a configured run.
const (
	wholeHome = "the whole home is copied"
	atomic    = "drsync publishes all files in one step"
	configure = "the configuration's keys say this"
	oneOutput = "the program prints and logs in its own way"
)

// shown are the options about what is printed.
func shown() []option {
	return []option{
		{long: "verbose", short: 'v', help: "say more; repeat it for more still", do: do(func(c *Command) { c.Verbose++ }), no: do(func(c *Command) { c.Verbose = 0 })},
		{long: "info", arg: "FLAGS", help: "what to tell, in detail; --info=help lists the flags", do: levels(infoFlags)},
		{long: "debug", arg: "FLAGS", help: "accepted; FILTER alone has an effect", do: levels(debugFlags)},
		{long: "msgs2stderr", help: "the same as --stderr=all", do: do(func(c *Command) { c.AllToErr = true }), no: do(func(c *Command) { c.AllToErr = false }), tree: oneOutput},
		{long: "stderr", arg: "MODE", help: "errors, all or client: where messages go", do: stderr, tree: oneOutput},
		{long: "quiet", short: 'q', help: "print errors only", do: do(func(c *Command) { c.Quiet = true }), tree: oneOutput},
		{long: "human-readable", short: 'h', help: "write numbers with units; twice: of 1024", do: moreHuman, no: do(func(c *Command) { c.Numbers = Plain })},
		sw("progress", 0, "show each file's progress", func(c *Command, on bool) { c.Progress = on }),
		{short: 'P', help: "the same as --partial --progress", do: do(func(c *Command) { c.Progress, c.Options.Resume = true, true })},
		{long: "itemize-changes", short: 'i', help: "show each change by letters; twice: what is the same too", do: do(func(c *Command) { c.Itemize++ }), no: do(func(c *Command) { c.Itemize = 0 })},
		{long: "out-format", also: "log-format", arg: "FORMAT", help: "how a change is shown", do: shape(func(c *Command) *string { return &c.Format }), tree: oneOutput},
		{long: "stats", help: "print figures at the end", do: do(func(c *Command) { c.Stats = true })},
		sw("8-bit-output", '8', "do not escape bytes above 127", func(c *Command, on bool) { c.EightBit = on }),
		{long: "outbuf", arg: "N|L|B", help: "buffer the output not, by lines or by blocks", do: outbuf, tree: oneOutput},
		{long: "list-only", help: "list the sources and copy nothing", do: do(func(c *Command) { c.List = true }), tree: wholeHome},
		{long: "log-file", arg: "FILE", help: "write what is done into FILE", do: path(func(c *Command) *string { return &c.LogFile })},
		{long: "log-file-format", arg: "FORMAT", help: "how a change is logged", do: shape(func(c *Command) *string { return &c.LogFormat })},
		{long: "dry-run", short: 'n', help: "say what would be done and do nothing", do: do(func(c *Command) { c.DryRun, c.Options.DryRun = true, true })},
		{long: "version", short: 'V', help: "print the version; -VV as JSON", do: do(func(c *Command) { c.Version++ }), tree: oneOutput},
		{long: "help", help: "print this help, as does -h alone", do: do(func(c *Command) { c.Help = true }), tree: oneOutput},
	}
}

// walked are the options about which names of the source are looked at.
func walked() []option {
	return []option{
		{long: "archive", short: 'a', help: "the same as -rlptgoD", do: archive},
		{long: "recursive", short: 'r', help: "go into directories", do: do(func(c *Command) { c.Recursive, c.archived = true, false }), no: do(func(c *Command) { c.Recursive, c.archived = false, false })},
		{long: "inc-recursive", also: "i-r", help: "accepted: drsync always lists as it goes", do: do(func(c *Command) { c.notIncremental = false }), no: do(func(c *Command) { c.notIncremental = true })},
		sw2("relative", 'R', "keep the whole paths of the sources", wholeHome, func(c *Command, on bool) { c.Relative, c.notRelative = on, !on }),
		{long: "implied-dirs", also: "i-d", help: "with -R, carry the attributes of the directories on the way", do: do(func(c *Command) { c.NoImplied = false }), no: do(func(c *Command) { c.NoImplied = true }), tree: wholeHome},
		sw2("dirs", 'd', "copy directories without going into them", wholeHome, func(c *Command, on bool) { c.Dirs, c.noDirs, c.oldDirs = on, !on, false }),
		{long: "old-dirs", also: "old-d", help: "the same as -r --exclude='/*/*'", do: do(func(c *Command) { c.Dirs, c.noDirs, c.oldDirs = true, false, true }), tree: wholeHome},
		{long: "files-from", arg: "FILE", help: "copy the names that FILE lists", do: path(func(c *Command) *string { return &c.FilesFrom }), tree: wholeHome},
		longNo(sw("from0", '0', "names and rules in files end with NUL bytes", func(c *Command, on bool) { c.NUL = on })),
		{long: "one-file-system", short: 'x', help: "stay on one file system; twice: leave mount points out", do: oneFileSystem,
			no: do(func(c *Command) { c.Options.OneFileSystem, c.Options.OmitMounts = false, false })},
		{long: "copy-links", short: 'L', help: "copy what symbolic links lead to", do: do(func(c *Command) { c.View.CopyLinks = true }), tree: wholeHome},
		{long: "copy-dirlinks", short: 'k', help: "copy what links to directories lead to", do: do(func(c *Command) { c.View.CopyDirLinks = true }), tree: wholeHome},
		{long: "copy-unsafe-links", help: "copy what links out of the tree lead to", do: do(func(c *Command) { c.View.CopyUnsafeLinks = true }), tree: wholeHome},
		sw("prune-empty-dirs", 'm', "leave out directories in which nothing is", func(c *Command, on bool) { c.Options.PruneEmpty = on }),
		{long: "ignore-missing-args", help: "sources that are missing are no error", do: do(func(c *Command) { c.IgnoreMissing = true }), tree: wholeHome},
		sw2("mkpath", 0, "make the directories that lead to DEST", wholeHome, func(c *Command, on bool) { c.MakePath = on }),
		{long: "exclude", arg: "PATTERN", help: "leave out names that match", do: rule("--exclude")},
		{long: "exclude-from", arg: "FILE", help: "take such patterns from FILE", do: rule("--exclude-from")},
		{long: "include", arg: "PATTERN", help: "do not leave out names that match", do: rule("--include")},
		{long: "include-from", arg: "FILE", help: "take such patterns from FILE", do: rule("--include-from")},
		{long: "filter", short: 'f', arg: "RULE", help: "add a filter rule", do: rule("--filter")},
		{short: 'F', help: "--filter='dir-merge /.rsync-filter'; twice: and leave these files out", do: rule("-F")},
		{long: "cvs-exclude", short: 'C', help: "leave out what CVS leaves out", do: rule("-C")},
		{long: "max-size", arg: "SIZE", help: "do not transfer larger files", do: maxSize},
		{long: "min-size", arg: "SIZE", help: "do not transfer smaller files", do: minSize},
	}
}

// kept are the options about which attributes are carried over.
func kept() []option {
	return []option{
		sw("links", 'l', "copy symbolic links as such", func(c *Command, on bool) { c.Options.Links = on }),
		{long: "safe-links", help: "leave out links that lead out of the tree", do: do(func(c *Command) { c.Options.SafeLinks = true })},
		sw("hard-links", 'H', "keep hard links", func(c *Command, on bool) { c.Options.HardLinks = on }),
		sw("perms", 'p', "keep permissions", func(c *Command, on bool) { c.Options.Perms = on }),
		{long: "executability", short: 'E', help: "keep executability", do: do(func(c *Command) { c.Options.Executability = true })},
		{long: "chmod", arg: "CHMOD", help: "change permissions on the way", do: chmod},
		sw("acls", 'A', "keep access control lists; implies -p", func(c *Command, on bool) { c.Options.ACLs = on }),
		sw("xattrs", 'X', "keep extended attributes", func(c *Command, on bool) { c.Options.Xattrs = on }),
		sw("owner", 'o', "keep the owner, as root", func(c *Command, on bool) { c.Options.Owner = on }),
		sw("group", 'g', "keep the group", func(c *Command, on bool) { c.Options.Group = on }),
		sw("devices", 0, "keep devices, as root", func(c *Command, on bool) { c.Options.Devices = on }),
		sw("specials", 0, "keep named pipes and sockets", func(c *Command, on bool) { c.Options.Specials = on }),
		sw("", 'D', "the same as --devices --specials", func(c *Command, on bool) { c.Options.Devices, c.Options.Specials = on, on }),
		sw("times", 't', "keep modification times", func(c *Command, on bool) { c.Options.Times = on }),
		sw("omit-dir-times", 'O', "but not those of directories", func(c *Command, on bool) { c.Options.OmitDirTimes = on }),
		sw("omit-link-times", 'J', "nor those of symbolic links", func(c *Command, on bool) { c.Options.OmitLinkTimes = on }),
		sw("numeric-ids", 0, "carry owners by number, not by name", func(c *Command, on bool) { c.Options.NumericIDs = on }),
		{long: "usermap", arg: "STRING", help: "map owners: FROM:TO,...", do: idMap(true)},
		{long: "groupmap", arg: "STRING", help: "map groups", do: idMap(false)},
		{long: "chown", arg: "USER:GROUP", help: "give all to one owner and group", do: chown},
		{long: "super", help: "accepted from root, who does what root may; refused to others", do: super(true), no: super(false)},
	}
}

// compared are the options about when a file is transferred.
func compared() []option {
	return []option{
		sw("checksum", 'c', "compare by content, not by time", func(c *Command, on bool) { c.Options.Checksum = on }),
		{long: "checksum-choice", also: "cc", arg: "STR", help: "which sums -c compares and %C shows: xxh128 (auto), xxh3, xxh64, md5, sha1, md4 or none", do: checksumChoice},
		{long: "ignore-times", short: 'I', help: "transfer also what has the same size and time", do: do(func(c *Command) { c.Options.IgnoreTimes = true })},
		{long: "size-only", help: "leave files of the same size alone", do: do(func(c *Command) { c.Options.SizeOnly = true })},
		{long: "modify-window", short: '@', arg: "NUM", help: "so many seconds are no difference; negative compares nanoseconds", do: modifyWindow},
		{long: "update", short: 'u', help: "leave files alone that are newer here", do: do(func(c *Command) { c.Options.Update = true })},
		{long: "existing", also: "ignore-non-existing", help: "make no new files", do: do(func(c *Command) { c.Options.Existing = true })},
		{long: "ignore-existing", help: "leave files alone that are here", do: do(func(c *Command) { c.Options.IgnoreExisting = true })},
		sw("whole-file", 'W', "fetch changed files whole", func(c *Command, on bool) { c.Options.WholeFile, c.Delta = on, !on }),
		{long: "fuzzy", short: 'y', help: "take a similar file as basis of a new one", do: do(func(c *Command) { c.Options.Fuzzy = true; c.fuzzy++ }),
			no: do(func(c *Command) { c.Options.Fuzzy, c.fuzzy = false, 0 })},
		{long: "compare-dest", arg: "DIR", help: "leave out files that DIR has", do: altDest(compareDest)},
		{long: "copy-dest", arg: "DIR", help: "copy unchanged files from DIR", do: altDest(copyDest)},
		{long: "link-dest", arg: "DIR", help: "make unchanged files links to those in DIR", do: altDest(linkDest)},
		{long: "renames", help: "look for moved files and fetch them not (default)", do: do(func(c *Command) { c.NoRenames = false }), no: do(func(c *Command) { c.NoRenames = true }), ours: true},
	}
}

// written are the options about how files are written.
func written() []option {
	return []option{
		sw2("inplace", 0, "write into the files themselves", atomic, func(c *Command, on bool) { c.Options.Inplace = on }),
		sw2("append", 0, "fetch only what longer files have more", atomic, func(c *Command, on bool) { c.Options.Append = on }),
		{long: "append-verify", help: "and check the whole of them", do: do(func(c *Command) { c.Options.AppendVerify = true }), tree: atomic},
		sw("sparse", 'S', "make holes of zeros", func(c *Command, on bool) { c.Options.Sparse = on }),
		sw("partial", 0, "keep what was fetched for the next run", func(c *Command, on bool) { c.Options.Resume = on }),
		{long: "partial-dir", arg: "DIR", help: "keep it in directories of this name", do: func(c *Command, value string) error {
			c.Options.PartialDir = value // none when it is empty
			return nil
		}},
		{long: "delay-updates", help: "accepted: drsync always puts all files in place at the end", do: do(func(c *Command) { c.delayUpdates = true }), no: do(func(c *Command) { c.delayUpdates = false })},
		{long: "temp-dir", short: 'T', arg: "DIR", help: "write files in DIR first", do: path(func(c *Command) *string { return &c.Options.TempDir }), tree: atomic},
		{long: "fsync", help: "see that all is on the disk before the end", do: do(func(c *Command) { c.Fsync = true })},
		longNo(sw("backup", 'b', "keep what is replaced or deleted", func(c *Command, on bool) { c.Options.Backup = on })),
		{long: "backup-dir", arg: "DIR", help: "in DIR", do: backupDir},
		{long: "suffix", arg: "SUFFIX", help: "under its name with SUFFIX (~ without --backup-dir)", do: suffix},
	}
}

// deleted are the options about deletion. drsync deletes when it publishes, after
// everything was copied: that is later than some of these forms ask for, and with the same result.
func deleted() []option {
	return []option{
		{long: "delete", help: "delete what the source has not", do: deletes},
		{long: "delete-during", also: "del", help: "the same as --delete", do: deletesAt},
		{long: "delete-before", help: "make room first", do: do(func(c *Command) { c.when |= before; c.Options.Delete, c.Options.DeleteBefore = true, true })},
		{long: "delete-delay", help: "the same as --delete", do: deletesAt},
		{long: "delete-after", help: "delete by the filter files that DEST will have", do: do(func(c *Command) { c.when |= after; c.Options.Delete, c.Options.DeleteAfter = true, true })},
		{long: "delete-excluded", help: "delete also what filters leave out", do: do(func(c *Command) { c.Options.Delete, c.Options.DeleteExcluded = true, true })},
		{long: "max-delete", arg: "NUM", help: "delete no more than NUM entries", do: maxDelete},
		sw2("ignore-errors", 0, "delete although something could not be read", "a run never deletes after an error", func(c *Command, on bool) { c.Options.IgnoreErrors = on }),
		sw("force", 0, "replace directories that are not empty", func(c *Command, on bool) { c.Options.Force = on }),
	}
}

// connected are the options about a remote host.
func connected() []option {
	return []option{
		{long: "rsh", short: 'e', arg: "COMMAND", help: "reach the host by COMMAND; otherwise by drsync's own ssh", do: text(func(c *Command) *string { return &c.Shell }), tree: configure},
		{long: "rsync-path", arg: "PROGRAM", help: "how drsync is started there", do: text(func(c *Command) *string { return &c.Program }), tree: configure},
		{long: "install-agent", help: "put drsync there if it has none", do: do(func(c *Command) { c.Install = true }), no: do(func(c *Command) { c.Install = false }), tree: configure, ours: true},
		{long: "compress", short: 'z', help: "compress on the line; otherwise drsync does when it pays", do: do(func(c *Command) { c.Compress = CompressAlways }), no: do(func(c *Command) { c.Compress, c.compressLevel = CompressNever, 0 }), tree: configure},
		{long: "compress-choice", also: "zc", arg: "STR", help: "auto, zstd or none", do: compressChoice, tree: configure},
		{long: "compress-level", also: "zl", arg: "NUM", help: "of zstd: 0 is none, 1 and 2, 3 to 5, 6 to 9 and 10 to 22 are the same each", do: compressLevel, tree: configure},
		{long: "bwlimit", arg: "RATE", help: "limit the line to RATE KiB/s", do: bwlimit, no: do(func(c *Command) { c.BytesPerSecond = 0 }), tree: configure},
		{long: "timeout", arg: "SECONDS", help: "give up after so long a silence", do: seconds("timeout", func(c *Command) *int { return &c.Timeout }), no: do(func(c *Command) { c.Timeout = 0 }), tree: configure},
		{long: "contimeout", arg: "SECONDS", help: "give up connecting after so long", do: seconds("contimeout", func(c *Command) *int { return &c.ConnectTimeout }), no: do(func(c *Command) { c.ConnectTimeout = 0 }), tree: configure},
		{long: "blocking-io", help: "accepted: it makes no difference", do: already, no: already, tree: configure},
		{long: "secluded-args", also: "protect-args", short: 's', help: "let * and ? in names of the host match leading dots too, as rsync does there", do: secluded(true), no: secluded(false)},
		{long: "qsort", help: "accepted: the order of a listing has no effect", do: already, tree: oneOutput},
		{long: "trust-sender", help: "accepted: drsync checks what the sender sends all the same", do: already},
		{long: "motd", help: "accepted: there is no daemon", do: already, no: already},
	}
}

// guarded are drsync's own options against an empty or wrong source.
func guarded() []option {
	return []option{
		{long: "source-marker", arg: "PATH", help: "refuse a source that has no PATH", do: marker, ours: true},
		{long: "min-entries", arg: "NUM", help: "refuse a source of fewer entries", do: minEntries, ours: true},
		{long: "max-delete-fraction", arg: "PCT", help: "refuse to delete more than PCT percent of the destination", do: maxFraction, ours: true},
		{long: "same-source", help: "refuse another source directory than the last time", do: do(func(c *Command) { c.Options.SameSource = true }), no: do(func(c *Command) { c.Options.SameSource = false }), ours: true},
		{long: "racy", help: "compare by content the next time what changed within two seconds of being read", do: do(func(c *Command) { c.Options.Racy = true }), no: do(func(c *Command) { c.Options.Racy = false }), ours: true},
		{long: "new-source", help: "accept it and remember it", do: do(func(c *Command) { c.Options.SameSource, c.Options.NewSource = true, true }), ours: true},
	}
}

// refused are the options that drsync does not carry out. Where what an option
// asks for is off in any case, its --no form is accepted.
func refused() []option {
	const (
		daemon = "drsync does not speak with rsync daemons"
		links  = "drsync follows no symbolic links where it writes"
	)
	return []option{
		{long: "insecure-links", no: already, why: links},
		{long: "keep-dirlinks", short: 'K', why: links},
		{long: "confine-root", arg: "DIR", why: "every path of the line is the operator's own"},
		{long: "munge-links", no: already, why: "links are carried as they are"},
		{long: "copy-devices", why: "devices are carried as such or not at all"},
		{long: "write-devices", no: already, why: "drsync writes regular files only"},
		{long: "drop-D", no: already, why: "leave -D away"},
		{long: "atimes", short: 'U', no: already, why: "access times are not carried"},
		{long: "open-noatime", no: already, why: "mount the source with noatime"},
		{long: "crtimes", short: 'N', no: already, why: "creation times are not carried"},
		{long: "fake-super", why: "run it as root"},
		{long: "preallocate", why: "files are written as their content comes"},
		{long: "block-size", short: 'B', arg: "SIZE", why: "drsync chooses blocks by itself"},
		{long: "remove-source-files", also: "remove-sent-files", why: "drsync never changes the source"},
		{long: "delete-missing-args", why: "a missing source deletes nothing"},
		{long: "max-alloc", arg: "SIZE", why: "drsync bounds its memory by itself"},
		{long: "skip-compress", arg: "LIST", why: "drsync finds out by trying what does not shrink"},
		{long: "old-compress", why: "drsync compresses with zstd"},
		{long: "new-compress", why: "drsync compresses with zstd"},
		{long: "compress-threads", also: "zt", arg: "NUM", why: "drsync chooses by itself"},
		{long: "old-args", no: already, why: "paths never meet a shell"},
		{long: "copy-as", arg: "USER", why: "run it as that user"},
		{long: "address", arg: "ADDRESS", why: daemon},
		{long: "port", arg: "PORT", why: daemon},
		{long: "sockopts", arg: "OPTIONS", why: daemon},
		{long: "remote-option", short: 'M', arg: "OPT", why: "the other side is drsync, not rsync"},
		{long: "password-file", arg: "FILE", why: daemon},
		{long: "early-input", arg: "FILE", why: daemon},
		{long: "stop-after", also: "time-limit", arg: "MINS", why: "a run that is stopped has copied nothing"},
		{long: "stop-at", arg: "TIME", why: "a run that is stopped has copied nothing"},
		{long: "write-batch", arg: "FILE", why: "drsync has no batches"},
		{long: "only-write-batch", arg: "FILE", why: "drsync has no batches"},
		{long: "read-batch", arg: "FILE", why: "drsync has no batches"},
		{long: "protocol", arg: "NUM", why: "the other side is drsync, not rsync"},
		{long: "iconv", arg: "SPEC", no: already, why: "names are bytes and stay as they are"},
		{long: "checksum-seed", arg: "NUM", why: "drsync's sums have none"},
		{long: "ipv4", short: '4', why: "set AddressFamily in ~/.ssh/config"},
		{long: "ipv6", short: '6', why: "set AddressFamily in ~/.ssh/config"},
	}
}
