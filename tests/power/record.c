/* Preloaded into a process, it writes down what that process asks of the disk below one folder.
 *
 *     STETHOPI_RECORD_BELOW=/folder STETHOPI_RECORD_TO=/log LD_PRELOAD=./record.so program
 *
 * Each call that changes a file or a folder, or makes it durable, becomes one record: struct head in the
 * machine's byte order, then `first` bytes of a path, then `second` bytes of another path or of data. See
 * tests/power/disk.py, which reads them. Not seen: changes through mmap, sendfile and renames of folders.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct head {
    uint32_t what, first, second, spare;
    uint64_t node;
    int64_t at;
};

enum { CREATE = 1, WRITE, TRUNCATE, SYNC, SYNC_FOLDER, RENAME, UNLINK, MKDIR };

static char below[PATH_MAX];
static size_t below_length;
static int to = -1;
static unsigned char watched[65536];

#define REAL(type, name, ...) \
    static type (*real)(__VA_ARGS__); \
    if (!real) real = (type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

static ssize_t put(const void *bytes, size_t count) {
    REAL(ssize_t, "write", int, const void *, size_t);
    const char *next = bytes;
    while (count) {
        ssize_t done = real(to, next, count);
        if (done <= 0) abort();
        next += done;
        count -= done;
    }
    return 0;
}

static void say(uint32_t what, uint64_t node, int64_t at, const void *first, size_t m, const void *second, size_t n) {
    struct head head = {what, m, n, 0, node, at};
    put(&head, sizeof head);
    if (m) put(first, m);
    if (n) put(second, n);
}

__attribute__((constructor)) static void begin(void) {
    const char *folder = getenv("STETHOPI_RECORD_BELOW"), *log = getenv("STETHOPI_RECORD_TO");
    if (!folder || !log || !realpath(folder, below)) return;
    below_length = strlen(below);
    if (below_length == 1) below_length = 0; /* the root: everything */
    REAL(int, "open", const char *, int, ...);
    to = real(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

static int inside(const char *path) {
    return to >= 0 && !strncmp(path, below, below_length) && path[below_length] == '/';
}

static uint64_t node_of(int file) {
    struct stat about;
    return fstat(file, &about) ? 0 : about.st_ino;
}

static int opened(int file, const char *path, int flags, int was_there) {
    if (file < 0 || file >= (int)sizeof watched || !inside(path)) return file;
    watched[file] = 1;
    if ((flags & O_CREAT) && !was_there) say(CREATE, node_of(file), 0, path, strlen(path), 0, 0);
    else if (flags & O_TRUNC) say(TRUNCATE, node_of(file), 0, 0, 0, 0, 0);
    return file;
}

#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        REAL(int, #name, const char *, int, ...); \
        va_list list; va_start(list, flags); mode_t mode = va_arg(list, mode_t); va_end(list); \
        int was_there = inside(path) && !access(path, F_OK); \
        return opened(real(path, flags, mode), path, flags, was_there); \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name) \
    int name(int folder, const char *path, int flags, ...) { \
        REAL(int, #name, int, const char *, int, ...); \
        va_list list; va_start(list, flags); mode_t mode = va_arg(list, mode_t); va_end(list); \
        int was_there = inside(path) && !access(path, F_OK); \
        return opened(real(folder, path, flags, mode), path, flags, was_there); \
    }
OPENAT(openat)
OPENAT(openat64)

static int seen(int file) { return to >= 0 && file >= 0 && file < (int)sizeof watched && watched[file]; }

int close(int file) {
    REAL(int, "close", int);
    if (seen(file)) watched[file] = 0;
    return real(file);
}

ssize_t write(int file, const void *bytes, size_t count) {
    REAL(ssize_t, "write", int, const void *, size_t);
    int64_t at = 0;
    if (seen(file)) {
        struct stat about;
        at = (fcntl(file, F_GETFL) & O_APPEND) && !fstat(file, &about) ? about.st_size : lseek(file, 0, SEEK_CUR);
    }
    ssize_t done = real(file, bytes, count);
    if (done > 0 && seen(file)) say(WRITE, node_of(file), at, 0, 0, bytes, done);
    return done;
}

#define PWRITE(name, offset) \
    ssize_t name(int file, const void *bytes, size_t count, offset at) { \
        REAL(ssize_t, #name, int, const void *, size_t, offset); \
        ssize_t done = real(file, bytes, count, at); \
        if (done > 0 && seen(file)) say(WRITE, node_of(file), at, 0, 0, bytes, done); \
        return done; \
    }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

#define FTRUNCATE(name, offset) \
    int name(int file, offset size) { \
        REAL(int, #name, int, offset); \
        int failed = real(file, size); \
        if (!failed && seen(file)) say(TRUNCATE, node_of(file), size, 0, 0, 0, 0); \
        return failed; \
    }
FTRUNCATE(ftruncate, off_t)
FTRUNCATE(ftruncate64, off64_t)

static void synced(int file) {
    char link[64], path[PATH_MAX];
    struct stat about;
    if (to < 0 || fstat(file, &about)) return;
    if (!S_ISDIR(about.st_mode)) {
        if (seen(file)) say(SYNC, about.st_ino, 0, 0, 0, 0, 0);
        return;
    }
    strcpy(link, "/proc/self/fd/");
    char digits[12], *next = digits + sizeof digits;
    *--next = 0;
    do *--next = '0' + file % 10; while (file /= 10);
    strcat(link, next);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= 0) return;
    path[length] = 0;
    if (inside(path) || !strcmp(path, below)) say(SYNC_FOLDER, 0, 0, path, length, 0, 0);
}

int fsync(int file) {
    REAL(int, "fsync", int);
    int failed = real(file);
    if (!failed) synced(file);
    return failed;
}

int fdatasync(int file) {
    REAL(int, "fdatasync", int);
    int failed = real(file);
    if (!failed) synced(file);
    return failed;
}

int rename(const char *from, const char *into) {
    REAL(int, "rename", const char *, const char *);
    int failed = real(from, into);
    if (!failed && (inside(from) || inside(into))) say(RENAME, 0, 0, from, strlen(from), into, strlen(into));
    return failed;
}

int renameat(int a, const char *from, int b, const char *into) {
    REAL(int, "renameat", int, const char *, int, const char *);
    int failed = real(a, from, b, into);
    if (!failed && (inside(from) || inside(into))) say(RENAME, 0, 0, from, strlen(from), into, strlen(into));
    return failed;
}

int unlink(const char *path) {
    REAL(int, "unlink", const char *);
    int failed = real(path);
    if (!failed && inside(path)) say(UNLINK, 0, 0, path, strlen(path), 0, 0);
    return failed;
}

int unlinkat(int folder, const char *path, int flags) {
    REAL(int, "unlinkat", int, const char *, int);
    int failed = real(folder, path, flags);
    if (!failed && inside(path)) say(UNLINK, 0, 0, path, strlen(path), 0, 0);
    return failed;
}

int mkdir(const char *path, mode_t mode) {
    REAL(int, "mkdir", const char *, mode_t);
    int failed = real(path, mode);
    if (!failed && inside(path)) say(MKDIR, 0, 0, path, strlen(path), 0, 0);
    return failed;
}
