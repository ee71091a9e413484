/* A wall clock that is CLOCK_SHIFT seconds ahead, for a program and all that it starts:
 *
 *     cc -shared -fPIC -O2 -o clock.so tests/clock.c -ldl
 *     CLOCK_SHIFT=3600 LD_PRELOAD=./clock.so date
 *
 * The times of files move along, so that they agree with the clock. The monotonic clock and with it every wait stay
 * as they are: that is why this is used, and not libfaketime, under which timed waits take ten times as long.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <time.h>

static time_t shift(void)
{
    static time_t seconds;
    static int known;
    if (!known) {
        const char *text = getenv("CLOCK_SHIFT");
        seconds = text ? (time_t)atol(text) : 0;
        known = 1;
    }
    return seconds;
}

/* The C library's own function of that name, looked up once. */
#define NEXT(name, ...)                                        \
    static int (*next)(__VA_ARGS__);                           \
    if (!next)                                                 \
        next = (int (*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

int clock_gettime(clockid_t clock, struct timespec *at)
{
    NEXT("clock_gettime", clockid_t, struct timespec *);
    int result = next(clock, at);
    if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        at->tv_sec += shift();
    return result;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone)
{
    NEXT("gettimeofday", struct timeval *, void *);
    int result = next(at, zone);
    if (result == 0)
        at->tv_sec += shift();
    return result;
}

time_t time(time_t *at)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at)
        *at = now.tv_sec;
    return now.tv_sec;
}

#define MOVE(file)                           \
    if (result == 0) {                       \
        file->st_atim.tv_sec += shift();     \
        file->st_mtim.tv_sec += shift();     \
        file->st_ctim.tv_sec += shift();     \
    }                                        \
    return result

#define STAT(name, type)                              \
    int name(const char *path, struct type *file)     \
    {                                                 \
        NEXT(#name, const char *, struct type *);     \
        int result = next(path, file);                \
        MOVE(file);                                   \
    }

#define FSTAT(name, type)                             \
    int name(int descriptor, struct type *file)       \
    {                                                 \
        NEXT(#name, int, struct type *);              \
        int result = next(descriptor, file);          \
        MOVE(file);                                   \
    }

#define FSTATAT(name, type)                                                      \
    int name(int folder, const char *path, struct type *file, int flags)         \
    {                                                                            \
        NEXT(#name, int, const char *, struct type *, int);                      \
        int result = next(folder, path, file, flags);                            \
        MOVE(file);                                                              \
    }

STAT(stat, stat)
STAT(lstat, stat)
FSTAT(fstat, stat)
FSTATAT(fstatat, stat)
STAT(stat64, stat64)
STAT(lstat64, stat64)
FSTAT(fstat64, stat64)
FSTATAT(fstatat64, stat64)

int statx(int folder, const char *restrict path, int flags, unsigned mask, struct statx *restrict file)
{
    NEXT("statx", int, const char *, int, unsigned, struct statx *);
    int result = next(folder, path, flags, mask, file);
    if (result == 0) {
        file->stx_atime.tv_sec += shift();
        file->stx_mtime.tv_sec += shift();
        file->stx_ctime.tv_sec += shift();
        file->stx_btime.tv_sec += shift();
    }
    return result;
}

/* Times given to a file are of the moved clock; the file system keeps the real ones. */
static const struct timespec *real(const struct timespec given[2], struct timespec kept[2])
{
    if (!given)
        return NULL;
    for (int i = 0; i < 2; i++) {
        kept[i] = given[i];
        if (kept[i].tv_nsec != UTIME_NOW && kept[i].tv_nsec != UTIME_OMIT)
            kept[i].tv_sec -= shift();
    }
    return kept;
}

int utimensat(int folder, const char *path, const struct timespec times[2], int flags)
{
    NEXT("utimensat", int, const char *, const struct timespec *, int);
    struct timespec kept[2];
    return next(folder, path, real(times, kept), flags);
}

int futimens(int descriptor, const struct timespec times[2])
{
    NEXT("futimens", int, const struct timespec *);
    struct timespec kept[2];
    return next(descriptor, real(times, kept));
}
