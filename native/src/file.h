/* file.h: every system call of the pool, with EINTR and short transfers dealt with.
 *
 * Each function returns 0 or an errno value (errno itself is not promised). What is known here:
 * file descriptors, paths, bytes. What is not: pools, frames. No state: any thread.
 */
#ifndef DC_FILE_H
#define DC_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Opens for reading and writing. ENOENT if it is missing, EFTYPE-like EINVAL if it is no regular
 * file. The caller closes *fd. */
int dc_file_open(const char *path, int *fd);

/* Opens or makes a file of mode 0600; what it held stays. The caller closes *fd. */
int dc_file_make(const char *path, int *fd);

/* A file without a name, gone when closed: memory where the system has memfd_create, an unlinked
 * temporary file elsewhere. */
int dc_file_make_unnamed(int *fd);

/* Takes the exclusive lock of an open file, which ends with its last descriptor. EWOULDBLOCK if
 * another open file, of this process or another one, holds it. */
int dc_file_lock(int fd);

/* Whether `path` names the file open as `fd`. A missing path is an answer (false), not an error. */
int dc_file_is_at(int fd, const char *path, bool *is_at);

/* ENOENT if there is nothing at `path`, 0 if there is something. */
int dc_file_exists(const char *path);

int dc_file_size(int fd, uint64_t *size);

/* Empties the file, then gives it `size` zero bytes. `reserved`: disk space is set aside for all of
 * them now (ENOSPC), so no later write can run out. */
int dc_file_allocate(int fd, uint64_t size, bool reserved);

/* All `count` bytes or an error; EIO if the file ends before. */
int dc_file_read(int fd, uint64_t offset, void *bytes, uint64_t count);
int dc_file_write(int fd, uint64_t offset, const void *bytes, uint64_t count);

/* Asks for [offset, offset + count) to be read ahead. A hint: errors do not matter. */
void dc_file_read_ahead(int fd, uint64_t offset, uint64_t count);

/* fsync. On macOS that reaches the drive, not its platter (F_FULLFSYNC would): after a power cut
 * checksums turn what is missing into misses, and that is all a cache needs. */
int dc_file_sync(int fd);

/* fsync of the directory that `path` lies in: makes a rename last. */
int dc_file_sync_parent(const char *path);

int dc_file_rename(const char *from, const char *to);
void dc_file_remove(const char *path);
void dc_file_close(int fd);

/* `count` <= 256 bytes nobody can guess. */
int dc_file_random(uint8_t *bytes, size_t count);

#endif
