/* file.c: see file.h. Every function asks dc_fault() before its system call, so that tests can make
 * each one fail, shorten or be the last thing the process does. */
#include "file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/mman.h>
#endif

#include "fault.h"

/* What one read or write moves at most: Linux stops at 2 GiB less a page, macOS refuses 2 GiB. */
#define TRANSFER_MAX ((size_t)1 << 30)

static int open_file(const char *path, int flags, int *fd) {
    int error;
    do {
        error = dc_fault(NULL);
        *fd = error ? -1 : open(path, flags | O_CLOEXEC, 0600);
        if (!error && *fd < 0) error = errno;
    } while (error == EINTR);
    return error;
}

int dc_file_open(const char *path, int *fd) {
    struct stat st;
    int error = open_file(path, O_RDWR, fd);
    if (error) return error;
    error = dc_fault(NULL);
    if (!error && fstat(*fd, &st) != 0) error = errno;
    if (!error && !S_ISREG(st.st_mode)) error = EINVAL;
    if (error) close(*fd);
    return error;
}

int dc_file_make(const char *path, int *fd) {
    return open_file(path, O_RDWR | O_CREAT, fd);
}

#ifdef __linux__
int dc_file_make_unnamed(int *fd) {
    int error = dc_fault(NULL);
    if (error) return error;
    *fd = memfd_create("dovecote", MFD_CLOEXEC);
    return *fd < 0 ? errno : 0;
}
#else
int dc_file_make_unnamed(int *fd) {
    char path[] = "/tmp/dovecote.XXXXXX";
    int error = dc_fault(NULL);
    if (error) return error;
    *fd = mkstemp(path);
    if (*fd < 0) return errno;
    fcntl(*fd, F_SETFD, FD_CLOEXEC);
    unlink(path);
    return 0;
}
#endif

int dc_file_lock(int fd) {
    int error;
    do {
        error = dc_fault(NULL);
        if (!error && flock(fd, LOCK_EX | LOCK_NB) != 0) error = errno;
    } while (error == EINTR);
    return error;
}

int dc_file_is_at(int fd, const char *path, bool *is_at) {
    struct stat open_one, named;
    int error = dc_fault(NULL);
    if (error) return error;
    if (fstat(fd, &open_one) != 0) return errno;
    if (stat(path, &named) != 0) {
        *is_at = false;
        return errno == ENOENT ? 0 : errno;
    }
    *is_at = open_one.st_dev == named.st_dev && open_one.st_ino == named.st_ino;
    return 0;
}

int dc_file_exists(const char *path) {
    struct stat st;
    int error = dc_fault(NULL);
    if (error) return error;
    return lstat(path, &st) == 0 ? 0 : errno;
}

int dc_file_size(int fd, uint64_t *size) {
    struct stat st;
    int error = dc_fault(NULL);
    if (error) return error;
    if (fstat(fd, &st) != 0) return errno;
    *size = (uint64_t)st.st_size;
    return 0;
}

static int truncate_to(int fd, uint64_t size) {
    int error;
    do {
        error = dc_fault(NULL);
        if (!error && ftruncate(fd, (off_t)size) != 0) error = errno;
    } while (error == EINTR);
    return error;
}

#ifdef __APPLE__
static int reserve(int fd, uint64_t size) {
    fstore_t store = {F_ALLOCATEALL, F_PEOFPOSMODE, 0, (off_t)size, 0};
    int error = dc_fault(NULL);
    if (!error && fcntl(fd, F_PREALLOCATE, &store) != 0) error = errno;
    return error ? error : truncate_to(fd, size);
}
#else
static int reserve(int fd, uint64_t size) {
    int error;
    do {
        error = dc_fault(NULL);
        if (!error) error = posix_fallocate(fd, 0, (off_t)size); /* leaves errno alone */
    } while (error == EINTR);
    return error;
}
#endif

int dc_file_allocate(int fd, uint64_t size, bool reserved) {
    int error = truncate_to(fd, 0);
    if (error) return error;
    return reserved ? reserve(fd, size) : truncate_to(fd, size);
}

static size_t limited(uint64_t count) {
    return count < TRANSFER_MAX ? (size_t)count : TRANSFER_MAX;
}

int dc_file_read(int fd, uint64_t offset, void *bytes, uint64_t count) {
    uint8_t *to = bytes;
    while (count) {
        size_t part = limited(count);
        int error = dc_fault(&part);
        ssize_t got = error ? -1 : pread(fd, to, part, (off_t)offset);
        if (got < 0 && !error) error = errno;
        if (error == EINTR) continue;
        if (error) return error;
        if (got == 0) return EIO;
        to += got;
        offset += (uint64_t)got;
        count -= (uint64_t)got;
    }
    return 0;
}

int dc_file_write(int fd, uint64_t offset, const void *bytes, uint64_t count) {
    const uint8_t *from = bytes;
    while (count) {
        size_t part = limited(count);
        int error = dc_fault(&part);
        ssize_t put = error ? -1 : pwrite(fd, from, part, (off_t)offset);
        if (put < 0 && !error) error = errno;
        if (error == EINTR) continue;
        if (error) return error;
        if (put == 0) return EIO;
        from += put;
        offset += (uint64_t)put;
        count -= (uint64_t)put;
    }
    return 0;
}

void dc_file_read_ahead(int fd, uint64_t offset, uint64_t count) {
    if (dc_fault(NULL)) return;
#ifdef __APPLE__
    struct radvisory advice = {(off_t)offset, (int)limited(count)};
    fcntl(fd, F_RDADVISE, &advice);
#else
    posix_fadvise(fd, (off_t)offset, (off_t)count, POSIX_FADV_WILLNEED);
#endif
}

int dc_file_sync(int fd) {
    int error;
    do {
        error = dc_fault(NULL);
        if (!error && fsync(fd) != 0) error = errno;
    } while (error == EINTR);
    return error;
}

int dc_file_sync_parent(const char *path) {
    const char *slash = strrchr(path, '/');
    size_t length = slash ? (size_t)(slash - path) + 1 : 0; /* the slash stays: "/" is a parent */
    char *parent = dc_alloc(length + 2, 1);
    int fd, error;
    if (!parent) return ENOMEM;
    memcpy(parent, slash ? path : ".", slash ? length : 1);
    error = open_file(parent, O_RDONLY | O_DIRECTORY, &fd);
    free(parent);
    if (error) return error;
    error = dc_file_sync(fd);
    close(fd);
    return error == EINVAL ? 0 : error; /* some file systems cannot sync a directory */
}

int dc_file_rename(const char *from, const char *to) {
    int error = dc_fault(NULL);
    if (!error && rename(from, to) != 0) error = errno;
    return error;
}

void dc_file_remove(const char *path) {
    if (!dc_fault(NULL)) unlink(path);
}

void dc_file_close(int fd) {
    if (fd >= 0) close(fd);
}

int dc_file_random(uint8_t *bytes, size_t count) {
    int error = dc_fault(NULL);
    if (!error && getentropy(bytes, count) != 0) error = errno;
    return error;
}
