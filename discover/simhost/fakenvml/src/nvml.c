/*
 * A stand-in for NVIDIA's libnvidia-ml.so.1: the calls that discovery makes, with
 * the binary interface of the real library, answered from a file. See ../doc.go for
 * the file. Names, layouts and numbers are those of the NVML API reference.
 *
 * With FAKE_NVML_OLD the library lacks what came after release 390: MIG, the
 * 32-byte PCI bus id and the later forms of older calls.
 */
#define _GNU_SOURCE
#include <ctype.h>
#include <dlfcn.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define API __attribute__((visibility("default")))

typedef enum {
	NVML_SUCCESS = 0,
	NVML_ERROR_UNINITIALIZED = 1,
	NVML_ERROR_INVALID_ARGUMENT = 2,
	NVML_ERROR_NOT_SUPPORTED = 3,
	NVML_ERROR_NO_PERMISSION = 4,
	NVML_ERROR_NOT_FOUND = 6,
	NVML_ERROR_INSUFFICIENT_SIZE = 7,
	NVML_ERROR_DRIVER_NOT_LOADED = 9,
	NVML_ERROR_TIMEOUT = 10,
	NVML_ERROR_LIBRARY_NOT_FOUND = 12,
	NVML_ERROR_FUNCTION_NOT_FOUND = 13,
	NVML_ERROR_GPU_IS_LOST = 15,
	NVML_ERROR_RESET_REQUIRED = 16,
	NVML_ERROR_LIB_RM_VERSION_MISMATCH = 18,
	NVML_ERROR_UNKNOWN = 999,
} nvmlReturn_t;

enum { MAX_GPUS = 64, MAX_MIG_DEVICES = 7, MAX_RULES = 64, MAX_PROCESSES = 64 };

/* A GPU or a MIG device: NVML has one type of handle for both. */
struct device {
	struct device *parent; /* the GPU of a MIG device; NULL for a GPU */
	unsigned int index;    /* among the GPUs, or among the MIG devices of the GPU */
	char uuid[96];
	char name[96];
	unsigned long long memory; /* MiB */
	/* 0: not configured */
	unsigned int brand, arch, capability /* 10 * major + minor */, ats;

	/* of a GPU */
	char bus_id[32];
	unsigned int domain, bus, slot;
	unsigned int minor;
	unsigned int mig;
	struct device *mig_devices[MAX_MIG_DEVICES];
	unsigned int links, link_type; /* by NVLink, all to one device */
	char link_bus[32];
	unsigned int process_count;
	struct {
		unsigned int pid;
		unsigned long long memory; /* bytes */
	} processes[MAX_PROCESSES];

	/* of a MIG device */
	unsigned int gi, ci;
	unsigned int gi_slices, ci_slices;
	unsigned int gfx;
};
typedef struct device *nvmlDevice_t;

/* The handle of a GPU instance is its first MIG device, that of a compute
 * instance its MIG device: each MIG device is one compute instance. */
typedef struct device *nvmlGpuInstance_t;
typedef struct device *nvmlComputeInstance_t;

enum deed { FAIL, HANG, ABORT, DELAY };

struct rule {
	enum deed deed;
	char function[64]; /* "*" for all */
	int gpu;           /* -1 for all, and for calls that concern no GPU */
	int status;
	unsigned int milliseconds;
};

static struct {
	char driver[80];
	char nvml[80];
	int cuda;
	unsigned int gpu_count;
	struct device *gpus[MAX_GPUS];
	unsigned int rule_count;
	struct rule rules[MAX_RULES];
} host;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int configured; /* the file is read once a process: handles stay good */
static int initialised;

/* The configuration file. */

static int text(char *to, size_t size, const char *from)
{
	if (*from == '\0' || strlen(from) >= size)
		return 0;
	strcpy(to, from);
	return 1;
}

static int number(unsigned long long *to, const char *from)
{
	char *end;
	if (!isdigit((unsigned char)*from))
		return 0;
	*to = strtoull(from, &end, 10);
	return *end == '\0' && *to <= INT_MAX;
}

/* Takes the next "key=value" from a line; the value of name goes to its end. */
static int next_pair(char **line, char **key, char **value)
{
	char *p = *line + strspn(*line, " \t");
	if (*p == '\0')
		return 0;
	*key = p;
	p += strcspn(p, "= \t");
	if (*p != '=') {
		*value = NULL;
		*line = p;
		return 1;
	}
	*p++ = '\0';
	*value = p;
	p += strcmp(*key, "name") == 0 ? strlen(p) : strcspn(p, " \t");
	if (*p != '\0')
		*p++ = '\0';
	*line = p;
	return 1;
}

