/*
 * A libnvidia-ml.so.1 for tests, with the functions that nvmlevents calls: two GPUs, of
 * which the second has no events, and one change of MIG's configuration.
 */
#include <string.h>
#include <time.h>

struct event {
	void *device;
	unsigned long long type, data;
	unsigned gpu_instance, compute_instance;
};

static char gpus[2], events;
static int listening, told;

int nvmlInit_v2(void) { return 0; }
int nvmlShutdown(void) { return 0; }

int nvmlDeviceGetCount_v2(unsigned *count)
{
	*count = sizeof gpus;
	return 0;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device)
{
	*device = &gpus[index];
	return 0;
}

int nvmlDeviceGetSupportedEventTypes(void *device, unsigned long long *types)
{
	*types = 0x10bull;
	return device == &gpus[0] ? 0 : 3; /* not supported */
}

int nvmlEventSetCreate(void **set)
{
	*set = &events;
	return 0;
}

int nvmlEventSetFree(void *set) { return set != &events; }

int nvmlDeviceRegisterEvents(void *device, unsigned long long types, void *set)
{
	listening = device == &gpus[0] && types == 0x108ull && set == &events;
	return listening ? 0 : 2;
}

int nvmlEventSetWait_v2(void *set, struct event *e, unsigned milliseconds)
{
	struct timespec pause = {milliseconds / 1000, milliseconds % 1000 * 1000000L};
	if (set == &events && listening && !told) {
		told = 1;
		memset(e, 0, sizeof *e);
		e->device = &gpus[0], e->type = 0x100, e->gpu_instance = 7;
		return 0;
	}
	nanosleep(&pause, 0);
	return 10;
}

int nvmlDeviceGetIndex(void *device, unsigned *index)
{
	*index = (unsigned)((char *)device - gpus);
	return 0;
}
