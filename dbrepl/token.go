package dbrepl

import (
	"encoding/json"
	"fmt"
)

// TokenHead is what every Token of a database server's engine says first, so
// that nothing is published by another engine, or into another database.
type TokenHead struct {
	Format int    `json:"format"`
	Engine string `json:"engine"`
	Name   string `json:"name,omitempty"` // of the database
}

// EncodeToken makes a Token of v, which has no types that cannot be encoded.
func EncodeToken(v any) Token {
	data, err := json.Marshal(v)
	if err != nil {
		panic("internal error: " + err.Error())
	}
	return data
}

// DecodeToken reads a Token into v, if it says want first.
func DecodeToken(t Token, want TokenHead, v any) error {
	var head TokenHead
	err := json.Unmarshal(t, &head)
	if err == nil {
		err = json.Unmarshal(t, v)
	}
	if err != nil {
		return fmt.Errorf("the record of the publish: %w", err)
	}
	switch {
	case head.Engine != want.Engine:
		return fmt.Errorf("the record of the publish is of the engine %q, not %q", head.Engine, want.Engine)
	case head.Format != want.Format:
		return fmt.Errorf("the record of the publish has format %d; this drsync knows %d", head.Format, want.Format)
	case head.Name != want.Name:
		return fmt.Errorf("the record of the publish is of the database %q, not %q", head.Name, want.Name)
	}
	return nil
}