static int read_gpu(char *line)
{
	char *key, *value;
	unsigned long long n;
	struct device *d = calloc(1, sizeof *d);
	if (d == NULL || host.gpu_count == MAX_GPUS)
		return 0;
	d->memory = 81559;
	while (next_pair(&line, &key, &value)) {
		int good = value != NULL;
		if (good && strcmp(key, "uuid") == 0)
			good = text(d->uuid, sizeof d->uuid, value);
		else if (good && strcmp(key, "bus") == 0)
			good = text(d->bus_id, sizeof d->bus_id, value) &&
			       sscanf(value, "%x:%x:%x.", &d->domain, &d->bus, &d->slot) == 3;
		else if (good && strcmp(key, "name") == 0)
			good = text(d->name, sizeof d->name, value);
		else if (good && (good = number(&n, value))) {
			if (strcmp(key, "minor") == 0)
				d->minor = n;
			else if (strcmp(key, "mig") == 0)
				d->mig = n;
			else if (strcmp(key, "memory") == 0)
				d->memory = n;
			else if (strcmp(key, "brand") == 0)
				d->brand = n;
			else if (strcmp(key, "arch") == 0)
				d->arch = n;
			else if (strcmp(key, "capability") == 0)
				d->capability = n;
			else if (strcmp(key, "ats") == 0)
				d->ats = n;
			else
				good = 0;
		}
		if (!good)
			return 0;
	}
	d->index = host.gpu_count;
	host.gpus[host.gpu_count++] = d;
	return *d->uuid != '\0' && *d->bus_id != '\0' && *d->name != '\0';
}

static int read_mig_device(char *line)
{
	char *key, *value;
	unsigned long long n, gpu = MAX_GPUS, index = MAX_MIG_DEVICES;
	struct device *d = calloc(1, sizeof *d);
	if (d == NULL)
		return 0;
	while (next_pair(&line, &key, &value)) {
		int good = value != NULL;
		if (good && strcmp(key, "uuid") == 0)
			good = text(d->uuid, sizeof d->uuid, value);
		else if (good && strcmp(key, "name") == 0)
			good = text(d->name, sizeof d->name, value);
		else if (good && (good = number(&n, value))) {
			if (strcmp(key, "gpu") == 0)
				gpu = n;
			else if (strcmp(key, "index") == 0)
				index = n;
			else if (strcmp(key, "gi") == 0)
				d->gi = n;
			else if (strcmp(key, "ci") == 0)
				d->ci = n;
			else if (strcmp(key, "gislices") == 0)
				d->gi_slices = n;
			else if (strcmp(key, "cislices") == 0)
				d->ci_slices = n;
			else if (strcmp(key, "memory") == 0)
				d->memory = n;
			else if (strcmp(key, "gfx") == 0)
				d->gfx = n;
			else
				good = 0;
		}
		if (!good)
			return 0;
	}
	if (gpu >= host.gpu_count || index >= MAX_MIG_DEVICES || *d->uuid == '\0' || *d->name == '\0')
		return 0;
	d->parent = host.gpus[gpu];
	d->index = index;
	if (!d->parent->mig || d->parent->mig_devices[index] != NULL)
		return 0;
	d->parent->mig_devices[index] = d;
	return 1;
}

static int read_link(char *line)
{
	char *key, *value, *bus = "";
	unsigned long long n, gpu = MAX_GPUS, count = 0, type = 0;
	while (next_pair(&line, &key, &value)) {
		if (value != NULL && strcmp(key, "bus") == 0)
			bus = value;
		else if (value == NULL || !number(&n, value))
			return 0;
		else if (strcmp(key, "gpu") == 0)
			gpu = n;
		else if (strcmp(key, "count") == 0)
			count = n;
		else if (strcmp(key, "type") == 0)
			type = n;
		else
			return 0;
	}
	if (gpu >= host.gpu_count || strlen(bus) >= sizeof host.gpus[gpu]->link_bus)
		return 0;
	host.gpus[gpu]->links = count;
	host.gpus[gpu]->link_type = type;
	strcpy(host.gpus[gpu]->link_bus, bus);
	return 1;
}

static int read_process(char *line)
{
	char *key, *value;
	unsigned long long n, gpu = MAX_GPUS, pid = 0, memory = 0;
	while (next_pair(&line, &key, &value)) {
		if (value == NULL || !number(&n, value))
			return 0;
		if (strcmp(key, "gpu") == 0)
			gpu = n;
		else if (strcmp(key, "pid") == 0)
			pid = n;
		else if (strcmp(key, "memory") == 0)
			memory = n;
		else
			return 0;
	}
	if (gpu >= host.gpu_count || host.gpus[gpu]->process_count == MAX_PROCESSES)
		return 0;
	struct device *d = host.gpus[gpu];
	d->processes[d->process_count].pid = pid;
	d->processes[d->process_count].memory = memory << 20;
	d->process_count++;
	return 1;
}

