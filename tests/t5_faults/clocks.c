/* Preloaded into a daemon: its clocks show what DFS_CLOCK says, two numbers of 64 bits.
 *
 * By how many nanoseconds the clock on the wall is wrong, and how many the monotonic ones (of a host
 * that was suspended they are behind).
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *errors_ns(void)
{
    static volatile int64_t *mapped;
    if (!mapped) {
        static volatile int64_t none[2];
        const char *path = getenv("DFS_CLOCK");
        int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
        void *found = fd < 0 ? MAP_FAILED : mmap(NULL, 16, PROT_READ, MAP_SHARED, fd, 0);
        mapped = found == MAP_FAILED ? none : found;
        if (fd >= 0)
            close(fd);
    }
    return mapped;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    static int (*real)(clockid_t, struct timespec *);
    if (!real)
        real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(clock, now);
    int is_wall = clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE;
    int is_even = clock == CLOCK_MONOTONIC || clock == CLOCK_MONOTONIC_COARSE ||
                  clock == CLOCK_MONOTONIC_RAW;
    if (result == 0 && (is_wall || is_even)) {
        int64_t shown = now->tv_sec * INT64_C(1000000000) + now->tv_nsec + errors_ns()[!is_wall];
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
