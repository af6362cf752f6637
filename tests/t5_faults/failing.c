/* Preloaded into a daemon: single calls on files below DFS_FAIL_BELOW fail with EIO, or all are slow.
 *
 * A file DFS_FAIL_ORDERS/sync, .../write or .../read holds the number of calls of that kind that still
 * succeed; the one after them fails, and the file is removed.  Without the file all calls succeed.
 * Each call of a kind takes as many milliseconds longer as .../slow-sync, .../slow-write or
 * .../slow-read holds; with the latter, nothing is in the page cache for those who ask it.
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
#include <time.h>
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

static long slowness_ms(int fd, const char *kind)
{
    const char *orders = getenv("DFS_FAIL_ORDERS");
    char order[4096], text[16] = "";
    int saved = errno;
    snprintf(order, sizeof order, "%s/slow-%s", orders ? orders : "", kind);
    if (orders && access(order, F_OK) == 0 && is_below(fd)) {
        int file = open(order, O_RDONLY | O_CLOEXEC);
        if (file >= 0) {
            syscall(SYS_pread64, file, text, sizeof text - 1, 0L);
            close(file);
        }
    }
    errno = saved;
    return atol(text);
}

static void wait_if_slow(int fd, const char *kind)
{
    long ms = slowness_ms(fd, kind);
    int saved = errno;
    struct timespec left = {ms / 1000, ms % 1000 * 1000000};
    while (ms && nanosleep(&left, &left) != 0)
        ;
    errno = saved;
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
        wait_if_slow(fd, kind);                                      \
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

ssize_t preadv64v2(int fd, const struct iovec *data, int n, off64_t at, int flags)
{
    static ssize_t (*real)(int, const struct iovec *, int, off64_t, int);
    if (!real)
        real = (ssize_t (*)(int, const struct iovec *, int, off64_t, int))dlsym(RTLD_NEXT,
                                                                                "preadv64v2");
    if (flags & RWF_NOWAIT && slowness_ms(fd, "read")) {
        errno = EAGAIN;
        return -1;
    }
    wait_if_slow(fd, "read");
    return real(fd, data, n, at, flags);
}