static int read_rule(enum deed deed, char *line)
{
	char *key, *value;
	unsigned long long n;
	struct rule *r = &host.rules[host.rule_count];
	if (host.rule_count == MAX_RULES)
		return 0;
	*r = (struct rule){.deed = deed, .gpu = -1};
	char *function = strtok_r(line, " \t", &line);
	if (function == NULL || !text(r->function, sizeof r->function, function))
		return 0;
	while (next_pair(&line, &key, &value)) {
		if (value == NULL || !number(&n, value))
			return 0;
		if (strcmp(key, "gpu") == 0)
			r->gpu = n;
		else if (strcmp(key, "status") == 0 && deed == FAIL)
			r->status = n;
		else if (strcmp(key, "ms") == 0 && deed == DELAY)
			r->milliseconds = n;
		else
			return 0;
	}
	host.rule_count++;
	return (deed != FAIL || r->status != NVML_SUCCESS) && (deed != DELAY || r->milliseconds > 0);
}

static int read_line(char *line)
{
	unsigned long long n;
	char *verb = line + strspn(line, " \t");
	char *rest = verb + strcspn(verb, " \t");
	if (*verb == '\0' || *verb == '#')
		return 1;
	if (*rest != '\0')
		*rest++ = '\0';
	rest += strspn(rest, " \t");
	if (strcmp(verb, "driver") == 0)
		return text(host.driver, sizeof host.driver, rest);
	if (strcmp(verb, "nvml") == 0)
		return text(host.nvml, sizeof host.nvml, rest);
	if (strcmp(verb, "cuda") == 0) {
		if (!number(&n, rest))
			return 0;
		host.cuda = n;
		return 1;
	}
	if (strcmp(verb, "gpu") == 0)
		return read_gpu(rest);
	if (strcmp(verb, "migdev") == 0)
		return read_mig_device(rest);
	if (strcmp(verb, "nvlink") == 0)
		return read_link(rest);
	if (strcmp(verb, "process") == 0)
		return read_process(rest);
	if (strcmp(verb, "fail") == 0)
		return read_rule(FAIL, rest);
	if (strcmp(verb, "hang") == 0)
		return read_rule(HANG, rest);
	if (strcmp(verb, "abort") == 0)
		return read_rule(ABORT, rest);
	if (strcmp(verb, "delay") == 0)
		return read_rule(DELAY, rest);
	return 0;
}

/* The file named by FAKE_NVML_CONF, else fake-nvml.conf beside this library. */
static int configuration_path(char path[PATH_MAX])
{
	const char *given = getenv("FAKE_NVML_CONF");
	if (given != NULL && *given != '\0')
		return text(path, PATH_MAX, given);
	Dl_info self;
	if (!dladdr(&host, &self) || realpath(self.dli_fname, path) == NULL)
		return 0;
	char *slash = strrchr(path, '/');
	const char *name = "/fake-nvml.conf";
	if (slash == NULL || (size_t)(slash - path) + strlen(name) >= PATH_MAX)
		return 0;
	strcpy(slash, name);
	return 1;
}

static int configure(void)
{
	char path[PATH_MAX], line[1024];
	if (!configuration_path(path)) {
		fprintf(stderr, "fake NVML: no path of a configuration file\n");
		return 0;
	}
	FILE *f = fopen(path, "re");
	if (f == NULL) {
		fprintf(stderr, "fake NVML: open %s: %m\n", path);
		return 0;
	}
	memset(&host, 0, sizeof host);
	int good = 1;
	for (int n = 1; good && fgets(line, sizeof line, f) != NULL; n++) {
		size_t length = strcspn(line, "\r\n");
		good = line[length] != '\0' || feof(f);
		line[length] = '\0';
		good = good && read_line(line);
		if (!good)
			fprintf(stderr, "fake NVML: %s:%d: malformed line\n", path, n);
	}
	fclose(f);
	if (good && (*host.driver == '\0' || *host.nvml == '\0' || host.cuda == 0)) {
		fprintf(stderr, "fake NVML: %s: needs the lines driver, nvml and cuda\n", path);
		good = 0;
	}
	return good;
}

/* What every call begins with. */

static nvmlReturn_t obey(const char *function, int gpu)
{
	for (unsigned int i = 0; i < host.rule_count; i++) {
		const struct rule *r = &host.rules[i];
		if (strcmp(r->function, function) != 0 && strcmp(r->function, "*") != 0)
			continue;
		if (r->gpu != -1 && r->gpu != gpu)
			continue;
		switch (r->deed) {
		case FAIL:
			return r->status;
		case HANG:
			for (;;)
				pause();
		case ABORT:
			abort();
		case DELAY:
			usleep(r->milliseconds * 1000);
		}
	}
	return NVML_SUCCESS;
}

static nvmlReturn_t enter(const char *function, int gpu)
{
	return initialised ? obey(function, gpu) : NVML_ERROR_UNINITIALIZED;
}

static int valid(const struct device *d)
{
	for (unsigned int i = 0; i < host.gpu_count; i++) {
		if (d == host.gpus[i])
			return 1;
		for (int j = 0; j < MAX_MIG_DEVICES; j++)
			if (d != NULL && d == host.gpus[i]->mig_devices[j])
				return 1;
	}
	return 0;
}

static nvmlReturn_t enter_device(const char *function, const struct device *d)
{
	if (initialised && !valid(d))
		return NVML_ERROR_INVALID_ARGUMENT;
	return enter(function, !initialised ? -1 : d->parent ? (int)d->parent->index : (int)d->index);
}

