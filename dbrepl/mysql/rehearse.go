package mysql

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/drsync/drsync/internal/hint"
)

// rehearse creates the other objects in the staging schema, so that what the
// standby will not have, a definer or a function, stops the capture and not a
// publish. It leaves routines and views there for those who read the capture
// before it is published, and brings Objects into an order that works. In a
// schema that is lasting it leaves all of them.
func (k *copier) rehearse(ctx context.Context) error {
	do := func(s string) error {
		_, err := k.staging.ExecContext(ctx, s)
		return err
	}
	if err := k.rehearseDrops(ctx, do); err != nil {
		return k.objectError(ctx, err)
	}
	var done, views []object
	for _, o := range k.g.Objects {
		if o.Kind == "EVENT" && o.Enabled {
			k.g.Events = append(k.g.Events, o.Name)
			o.Enabled = false
		}
		if o.Kind == "VIEW" {
			views = append(views, o)
			continue
		}
		err := o.create(do, k.target, k.g.Collation)
		if err == nil && !k.lasting && (o.Kind == "EVENT" || o.Kind == "TRIGGER") {
			err = o.drop(do)
		}
		if err != nil {
			return k.objectError(ctx, err)
		}
		done = append(done, o)
	}
	ordered, err := k.rehearseViews(ctx, do, views)
	if err != nil {
		return err
	}
	k.g.Objects = append(done, ordered...)
	return nil
}

// rehearseDrops drops an object, which is not there, of each kind that a publish may
// have to drop from the visible generation.
func (k *copier) rehearseDrops(ctx context.Context, do func(string) error) error {
	name := k.opt.Name
	there, err := records(ctx, k.staging, `SELECT 'TRIGGER' kind FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = ?
		UNION SELECT 'EVENT' FROM information_schema.EVENTS WHERE EVENT_SCHEMA = ?
		UNION SELECT 'VIEW' FROM information_schema.VIEWS WHERE TABLE_SCHEMA = ?
		UNION SELECT ROUTINE_TYPE FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA = ?`, name, name, name, name)
	if err != nil {
		return err
	}
	for _, r := range there {
		kind := r.get("kind")
		if err := (object{Kind: kind, Name: "drsync_absent"}).drop(do); err != nil {
			return fmt.Errorf("drop a %s: %w", strings.ToLower(kind), err)
		}
	}
	return nil
}

// rehearseViews creates views, which may use each other, in as many rounds as it
// takes. A view that is broken on the active too is left out.
func (k *copier) rehearseViews(ctx context.Context, do func(string) error, views []object) (ordered []object, err error) {
	for len(views) > 0 {
		var failed []object
		var first error
		for _, o := range views {
			err := k.here(o).create(do, k.target, k.g.Collation)
			switch {
			case err == nil:
				ordered = append(ordered, o)
			case hasNumber(err, errNoSuchTable, errNoSuchRoutine, errInvalidView, 1054):
				failed = append(failed, o)
				if first == nil {
					first = err
				}
			default:
				return nil, k.objectError(ctx, err)
			}
		}
		if len(failed) < len(views) {
			views = failed
			continue
		}
		if k.look == nil {
			return nil, k.objectError(ctx, first)
		}
		broken := slices.IndexFunc(views, func(o object) bool {
			_, err := records(ctx, k.look, "SELECT 1 FROM "+quote(o.Name)+" LIMIT 0")
			return hasNumber(err, errInvalidView)
		})
		if broken < 0 {
			return nil, k.objectError(ctx, first)
		}
		k.warn("view %s is broken on the active too and is left out", views[broken].Name)
		views = slices.Delete(views, broken, broken+1)
	}
	return ordered, nil
}

// here is a view as it can be created in the staging schema. One that names its
// own schema, with a function for instance, is kept as it is written: it is
// created again when the schema has that name.
func (k *copier) here(o object) object {
	if !k.lasting {
		renamed, _ := renameSchema(o, k.opt.Name, k.target, k.fold)
		if renamed != o.SQL {
			o.SQL, o.Bytes = renamed, ""
		}
	}
	return o
}

func (k *copier) objectError(ctx context.Context, err error) error {
	err = fmt.Errorf("on the standby: %w", k.standby.explain(ctx, err))
	switch {
	case hasNumber(err, errUnsafeFunction, errNeedsSuper):
		return hint.With(err, "SET GLOBAL log_bin_trust_function_creators=1 on the standby's server, also in its configuration")
	case hasNumber(err, errNoSuchUser):
		return hint.With(err, "create this account on the standby's server too")
	case hasNumber(err, errAccessDeniedLocal):
		return hint.With(err, "GRANT SET USER ON *.* to the account on the standby (MySQL: SET_USER_ID, from 8.2 on SET_ANY_DEFINER, ALLOW_NONEXISTENT_DEFINER)")
	}
	return err
}
