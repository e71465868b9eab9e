/* Lets "xl create -n", which only parses a configuration, run where there is no Xen.
 *
 * xl opens the hypervisor and xenstore before it does anything. Here the devices are /dev/zero, each
 * hypercall succeeds with zeros as its answer, and xenstore is there but knows nothing. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

/* Of privcmd: type 'P', number 0. */
#define HYPERCALL 0x5000

static const char *Map(const char *path)
{
    return path && !strncmp(path, "/dev/xen/", 9) ? "/dev/zero" : path;
}

static int Open(const char *symbol, const char *path, int flags, int mode)
{
    int (*real)(const char *, int, int) = (int (*)(const char *, int, int))dlsym(RTLD_NEXT, symbol);
    return real(Map(path), flags, mode);
}

#define OPEN(name)                              \
    int name(const char *path, int flags, ...)  \
    {                                           \
        va_list args;                           \
        va_start(args, flags);                  \
        int mode = va_arg(args, int);           \
        va_end(args);                           \
        return Open(#name, path, flags, mode);  \
    }
OPEN(open)
OPEN(open64)

int ioctl(int fd, unsigned long request, ...)
{
    (void)fd;
    if ((request & 0xffff) == HYPERCALL)
        return 0;
    errno = ENOTTY;
    return -1;
}

void *xs_open(unsigned long flags)
{
    (void)flags;
    return (void *)1;
}

void xs_close(void *handle)
{
    (void)handle;
}

void *xs_read(void *handle, unsigned t, const char *path, unsigned *len)
{
    (void)handle, (void)t, (void)path, (void)len;
    errno = ENOENT;
    return NULL;
}
