/* Writes down, in their order, all writes and syncs below a folder: LD_PRELOAD it, with POWER_FOLDER and POWER_LOG set.
   What a disk holds after a power cut can then be made up for any moment. Each record is a line
   "kind path offset length", followed by length bytes of data for the kinds w (write at offset) and a (append);
   the others are s (synced), t (truncated to offset), f (allocated up to offset) and u (unlinked). */

#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

static int is_below(const char *path) {
    const char *folder = getenv("POWER_FOLDER");
    return folder && strncmp(path, folder, strlen(folder)) == 0;
}

static int find_path(int fd, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, 511);
    if (length < 0) return 0;
    path[length] = 0;
    return is_below(path);
}

static void note(char kind, const char *path, off_t offset, size_t length, const void *data) {
    static int log = -1;
    if (log < 0) log = syscall(SYS_openat, AT_FDCWD, getenv("POWER_LOG"), O_WRONLY | O_CREAT | O_APPEND, 0600);
    char *record = malloc(600 + length);
    int head = snprintf(record, 600, "%c %s %ld %zu\n", kind, path, (long)offset, length);
    if (length) memcpy(record + head, data, length);
    if (syscall(SYS_write, log, record, head + length) != (long)(head + length)) abort();
    free(record);
}

#define PWRITE(name)                                                     \
    ssize_t name(int fd, const void *data, size_t length, off_t at) {    \
        char path[512];                                                  \
        if (find_path(fd, path)) note('w', path, at, length, data);      \
        return syscall(SYS_pwrite64, fd, data, length, at);              \
    }
PWRITE(pwrite)
PWRITE(pwrite64)

ssize_t write(int fd, const void *data, size_t length) {
    char path[512];
    if (find_path(fd, path)) note('a', path, 0, length, data);
    return syscall(SYS_write, fd, data, length);
}

#define SYNC(name, number)                                               \
    int name(int fd) {                                                   \
        char path[512];                                                  \
        int result = syscall(number, fd);                                \
        if (result == 0 && find_path(fd, path)) note('s', path, 0, 0, 0);\
        return result;                                                   \
    }
SYNC(fsync, SYS_fsync)
SYNC(fdatasync, SYS_fdatasync)

#define TRUNCATE(name)                                                   \
    int name(int fd, off_t length) {                                     \
        char path[512];                                                  \
        if (find_path(fd, path)) note('t', path, length, 0, 0);          \
        return syscall(SYS_ftruncate, fd, length);                       \
    }
TRUNCATE(ftruncate)
TRUNCATE(ftruncate64)

#define ALLOCATE(name)                                                   \
    int name(int fd, off_t at, off_t length) {                           \
        char path[512];                                                  \
        if (find_path(fd, path)) note('f', path, at + length, 0, 0);     \
        return syscall(SYS_fallocate, fd, 0, at, length) ? 28 : 0;       \
    }
ALLOCATE(posix_fallocate)
ALLOCATE(posix_fallocate64)

int unlink(const char *path) {
    if (is_below(path)) note('u', path, 0, 0, 0);
    return syscall(SYS_unlinkat, AT_FDCWD, path, 0);
}