#define ENTER(gpu)                                                                                                     \
	do {                                                                                                           \
		nvmlReturn_t status = enter(__func__, gpu);                                                            \
		if (status != NVML_SUCCESS)                                                                            \
			return status;                                                                                 \
	} while (0)

#define ENTER_DEVICE(d)                                                                                                \
	do {                                                                                                           \
		nvmlReturn_t status = enter_device(__func__, d);                                                       \
		if (status != NVML_SUCCESS)                                                                            \
			return status;                                                                                 \
	} while (0)

static nvmlReturn_t give(char *to, unsigned int size, const char *from)
{
	if (to == NULL)
		return NVML_ERROR_INVALID_ARGUMENT;
	if (strlen(from) >= size)
		return NVML_ERROR_INSUFFICIENT_SIZE;
	strcpy(to, from);
	return NVML_SUCCESS;
}

/* Start, end and errors. */

static nvmlReturn_t init(const char *function)
{
	nvmlReturn_t status = NVML_ERROR_UNKNOWN;
	pthread_mutex_lock(&lock);
	if (configured || configure()) {
		configured = 1;
		status = obey(function, -1);
	}
	if (status == NVML_SUCCESS)
		initialised++;
	pthread_mutex_unlock(&lock);
	return status;
}

API nvmlReturn_t nvmlInit(void) { return init(__func__); }
API nvmlReturn_t nvmlInit_v2(void) { return init(__func__); }

API nvmlReturn_t nvmlShutdown(void)
{
	ENTER(-1);
	pthread_mutex_lock(&lock);
	initialised--;
	pthread_mutex_unlock(&lock);
	return NVML_SUCCESS;
}

API const char *nvmlErrorString(nvmlReturn_t status)
{
	switch (status) {
	case NVML_SUCCESS: return "The operation was successful";
	case NVML_ERROR_UNINITIALIZED: return "Uninitialized";
	case NVML_ERROR_INVALID_ARGUMENT: return "Invalid Argument";
	case NVML_ERROR_NOT_SUPPORTED: return "Not Supported";
	case NVML_ERROR_NO_PERMISSION: return "Insufficient Permissions";
	case NVML_ERROR_NOT_FOUND: return "Not Found";
	case NVML_ERROR_INSUFFICIENT_SIZE: return "Insufficient Size";
	case NVML_ERROR_DRIVER_NOT_LOADED: return "Driver Not Loaded";
	case NVML_ERROR_TIMEOUT: return "Timeout";
	case NVML_ERROR_LIBRARY_NOT_FOUND: return "NVML Shared Library Not Found";
	case NVML_ERROR_FUNCTION_NOT_FOUND: return "Function Not Found";
	case NVML_ERROR_GPU_IS_LOST: return "GPU is lost";
	case NVML_ERROR_RESET_REQUIRED: return "GPU requires reset";
	case NVML_ERROR_LIB_RM_VERSION_MISMATCH: return "Driver/library version mismatch";
	case NVML_ERROR_UNKNOWN: break;
	}
	return "Unknown Error";
}

/* The system. */

API nvmlReturn_t nvmlSystemGetDriverVersion(char *version, unsigned int length)
{
	ENTER(-1);
	return give(version, length, host.driver);
}

API nvmlReturn_t nvmlSystemGetNVMLVersion(char *version, unsigned int length)
{
	ENTER(-1);
	return give(version, length, host.nvml);
}

API nvmlReturn_t nvmlSystemGetCudaDriverVersion(int *version)
{
	ENTER(-1);
	*version = host.cuda;
	return NVML_SUCCESS;
}

/* Handles. */

API nvmlReturn_t nvmlDeviceGetCount_v2(unsigned int *count)
{
	ENTER(-1);
	*count = host.gpu_count;
	return NVML_SUCCESS;
}

API nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned int index, nvmlDevice_t *device)
{
	ENTER((int)index);
	if (index >= host.gpu_count)
		return NVML_ERROR_INVALID_ARGUMENT;
	*device = host.gpus[index];
	return NVML_SUCCESS;
}

API nvmlReturn_t nvmlDeviceGetHandleByUUID(const char *uuid, nvmlDevice_t *device)
{
	ENTER(-1);
	for (unsigned int i = 0; i < host.gpu_count; i++) {
		struct device *found = NULL;
		if (strcmp(host.gpus[i]->uuid, uuid) == 0)
			found = host.gpus[i];
		for (int j = 0; j < MAX_MIG_DEVICES; j++) {
			struct device *d = host.gpus[i]->mig_devices[j];
			if (d != NULL && strcmp(d->uuid, uuid) == 0)
				found = d;
		}
		if (found != NULL) {
			*device = found;
			return enter_device(__func__, found);
		}
	}
	return NVML_ERROR_NOT_FOUND;
}

