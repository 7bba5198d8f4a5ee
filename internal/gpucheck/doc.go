// Package gpucheck has what the script gpu-check needs beside cdigen: it makes bundles
// for a container runtime, compares what two discoveries have found, measures what an
// idle watcher costs, and writes the report. docs/hardware.md describes the script.
//
// The script, the programs in the folder programs and the command gpucheck are put
// together by make gpu-check into a directory that needs nothing else on the machine
// where it runs.
package gpucheck
