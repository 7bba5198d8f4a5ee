// Package editset merges container edits of CDI.
package editset
