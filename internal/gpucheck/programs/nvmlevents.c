/*
 * nvmlevents prints NVML's events about MIG devices and errors of the GPUs, with the
 * time, until its standard input ends. It is for finding out whether the driver tells
 * of MIG devices that come and go. Its argument is the library to load.
 *
 * Exit statuses: 0 it was told to end, 1 a call of NVML failed, 2 unusable arguments,
 * 3 the library cannot be loaded, 4 it lacks a function.
 */
#include <dlfcn.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

/* As in NVIDIA's documentation of NVML. */
typedef int status;
typedef struct device *device;
typedef struct set *set;
struct event {
	device device;
	unsigned long long type, data;
	unsigned gpu_instance, compute_instance;
};

#define TIMED_OUT 10
#define MIG_CONFIG_CHANGE 0x100ull
#define XID_CRITICAL_ERROR 0x8ull

static struct {
	status (*init)(void);
	status (*shutdown)(void);
	status (*count)(unsigned *count);
	status (*handle)(unsigned index, device *d);
	status (*supported)(device d, unsigned long long *types);
	status (*create)(set *s);
	status (*destroy)(set s);
	status (*listen)(device d, unsigned long long types, set s);
	status (*wait)(set s, struct event *e, unsigned milliseconds);
	status (*index)(device d, unsigned *index);
} nvml;

static const struct {
	const char *name;
	void *at;
} functions[] = {
	{"nvmlInit_v2", &nvml.init},
	{"nvmlShutdown", &nvml.shutdown},
	{"nvmlDeviceGetCount_v2", &nvml.count},
	{"nvmlDeviceGetHandleByIndex_v2", &nvml.handle},
	{"nvmlDeviceGetSupportedEventTypes", &nvml.supported},
	{"nvmlEventSetCreate", &nvml.create},
	{"nvmlEventSetFree", &nvml.destroy},
	{"nvmlDeviceRegisterEvents", &nvml.listen},
	{"nvmlEventSetWait_v2", &nvml.wait},
	{"nvmlDeviceGetIndex", &nvml.index},
};

static int ended(void)
{
	struct pollfd in = {0, POLLIN, 0};
	return poll(&in, 1, 0) > 0;
}

static int listen_to_all(set events)
{
	unsigned count = 0;
	status s = nvml.count(&count);
	for (unsigned i = 0; s == 0 && i < count; i++) {
		unsigned long long types = 0;
		device d;
		if (nvml.handle(i, &d) != 0 || nvml.supported(d, &types) != 0) {
			printf("GPU %u: no events\n", i);
			continue;
		}
		printf("GPU %u: event types %#llx, MIG configuration change %s\n", i, types, types & MIG_CONFIG_CHANGE ? "among them" : "not among them");
		types &= MIG_CONFIG_CHANGE | XID_CRITICAL_ERROR;
		if (types != 0 && (s = nvml.listen(d, types, events)) != 0)
			fprintf(stderr, "nvmlevents: nvmlDeviceRegisterEvents: NVML error %d\n", s);
	}
	fflush(stdout);
	return s;
}

static void print(const struct event *e)
{
	struct timespec now;
	unsigned index = 0;
	clock_gettime(CLOCK_REALTIME, &now);
	nvml.index(e->device, &index);
	printf("%lld.%03ld GPU %u: %s, data %llu, GPU instance %d, compute instance %d\n", (long long)now.tv_sec, now.tv_nsec / 1000000, index,
	       e->type == MIG_CONFIG_CHANGE ? "MIG configuration change" : "critical error", e->data, (int)e->gpu_instance, (int)e->compute_instance);
	fflush(stdout);
}

int main(int argc, char **argv)
{
	void *library;
	set events;
	status s;

	if (argc != 2) {
		fprintf(stderr, "usage: %s LIBRARY\n", argv[0]);
		return 2;
	}
	library = dlopen(argv[1], RTLD_LAZY);
	if (library == NULL) {
		fprintf(stderr, "nvmlevents: %s\n", dlerror());
		return 3;
	}
	for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
		void *f = dlsym(library, functions[i].name);
		if (f == NULL) {
			fprintf(stderr, "nvmlevents: %s has no %s\n", argv[1], functions[i].name);
			return 4;
		}
		memcpy(functions[i].at, &f, sizeof f);
	}
	if ((s = nvml.init()) != 0) {
		fprintf(stderr, "nvmlevents: nvmlInit: NVML error %d\n", s);
		return 1;
	}
	if ((s = nvml.create(&events)) != 0)
		fprintf(stderr, "nvmlevents: nvmlEventSetCreate: NVML error %d\n", s);
	else {
		s = listen_to_all(events);
		while (s == 0 && !ended()) {
			struct event e;
			status w = nvml.wait(events, &e, 200);
			if (w == 0)
				print(&e);
			else if (w != TIMED_OUT) {
				fprintf(stderr, "nvmlevents: nvmlEventSetWait: NVML error %d\n", w);
				s = w;
			}
		}
		nvml.destroy(events);
	}
	nvml.shutdown();
	return s != 0;
}