API nvmlReturn_t nvmlDeviceGetHandleByPciBusId_v2(const char *bus_id, nvmlDevice_t *device)
{
	unsigned int domain, bus, slot;
	ENTER(-1);
	if (sscanf(bus_id, "%x:%x:%x.", &domain, &bus, &slot) != 3)
		return NVML_ERROR_INVALID_ARGUMENT;
	for (unsigned int i = 0; i < host.gpu_count; i++) {
		struct device *d = host.gpus[i];
		if (d->domain == domain && d->bus == bus && d->slot == slot) {
			*device = d;
			return enter_device(__func__, d);
		}
	}
	return NVML_ERROR_NOT_FOUND;
}

/* GPUs and MIG devices. */

API nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t device, char *uuid, unsigned int length)
{
	ENTER_DEVICE(device);
	return give(uuid, length, device->uuid);
}

API nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t device, char *name, unsigned int length)
{
	ENTER_DEVICE(device);
	return give(name, length, device->name);
}

API nvmlReturn_t nvmlDeviceGetMinorNumber(nvmlDevice_t device, unsigned int *minor)
{
	ENTER_DEVICE(device);
	if (device->parent != NULL)
		return NVML_ERROR_NOT_SUPPORTED;
	*minor = device->minor;
	return NVML_SUCCESS;
}

API nvmlReturn_t nvmlDeviceGetIndex(nvmlDevice_t device, unsigned int *index)
{
	ENTER_DEVICE(device);
	*index = device->index;
	return NVML_SUCCESS;
}

typedef struct {
	unsigned long long total, free, used; /* bytes */
} nvmlMemory_t;
_Static_assert(sizeof(nvmlMemory_t) == 24, "layout");

API nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *memory)
{
	ENTER_DEVICE(device);
	memory->total = device->memory << 20;
	memory->free = memory->total;
	memory->used = 0;
	return NVML_SUCCESS;
}

/* The 2nd form ends before busId, with 16 reserved bytes in its place. */
typedef struct {
	char busIdLegacy[16];
	unsigned int domain, bus, device;
	unsigned int pciDeviceId, pciSubSystemId;
	char busId[32];
} nvmlPciInfo_t;
_Static_assert(sizeof(nvmlPciInfo_t) == 68, "layout");

static void give_pci(nvmlPciInfo_t *pci, const struct device *d)
{
	if (d->parent != NULL)
		d = d->parent;
	snprintf(pci->busIdLegacy, sizeof pci->busIdLegacy, "%04X:%02X:%02X.0", d->domain & 0xffff, d->bus & 0xff, d->slot & 0x1f);
	pci->domain = d->domain;
	pci->bus = d->bus;
	pci->device = d->slot;
	pci->pciDeviceId = 0x233010de;
	pci->pciSubSystemId = 0x16c110de;
}

API nvmlReturn_t nvmlDeviceGetPciInfo_v2(nvmlDevice_t device, nvmlPciInfo_t *pci)
{
	ENTER_DEVICE(device);
	give_pci(pci, device);
	memset(pci->busId, 0xff, 16);
	return NVML_SUCCESS;
}

#ifndef FAKE_NVML_OLD

API nvmlReturn_t nvmlInitWithFlags(unsigned int flags)
{
	(void)flags;
	return init(__func__);
}

API nvmlReturn_t nvmlSystemGetCudaDriverVersion_v2(int *version)
{
	ENTER(-1);
	*version = host.cuda;
	return NVML_SUCCESS;
}

API nvmlReturn_t nvmlDeviceGetPciInfo_v3(nvmlDevice_t device, nvmlPciInfo_t *pci)
{
	ENTER_DEVICE(device);
	give_pci(pci, device);
	return give(pci->busId, sizeof pci->busId, device->parent ? device->parent->bus_id : device->bus_id);
}

/* Hopper, as the PCI id of give_pci is, unless the configuration has others. */
API nvmlReturn_t nvmlDeviceGetCudaComputeCapability(nvmlDevice_t device, int *major, int *minor)
{
	ENTER_DEVICE(device);
	unsigned int capability = device->capability ? device->capability : 90;
	*major = capability / 10;
	*minor = capability % 10;
	return NVML_SUCCESS;
}

API nvmlReturn_t nvmlDeviceGetBrand(nvmlDevice_t device, unsigned int *brand)
{
	ENTER_DEVICE(device);
	*brand = device->brand ? device->brand : 14; /* NVML_BRAND_NVIDIA */
	return NVML_SUCCESS;
}

API nvmlReturn_t nvmlDeviceGetArchitecture(nvmlDevice_t device, unsigned int *architecture)
{
	ENTER_DEVICE(device);
	*architecture = device->arch ? device->arch : 9; /* NVML_DEVICE_ARCH_HOPPER */
	return NVML_SUCCESS;
}

typedef struct {
	unsigned int version, value;
} nvmlDeviceAddressingMode_t;

