/* What a process leaves behind when the power goes: LD_PRELOAD this, and of the folder POWERLOSS_FOLDER another one,
   POWERLOSS_SHADOW, holds the bytes that were fsynced and no others. simulators/chaos/disk.py compiles it, cuts the
   power and puts the folder back from the shadow.

   Bytes.  A file's bytes reach the shadow when the file is fsynced, and then those that were written before. A file
   that this process has not synced yet is copied whole the first time: a process that was killed left its bytes with
   the system, and the next fsync of the file takes them along, whoever wrote them.

   Names.  What was made, renamed and removed is lasting when the folder is fsynced, or when a file is fsynced whose own
   name is not lasting yet; either makes all names lasting as they are then, as a journalling file system does. Until
   then a removed file comes back and a new one is not there. A file whose name is lasting and whose bytes were never
   synced comes back empty.

   Left out are folders below the folder, and *-shm, which SQLite makes anew.

   POWERLOSS_CONTROL is a file of 16 bytes that the harness writes into: at 0, whether the disk is full (int32: writes
   beyond the end of a file, and allocations, fail with ENOSPC, as on a full disk); at 8, by how many nanoseconds the
   wall clock is wrong (int64). */

#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define PATH_MOST 1024
#define NAMES_MOST 256
#define RANGES_MOST 4096

struct control {
    volatile int32_t is_full;
    int32_t unused;
    volatile int64_t clock_ns;
};

struct range {
    off_t from, to;
};

struct file {
    struct file *next;
    char key[64];
    int shadow;   /* its bytes in the shadow folder */
    int source;   /* a descriptor to read it by, kept open: closing one lets go of all locks on the file */
    int is_whole; /* all of it is to be copied */
    size_t count;
    struct range ranges[RANGES_MOST];
};

