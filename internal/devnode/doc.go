// Package devnode describes, compares and makes character device nodes.
//
// [Attr] is what matters of a node, [Compare] returns how one compares with what it should
// be, [DriverOf] which node of NVIDIA's driver a name stands for. [Attr.Make] and [Attr.Fix] work in an open directory and follow no link. Package
// change uses them to replace a node in one step, and to undo it.
package devnode