API nvmlReturn_t nvmlDeviceGetAddressingMode(nvmlDevice_t device, nvmlDeviceAddressingMode_t *mode)
{
	ENTER_DEVICE(device);
	if (!device->ats)
		return NVML_ERROR_NOT_SUPPORTED;
	if (mode->version != (sizeof *mode | 1 << 24))
		return NVML_ERROR_INVALID_ARGUMENT;
	mode->value = 2; /* NVML_DEVICE_ADDRESSING_MODE_ATS */
	return NVML_SUCCESS;
}

/* How two GPUs are connected: through their NUMA node, without NVLink. */

API nvmlReturn_t nvmlDeviceGetTopologyCommonAncestor(nvmlDevice_t first, nvmlDevice_t second, unsigned int *level)
{
	ENTER_DEVICE(first);
	if (!valid(second))
		return NVML_ERROR_INVALID_ARGUMENT;
	*level = 40; /* NVML_TOPOLOGY_NODE */
	return NVML_SUCCESS;
}

API nvmlReturn_t nvmlDeviceGetNvLinkState(nvmlDevice_t device, unsigned int link, unsigned int *active)
{
	ENTER_DEVICE(device);
	if (device->links == 0)
		return NVML_ERROR_NOT_SUPPORTED;
	if (link >= 18)
		return NVML_ERROR_INVALID_ARGUMENT;
	*active = link < device->links;
	return NVML_SUCCESS;
}

API nvmlReturn_t nvmlDeviceGetNvLinkRemoteDeviceType(nvmlDevice_t device, unsigned int link, unsigned int *type)
{
	ENTER_DEVICE(device);
	if (link >= device->links)
		return NVML_ERROR_INVALID_ARGUMENT;
	*type = device->link_type;
	return NVML_SUCCESS;
}

API nvmlReturn_t nvmlDeviceGetNvLinkRemotePciInfo_v2(nvmlDevice_t device, unsigned int link, nvmlPciInfo_t *pci)
{
	ENTER_DEVICE(device);
	if (link >= device->links)
		return NVML_ERROR_INVALID_ARGUMENT;
	memset(pci, 0, sizeof *pci);
	return give(pci->busId, sizeof pci->busId, device->link_bus);
}

/* Processes. */

typedef struct {
	unsigned int pid;
	unsigned long long usedGpuMemory; /* bytes */
	unsigned int gpuInstanceId, computeInstanceId;
} nvmlProcessInfo_t;
_Static_assert(sizeof(nvmlProcessInfo_t) == 24, "layout");

API nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v3(nvmlDevice_t device, unsigned int *count, nvmlProcessInfo_t *infos)
{
	ENTER_DEVICE(device);
	unsigned int room = *count;
	*count = device->process_count;
	if (room < device->process_count)
		return NVML_ERROR_INSUFFICIENT_SIZE;
	for (unsigned int i = 0; i < device->process_count; i++)
		infos[i] = (nvmlProcessInfo_t){device->processes[i].pid, device->processes[i].memory, ~0u, ~0u};
	return NVML_SUCCESS;
}

API nvmlReturn_t nvmlDeviceGetGraphicsRunningProcesses_v3(nvmlDevice_t device, unsigned int *count, nvmlProcessInfo_t *infos)
{
	(void)infos;
	ENTER_DEVICE(device);
	*count = 0;
	return NVML_SUCCESS;
}

/* Events: they can be registered for and none ever comes. */

typedef struct event_set {
	int unused;
} *nvmlEventSet_t;

typedef struct {
	nvmlDevice_t device;
	unsigned long long eventType, eventData;
	unsigned int gpuInstanceId, computeInstanceId;
} nvmlEventData_t;

API nvmlReturn_t nvmlEventSetCreate(nvmlEventSet_t *set)
{
	ENTER(-1);
	*set = calloc(1, sizeof **set);
	return *set == NULL ? NVML_ERROR_UNKNOWN : NVML_SUCCESS;
}

API nvmlReturn_t nvmlEventSetFree(nvmlEventSet_t set)
{
	free(set);
	return NVML_SUCCESS;
}

API nvmlReturn_t nvmlDeviceGetSupportedEventTypes(nvmlDevice_t device, unsigned long long *types)
{
	ENTER_DEVICE(device);
	*types = 0x1 | 0x2 | 0x8; /* ECC errors of one and two bits, critical Xid */
	return NVML_SUCCESS;
}

API nvmlReturn_t nvmlDeviceRegisterEvents(nvmlDevice_t device, unsigned long long types, nvmlEventSet_t set)
{
	(void)types;
	(void)set;
	ENTER_DEVICE(device);
	return NVML_SUCCESS;
}

API nvmlReturn_t nvmlEventSetWait_v2(nvmlEventSet_t set, nvmlEventData_t *data, unsigned int milliseconds)
{
	(void)set;
	(void)data;
	usleep(milliseconds * 1000);
	return NVML_ERROR_TIMEOUT;
}

API nvmlReturn_t nvmlDeviceGetMigMode(nvmlDevice_t device, unsigned int *current, unsigned int *pending)
{
	ENTER_DEVICE(device);
	if (device->parent != NULL)
		return NVML_ERROR_INVALID_ARGUMENT;
	*current = *pending = device->mig;
	return NVML_SUCCESS;
}

