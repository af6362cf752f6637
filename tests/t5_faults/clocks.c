/* Preloaded into a daemon: its clocks show what DFS_CLOCK says, four numbers of 64 bits.
 *
 * By how many nanoseconds the clock on the wall is wrong, and how many the monotonic ones (of a host
 * that was suspended they are behind, but for CLOCK_BOOTTIME).  From which moment of the true monotonic clock on all of them
 * go too fast, and how many millionths too fast (less than 0: too slow); what waits for events with
 * a time limit waits at that rate.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *errors_ns(void)
{
    static volatile int64_t *mapped;
    if (!mapped) {
        static volatile int64_t none[4];
        const char *path = getenv("DFS_CLOCK");
        int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
        void *found = fd < 0 ? MAP_FAILED : mmap(NULL, 32, PROT_READ, MAP_SHARED, fd, 0);
        mapped = found == MAP_FAILED ? none : found;
        if (fd >= 0)
            close(fd);
    }
    return mapped;
}

static int true_time(clockid_t clock, struct timespec *now)
{
    static int (*real)(clockid_t, struct timespec *);
    if (!real)
        real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    return real(clock, now);
}

static int64_t gained_ns(void)
{
    struct timespec now;
    int64_t gain = errors_ns()[3];
    if (!gain || true_time(CLOCK_MONOTONIC, &now) != 0)
        return 0;
    return (now.tv_sec * INT64_C(1000000000) + now.tv_nsec - errors_ns()[2]) / 1000 * gain / 1000;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    int result = true_time(clock, now);
    int is_wall = clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE;
    int is_even = clock == CLOCK_MONOTONIC || clock == CLOCK_MONOTONIC_COARSE ||
                  clock == CLOCK_MONOTONIC_RAW;
    if (result == 0 && (is_wall || is_even || clock == CLOCK_BOOTTIME)) {
        int64_t error = clock == CLOCK_BOOTTIME ? 0 : errors_ns()[!is_wall];
        int64_t shown = now->tv_sec * INT64_C(1000000000) + now->tv_nsec + error + gained_ns();
        now->tv_sec = shown / 1000000000;
        now->tv_nsec = shown % 1000000000;
    }
    return result;
}

time_t time(time_t *result)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (result)
        *result = now.tv_sec;
    return now.tv_sec;
}

int gettimeofday(struct timeval *restrict result, void *restrict zone)
{
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    result->tv_sec = now.tv_sec;
    result->tv_usec = now.tv_nsec / 1000;
    return 0;
}

int epoll_wait(int fd, struct epoll_event *events, int count, int timeout_ms)
{
    static int (*real)(int, struct epoll_event *, int, int);
    if (!real)
        real = (int (*)(int, struct epoll_event *, int, int))dlsym(RTLD_NEXT, "epoll_wait");
    if (timeout_ms > 0)
        timeout_ms = timeout_ms * INT64_C(1000000) / (1000000 + errors_ns()[3]) + 1;
    return real(fd, events, count, timeout_ms);
}
