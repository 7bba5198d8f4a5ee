/*
 * A libcuda.so.1 for tests, with the functions that cudacheck calls. It has a GPU for
 * each node /dev/nvidia<N> that there is, or as many as $FAKE_CUDA_GPUS says, computes
 * with the processor and takes no other kernel than cudacheck's. With FAKE_CUDA_WRONG=1,
 * or compiled with -DWRONG, its results are wrong, and the call that $FAKE_CUDA_FAIL names fails.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define INVALID_VALUE 1

static int fails(const char *call)
{
	const char *name = getenv("FAKE_CUDA_FAIL");
	return name != NULL && strcmp(name, call) == 0 ? INVALID_VALUE : 0;
}

int cuInit(unsigned flags) { return flags != 0 ? INVALID_VALUE : fails("cuInit"); }

int cuDriverGetVersion(int *version)
{
	*version = 12040;
	return 0;
}

int cuDeviceGetCount(int *count)
{
	const char *given = getenv("FAKE_CUDA_GPUS");
	char path[32];
	struct stat st;
	*count = given != NULL ? atoi(given) : 0;
	for (int i = 0; given == NULL && i < 32; i++) {
		snprintf(path, sizeof path, "/dev/nvidia%d", i);
		*count += stat(path, &st) == 0;
	}
	return 0;
}

int cuDeviceGet(int *device, int ordinal)
{
	*device = ordinal;
	return fails("cuDeviceGet");
}

int cuDeviceGetName(char *name, int size, int device)
{
	snprintf(name, size, "fake GPU %d", device);
	return 0;
}

int cuDevicePrimaryCtxRetain(void **context, int device)
{
	static int contexts[32];
	*context = &contexts[device % 32];
	return fails("cuDevicePrimaryCtxRetain");
}

int cuDevicePrimaryCtxRelease_v2(int device) { return device < 0; }
int cuCtxSetCurrent(void *context) { return context == NULL; }
int cuCtxSynchronize(void) { return fails("cuCtxSynchronize"); }

int cuMemAlloc_v2(uint64_t *memory, size_t size)
{
	*memory = (uint64_t)(uintptr_t)malloc(size);
	return fails("cuMemAlloc_v2");
}

int cuMemFree_v2(uint64_t memory)
{
	free((void *)(uintptr_t)memory);
	return 0;
}

int cuMemcpyHtoD_v2(uint64_t to, const void *from, size_t size)
{
	memcpy((void *)(uintptr_t)to, from, size);
	return 0;
}

int cuMemcpyDtoH_v2(void *to, uint64_t from, size_t size)
{
	memcpy(to, (void *)(uintptr_t)from, size);
	return fails("cuMemcpyDtoH_v2");
}

int cuModuleLoadData(void **module, const void *image)
{
	*module = (void *)image;
	return strstr(image, ".entry twice_and_index(") == NULL ? INVALID_VALUE : fails("cuModuleLoadData");
}

int cuModuleUnload(void *module) { return module == NULL; }

int cuModuleGetFunction(void **function, void *module, const char *name)
{
	*function = module;
	return strcmp(name, "twice_and_index") != 0;
}

static int wrong(void)
{
#ifdef WRONG
	return 1;
#endif
	return getenv("FAKE_CUDA_WRONG") != NULL;
}

int cuLaunchKernel(void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared, void *stream,
                   void **parameters, void **extra)
{
	uint32_t *data = (uint32_t *)(uintptr_t)*(uint64_t *)parameters[0];
	uint32_t count = *(uint32_t *)parameters[1];
	if (function == NULL || gy * gz * by * bz != 1 || shared != 0 || stream != NULL || extra != NULL)
		return INVALID_VALUE;
	for (uint32_t i = 0; i < gx * bx && i < count; i++)
		data[i] = 2 * data[i] + i + (wrong() && i == count - 1);
	return fails("cuLaunchKernel");
}

int cuGetErrorName(int error, const char **name)
{
	*name = "CUDA_ERROR_INVALID_VALUE";
	return error != INVALID_VALUE;
}
