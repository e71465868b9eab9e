/* A system disk that fails every read and write, for one process and its children.
 *
 * Preloaded into a program. As long as the first byte of the file named by FAILING_DISK_SWITCH is
 * not 0, everything that would touch a disk ends with EIO: by path, unless it lies in /proc, /sys
 * or /dev, and by descriptor, for files and directories. The console is replaced by the file named
 * by FAILING_DISK_CONSOLE, which always works.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <unistd.h>

static volatile char *broken;
static int console_fd = -1;

#define REAL(name) ((__typeof__(&name)) dlsym(RTLD_NEXT, #name))

__attribute__((constructor)) static void Setup(void)
{
    const char *path = getenv("FAILING_DISK_SWITCH");
    int fd = path ? REAL(open)(path, O_RDONLY | O_CLOEXEC) : -1;

    if (fd >= 0) {
        void *map = mmap(NULL, 1, PROT_READ, MAP_SHARED, fd, 0);
        if (map != MAP_FAILED)
            broken = map;
        close(fd);
    }
}

static int IsBroken(void) { return broken && *broken; }

static int PathFails(const char *path)
{
    return IsBroken() && strncmp(path, "/proc/", 6) && strncmp(path, "/sys/", 5)
           && strncmp(path, "/dev/", 5);
}

static int FdFails(int fd)
{
    struct stat st;
    struct statfs fs;
    static int (*real_fstat)(int, struct stat *);

    if (!IsBroken() || fd == console_fd)
        return 0;
    if (!real_fstat)
        real_fstat = dlsym(RTLD_NEXT, "fstat");
    if (real_fstat(fd, &st) || !(S_ISREG(st.st_mode) || S_ISDIR(st.st_mode)))
        return 0;
    /* proc, sysfs, memfd and the like */
    if (fstatfs(fd, &fs) == 0 && (fs.f_type == 0x9fa0 || fs.f_type == 0x62656572))
        return 0;
    return 1;
}

#define FAIL(value) do { errno = EIO; return (value); } while (0)

#define OPEN_BODY(call)                                                   \
    mode_t mode = 0;                                                      \
    int fd;                                                               \
    const char *console = getenv("FAILING_DISK_CONSOLE");                 \
    if (flags & (O_CREAT | O_TMPFILE)) {                                  \
        va_list args;                                                     \
        va_start(args, flags);                                            \
        mode = va_arg(args, mode_t);                                      \
        va_end(args);                                                     \
    }                                                                     \
    if (console && !strcmp(path, "/dev/console")) {                       \
        console_fd = REAL(open)(console, O_WRONLY | O_APPEND | O_CLOEXEC);\
        return console_fd;                                                \
    }                                                                     \
    if (PathFails(path))                                                  \
        FAIL(-1);                                                         \
    fd = call;                                                            \
    return fd;

int open(const char *path, int flags, ...) { OPEN_BODY(REAL(open)(path, flags, mode)) }
int open64(const char *path, int flags, ...) { OPEN_BODY(REAL(open64)(path, flags, mode)) }
int openat(int dir, const char *path, int flags, ...)
{
    OPEN_BODY(REAL(openat)(dir, path, flags, mode))
}
int openat64(int dir, const char *path, int flags, ...)
{
    OPEN_BODY(REAL(openat64)(dir, path, flags, mode))
}

#define BY_PATH(type, bad, name, params, path, args) \
    type name params { if (PathFails(path)) FAIL(bad); return REAL(name) args; }
#define BY_FD(type, bad, name, params, fd, args) \
    type name params { if (FdFails(fd)) FAIL(bad); return REAL(name) args; }

BY_PATH(int, -1, stat, (const char *p, struct stat *s), p, (p, s))
BY_PATH(int, -1, lstat, (const char *p, struct stat *s), p, (p, s))
BY_PATH(int, -1, stat64, (const char *p, struct stat64 *s), p, (p, s))
BY_PATH(int, -1, lstat64, (const char *p, struct stat64 *s), p, (p, s))
BY_PATH(int, -1, fstatat, (int d, const char *p, struct stat *s, int f), p, (d, p, s, f))
BY_PATH(int, -1, access, (const char *p, int m), p, (p, m))
BY_PATH(int, -1, mkdir, (const char *p, mode_t m), p, (p, m))
BY_PATH(int, -1, unlink, (const char *p), p, (p))
BY_PATH(int, -1, rename, (const char *p, const char *q), p, (p, q))
BY_PATH(int, -1, execve, (const char *p, char *const a[], char *const e[]), p, (p, a, e))
BY_PATH(DIR *, NULL, opendir, (const char *p), p, (p))
BY_PATH(FILE *, NULL, fopen, (const char *p, const char *m), p, (p, m))
BY_PATH(FILE *, NULL, fopen64, (const char *p, const char *m), p, (p, m))

BY_FD(ssize_t, -1, read, (int f, void *b, size_t n), f, (f, b, n))
BY_FD(ssize_t, -1, write, (int f, const void *b, size_t n), f, (f, b, n))
BY_FD(ssize_t, -1, pread, (int f, void *b, size_t n, off_t o), f, (f, b, n, o))
BY_FD(ssize_t, -1, pwrite, (int f, const void *b, size_t n, off_t o), f, (f, b, n, o))
BY_FD(ssize_t, -1, writev, (int f, const struct iovec *v, int n), f, (f, v, n))
BY_FD(int, -1, fsync, (int f), f, (f))
BY_FD(int, -1, fdatasync, (int f), f, (f))
