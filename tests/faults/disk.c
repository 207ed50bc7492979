// A disk that is slow, full, broken or loses power, for a real process.
//
//   gcc -shared -fPIC -O2 -Wall -o disk.so tests/faults/disk.c -lpthread
//   STUBBORN_DISK_DIR=/data LD_PRELOAD=./disk.so stubborn serve --data /data
//
// It stands between the process and the files that lie directly in one directory:
//
//   STUBBORN_DISK_DIR=DIR      the directory; without it nothing happens
//   STUBBORN_DISK_SYNC_US=N    every sync takes N microseconds longer
//   STUBBORN_DISK_MIRROR=DIR   keeps in DIR what the disk would hold after a power cut at any moment: of each file
//                              what was synced, and the names that were there when the directory was synced. Take
//                              a copy while the process is stopped, and leave out `.inodes`. A file that was there
//                              before the process counts as synced.
//   STUBBORN_DISK_TEAR=P       P percent of all 512-byte sectors reach the mirror when they are written, unsynced;
//   STUBBORN_DISK_SEED=N       which of them, repeatably as far as the threads' order repeats
//   STUBBORN_DISK_FAULT=FILE   what FILE says now: `enospc` writes fail, `eio` syncs fail, `db-eio` the next sync of a
//                              `.db` file fails, once in the life of the process, `hang` syncs wait until it says
//                              something else; anything else, or no file: nothing
//
// A sync that fails has lost what was written since the one before, as on Linux: it is in memory, the next sync succeeds,
// and it never reaches the disk.
//
// A sync of a new file makes its name durable too, as ext4 and XFS do. Not covered: writes through mmap (`-shm` files
// are left out), vectored writes, duplicated descriptors, subdirectories. All system calls are made directly, so that
// nothing here calls itself.

#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { SECTOR = 512, FDS = 65536 };

