/* A log of what a program does to the files below a folder, in the order in which it happens:
 *
 *     cc -shared -fPIC -O2 -o crash.so tests/crash.c -ldl -lpthread
 *     CRASH_FOLDER=/tmp/work CRASH_LOG=/tmp/log LD_PRELOAD=./crash.so tcb-ops …
 *
 * tests/crash_states.py reads the log, and rebuilds from it what a power cut may leave. What goes to stdout is logged
 * too: it marks what had been shown by then. Files whose name ends with -shm are left out: SQLite maps them into
 * memory, and builds them anew; so are paths that lead to the folder through links or `..`.
 *
 * crash_fail lets one call fail, with any error: tests/core/test_io_errors.py loads the library into itself, too.
 *
 * A record is a `struct record` and two texts or blocks of bytes, appended with one call. Every call is made and
 * logged under one lock, so that the log has the order of the calls.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define DESCRIPTORS 65536
enum { CREATED = 1, EMPTIED = 2, IS_FOLDER = 4 };

struct record {
    uint32_t kind, process;
    int32_t descriptor;
    uint32_t flags, mode;
    uint32_t first, second; /* bytes of the two blocks */
    uint32_t unused;
    int64_t offset;
};

static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;
static int output = -1;
static char folder[PATH_MAX];
static size_t folder_length;
static unsigned char logged[DESCRIPTORS], connected[DESCRIPTORS];

/* What can be made to fail: of files, only what concerns the folder; of connections, only those over IP. */
enum { OPEN, WRITE, SYNC, NAME, SOCKET, CONNECT, RECEIVE, KINDS };
static atomic_int made[KINDS];
static int failing = -1, failing_number, failing_with;

/* Counts the calls of each kind from now on; the one of this kind and number fails with an errno. */
void crash_fail(int kind, int number, int error)
{
    for (int i = 0; i < KINDS; i++)
        atomic_store(&made[i], 0);
    failing = kind;
    failing_number = number;
    failing_with = error;
}

int crash_made(int kind)
{
    return atomic_load(&made[kind]);
}

static int fails(int kind)
{
    if (atomic_fetch_add(&made[kind], 1) + 1 != failing_number || kind != failing)
        return 0;
    errno = failing_with;
    return 1;
}