API nvmlReturn_t nvmlDeviceGetMaxMigDeviceCount(nvmlDevice_t device, unsigned int *count)
{
	ENTER_DEVICE(device);
	if (device->parent != NULL)
		return NVML_ERROR_INVALID_ARGUMENT;
	*count = MAX_MIG_DEVICES;
	return NVML_SUCCESS;
}

API nvmlReturn_t nvmlDeviceGetMigDeviceHandleByIndex(nvmlDevice_t device, unsigned int index, nvmlDevice_t *mig)
{
	ENTER_DEVICE(device);
	if (device->parent != NULL || index >= MAX_MIG_DEVICES)
		return NVML_ERROR_INVALID_ARGUMENT;
	if (device->mig_devices[index] == NULL)
		return NVML_ERROR_NOT_FOUND;
	*mig = device->mig_devices[index];
	return NVML_SUCCESS;
}

API nvmlReturn_t nvmlDeviceIsMigDeviceHandle(nvmlDevice_t device, unsigned int *is_mig)
{
	ENTER_DEVICE(device);
	*is_mig = device->parent != NULL;
	return NVML_SUCCESS;
}

API nvmlReturn_t nvmlDeviceGetDeviceHandleFromMigDeviceHandle(nvmlDevice_t mig, nvmlDevice_t *device)
{
	ENTER_DEVICE(mig);
	if (mig->parent == NULL)
		return NVML_ERROR_INVALID_ARGUMENT;
	*device = mig->parent;
	return NVML_SUCCESS;
}

API nvmlReturn_t nvmlDeviceGetGpuInstanceId(nvmlDevice_t mig, unsigned int *id)
{
	ENTER_DEVICE(mig);
	if (mig->parent == NULL)
		return NVML_ERROR_NOT_SUPPORTED;
	*id = mig->gi;
	return NVML_SUCCESS;
}

API nvmlReturn_t nvmlDeviceGetComputeInstanceId(nvmlDevice_t mig, unsigned int *id)
{
	ENTER_DEVICE(mig);
	if (mig->parent == NULL)
		return NVML_ERROR_NOT_SUPPORTED;
	*id = mig->ci;
	return NVML_SUCCESS;
}

typedef struct {
	unsigned int multiprocessorCount;
	unsigned int sharedCopyEngineCount, sharedDecoderCount, sharedEncoderCount, sharedJpegCount, sharedOfaCount;
	unsigned int gpuInstanceSliceCount, computeInstanceSliceCount;
	unsigned long long memorySizeMB;
} nvmlDeviceAttributes_t;
_Static_assert(sizeof(nvmlDeviceAttributes_t) == 40, "layout");

API nvmlReturn_t nvmlDeviceGetAttributes_v2(nvmlDevice_t mig, nvmlDeviceAttributes_t *attributes)
{
	ENTER_DEVICE(mig);
	if (mig->parent == NULL)
		return NVML_ERROR_NOT_SUPPORTED;
	*attributes = (nvmlDeviceAttributes_t){
		.gpuInstanceSliceCount = mig->gi_slices,
		.computeInstanceSliceCount = mig->ci_slices,
		.memorySizeMB = mig->memory,
	};
	return NVML_SUCCESS;
}

/* MIG profiles. Each has a number by its size, the argument of the two
 * ...ProfileInfo calls, and an id of the driver's own choice. Here the id is the
 * number and 100. */

enum { PROFILE_ID = 100 };

struct profile {
	unsigned int slices, gfx;
};

/* NVML_GPU_INSTANCE_PROFILE_*; those left at 0 are not supported. */
static const struct profile gpu_profiles[] = {
	[0x0] = {1, 0}, [0x1] = {2, 0}, [0x2] = {3, 0}, [0x3] = {4, 0}, [0x4] = {7, 0}, [0x5] = {8, 0}, [0x6] = {6, 0},
	[0xa] = {1, 1}, [0xb] = {2, 1}, [0xc] = {4, 1}, [0x11] = {3, 1},
};

/* NVML_COMPUTE_INSTANCE_PROFILE_* */
static const struct profile compute_profiles[9] = {
	[0x0] = {1, 0}, [0x1] = {2, 0}, [0x2] = {3, 0}, [0x3] = {4, 0}, [0x4] = {7, 0}, [0x5] = {8, 0}, [0x6] = {6, 0},
};

#define COUNT(array) (sizeof(array) / sizeof *(array))

static unsigned int profile_id(const struct profile *profiles, size_t count, unsigned int slices, unsigned int gfx)
{
	for (size_t i = 0; i < count; i++)
		if (profiles[i].slices == slices && profiles[i].gfx == gfx)
			return PROFILE_ID + i;
	return UINT_MAX;
}

