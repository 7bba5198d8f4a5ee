// Package fakenvml compiles a stand-in for libnvidia-ml.so.1, NVIDIA's management
// library, so that tests go through dlopen, go-nvml and a real probe without a
// GPU. The library has the binary interface of the real one for the calls that
// discovery makes, and no others.
//
// It is configured by the file that the environment variable FAKE_NVML_CONF
// names, else by fake-nvml.conf in the directory of the library's own file,
// symbolic links resolved. Each line of the file is a comment (#) or one of
//
//	driver 550.54.15
//	nvml 12.550.54.15
//	cuda 12040
//	gpu uuid=GPU-... bus=00000000:3B:00.0 minor=0 mig=1 memory=81559 name=NVIDIA H100 80GB HBM3
//	migdev gpu=0 index=0 gi=1 ci=0 uuid=MIG-... gislices=3 cislices=3 memory=40192 gfx=0 name=NVIDIA H100 80GB HBM3 MIG 3g.40gb
//	nvlink gpu=0 count=18 type=2 bus=00000000:C1:00.0
//	process gpu=0 pid=4711 memory=512
//	fail nvmlDeviceGetUUID gpu=1 status=15
//	hang nvmlInit_v2
//	abort nvmlDeviceGetName gpu=2
//	delay nvmlInit_v2 ms=300
//
// The first three must be there. GPUs get their NVML index in the order of their
// lines; gpu= of the other lines is that index. name= comes last and goes to the
// end of the line; memory= is in MiB. NVLinks of a GPU all lead to one device, type= is a
// nvmlIntNvLinkDeviceType_t. The status of fail is a nvmlReturn_t; its function
// name is that of the symbol, version suffix included, or * for every call. Without
// gpu= a fail, hang, abort or delay holds for all GPUs and for the calls that concern none.
//
// The library reports a missing or malformed file in one line on
// standard error, and nvmlInit answers NVML_ERROR_UNKNOWN.
package fakenvml
