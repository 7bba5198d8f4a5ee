/*
 * A stand-in for Windows' libdxcore.so, of which nvidia-ctk asks where the driver's directory
 * in Windows' driver store is: one adapter, whose directory is in FAKE_DXCORE_STORE. Structures
 * and numbers are those that Microsoft documents for d3dkmthk.h.
 */
#include <stdlib.h>
#include <string.h>
#include <wchar.h>

#define MAX_PATH 260

struct adapter_info {
	unsigned int handle;
	unsigned int luid_low;
	int luid_high;
	unsigned int sources;
	int precise_present_regions;
};

struct enum_adapters2 {
	unsigned int count;
	struct adapter_info *adapters;
};

enum { DRIVER_VERSION = 13, QUERY_REGISTRY = 48 }; /* KMTQUERYADAPTERINFOTYPE */
enum { DRIVER_STORE_PATH = 2 };                    /* D3DDDI_QUERYREGISTRY_TYPE */
enum { SUCCESS = 0, BUFFER_OVERFLOW = 1 };         /* D3DDDI_QUERYREGISTRY_STATUS */

struct query_registry {
	int type;
	unsigned int flags;
	wchar_t value_name[MAX_PATH];
	unsigned int value_type;
	unsigned int physical_adapter;
	unsigned int size;
	int status;
	union {
		unsigned long long number;
		wchar_t text[1];
	} output;
};

struct query_adapter_info {
	unsigned int handle;
	int type;
	void *data;
	unsigned int size;
};

int D3DKMTEnumAdapters2(struct enum_adapters2 *e)
{
	if (e->adapters && e->count > 0) {
		memset(e->adapters, 0, sizeof *e->adapters);
		e->adapters->handle = 1;
	}
	e->count = 1;
	return 0;
}

int D3DKMTQueryAdapterInfo(struct query_adapter_info *q)
{
	const char *store = getenv("FAKE_DXCORE_STORE");
	struct query_registry *r = q->data;
	size_t i, size;

	if (q->type == DRIVER_VERSION && q->size == sizeof(unsigned int)) {
		*(unsigned int *)q->data = 3100; /* WDDM 3.1 */
		return 0;
	}
	if (!store || q->type != QUERY_REGISTRY || q->size < sizeof *r || r->type != DRIVER_STORE_PATH)
		return -1;
	size = strlen(store) * sizeof(wchar_t);
	r->status = r->size < size ? BUFFER_OVERFLOW : SUCCESS;
	if (r->status == SUCCESS)
		for (i = 0; store[i]; i++)
			r->output.text[i] = (unsigned char)store[i];
	r->size = size;
	return 0;
}
