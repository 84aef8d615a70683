/* stream.h: copying into memory that is not read again soon.
 *
 *   destination  | rest of a line | line | line | ... | line | rest |
 *                  memcpy           stores past the caches     memcpy
 *
 * An ordinary store reads the cache line that it is going to overwrite. A restored row is larger
 * than the caches, so that doubles what decoding moves; a line stored whole past the caches is not
 * read. Destinations may begin anywhere (MLX's arrays do so 24 bytes past a line), and their first
 * and last lines are shared with others.
 *
 * Knows bytes only. No state: any thread.
 */
#ifndef DC_STREAM_H
#define DC_STREAM_H

#include <stddef.h>

/* As memcpy. Other threads may not see the bytes until dc_stream_end was called on this one. */
void dc_stream(void *out, const void *in, size_t bytes);

/* What was streamed is in order with the stores that follow. */
void dc_stream_end(void);

#endif
