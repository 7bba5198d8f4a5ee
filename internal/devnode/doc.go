// Package devnode makes character device nodes, and the links of /dev/char that lead
// to them, and repairs those that are wrong.
//
// [Check] says what is to be done about a [Node], [Apply] does it: what is missing is
// made, a node with other numbers or a file that is no node is replaced in one step, a
// node with another mode or owner keeps its inode. [CharDir] does the same for links.
// All stay below a root that may be another system's.
//
// Another process may do the same at the same time. Whoever comes second finds that
// nothing is left to be done.
package devnode
