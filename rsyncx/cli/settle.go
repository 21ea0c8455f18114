package cli

import (
	"errors"
)

// limitTree gives the options of a line without paths the meaning they have in
// a run of the whole: it deletes when it publishes, and never more than allowed.
func (p *parser) limitTree() {
	o := &p.command.Options
	o.DeleteBefore = false
	if o.DeleteLimited {
		if o.DeleteUpTo == 0 {
			p.wrong(errors.New("option --max-delete: drsync cannot honour the value 0; leave the options of deletion away instead"))
		}
		o.MaxDelete, o.DeleteUpTo, o.DeleteLimited = o.DeleteUpTo, 0, false
	}
	if has(p.command.LogFormat, 'C') {
		p.wrong(errors.New("option --log-file-format: %C has no place here: sums are told by drsync rsync alone"))
	}
	p.conflicts()
	p.imply()
}

// settle checks what options of a full line say together, and adds what they imply.
func (p *parser) settle() {
	c := p.command
	if c.FilesFrom != "" {
		if c.archived {
			c.Recursive = false
		}
		c.Relative = !c.notRelative
		c.Dirs = c.Dirs || !c.noDirs
	}
	if c.oldDirs { // whatever else is said about recursion
		c.Recursive, c.Dirs = true, true
		c.Rules = append(c.Rules, Rule{Option: "--exclude", Value: "/*/*"})
	}
	if c.Quiet {
		c.Verbose = 0
	}
	if c.Options.Delete && !c.Recursive && !c.Dirs {
		p.wrong(errors.New("--delete does not work without --recursive (-r) or --dirs (-d)"))
	}
	c.Options.WholeSeconds = !c.Nanoseconds
	c.Compress = c.level()
	if c.noTransferSum {
		c.Options.WholeFile, c.Delta = true, false // as in rsync
	}
	if c.when&(c.when-1) != 0 {
		p.wrong(errors.New("several options say when to delete"))
	}
	p.conflicts()
	p.imply()
}

// conflicts refuses what rsync refuses.
func (p *parser) conflicts() {
	c, o := p.command, &p.command.Options
	if o.Checksum && c.noCompareSum {
		p.wrong(unsupported("invalid --checksum-choice for --checksum: none"))
	}
	o.Backup = o.Backup || o.BackupDir != "" // the one implies the other
	inplace := "--inplace"
	if o.Append || o.AppendVerify {
		inplace = "--append"
	}
	writesInto := o.Inplace || o.Append || o.AppendVerify
	for _, not := range []struct {
		together bool
		text     string
	}{
		{writesInto && c.delayUpdates, inplace + " cannot be used with --delay-updates"},
		{writesInto && o.PartialDir != "", inplace + " cannot be used with --partial-dir"},
		{(o.Append || o.AppendVerify) && o.WholeFile, "--append cannot be used with --whole-file"},
		{c.fuzzy > 1 && len(o.AltDests) > 0, "option -y given twice: drsync cannot honour it: a similar file is looked for in the destination alone"},
		{c.suffixSet && o.Suffix == "" && o.BackupDir == "", "--suffix cannot be empty when the backups are in the destination itself"},
		{c.backupDirSet && o.BackupDir == "" && !c.suffixSet, "--suffix cannot be empty when the backups are in the destination itself"},
	} {
		if not.together {
			p.wrong(errors.New(not.text))
		}
	}
}

// imply sets what options bring with them.
func (p *parser) imply() {
	o := &p.command.Options
	o.Perms = o.Perms || o.ACLs
	o.Append = o.Append || o.AppendVerify
	o.Inplace = o.Inplace || o.Append
	o.Resume = o.Resume || o.PartialDir != ""
	o.Backup = o.Backup || p.command.backupDirSet
	if !o.Backup {
		o.Suffix = ""
	}
}

// Explains reports whether names that are left alone are worth a line.
func (c *Command) Explains() bool {
	return c.Info("NAME") > 1 || c.Info("SKIP") > 0 || c.Debug("FILTER") > 0 || c.Info("BACKUP") > 0 || c.Itemize > 1
}

// OwnDirs are the names of directories that rsync keeps out of the transfer by a
// perishable rule, since it uses them itself.
func (c *Command) OwnDirs() []string {
	var dirs []string
	if dir := c.Options.PartialDir; dir != "" && dir[0] != '/' {
		dirs = append(dirs, dir)
	}
	if c.delayUpdates {
		dirs = append(dirs, ".~tmp~")
	}
	return dirs
}
