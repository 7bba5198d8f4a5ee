// Package specdir reads the directories of CDI specs as engines do.
//
// [Directories] are listed once and each [File] in them is read once, when it is first asked for.
// [Directories.Devices] says which devices engines can use and which hide each other,
// [Directories.Beside] what may take effect in place of a spec, [HasCUDA] and [GivesCUDA] what a
// spec gives to containers.
package specdir
