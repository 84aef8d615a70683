/* crc.h: CRC-32C (Castagnoli; RFC 3720 appendix B.4), the checksum of records and payloads.
 *
 * dc_crc32c(0, a, n) is the checksum of n bytes; dc_crc32c(dc_crc32c(0, a, n), b, m) that of both
 * runs together. Any alignment, any length, any thread. */
#ifndef DC_CRC_H
#define DC_CRC_H

#include <stddef.h>
#include <stdint.h>

uint32_t dc_crc32c(uint32_t crc, const void *bytes, size_t count);

#endif
