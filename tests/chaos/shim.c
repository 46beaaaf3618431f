// Loaded by LD_PRELOAD into a process that is to fail: counts the calls that change a folder, and ends or fails one.
//
// Nothing happens before chaos_arm. Then each call of libc that changes a file or a name below `folder` gets a number,
// from 1. Call number `at` either ends the process by SIGKILL (before it, or after half of a write), or fails with an
// error number. Calls can be recorded with their data, so that what was on the disk at any moment can be made again. A
// call that the system refused is recorded as "none".
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { KILL = 1, KILL_HALF = 2, FAIL_ONCE = 3, FAIL_ON = 4 };
enum { FILES = 65536 };

static char folder[PATH_MAX];
static size_t folder_length;
static long at;
static int mode, error_number, opens_only, record = -1;
static atomic_long calls;
static char *path_of[FILES];

void chaos_arm(const char *where, long number, int what, int error, int only_opens, const char *trace) {
    snprintf(folder, sizeof folder, "%s", where);
    at = number, mode = what, error_number = error, opens_only = only_opens;
    record = trace && *trace ? (int)syscall(SYS_openat, AT_FDCWD, trace, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644) : -1;
    atomic_store(&calls, 0);
    folder_length = strlen(folder);
}

long chaos_calls(void) { return atomic_load(&calls); }

static int inside(const char *path) {
    return folder_length && path && strncmp(path, folder, folder_length) == 0
        && (path[folder_length] == '/' || path[folder_length] == 0);
}

static const char *file(int fd) { return fd >= 0 && fd < FILES ? path_of[fd] : NULL; }

static void note(int fd, const char *path) {
    if (fd < 0 || fd >= FILES) return;
    free(path_of[fd]);
    path_of[fd] = inside(path) ? strdup(path) : NULL;
}

static void raw(const void *data, size_t size) {
    for (const char *next = data; size > 0;) {
        long done = syscall(SYS_write, record, next, size);
        if (done <= 0) _exit(99);
        next += done, size -= (size_t)done;
    }
}

static void traced(const char *op, const char *path, const char *other, long place, const void *data, size_t size) {
    if (record < 0) return;
    char line[3 * PATH_MAX];
    int length = snprintf(line, sizeof line, "%s\t%s\t%s\t%ld\t%zu\n", op, path, other, place, size);
    raw(line, (size_t)length);
    if (data) raw(data, size);
}

// The number of a call is up: 0 to go on, -1 with errno set where it fails. `half` is done before a kill amid a write.
static int struck(int is_open, int is_removal, int fd, const void *data, size_t size) {
    if (mode >= FAIL_ONCE && opens_only && !is_open) return 0;
    if (mode >= FAIL_ONCE && is_removal && error_number != EIO && error_number != EROFS) return 0;
    long number = atomic_fetch_add(&calls, 1) + 1;
    if (mode == 0 || at == 0 || number < at || (number > at && mode != FAIL_ON)) return 0;
    if (mode >= FAIL_ONCE) {
        errno = error_number;
        return -1;
    }
    if (mode == KILL_HALF && data) syscall(SYS_write, fd, data, size / 2);
    syscall(SYS_kill, syscall(SYS_getpid), SIGKILL);
    return -1;
}

#define REAL(name) static __typeof__(name) *real; if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)
#define CHANGES(flags) ((flags) & (O_WRONLY | O_RDWR | O_CREAT | O_TRUNC))

#define OPENS(name)                                                                     \
    int name(const char *path, int flags, ...) {                                        \
        REAL(name);                                                                     \
        va_list more; va_start(more, flags); mode_t bits = va_arg(more, mode_t); va_end(more); \
        int changes = inside(path) && CHANGES(flags);                                   \
        if (changes && struck(1, 0, -1, NULL, 0)) return -1;                            \
        struct stat known; int is_new = changes && (flags & O_CREAT) && lstat(path, &known) != 0; \
        int fd = real(path, flags, bits);                                               \
        if (changes)                                                                    \
            traced(fd < 0 ? "none" : is_new ? "create" : flags & O_TRUNC ? "empty" : "open", path, "", 0, NULL, 0); \
        note(fd, path);                                                                 \
        return fd;                                                                      \
    }
OPENS(open)
OPENS(open64)

#define OPENS_AT(name)                                                                  \
    int name(int at_fd, const char *path, int flags, ...) {                             \
        REAL(name);                                                                     \
        va_list more; va_start(more, flags); mode_t bits = va_arg(more, mode_t); va_end(more); \
        int changes = inside(path) && CHANGES(flags);                                   \
        if (changes && struck(1, 0, -1, NULL, 0)) return -1;                            \
        struct stat known; int is_new = changes && (flags & O_CREAT) && lstat(path, &known) != 0; \
        int fd = real(at_fd, path, flags, bits);                                        \
        if (changes)                                                                    \
            traced(fd < 0 ? "none" : is_new ? "create" : flags & O_TRUNC ? "empty" : "open", path, "", 0, NULL, 0); \
        note(fd, path);                                                                 \
        return fd;                                                                      \
    }
