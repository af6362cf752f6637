/* Preloaded into a daemon: single calls on files below DFS_FAIL_BELOW fail with EIO.
 *
 * A file DFS_FAIL_ORDERS/sync, .../write or .../read holds the number of calls of that kind that still
 * succeed; the one after them fails, and the file is removed.  Without the file all calls succeed.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER;

static int is_below(int fd)
{
    const char *below = getenv("DFS_FAIL_BELOW");
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path);
    size_t wanted = below ? strlen(below) : 0;
    return wanted && length >= (ssize_t)wanted && memcmp(path, below, wanted) == 0;
}

static int follows_order(const char *order)
{
    int fails = 0;
    char text[16] = "";
    pthread_mutex_lock(&one_at_a_time);
    int fd = open(order, O_RDWR);
    if (fd >= 0) {
        syscall(SYS_pread64, fd, text, sizeof text - 1, 0L);
        long left = atol(text);
        fails = left <= 0;
        if (fails) {
            unlink(order);
        } else {
            int length = snprintf(text, sizeof text, "%-12ld", left - 1);
            syscall(SYS_pwrite64, fd, text, (long)length, 0L);
        }
        close(fd);
    }
    pthread_mutex_unlock(&one_at_a_time);
    return fails;
}

static int fails(int fd, const char *kind)
{
    const char *orders = getenv("DFS_FAIL_ORDERS");
    char order[4096];
    int saved = errno;
    snprintf(order, sizeof order, "%s/%s", orders ? orders : "", kind);
    int is_due = orders && access(order, F_OK) == 0 && is_below(fd) && follows_order(order);
    errno = is_due ? EIO : saved;
    return is_due;
}

#define WRAPPED(type, name, kind, parameters, arguments)             \
    type name parameters                                             \
    {                                                                \
        static type (*real) parameters;                              \
        if (!real)                                                   \
            real = (type (*) parameters)dlsym(RTLD_NEXT, #name);     \
        return fails(fd, kind) ? (type)-1 : real arguments;          \
    }

WRAPPED(int, fsync, "sync", (int fd), (fd))
WRAPPED(int, fdatasync, "sync", (int fd), (fd))
WRAPPED(ssize_t, write, "write", (int fd, const void *data, size_t n), (fd, data, n))
WRAPPED(ssize_t, writev, "write", (int fd, const struct iovec *data, int n), (fd, data, n))
WRAPPED(ssize_t, pwrite64, "write", (int fd, const void *data, size_t n, off64_t at),
        (fd, data, n, at))
WRAPPED(ssize_t, pwritev64, "write", (int fd, const struct iovec *data, int n, off64_t at),
        (fd, data, n, at))
WRAPPED(ssize_t, pread64, "read", (int fd, void *data, size_t n, off64_t at), (fd, data, n, at))
WRAPPED(ssize_t, preadv64, "read", (int fd, const struct iovec *data, int n, off64_t at),
        (fd, data, n, at))
