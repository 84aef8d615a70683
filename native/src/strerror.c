/* strerror.c: a sentence for each status. */
#include "dovecote.h"

const char *dovecote_strerror(int status) {
    switch (status) {
    case DOVECOTE_OK:
        return "success";
    case DOVECOTE_ERR_ARGUMENT:
        return "a parameter breaks its contract";
    case DOVECOTE_ERR_MEMORY:
        return "out of memory";
    case DOVECOTE_ERR_IO:
        return "a system call failed";
    case DOVECOTE_ERR_FULL:
        return "the pool cannot promise that many frames";
    case DOVECOTE_ERR_FORMAT:
        return "not a pool file, another format version, or damaged";
    case DOVECOTE_ERR_MISMATCH:
        return "the pool was made for another model, shape or size";
    case DOVECOTE_ERR_BUSY:
        return "the pool is open elsewhere";
    case DOVECOTE_ERR_BROKEN:
        return "an invariant of the pool is broken";
    default:
        return "unknown status";
    }
}
