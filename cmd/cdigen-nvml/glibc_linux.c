// Makes the probe run with every glibc since 2.17, whichever it was linked with. A linker
// takes the newest version of a symbol, and glibc 2.32 and 2.34 gave new versions to what
// moved from libpthread and libdl into libc, with the same behaviour. The Makefile passes
// --wrap=NAME for each FIRST(NAME) of this file, so that all references, those of Go's
// runtime included, lead to the first version.

#include <features.h>

#ifdef __GLIBC__

#if defined __x86_64__
#define VERSION "GLIBC_2.2.5"
#define DLINFO_VERSION "GLIBC_2.3.3"
#define JUMP "jmp"
#elif defined __aarch64__
#define VERSION "GLIBC_2.17"
#define DLINFO_VERSION VERSION
#define JUMP "b"
#else
#error "the first version of glibc for this architecture is not known"
#endif

// A jump leaves arguments, result and caller as they are.
#define FIRST(name, version)                                      \
	__asm__(".symver first_" #name "," #name "@" version "\n" \
		".text\n"                                         \
		".globl __wrap_" #name "\n"                       \
		".type __wrap_" #name ",%function\n"              \
		"__wrap_" #name ": " JUMP " first_" #name);

FIRST(dlclose, VERSION)
FIRST(dlerror, VERSION)
FIRST(dlinfo, DLINFO_VERSION)
FIRST(dlopen, VERSION)
FIRST(dlsym, VERSION)
FIRST(pthread_attr_getstack, VERSION)
FIRST(pthread_attr_getstacksize, VERSION)
FIRST(pthread_create, VERSION)
FIRST(pthread_getattr_np, VERSION)
FIRST(pthread_key_create, VERSION)
FIRST(pthread_setspecific, VERSION)
FIRST(pthread_sigmask, VERSION)

// Before 2.34 the program brought the function that runs its constructors, since then the
// C library has it. Both understand a program that brings it.
typedef void constructor(int, char **, char **);
extern constructor *__init_array_start[], *__init_array_end[];

static void construct(int argc, char **argv, char **envp)
{
	for (constructor **f = __init_array_start; f < __init_array_end; f++)
		(*f)(argc, argv, envp);
}

__asm__(".symver first_libc_start_main,__libc_start_main@" VERSION);
int first_libc_start_main(int (*main)(int, char **, char **), int argc, char **argv,
			  constructor *init, void (*fini)(void), void (*loader_fini)(void), void *stack);

int __wrap___libc_start_main(int (*main)(int, char **, char **), int argc, char **argv,
			     constructor *init, void (*fini)(void), void (*loader_fini)(void), void *stack)
{
	return first_libc_start_main(main, argc, argv, init ? init : construct, fini, loader_fini, stack);
}

#endif
