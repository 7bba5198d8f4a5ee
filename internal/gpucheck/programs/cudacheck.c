/*
 * cudacheck uses every GPU that CUDA gives it through the driver API alone: it
 * allocates memory, copies to it and back, has the driver compile a kernel from PTX,
 * runs it and checks what it has computed. It loads libcuda.so.1 by its name, as CUDA
 * programs do, and needs nothing but the C library.
 *
 * It prints a line for each GPU. Exit statuses: 0 all is well, 1 a call failed or a
 * result is wrong, 2 unusable arguments, 3 the loader finds no libcuda.so.1, 4 what it
 * finds has not the functions of CUDA.
 */
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* As in NVIDIA's documentation of the driver API. */
typedef int status;
typedef int device;
typedef struct context *context;
typedef struct module *module;
typedef struct function *function;
typedef uint64_t pointer; /* in the GPU's memory */

static struct {
	status (*init)(unsigned flags);
	status (*driver_version)(int *version);
	status (*device_count)(int *count);
	status (*device_get)(device *d, int ordinal);
	status (*device_name)(char *name, int size, device d);
	status (*retain)(context *c, device d);
	status (*release)(device d);
	status (*set_current)(context c);
	status (*alloc)(pointer *p, size_t size);
	status (*free)(pointer p);
	status (*to_gpu)(pointer to, const void *from, size_t size);
	status (*from_gpu)(void *to, pointer from, size_t size);
	status (*load)(module *m, const void *image);
	status (*unload)(module m);
	status (*get_function)(function *f, module m, const char *name);
	status (*launch)(function f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared,
	                 void *stream, void **parameters, void **extra);
	status (*synchronize)(void);
	status (*error_name)(status s, const char **name);
} cuda;

static const struct {
	const char *name;
	void *at;
} functions[] = {
	{"cuInit", &cuda.init},
	{"cuDriverGetVersion", &cuda.driver_version},
	{"cuDeviceGetCount", &cuda.device_count},
	{"cuDeviceGet", &cuda.device_get},
	{"cuDeviceGetName", &cuda.device_name},
	{"cuDevicePrimaryCtxRetain", &cuda.retain},
	{"cuDevicePrimaryCtxRelease_v2", &cuda.release},
	{"cuCtxSetCurrent", &cuda.set_current},
	{"cuMemAlloc_v2", &cuda.alloc},
	{"cuMemFree_v2", &cuda.free},
	{"cuMemcpyHtoD_v2", &cuda.to_gpu},
	{"cuMemcpyDtoH_v2", &cuda.from_gpu},
	{"cuModuleLoadData", &cuda.load},
	{"cuModuleUnload", &cuda.unload},
	{"cuModuleGetFunction", &cuda.get_function},
	{"cuLaunchKernel", &cuda.launch},
	{"cuCtxSynchronize", &cuda.synchronize},
	{"cuGetErrorName", &cuda.error_name},
};

/* data[i] = 2 * data[i] + i. Any GPU since Maxwell runs what is compiled from it. */
static const char ptx[] =
	".version 6.0\n"
	".target sm_50\n"
	".address_size 64\n"
	".visible .entry twice_and_index(.param .u64 data, .param .u32 count)\n"
	"{\n"
	"	.reg .pred %outside;\n"
	"	.reg .b32 %i, %n, %width, %lane, %value;\n"
	"	.reg .b64 %base, %offset;\n"
	"	ld.param.u64 %base, [data];\n"
	"	ld.param.u32 %n, [count];\n"
	"	mov.u32 %i, %ctaid.x;\n"
	"	mov.u32 %width, %ntid.x;\n"
	"	mov.u32 %lane, %tid.x;\n"
	"	mad.lo.u32 %i, %i, %width, %lane;\n"
	"	setp.ge.u32 %outside, %i, %n;\n"
	"	@%outside bra DONE;\n"
	"	cvta.to.global.u64 %base, %base;\n"
	"	mul.wide.u32 %offset, %i, 4;\n"
	"	add.u64 %base, %base, %offset;\n"
	"	ld.global.u32 %value, [%base];\n"
	"	shl.b32 %value, %value, 1;\n"
	"	add.u32 %value, %value, %i;\n"
	"	st.global.u32 [%base], %value;\n"
	"DONE:\n"
	"	ret;\n"
	"}\n";

#define COUNT 100000u /* not a multiple of a block */
#define BLOCK 256u

