package rsyncx

import (
	"strings"

	"github.com/drsync/drsync/internal/event"
)

// passedOver reports whether an option leaves e alone before anything else is
// looked at. The name still shields the destination's copy from deletion.
func (s *stager) passedOver(path string, e *Entry, here *info) bool {
	switch {
	case s.o.Existing && here == nil && isDir(e):
		s.explain(path+"/", SkipNotCreatedDir)
	case s.o.Existing && here == nil:
		s.explain(path, SkipNotCreated)
	case s.o.IgnoreExisting && here != nil && !(isDir(e) && here.isDir()):
		s.explain(path, SkipExists)
	default:
		return false
	}
	return true
}

// unwanted is passedOver for what is asked of a regular file once it is known
// to be one that travels.
func (s *stager) unwanted(path string, e *Entry, here *info) bool {
	switch {
	case !isRegular(e):
		return false
	case (s.o.MaxSize > 0 || s.o.MaxSizeSet && s.o.MaxSize == 0) && e.Size > s.o.MaxSize:
		s.explain(path, SkipOverMax)
	case e.Size < s.o.MinSize:
		s.explain(path, SkipUnderMin)
	case s.o.Update && here != nil && isRegular(&here.Entry) && s.cmp.newer(here.Mtime, e.Mtime) && !s.follows(e):
		s.explain(path, SkipNewer)
	default:
		return false
	}
	return true
}

// unsafe reports whether e is a link that SafeLinks leaves out.
func (s *stager) unsafe(path string, e *Entry) bool {
	if !s.o.SafeLinks || !s.o.Links || !isSymlink(e) || !leavesTree(path, e.Target) {
		return false
	}
	s.o.Event.Emit(event.Event{Kind: event.Skip, Name: path, Target: e.Target, Text: SkipUnsafe})
	return true
}

// leavesTree reports whether a symbolic link at path might lead out of the tree:
// it is absolute, it climbs above the root, or it climbs after it descended,
// which another link on the way could turn into anything.
func leavesTree(path, target string) bool {
	if target == "" || target[0] == '/' || strings.HasSuffix(target, "/..") {
		return true
	}
	margin := strings.Count(path, "/")
	descended := false
	for part := range strings.SplitSeq(target, "/") {
		switch part {
		case "", ".":
			// For the kernel "./.." climbs; rsync takes it for a descent.
			descended = descended || part == "."
		case "..":
			if descended {
				return true
			}
			if margin--; margin < 0 {
				return true
			}
		default:
			descended = true
		}
	}
	return false
}