typedef struct {
	unsigned int id, isP2pSupported, sliceCount, instanceCount, multiprocessorCount;
	unsigned int copyEngineCount, decoderCount, encoderCount, jpegCount, ofaCount;
	unsigned long long memorySizeMB;
} nvmlGpuInstanceProfileInfo_t;
_Static_assert(sizeof(nvmlGpuInstanceProfileInfo_t) == 48, "layout");

/* Of eight slices of memory an instance of three or of seven slices has one more. */
static unsigned int memory_slices(unsigned int slices)
{
	return slices == 3 || slices == 7 ? slices + 1 : slices;
}

API nvmlReturn_t nvmlDeviceGetGpuInstanceProfileInfo(nvmlDevice_t device, unsigned int profile, nvmlGpuInstanceProfileInfo_t *info)
{
	ENTER_DEVICE(device);
	if (device->parent != NULL || profile >= COUNT(gpu_profiles))
		return NVML_ERROR_INVALID_ARGUMENT;
	if (gpu_profiles[profile].slices == 0)
		return NVML_ERROR_NOT_SUPPORTED;
	*info = (nvmlGpuInstanceProfileInfo_t){
		.id = PROFILE_ID + profile,
		.sliceCount = gpu_profiles[profile].slices,
		.instanceCount = 7 / gpu_profiles[profile].slices,
		.memorySizeMB = device->memory * memory_slices(gpu_profiles[profile].slices) / 8,
	};
	return NVML_SUCCESS;
}

API nvmlReturn_t nvmlDeviceGetGpuInstanceById(nvmlDevice_t device, unsigned int id, nvmlGpuInstance_t *instance)
{
	ENTER_DEVICE(device);
	for (int i = 0; i < MAX_MIG_DEVICES; i++) {
		struct device *d = device->mig_devices[i];
		if (d != NULL && d->gi == id) {
			*instance = d;
			return NVML_SUCCESS;
		}
	}
	return NVML_ERROR_NOT_FOUND;
}

typedef struct {
	unsigned int start, size;
} placement;

typedef struct {
	nvmlDevice_t device;
	unsigned int id, profileId;
	placement placement;
} nvmlGpuInstanceInfo_t;

API nvmlReturn_t nvmlGpuInstanceGetInfo(nvmlGpuInstance_t instance, nvmlGpuInstanceInfo_t *info)
{
	ENTER_DEVICE(instance);
	*info = (nvmlGpuInstanceInfo_t){
		.device = instance->parent,
		.id = instance->gi,
		.profileId = profile_id(gpu_profiles, COUNT(gpu_profiles), instance->gi_slices, instance->gfx != 0),
	};
	return NVML_SUCCESS;
}

API nvmlReturn_t nvmlGpuInstanceGetComputeInstanceById(nvmlGpuInstance_t instance, unsigned int id, nvmlComputeInstance_t *compute)
{
	ENTER_DEVICE(instance);
	for (int i = 0; i < MAX_MIG_DEVICES; i++) {
		struct device *d = instance->parent->mig_devices[i];
		if (d != NULL && d->gi == instance->gi && d->ci == id) {
			*compute = d;
			return NVML_SUCCESS;
		}
	}
	return NVML_ERROR_NOT_FOUND;
}

typedef struct {
	unsigned int id, sliceCount, instanceCount, multiprocessorCount;
	unsigned int sharedCopyEngineCount, sharedDecoderCount, sharedEncoderCount, sharedJpegCount, sharedOfaCount;
} nvmlComputeInstanceProfileInfo_t;
_Static_assert(sizeof(nvmlComputeInstanceProfileInfo_t) == 36, "layout");

API nvmlReturn_t nvmlGpuInstanceGetComputeInstanceProfileInfo(nvmlGpuInstance_t instance, unsigned int profile, unsigned int engine,
							      nvmlComputeInstanceProfileInfo_t *info)
{
	ENTER_DEVICE(instance);
	if (profile >= COUNT(compute_profiles) || engine != 0)
		return NVML_ERROR_INVALID_ARGUMENT;
	if (compute_profiles[profile].slices == 0 || compute_profiles[profile].slices > instance->gi_slices)
		return NVML_ERROR_NOT_SUPPORTED;
	*info = (nvmlComputeInstanceProfileInfo_t){.id = PROFILE_ID + profile, .sliceCount = compute_profiles[profile].slices};
	return NVML_SUCCESS;
}

typedef struct {
	nvmlDevice_t device;
	nvmlGpuInstance_t gpuInstance;
	unsigned int id, profileId;
	placement placement;
} nvmlComputeInstanceInfo_t;

API nvmlReturn_t nvmlComputeInstanceGetInfo_v2(nvmlComputeInstance_t compute, nvmlComputeInstanceInfo_t *info)
{
	ENTER_DEVICE(compute);
	*info = (nvmlComputeInstanceInfo_t){
		.device = compute->parent,
		.gpuInstance = compute,
		.id = compute->ci,
		.profileId = profile_id(compute_profiles, COUNT(compute_profiles), compute->ci_slices, 0),
	};
	return NVML_SUCCESS;
}

#endif