/* The C library's own function of that name, looked up once. */
#define NEXT(result, name, ...)                                \
    static result (*next)(__VA_ARGS__);                        \
    if (!next)                                                 \
        next = (result (*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

__attribute__((constructor)) static void start(void)
{
    const char *log = getenv("CRASH_LOG"), *of = getenv("CRASH_FOLDER");
    if (!log || !of || !realpath(of, folder))
        return;
    folder_length = strlen(folder);
    NEXT(int, "open", const char *, int, ...);
    int descriptor = next(log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    output = fcntl(descriptor, F_DUPFD_CLOEXEC, 900);
    close(descriptor);
    if (output < 0)
        abort();
}

static void put(struct record record, const void *first, const void *second)
{
    NEXT(ssize_t, "writev", int, const struct iovec *, int);
    int error = errno;
    record.process = (uint32_t)getpid();
    struct iovec parts[3] = {
        {&record, sizeof record}, {(void *)first, record.first}, {(void *)second, record.second}};
    if (next(output, parts, 3) != (ssize_t)(sizeof record + record.first + record.second))
        abort();
    errno = error;
}

static int is_logged(int descriptor)
{
    return descriptor >= 0 && descriptor < DESCRIPTORS && logged[descriptor];
}

/* Writes the absolute path into `full`; returns whether it is logged. */
static int inside(int from, const char *path, char *full)
{
    char start[PATH_MAX] = "";
    if (output < 0 || !path)
        return 0;
    if (path[0] != '/') {
        if (from == AT_FDCWD) {
            if (!getcwd(start, sizeof start))
                return 0;
        } else {
            char link[64];
            snprintf(link, sizeof link, "/proc/self/fd/%d", from);
            ssize_t length = readlink(link, start, sizeof start - 1);
            if (length < 0)
                return 0;
            start[length] = 0;
        }
        strncat(start, "/", sizeof start - strlen(start) - 1);
    }
    if ((size_t)snprintf(full, PATH_MAX, "%s%s", start, path) >= PATH_MAX)
        return 0;
    size_t length = strlen(full);
    if (strncmp(full, folder, folder_length) != 0 || (full[folder_length] && full[folder_length] != '/'))
        return 0;
    return length < 4 || strcmp(full + length - 4, "-shm") != 0;
}

static int opened(int from, const char *path, int flags, mode_t mode)
{
    NEXT(int, "openat", int, const char *, int, ...);
    char full[PATH_MAX];
    if ((flags & O_TMPFILE) == O_TMPFILE || !inside(from, path, full)) {
        int descriptor = next(from, path, flags, mode);
        if (is_logged(descriptor)) /* closed by a call that is not seen here */
            logged[descriptor] = 0;
        return descriptor;
    }
    if (fails(OPEN))
        return -1;
    pthread_mutex_lock(&turn);
    struct stat status;
    int is_new = fstatat(AT_FDCWD, full, &status, 0) != 0;
    int descriptor = next(from, path, flags, mode);
    if (descriptor >= 0 && descriptor < DESCRIPTORS && fstat(descriptor, &status) == 0) {
        logged[descriptor] = 1;
        struct record record = {.kind = 'o', .descriptor = descriptor, .mode = status.st_mode & 07777};
        record.flags = (is_new ? CREATED : 0) | (flags & O_TRUNC ? EMPTIED : 0);
        record.flags |= S_ISDIR(status.st_mode) ? IS_FOLDER : 0;
        record.first = (uint32_t)strlen(full);
        put(record, full, NULL);
    }
    pthread_mutex_unlock(&turn);
    return descriptor;
}

#define MODE()                                     \
    mode_t mode = 0;                               \
    if (flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE) { \
        va_list rest;                              \
        va_start(rest, flags);                     \
        mode = va_arg(rest, mode_t);               \
        va_end(rest);                              \
    }

#define OPENING(name)                              \
    int name(const char *path, int flags, ...)     \
    {                                              \
        MODE();                                    \
        return opened(AT_FDCWD, path, flags, mode); \
    }

#define OPENAT(name)                               \
    int name(int from, const char *path, int flags, ...) \
    {                                              \
        MODE();                                    \
        return opened(from, path, flags, mode);    \
    }

OPENING(open)
OPENING(open64)
OPENAT(openat)
OPENAT(openat64)

/* The names that calls without a mode get where the compiler checks them. */
int __open_2(const char *path, int flags) { return opened(AT_FDCWD, path, flags, 0); }
int __open64_2(const char *path, int flags) { return opened(AT_FDCWD, path, flags, 0); }
int __openat_2(int from, const char *path, int flags) { return opened(from, path, flags, 0); }
int __openat64_2(int from, const char *path, int flags) { return opened(from, path, flags, 0); }

int close(int descriptor)
{
    NEXT(int, "close", int);
    if (descriptor >= 0 && descriptor < DESCRIPTORS)
        connected[descriptor] = 0;
    if (!is_logged(descriptor))
        return next(descriptor);
    pthread_mutex_lock(&turn);
    put((struct record){.kind = 'c', .descriptor = descriptor}, NULL, NULL);
    logged[descriptor] = 0;
    int result = next(descriptor);
    pthread_mutex_unlock(&turn);
    return result;
}

static void put_bytes(int descriptor, int64_t offset, const void *bytes, size_t count)
{
    struct record record = {.kind = 'w', .descriptor = descriptor, .offset = offset, .first = (uint32_t)count};
    put(record, bytes, NULL);
}

ssize_t write(int descriptor, const void *bytes, size_t count)
{
    NEXT(ssize_t, "write", int, const void *, size_t);
    if (output < 0 || (!is_logged(descriptor) && descriptor != 1))
        return next(descriptor, bytes, count);
    if (is_logged(descriptor) && fails(WRITE))
        return -1;
    pthread_mutex_lock(&turn);
    ssize_t done = next(descriptor, bytes, count);
    if (done > 0 && is_logged(descriptor))
        put_bytes(descriptor, lseek(descriptor, 0, SEEK_CUR) - done, bytes, (size_t)done);
    else if (done > 0)
        put((struct record){.kind = '!', .first = (uint32_t)done}, bytes, NULL);
    pthread_mutex_unlock(&turn);
    return done;
}

#define PWRITE(name)                                                                \
    ssize_t name(int descriptor, const void *bytes, size_t count, off_t offset)     \
    {                                                                               \
        NEXT(ssize_t, #name, int, const void *, size_t, off_t);                     \
        if (!is_logged(descriptor))                                                 \
            return next(descriptor, bytes, count, offset);                          \
        if (fails(WRITE))                                                           \
            return -1;                                                              \
        pthread_mutex_lock(&turn);                                                  \
        ssize_t done = next(descriptor, bytes, count, offset);                      \
        if (done > 0)                                                               \
            put_bytes(descriptor, offset, bytes, (size_t)done);                     \
        pthread_mutex_unlock(&turn);                                                \
        return done;                                                                \
    }

PWRITE(pwrite)
PWRITE(pwrite64)

ssize_t writev(int descriptor, const struct iovec *parts, int count)
{
    NEXT(ssize_t, "writev", int, const struct iovec *, int);
    if (!is_logged(descriptor))
        return next(descriptor, parts, count);
    if (fails(WRITE))
        return -1;
    pthread_mutex_lock(&turn);
    ssize_t done = next(descriptor, parts, count), rest = done;
    int64_t offset = lseek(descriptor, 0, SEEK_CUR) - done;
    for (int i = 0; i < count && rest > 0; i++) {
        size_t bytes = (size_t)rest < parts[i].iov_len ? (size_t)rest : parts[i].iov_len;
        put_bytes(descriptor, offset, parts[i].iov_base, bytes);
        offset += (int64_t)bytes;
        rest -= (ssize_t)bytes;
    }
    pthread_mutex_unlock(&turn);
    return done;
}

#define TRUNCATE(name)                                                                              \
    int name(int descriptor, off_t size)                                                            \
    {                                                                                               \
        NEXT(int, #name, int, off_t);                                                               \
        if (!is_logged(descriptor))                                                                 \
            return next(descriptor, size);                                                          \
        pthread_mutex_lock(&turn);                                                                  \
        int result = next(descriptor, size);                                                        \
        if (result == 0)                                                                            \
            put((struct record){.kind = 't', .descriptor = descriptor, .offset = size}, NULL, NULL); \
        pthread_mutex_unlock(&turn);                                                                \
        return result;                                                                              \
    }

TRUNCATE(ftruncate)
TRUNCATE(ftruncate64)

#define SYNCING(name)                                                               \
    int name(int descriptor)                                                        \
    {                                                                               \
        NEXT(int, #name, int);                                                      \
        if (!is_logged(descriptor))                                                 \
            return next(descriptor);                                                \
        if (fails(SYNC))                                                            \
            return -1;                                                              \
        pthread_mutex_lock(&turn);                                                  \
        int result = next(descriptor);                                              \
        if (result == 0)                                                            \
            put((struct record){.kind = 's', .descriptor = descriptor}, NULL, NULL); \
        pthread_mutex_unlock(&turn);                                                \
        return result;                                                              \
    }

SYNCING(fsync)
SYNCING(fdatasync)

/* A call about names: made, and logged if it succeeds. The second path may be NULL. */
#define NAMED(letter, from, old, to, new, bits, call)                                       \
    do {                                                                                    \
        char first[PATH_MAX], second[PATH_MAX] = "";                                        \
        int is_first = inside(from, old, first), is_second = inside(to, new, second);       \
        if (!is_first && !is_second)                                                        \
            return call;                                                                    \
        if (fails(NAME))                                                                    \
            return -1;                                                                      \
        pthread_mutex_lock(&turn);                                                          \
        int result = call;                                                                  \
        if (result == 0) {                                                                  \
            struct record record = {.kind = letter, .mode = bits};                          \
            record.first = (uint32_t)strlen(first);                                         \
            record.second = (uint32_t)strlen(second);                                       \
            put(record, first, second);                                                     \
        }                                                                                   \
        pthread_mutex_unlock(&turn);                                                        \
        return result;                                                                      \
    } while (0)

int rename(const char *old, const char *new)
{
    NEXT(int, "rename", const char *, const char *);
    NAMED('r', AT_FDCWD, old, AT_FDCWD, new, 0, next(old, new));
}

int renameat(int from, const char *old, int to, const char *new)
{
    NEXT(int, "renameat", int, const char *, int, const char *);
    NAMED('r', from, old, to, new, 0, next(from, old, to, new));
}

int link(const char *old, const char *new)
{
    NEXT(int, "link", const char *, const char *);
    NAMED('l', AT_FDCWD, old, AT_FDCWD, new, 0, next(old, new));
}

int linkat(int from, const char *old, int to, const char *new, int flags)
{
    NEXT(int, "linkat", int, const char *, int, const char *, int);
    NAMED('l', from, old, to, new, 0, next(from, old, to, new, flags));
}

int unlink(const char *path)
{
    NEXT(int, "unlink", const char *);
    NAMED('u', AT_FDCWD, path, AT_FDCWD, NULL, 0, next(path));
}

int rmdir(const char *path)
{
    NEXT(int, "rmdir", const char *);
    NAMED('u', AT_FDCWD, path, AT_FDCWD, NULL, 0, next(path));
}

int unlinkat(int from, const char *path, int flags)
{
    NEXT(int, "unlinkat", int, const char *, int);
    NAMED('u', from, path, AT_FDCWD, NULL, 0, next(from, path, flags));
}

int mkdir(const char *path, mode_t mode)
{
    NEXT(int, "mkdir", const char *, mode_t);
    NAMED('m', AT_FDCWD, path, AT_FDCWD, NULL, mode & 07777, next(path, mode));
}

int mkdirat(int from, const char *path, mode_t mode)
{
    NEXT(int, "mkdirat", int, const char *, mode_t);
    NAMED('m', from, path, AT_FDCWD, NULL, mode & 07777, next(from, path, mode));
}

int chmod(const char *path, mode_t mode)
{
    NEXT(int, "chmod", const char *, mode_t);
    NAMED('p', AT_FDCWD, path, AT_FDCWD, NULL, mode & 07777, next(path, mode));
}

int fchmodat(int from, const char *path, mode_t mode, int flags)
{
    NEXT(int, "fchmodat", int, const char *, mode_t, int);
    NAMED('p', from, path, AT_FDCWD, NULL, mode & 07777, next(from, path, mode, flags));
}

int socket(int domain, int type, int protocol)
{
    NEXT(int, "socket", int, int, int);
    if (domain != AF_UNIX && fails(SOCKET))
        return -1;
    return next(domain, type, protocol);
}

int connect(int descriptor, const struct sockaddr *address, socklen_t length)
{
    NEXT(int, "connect", int, const struct sockaddr *, socklen_t);
    if (address->sa_family != AF_INET && address->sa_family != AF_INET6)
        return next(descriptor, address, length);
    if (fails(CONNECT))
        return -1;
    if (descriptor >= 0 && descriptor < DESCRIPTORS)
        connected[descriptor] = 1;
    return next(descriptor, address, length);
}

#define RECEIVING(name, parameters, ...)                                                   \
    ssize_t name parameters                                                                \
    {                                                                                      \
        static ssize_t (*next) parameters;                                                 \
        if (!next)                                                                         \
            next = (ssize_t (*) parameters)dlsym(RTLD_NEXT, #name);                        \
        if (from >= 0 && from < DESCRIPTORS && connected[from] && fails(RECEIVE))          \
            return -1;                                                                     \
        return next(__VA_ARGS__);                                                          \
    }

RECEIVING(read, (int from, void *bytes, size_t count), from, bytes, count)
RECEIVING(recv, (int from, void *bytes, size_t count, int flags), from, bytes, count, flags)
RECEIVING(recvmsg, (int from, struct msghdr *message, int flags), from, message, flags)
