/* Loads each library that is named, as programs with dlopen do, and prints the file
 * that it came from. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <limits.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		struct link_map *map;
		char path[PATH_MAX];
		void *handle = dlopen(argv[i], RTLD_NOW);
		if (handle == NULL || dlinfo(handle, RTLD_DI_LINKMAP, &map) != 0) {
			printf("load %s: %s\n", argv[i], dlerror());
			return 1;
		}
		if (realpath(map->l_name, path) == NULL)
			return 1;
		printf("load %s %s\n", argv[i], path);
		/* Another name of the same file would give this one again. */
		dlclose(handle);
	}
	return 0;
}