struct name {
    char key[64], name[256];
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const char *folder, *shadow;
static size_t folder_length;
static struct control none, *control = &none;
static struct file *files;
static struct name lasting[NAMES_MOST];
static size_t lasting_count;

static void fail(const char *what) {
    dprintf(2, "powerloss: %s: %s\n", what, strerror(errno));
    abort();
}

/* --- which file ---------------------------------------------------------------------------------------------- */

static int is_left_out(const char *name) {
    size_t length = strlen(name);
    return length > 4 && strcmp(name + length - 4, "-shm") == 0;
}

/* The name of the file below the folder that a descriptor stands for; empty for the folder itself; null for others. */
static const char *find_name(int fd, char *path) {
    char link[64];
    if (!folder) return NULL;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = syscall(SYS_readlinkat, AT_FDCWD, link, path, PATH_MOST - 1);
    if (length < 0) return NULL;
    path[length] = 0;
    if (strncmp(path, folder, folder_length) != 0) return NULL;
    if (path[folder_length] == 0) return "";
    if (path[folder_length] != '/') return NULL;
    const char *name = path + folder_length + 1;
    return strchr(name, '/') || is_left_out(name) ? NULL : name;
}

/* Number and time of birth: the number alone may be given to another file. */
static int find_key(int fd, const char *path, char *key) {
    struct statx found;
    if (syscall(SYS_statx, fd, path, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW, STATX_INO | STATX_TYPE | STATX_BTIME, &found))
        return 0;
    if (!S_ISREG(found.stx_mode)) return 0;
    snprintf(key, 64, "%llu-%lld.%u", (unsigned long long)found.stx_ino, (long long)found.stx_btime.tv_sec,
             found.stx_btime.tv_nsec);
    return 1;
}

/* The file that a descriptor stands for; null when it is none of ours. */
static struct file *find_file(int fd) {
    char path[PATH_MOST], key[64], shadowed[PATH_MOST];
    const char *name = find_name(fd, path);
    if (!name || !*name || !find_key(fd, "", key)) return NULL;
    for (struct file *file = files; file; file = file->next)
        if (strcmp(file->key, key) == 0) return file;
    struct file *file = calloc(1, sizeof *file);
    if (!file) fail("calloc");
    strcpy(file->key, key);
    snprintf(shadowed, sizeof shadowed, "%s/bytes/%s", shadow, key);
    file->shadow = syscall(SYS_openat, AT_FDCWD, shadowed, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (file->shadow < 0) fail(shadowed);
    file->source = -1;
    file->is_whole = 1;
    file->next = files;
    return files = file;
}

static void note(int fd, off_t from, off_t to) {
    pthread_mutex_lock(&lock);
    struct file *file = find_file(fd);
    if (file && !file->is_whole && from < to) {
        struct range *last = file->count ? &file->ranges[file->count - 1] : NULL;
        if (last && last->to == from)
            last->to = to;
        else if (file->count == RANGES_MOST)
            file->is_whole = 1;
        else
            file->ranges[file->count++] = (struct range){from, to};
    }
    pthread_mutex_unlock(&lock);
}

static void note_whole(int fd) {
    pthread_mutex_lock(&lock);
    struct file *file = find_file(fd);
    if (file) file->is_whole = 1;
    pthread_mutex_unlock(&lock);
}

/* --- what becomes lasting ------------------------------------------------------------------------------------ */

static void copy_range(int from, int to, off_t at, off_t end) {
    static char block[1 << 18];
    while (at < end) {
        size_t most = (size_t)(end - at) < sizeof block ? (size_t)(end - at) : sizeof block;
        ssize_t length = syscall(SYS_pread64, from, block, most, at);
        if (length < 0) fail("reading what was synced");
        if (length == 0) return;
        for (ssize_t done = 0; done < length;) {
            ssize_t part = syscall(SYS_pwrite64, to, block + done, length - done, at + done);
            if (part < 0) fail("writing the shadow");
            done += part;
        }
        at += length;
    }
}

static void save_bytes(int fd, struct file *file) {
    int source = fd;
    struct stat found;
    if ((fcntl(fd, F_GETFL) & O_ACCMODE) == O_WRONLY) {
        if (file->source < 0) {
            char link[64];
            snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
            file->source = syscall(SYS_openat, AT_FDCWD, link, O_RDONLY | O_CLOEXEC, 0);
            if (file->source < 0) fail("opening what was synced");
        }
        source = file->source;
    }
    if (fstat(fd, &found)) fail("fstat");
    if (file->is_whole)
        copy_range(source, file->shadow, 0, found.st_size);
    else
        for (size_t index = 0; index < file->count; index++)
            copy_range(source, file->shadow, file->ranges[index].from, file->ranges[index].to);
    if (syscall(SYS_ftruncate, file->shadow, found.st_size)) fail("cutting the shadow");
    file->is_whole = 0;
    file->count = 0;
}

static void save_names(void) {
    char path[PATH_MOST], new[PATH_MOST];
    DIR *opened = opendir(folder);
    if (!opened) return;
    lasting_count = 0;
    for (struct dirent *entry; (entry = readdir(opened));) {
        if (entry->d_name[0] == '.' || is_left_out(entry->d_name)) continue;
        struct name *one = &lasting[lasting_count];
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        if (!find_key(AT_FDCWD, path, one->key)) continue;
        snprintf(one->name, sizeof one->name, "%s", entry->d_name);
        if (++lasting_count == NAMES_MOST) break;
    }
    closedir(opened);
    snprintf(path, sizeof path, "%s/names", shadow);
    snprintf(new, sizeof new, "%s/names.new", shadow);
    int to = syscall(SYS_openat, AT_FDCWD, new, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (to < 0) fail(new);
    for (size_t index = 0; index < lasting_count; index++)
        dprintf(to, "%s %s\n", lasting[index].key, lasting[index].name);
    syscall(SYS_close, to);
    if (syscall(SYS_renameat, AT_FDCWD, new, AT_FDCWD, path)) fail(path);
}

static int has_lasting_name(const char *name, const char *key) {
    for (size_t index = 0; index < lasting_count; index++)
        if (strcmp(lasting[index].name, name) == 0) return strcmp(lasting[index].key, key) == 0;
    return 0;
}

static void save(int fd) {
    char path[PATH_MOST];
    const char *name = find_name(fd, path);
    if (!name) return;
    pthread_mutex_lock(&lock);
    struct file *file = *name ? find_file(fd) : NULL;
    if (file) save_bytes(fd, file);
    if (!*name || (file && !has_lasting_name(name, file->key))) save_names();
    pthread_mutex_unlock(&lock);
}

/* Before a program begins: takes up the lasting names; with an empty shadow, all that the folder holds is lasting. */
__attribute__((constructor)) static void begin(void) {
    char path[PATH_MOST];
    const char *controlled = getenv("POWERLOSS_CONTROL");
    int opened = controlled ? open(controlled, O_RDWR | O_CLOEXEC) : -1;
    if (opened >= 0) {
        void *mapped = mmap(NULL, sizeof *control, PROT_READ, MAP_SHARED, opened, 0);
        if (mapped != MAP_FAILED) control = mapped;
        close(opened);
    }
    if (!getenv("POWERLOSS_SHADOW") || !getenv("POWERLOSS_FOLDER")) return;
    shadow = strdup(getenv("POWERLOSS_SHADOW"));
    snprintf(path, sizeof path, "%s/names", shadow);
    FILE *names = fopen(path, "r");
    if (names) {
        struct name *one = lasting;
        while (lasting_count < NAMES_MOST && fscanf(names, "%63s %255[^\n]\n", one->key, one->name) == 2)
            one = &lasting[++lasting_count];
        fclose(names);
    }
    folder_length = strlen(getenv("POWERLOSS_FOLDER"));
    folder = strdup(getenv("POWERLOSS_FOLDER"));
    DIR *listed = names ? NULL : opendir(folder);
    if (!listed) return;
    for (struct dirent *entry; (entry = readdir(listed));) {
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        int fd = is_left_out(entry->d_name) ? -1 : open(path, O_RDONLY | O_CLOEXEC);
        struct file *file = fd < 0 ? NULL : find_file(fd);
        if (file) save_bytes(fd, file);
        if (fd >= 0) close(fd);
    }
    closedir(listed);
    save_names();
}

/* --- what programs call -------------------------------------------------------------------------------------- */

/* Whether the disk has no room for this: it is full, and the file would grow. */
static int has_no_room(int fd, off_t end) {
    char path[PATH_MOST];
    struct stat found;
    if (!control->is_full || !find_name(fd, path)) return 0;
    return fstat(fd, &found) == 0 && end > found.st_size;
}

static off_t end_of_write(int fd, size_t length) {
    struct stat found;
    if ((fcntl(fd, F_GETFL) & O_APPEND) && fstat(fd, &found) == 0) return found.st_size + (off_t)length;
    return lseek(fd, 0, SEEK_CUR) + (off_t)length;
}

static ssize_t after_write(int fd, ssize_t result) {
    if (result > 0) {
        int kept = errno;
        off_t end = lseek(fd, 0, SEEK_CUR);
        note(fd, end - result, end);
        errno = kept;
    }
    return result;
}

ssize_t write(int fd, const void *data, size_t length) {
    if (control->is_full && has_no_room(fd, end_of_write(fd, length))) return errno = ENOSPC, -1;
    ssize_t result = syscall(SYS_write, fd, data, length);
    char path[PATH_MOST];
    return folder && find_name(fd, path) ? after_write(fd, result) : result;
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    size_t length = 0;
    for (int index = 0; index < count; index++) length += parts[index].iov_len;
    if (control->is_full && has_no_room(fd, end_of_write(fd, length))) return errno = ENOSPC, -1;
    ssize_t result = syscall(SYS_writev, fd, parts, count);
    char path[PATH_MOST];
    return folder && find_name(fd, path) ? after_write(fd, result) : result;
}

#define PWRITE(name)                                                                \
    ssize_t name(int fd, const void *data, size_t length, off_t at) {               \
        if (has_no_room(fd, at + (off_t)length)) return errno = ENOSPC, -1;         \
        ssize_t result = syscall(SYS_pwrite64, fd, data, length, at);               \
        if (result > 0) note(fd, at, at + result);                                  \
        return result;                                                              \
    }
PWRITE(pwrite)
PWRITE(pwrite64)

#define TRUNCATE(name)                                                              \
    int name(int fd, off_t length) {                                                \
        int result = syscall(SYS_ftruncate, fd, length);                            \
        if (result == 0) note_whole(fd);                                            \
        return result;                                                              \
    }
TRUNCATE(ftruncate)
TRUNCATE(ftruncate64)

#define ALLOCATE(name)                                                              \
    int name(int fd, off_t at, off_t length) {                                      \
        if (has_no_room(fd, at + length)) return ENOSPC;                            \
        if (syscall(SYS_fallocate, fd, 0, at, length)) return errno;                \
        note(fd, at, at + length);                                                  \
        return 0;                                                                   \
    }
ALLOCATE(posix_fallocate)
ALLOCATE(posix_fallocate64)

ssize_t copy_file_range(int from, off64_t *from_at, int to, off64_t *to_at, size_t length, unsigned flags) {
    ssize_t result = syscall(SYS_copy_file_range, from, from_at, to, to_at, length, flags);
    if (result > 0) note_whole(to);
    return result;
}

#define SENDFILE(name)                                                              \
    ssize_t name(int to, int from, off_t *at, size_t length) {                      \
        ssize_t result = syscall(SYS_sendfile, to, from, at, length);               \
        if (result > 0) note_whole(to);                                             \
        return result;                                                              \
    }
SENDFILE(sendfile)
SENDFILE(sendfile64)

#define SYNC(name, number)                                                          \
    int name(int fd) {                                                              \
        int result = syscall(number, fd);                                           \
        if (result == 0) save(fd);                                                  \
        return result;                                                              \
    }
SYNC(fsync, SYS_fsync)
SYNC(fdatasync, SYS_fdatasync)

/* --- the clock ----------------------------------------------------------------------------------------------- */

int clock_gettime(clockid_t which, struct timespec *now) {
    int result = syscall(SYS_clock_gettime, which, now);
    if (result == 0 && control->clock_ns && (which == CLOCK_REALTIME || which == CLOCK_REALTIME_COARSE)) {
        int64_t total = now->tv_sec * INT64_C(1000000000) + now->tv_nsec + control->clock_ns;
        now->tv_sec = total / INT64_C(1000000000);
        now->tv_nsec = total % INT64_C(1000000000);
    }
    return result;
}

int gettimeofday(struct timeval *now, void *zone) {
    struct timespec found;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &found)) return -1;
    now->tv_sec = found.tv_sec;
    now->tv_usec = found.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *where) {
    struct timespec found;
    if (clock_gettime(CLOCK_REALTIME, &found)) return -1;
    if (where) *where = found.tv_sec;
    return found.tv_sec;
}