OPENS_AT(openat)
OPENS_AT(openat64)

int close(int fd) {
    REAL(close);
    note(fd, NULL);
    return real(fd);
}

ssize_t write(int fd, const void *data, size_t size) {
    REAL(write);
    if (!file(fd)) return real(fd, data, size);
    if (struck(0, 0, fd, data, size)) return -1;
    ssize_t done = real(fd, data, size);
    if (done > 0) traced("write", file(fd), "", (long)lseek(fd, 0, SEEK_CUR) - done, data, (size_t)done);
    else traced("none", file(fd), "", 0, NULL, 0);
    return done;
}

#define WRITES_AT(name)                                                                 \
    ssize_t name(int fd, const void *data, size_t size, __typeof__((off64_t)0) place) { \
        REAL(name);                                                                     \
        if (!file(fd)) return real(fd, data, size, place);                              \
        if (struck(0, 0, fd, NULL, 0)) return -1;                                       \
        ssize_t done = real(fd, data, size, place);                                     \
        if (done > 0) traced("write", file(fd), "", (long)place, data, (size_t)done);   \
        else traced("none", file(fd), "", 0, NULL, 0);                                  \
        return done;                                                                    \
    }
WRITES_AT(pwrite)
WRITES_AT(pwrite64)

ssize_t writev(int fd, const struct iovec *parts, int count) {
    REAL(writev);
    if (!file(fd)) return real(fd, parts, count);
    ssize_t all = 0;  // one write for each part, so that a call may end between them, as the kernel may end it
    for (int i = 0; i < count; i++) {
        ssize_t done = write(fd, parts[i].iov_base, parts[i].iov_len);
        if (done < 0) return all ? all : -1;
        all += done;
    }
    return all;
}

#define CUTS(name, kind)                                                                \
    int name(int fd, kind size) {                                                       \
        REAL(name);                                                                     \
        if (!file(fd)) return real(fd, size);                                           \
        if (struck(0, 0, -1, NULL, 0)) return -1;                                       \
        int done = real(fd, size);                                                      \
        traced(done ? "none" : "cut", file(fd), "", (long)size, NULL, 0);               \
        return done;                                                                    \
    }
CUTS(ftruncate, off_t)
CUTS(ftruncate64, off64_t)

#define SYNCS(name)                                                                     \
    int name(int fd) {                                                                  \
        REAL(name);                                                                     \
        if (!file(fd)) return real(fd);                                                 \
        if (struck(0, 0, -1, NULL, 0)) return -1;                                       \
        traced("sync", file(fd), "", 0, NULL, 0);                                       \
        return 0; /* nothing here pulls the plug: what a disk would have kept is computed from the record */ \
    }
SYNCS(fsync)
SYNCS(fdatasync)

#define NAMES(name, op, removal)                                              \
    int name(const char *path, const char *other) {                                     \
        REAL(name);                                                                     \
        if (!inside(path) && !inside(other)) return real(path, other);                  \
        if (struck(0, removal, -1, NULL, 0)) return -1;                                 \
        int done = real(path, other);                                                   \
        traced(done ? "none" : op, path, other, 0, NULL, 0);                            \
        return done;                                                                    \
    }
NAMES(rename, "rename", 0)
NAMES(link, "link", 0)

int linkat(int from, const char *path, int to, const char *other, int flags) {
    REAL(linkat);
    if (!inside(path) && !inside(other)) return real(from, path, to, other, flags);
    if (struck(0, 0, -1, NULL, 0)) return -1;
    int done = real(from, path, to, other, flags);
    traced(done ? "none" : "link", path, other, 0, NULL, 0);
    return done;
}

#define REMOVES(name, op)                                                               \
    int name(const char *path) {                                                        \
        REAL(name);                                                                     \
        if (!inside(path)) return real(path);                                           \
        if (struck(0, 1, -1, NULL, 0)) return -1;                                       \
        int done = real(path);                                                          \
        traced(done ? "none" : op, path, "", 0, NULL, 0);                               \
        return done;                                                                    \
    }
REMOVES(unlink, "unlink")
REMOVES(rmdir, "rmdir")

int mkdir(const char *path, mode_t bits) {
    REAL(mkdir);
    if (!inside(path)) return real(path, bits);
    if (struck(0, 0, -1, NULL, 0)) return -1;
    int done = real(path, bits);
    traced(done ? "none" : "mkdir", path, "", 0, NULL, 0);
    return done;
}
