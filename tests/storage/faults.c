/* Makes the n-th call that changes a file below a folder fail. Loaded with LD_PRELOAD. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static char below[PATH_MAX];
static long calls, fail_at;
static int fail_with, fail_on;

/* From now on the n-th call fails with this error, and with `on` all calls after it do, too. */
void fault_arm(const char *folder, long n, int error, int on) {
    snprintf(below, sizeof below, "%s", folder);
    calls = 0;
    fail_at = n;
    fail_with = error;
    fail_on = on;
}

/* No call fails any more; returns how many were counted. */
long fault_disarm(void) {
    below[0] = 0;
    return calls;
}

static int fails(const char *path) {
    if (!below[0] || strncmp(path, below, strlen(below))) return 0;
    calls++;
    if (calls != fail_at && !(fail_on && calls > fail_at)) return 0;
    errno = fail_with;
    return 1;
}

static int fails_on(int fd) {
    char link[64], path[PATH_MAX];
    if (!below[0]) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return fails(path);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t write(int fd, const void *data, size_t n) {
    return fails_on(fd) ? -1 : REAL(write)(fd, data, n);
}
ssize_t pwrite(int fd, const void *data, size_t n, off_t at) {
    return fails_on(fd) ? -1 : REAL(pwrite)(fd, data, n, at);
}
ssize_t pwrite64(int fd, const void *data, size_t n, off64_t at) {
    return fails_on(fd) ? -1 : REAL(pwrite64)(fd, data, n, at);
}
int fsync(int fd) { return fails_on(fd) ? -1 : REAL(fsync)(fd); }
int fdatasync(int fd) { return fails_on(fd) ? -1 : REAL(fdatasync)(fd); }
int ftruncate(int fd, off_t n) { return fails_on(fd) ? -1 : REAL(ftruncate)(fd, n); }
int ftruncate64(int fd, off64_t n) { return fails_on(fd) ? -1 : REAL(ftruncate64)(fd, n); }
int rename(const char *from, const char *to) { return fails(to) ? -1 : REAL(rename)(from, to); }
int mkdir(const char *path, mode_t mode) { return fails(path) ? -1 : REAL(mkdir)(path, mode); }

#define OPEN(name)                                              \
    int name(const char *path, int flags, ...) {                \
        va_list rest;                                           \
        va_start(rest, flags);                                  \
        mode_t mode = flags & O_CREAT ? va_arg(rest, int) : 0;  \
        va_end(rest);                                           \
        if ((flags & O_CREAT) && fails(path)) return -1;        \
        return REAL(name)(path, flags, mode);                   \
    }
OPEN(open)
OPEN(open64)