// A file, whatever its name: which of its sectors were written since it was synced.
struct node {
    dev_t dev;
    ino_t ino;
    int live;
    unsigned char *dirty;
    size_t sectors;
    char object[PATH_MAX]; // its content in the mirror
    struct node *next;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static char dir[PATH_MAX / 2], mirror[PATH_MAX / 2]; // room for a name behind them
static const char *fault_file;
static long sync_us, tear;
static uint64_t seed = 1;
static struct node *nodes, *of_fd[FDS];
static char is_dir_fd[FDS];
static long number(const char *name) { return getenv(name) ? atol(getenv(name)) : 0; }
static void start(void) {
    const char *path = getenv("STUBBORN_DISK_DIR"), *copy = getenv("STUBBORN_DISK_MIRROR");
    if (!path) return;
    syscall(SYS_mkdirat, AT_FDCWD, path, 0700);
    char whole[PATH_MAX];
    if (realpath(path, whole)) snprintf(dir, sizeof dir, "%s", whole);
    fault_file = getenv("STUBBORN_DISK_FAULT");
    sync_us = number("STUBBORN_DISK_SYNC_US");
    tear = number("STUBBORN_DISK_TEAR");
    seed = (uint64_t)number("STUBBORN_DISK_SEED") * 2654435769u + 88172645463325252u;
    if (!copy) return;
    syscall(SYS_mkdirat, AT_FDCWD, copy, 0700);
    snprintf(mirror, sizeof mirror, "%s", copy);
    char inodes[PATH_MAX];
    snprintf(inodes, sizeof inodes, "%s/.inodes", mirror);
    syscall(SYS_mkdirat, AT_FDCWD, inodes, 0700);
}
static int chance(void) {
    seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
    return (long)(seed % 100) < tear;
}
static int fault_is(const char *what) {
    char now[16] = "";
    if (!fault_file) return 0;
    int fd = syscall(SYS_openat, AT_FDCWD, fault_file, O_RDONLY | O_CLOEXEC, 0);
    if (fd < 0) return 0;
    ssize_t bytes = syscall(SYS_read, fd, now, sizeof now - 1);
    syscall(SYS_close, fd);
    return bytes > 0 && !strncmp(now, what, strlen(what));
}
// Writes the path that a descriptor was opened with; 0 where it has none.
static int path_of(int fd, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t bytes = syscall(SYS_readlinkat, AT_FDCWD, link, path, PATH_MAX - 1);
    path[bytes > 0 ? bytes : 0] = 0;
    return bytes > 0;
}
// Returns the name of a path directly in the directory; none where it is not, or is left out.
static const char *name_in_dir(const char *path) {
    size_t length = strlen(dir);
    if (!length || strncmp(path, dir, length) || path[length] != '/') return NULL;
    const char *name = path + length + 1;
    size_t rest = strlen(name);
    if (strchr(name, '/') || strstr(name, " (deleted)")) return NULL;
    return rest > 4 && !strcmp(name + rest - 4, "-shm") ? NULL : name;
}
static void in_mirror(char *path, const char *name) { snprintf(path, PATH_MAX, "%s/%s", mirror, name); }
static void copy_range(int from, int to, off_t at, size_t bytes) {
    char buffer[SECTOR * 16];
    while (bytes) {
        size_t part = bytes < sizeof buffer ? bytes : sizeof buffer;
        ssize_t got = syscall(SYS_pread64, from, buffer, part, at);
        if (got <= 0 || syscall(SYS_pwrite64, to, buffer, got, at) != got) return;
        at += got, bytes -= got;
    }
}
static int reopen(int fd, const char *path, int flags) {
    char link[64];
    if (!path) snprintf(link, sizeof link, "/proc/self/fd/%d", fd), path = link;
    return syscall(SYS_openat, AT_FDCWD, path, flags | O_CLOEXEC, 0600);
}
static void close_both(int a, int b) { if (a >= 0) syscall(SYS_close, a); if (b >= 0) syscall(SYS_close, b); }
// Copies what was written since the last sync; all of it where `everything`.
static void copy_dirty(int fd, struct node *node, int everything) {
    struct stat now;
    int from = reopen(fd, NULL, O_RDONLY), to = reopen(-1, node->object, O_RDWR | O_CREAT);
    if (from >= 0 && to >= 0 && !fstat(from, &now)) {
        if (everything) copy_range(from, to, 0, now.st_size);
        for (size_t i = 0; i < node->sectors; i++) {
            if (!node->dirty[i]) continue;
            size_t end = i;
            while (end < node->sectors && node->dirty[end]) node->dirty[end++] = 0;
            copy_range(from, to, (off_t)i * SECTOR, (end - i) * SECTOR);
            i = end - 1;
        }
        syscall(SYS_ftruncate, to, now.st_size);
    }
    close_both(from, to);
}
static void give_name(struct node *node, const char *name) {
    char path[PATH_MAX];
    struct stat has, is;
    in_mirror(path, name);
    int there = !stat(path, &has);
    if (there && !stat(node->object, &is) && has.st_ino == is.st_ino) return;
    if (there) syscall(SYS_unlinkat, AT_FDCWD, path, 0);
    syscall(SYS_linkat, AT_FDCWD, node->object, AT_FDCWD, path, 0);
}
static struct node *find(const struct stat *file) {
    for (struct node *node = nodes; node; node = node->next)
        if (node->live && node->dev == file->st_dev && node->ino == file->st_ino) return node;
    return NULL;
}
// Takes note of a descriptor that was opened.
static void opened(int fd, int is_new) {
    static unsigned next;
    char path[PATH_MAX], known[PATH_MAX];
    struct stat file;
    if (fd < 0 || fd >= FDS || !dir[0] || !path_of(fd, path)) return;
    pthread_mutex_lock(&lock);
    of_fd[fd] = NULL, is_dir_fd[fd] = !strcmp(path, dir);
    const char *name = name_in_dir(path);
    if (name && !fstat(fd, &file) && S_ISREG(file.st_mode) && !(of_fd[fd] = find(&file))) {
        struct node *node = calloc(1, sizeof *node);
        node->dev = file.st_dev, node->ino = file.st_ino, node->live = 1;
        node->next = nodes, nodes = of_fd[fd] = node;
        if (mirror[0]) {
            snprintf(node->object, PATH_MAX, "%s/.inodes/%d.%u", mirror, getpid(), next++);
            in_mirror(known, name);
            if (is_new || syscall(SYS_linkat, AT_FDCWD, known, AT_FDCWD, node->object, 0)) {
                copy_dirty(fd, node, !is_new);
                if (!is_new) give_name(node, name);
            }
        }
    }
    pthread_mutex_unlock(&lock);
}
// Takes note of what was written. Holds the lock.
static void written(int fd, struct node *node, off_t at, size_t bytes) {
    if (!mirror[0] || !bytes) return;
    size_t first = at / SECTOR, end = (at + bytes + SECTOR - 1) / SECTOR;
    if (end > node->sectors) {
        size_t room = end * 2;
        node->dirty = realloc(node->dirty, room);
        memset(node->dirty + node->sectors, 0, room - node->sectors);
        node->sectors = room;
    }
    memset(node->dirty + first, 1, end - first);
    if (tear <= 0) return;
    int from = reopen(fd, NULL, O_RDONLY), to = reopen(-1, node->object, O_RDWR);
    for (size_t i = first; i < end && from >= 0 && to >= 0; i++)
        if (chance()) copy_range(from, to, (off_t)i * SECTOR, SECTOR);
    close_both(from, to);
}
static ssize_t do_write(int fd, const void *from, size_t bytes, off_t at, int has_at) {
    pthread_once(&once, start);
    struct node *node = fd >= 0 && fd < FDS ? of_fd[fd] : NULL;
    if (node && fault_is("enospc")) return errno = ENOSPC, -1;
    int noted = node && mirror[0]; // otherwise writes go on beside each other
    if (noted) pthread_mutex_lock(&lock);
    if (noted && !has_at) {
        int flags = syscall(SYS_fcntl, fd, F_GETFL);
        at = syscall(SYS_lseek, fd, (off_t)0, flags & O_APPEND ? SEEK_END : SEEK_CUR);
    }
    ssize_t done = has_at ? syscall(SYS_pwrite64, fd, from, bytes, at)
                          : syscall(SYS_write, fd, from, bytes);
    int error = errno;
    if (noted && done > 0) written(fd, node, at, done);
    if (noted) pthread_mutex_unlock(&lock);
    return errno = error, done;
}
// Makes the names in the mirror those in the directory. Holds the lock.
static void sync_names(void) {
    char path[PATH_MAX];
    struct dirent *entry;
    struct stat file;
    DIR *real = opendir(dir), *copy = opendir(mirror);
    while (real && (entry = readdir(real))) {
        snprintf(path, sizeof path, "%s/%s", dir, entry->d_name);
        struct node *node = name_in_dir(path) && !stat(path, &file) ? find(&file) : NULL;
        if (node) give_name(node, entry->d_name);
    }
    while (copy && (entry = readdir(copy))) {
        snprintf(path, sizeof path, "%s/%s", dir, entry->d_name);
        if (entry->d_name[0] == '.' || !stat(path, &file)) continue;
        in_mirror(path, entry->d_name);
        syscall(SYS_unlinkat, AT_FDCWD, path, 0);
    }
    if (real) closedir(real); if (copy) closedir(copy);
}
// Forgets what was written, as a kernel does that could not write it back. Returns 1 where a sync is to fail.
static int sync_fails(int fd, struct node *node) {
    static int once;
    char path[PATH_MAX];
    size_t length = node && path_of(fd, path) ? strlen(path) : 0;
    int is_db = length > 3 && !strcmp(path + length - 3, ".db");
    int fails = fault_is("eio") || (is_db && fault_is("db-eio") && !__sync_lock_test_and_set(&once, 1));
    if (!fails || !node) return fails;
    pthread_mutex_lock(&lock);
    if (node->sectors) memset(node->dirty, 0, node->sectors);
    pthread_mutex_unlock(&lock);
    return 1;
}
static int do_sync(int fd, long call) {
    pthread_once(&once, start);
    struct node *node = fd >= 0 && fd < FDS ? of_fd[fd] : NULL;
    int names = fd >= 0 && fd < FDS && is_dir_fd[fd];
    if (!node && !names) return syscall(call, fd);
    while (fault_is("hang")) usleep(2000);
    if (sync_fails(fd, node)) return errno = EIO, -1;
    if (mirror[0]) {
        char path[PATH_MAX];
        pthread_mutex_lock(&lock);
        if (node) copy_dirty(fd, node, 0);
        const char *name = node && path_of(fd, path) ? name_in_dir(path) : NULL;
        if (name) give_name(node, name);
        if (names) sync_names();
        pthread_mutex_unlock(&lock);
    }
    if (sync_us > 0) usleep(sync_us);
    return syscall(call, fd);
}
static int do_open(int at, const char *path, int flags, mode_t mode) {
    pthread_once(&once, start);
    struct stat before;
    int is_new = dir[0] && (flags & O_CREAT) && fstatat(at, path, &before, 0);
    int fd = syscall(SYS_openat, at, path, flags, mode), error = errno;
    opened(fd, is_new);
    return errno = error, fd;
}
// The inode of a name that goes may come back as another file.
static void forget(int at, const char *path) {
    struct stat file;
    pthread_once(&once, start);
    if (!dir[0] || fstatat(at, path, &file, AT_SYMLINK_NOFOLLOW) || file.st_nlink > 1) return;
    pthread_mutex_lock(&lock);
    struct node *node = find(&file);
    if (node) node->live = 0;
    pthread_mutex_unlock(&lock);
}
static int do_truncate(int fd, off_t bytes) {
    struct stat now;
    pthread_once(&once, start);
    int ours = fd >= 0 && fd < FDS && of_fd[fd];
    if (!ours || fstat(fd, &now)) return syscall(SYS_ftruncate, fd, bytes);
    if (bytes > now.st_size && fault_is("enospc")) return errno = ENOSPC, -1;
    pthread_mutex_lock(&lock);
    int done = syscall(SYS_ftruncate, fd, bytes), error = errno;
    if (!done && bytes < now.st_size) written(fd, of_fd[fd], bytes, now.st_size - bytes);
    pthread_mutex_unlock(&lock);
    return errno = error, done;
}
#define MODE(flags, mode) va_list rest; va_start(rest, flags); int mode = va_arg(rest, int); va_end(rest)
int open(const char *path, int flags, ...) { MODE(flags, mode); return do_open(AT_FDCWD, path, flags, mode); }
int openat(int at, const char *path, int flags, ...) { MODE(flags, mode); return do_open(at, path, flags, mode); }
int open64(const char *path, int flags, ...) __attribute__((alias("open")));
int openat64(int at, const char *path, int flags, ...) __attribute__((alias("openat")));
ssize_t write(int fd, const void *from, size_t bytes) { return do_write(fd, from, bytes, 0, 0); }
ssize_t pwrite(int fd, const void *from, size_t bytes, off_t at) { return do_write(fd, from, bytes, at, 1); }
ssize_t pwrite64(int fd, const void *from, size_t bytes, off_t at) { return do_write(fd, from, bytes, at, 1); }
int fsync(int fd) { return do_sync(fd, SYS_fsync); }
int fdatasync(int fd) { return do_sync(fd, SYS_fdatasync); }
int ftruncate(int fd, off_t bytes) { return do_truncate(fd, bytes); }
int ftruncate64(int fd, off_t bytes) { return do_truncate(fd, bytes); }
int unlink(const char *path) { return forget(AT_FDCWD, path), syscall(SYS_unlinkat, AT_FDCWD, path, 0); }
int unlinkat(int at, const char *path, int flags) { return forget(at, path), syscall(SYS_unlinkat, at, path, flags); }
int rename(const char *from, const char *to) { return forget(AT_FDCWD, to), syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0); }
int close(int fd) {
    if (fd >= 0 && fd < FDS) of_fd[fd] = NULL, is_dir_fd[fd] = 0;
    return syscall(SYS_close, fd);
}