/* ok says whether a call has succeeded, and otherwise how it failed. */
static int ok(const char *call, status s)
{
	const char *name = NULL;
	if (s == 0)
		return 1;
	if (cuda.error_name(s, &name) != 0 || name == NULL)
		name = "unknown error";
	fprintf(stderr, "cudacheck: %s: %s (%d)\n", call, name, s);
	return 0;
}

/* compute has a GPU compute, and says whether it was right. */
static int compute(uint32_t *data)
{
	const size_t size = COUNT * sizeof *data;
	uint32_t count = COUNT;
	pointer memory = 0;
	module m = NULL;
	function f = NULL;
	int right = 0;
	void *parameters[] = {&memory, &count};

	if (!ok("cuMemAlloc", cuda.alloc(&memory, size)))
		return 0;
	for (uint32_t i = 0; i < COUNT; i++)
		data[i] = i * 2654435761u;
	if (!ok("cuMemcpyHtoD", cuda.to_gpu(memory, data, size)) || (memset(data, 0, size), 0) ||
	    !ok("cuMemcpyDtoH", cuda.from_gpu(data, memory, size)))
		goto out;
	for (uint32_t i = 0; i < COUNT; i++)
		if (data[i] != i * 2654435761u) {
			fprintf(stderr, "cudacheck: number %u comes back as %u\n", i, data[i]);
			goto out;
		}
	if (!ok("cuModuleLoadData (PTX)", cuda.load(&m, ptx)) || !ok("cuModuleGetFunction", cuda.get_function(&f, m, "twice_and_index")) ||
	    !ok("cuLaunchKernel", cuda.launch(f, (COUNT + BLOCK - 1) / BLOCK, 1, 1, BLOCK, 1, 1, 0, NULL, parameters, NULL)) ||
	    !ok("cuCtxSynchronize", cuda.synchronize()) || !ok("cuMemcpyDtoH", cuda.from_gpu(data, memory, size)))
		goto out;
	for (uint32_t i = 0; i < COUNT; i++)
		if (data[i] != i * 2654435761u * 2u + i) {
			fprintf(stderr, "cudacheck: the kernel has made %u of number %u\n", data[i], i);
			goto out;
		}
	right = 1;
out:
	if (m != NULL)
		cuda.unload(m);
	cuda.free(memory);
	return right;
}

static int use(int ordinal, uint32_t *data)
{
	device d;
	context c;
	char name[256] = "";
	int right;

	if (!ok("cuDeviceGet", cuda.device_get(&d, ordinal)) || !ok("cuDeviceGetName", cuda.device_name(name, sizeof name, d)) ||
	    !ok("cuDevicePrimaryCtxRetain", cuda.retain(&c, d)))
		return 0;
	right = ok("cuCtxSetCurrent", cuda.set_current(c)) && compute(data);
	cuda.release(d);
	if (right)
		printf("GPU %d: %s: %u numbers there and back, computed by a kernel from PTX\n", ordinal, name, COUNT);
	return right;
}

int main(int argc, char **argv)
{
	int version = 0, count = 0, failed = 0;
	uint32_t *data;
	void *library;

	/* What goes wrong comes after what went well. */
	setvbuf(stdout, NULL, _IOLBF, BUFSIZ);
	if (argc != 1) {
		fprintf(stderr, "usage: %s\n", argv[0]);
		return 2;
	}
	library = dlopen("libcuda.so.1", RTLD_NOW);
	if (library == NULL) {
		fprintf(stderr, "cudacheck: %s\n", dlerror());
		return 3;
	}
	for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
		void *f = dlsym(library, functions[i].name);
		if (f == NULL) {
			fprintf(stderr, "cudacheck: libcuda.so.1 is loaded, but has no %s\n", functions[i].name);
			return 4;
		}
		memcpy(functions[i].at, &f, sizeof f);
	}
	if (!ok("cuInit", cuda.init(0)) || !ok("cuDriverGetVersion", cuda.driver_version(&version)) ||
	    !ok("cuDeviceGetCount", cuda.device_count(&count)))
		return 1;
	printf("CUDA %d.%d, GPUs: %d\n", version / 1000, version % 1000 / 10, count);
	data = malloc(COUNT * sizeof *data);
	if (data == NULL || count == 0) {
		fprintf(stderr, "cudacheck: no %s\n", data == NULL ? "memory" : "GPU");
		return 1;
	}
	for (int i = 0; i < count; i++)
		failed += !use(i, data);
	free(data);
	return failed != 0;
}
