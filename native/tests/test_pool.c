/* Opening, closing and reopening pools. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness.h"
#include "small.h"

static const uint32_t tokens[12] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};

static int try_open(const char *path, const dovecote_pool_config *config) {
    dovecote_pool *pool = NULL;
    int rc = dovecote_pool_open(path, config, &pool, NULL);
    if (rc == DOVECOTE_OK) small_close(pool);
    return rc;
}

static void a_pool_survives_closing(void) {
    const char *path = small_path();
    dovecote_pool *pool = small_open(path, 8);
    small_turn(pool, tokens, 11);
    small_close(pool);
    pool = small_open(path, 8);
    turn t = small_look(pool, tokens, 12);
    CHECK(t.matched == 11 && t.exact);
    dovecote_pool_stats stats = small_stats(pool);
    CHECK(stats.cached == 3 && stats.tokens == 11 && stats.sealed_blocks == 0);
    CHECK(stats.miss_checksum == 0 && stats.miss_orphan == 0);
    small_close(pool);
    small_forget();
}

static void recency_survives_closing(void) { /* P5 */
    const char *path = small_path();
    const uint32_t a[8] = {1, 1, 1, 1, 1, 1, 1, 1}, b[8] = {2, 2, 2, 2, 2, 2, 2, 2}, c[4] = {3};
    dovecote_pool *pool = small_open(path, 4);
    small_turn(pool, a, 8);
    small_turn(pool, b, 8);
    small_look(pool, a, 8);
    small_close(pool);
    pool = small_open(path, 4);
    small_turn(pool, c, 4);
    CHECK(small_look(pool, a, 8).matched == 8 && small_look(pool, b, 8).matched == 4);
    small_close(pool);
    small_forget();
}

static void a_freed_block_stays_free_after_closing(void) {
    const char *path = small_path();
    dovecote_pool *pool = small_open(path, 8);
    small_turn(pool, tokens, 6);
    small_turn(pool, tokens, 8); /* supersedes the short block */
    small_close(pool);
    pool = small_open(path, 8);
    CHECK(small_stats(pool).cached == 2 && small_stats(pool).tokens == 8);
    small_close(pool);
    small_forget();
}

static void a_pool_file_is_private_and_has_its_full_size(void) {
    const char *path = small_path();
    struct stat st;
    dovecote_pool *pool = small_open(path, 8);
    CHECK(stat(path, &st) == 0 && (st.st_mode & 0777) == 0600);
    CHECK((uint64_t)st.st_size == small_size(8) && (uint64_t)st.st_blocks * 512 >= small_size(8));
    CHECK(small_stats(pool).file_bytes == small_size(8) && small_stats(pool).frames == 8);
    CHECK(small_stats(pool).frame_bytes == PAGE);
    small_close(pool);
    small_forget();
}

static void a_size_that_is_no_whole_number_of_frames_reopens(void) {
    const char *path = small_path();
    dovecote_pool_config config = small_config(8);
    config.size_bytes += 4095;
    CHECK(try_open(path, &config) == DOVECOTE_OK);
    CHECK(try_open(path, &config) == DOVECOTE_OK);
    config.size_bytes = small_size(8);
    CHECK(try_open(path, &config) == DOVECOTE_OK);
    config.size_bytes = 0;
    CHECK(try_open(path, &config) == DOVECOTE_OK);
    config.size_bytes = small_size(9);
    CHECK(try_open(path, &config) == DOVECOTE_ERR_MISMATCH);
    small_forget();
}

static void the_size_decides_how_many_frames_fit(void) {
    dovecote_pool_config config = small_config(1);
    dovecote_pool *pool;
    for (uint64_t size = 0; size < small_size(40); size += 1021) {
        config.size_bytes = size;
        int rc = dovecote_pool_open(NULL, &config, &pool, NULL);
        CHECK((rc == DOVECOTE_OK) == (size >= small_size(1)));
        if (rc != DOVECOTE_OK) continue;
        uint32_t frames = (uint32_t)small_stats(pool).frames;
        CHECK(small_size(frames) <= size && small_size(frames + 1) > size);
        small_close(pool);
    }
}

static void a_pool_opens_only_for_what_it_was_made_for(void) { /* P8 */
    const char *path = small_path();
    dovecote_layer other[3] = {{HEADS, DIM, DIM}, {HEADS, DIM, 2 * DIM}, {HEADS, DIM, DIM}};
    dovecote_pool_config made = small_config(8), config;
    CHECK(try_open(path, &made) == DOVECOTE_OK);
    config = made;
    config.fingerprint[31] ^= 1;
    CHECK(try_open(path, &config) == DOVECOTE_ERR_MISMATCH);
    config = made;
    config.codec = DOVECOTE_CODEC_Q8;
    CHECK(try_open(path, &config) == DOVECOTE_ERR_MISMATCH);
    config = made;
    config.dtype = DOVECOTE_BFLOAT16;
    CHECK(try_open(path, &config) == DOVECOTE_ERR_MISMATCH);
    config = made;
    config.block_tokens = 8;
    CHECK(try_open(path, &config) == DOVECOTE_ERR_MISMATCH);
    config = made;
    config.layers = other;
    CHECK(try_open(path, &config) == DOVECOTE_ERR_MISMATCH);
    config.layer_count = 3;
    CHECK(try_open(path, &config) == DOVECOTE_ERR_MISMATCH);
    CHECK(try_open(path, &made) == DOVECOTE_OK);
    small_forget();
}

static void a_senseless_configuration_is_refused(void) {
    dovecote_pool_config good = small_config(8), config;
    dovecote_layer broad = {1u << 31, 1u << 31, 1u << 31}, empty = {0, 8, 8};
    CHECK(dovecote_pool_open(NULL, NULL, NULL, NULL) == DOVECOTE_ERR_ARGUMENT);
    config = good;
    config.block_tokens = 0;
    CHECK(try_open(NULL, &config) == DOVECOTE_ERR_ARGUMENT);
    config.block_tokens = 257;
    CHECK(try_open(NULL, &config) == DOVECOTE_ERR_ARGUMENT);
    config = good;
    config.layer_count = 0;
    CHECK(try_open(NULL, &config) == DOVECOTE_ERR_ARGUMENT);
    config.layer_count = 1025;
    CHECK(try_open(NULL, &config) == DOVECOTE_ERR_ARGUMENT);
    config.layer_count = 1;
    config.layers = &broad;
    CHECK(try_open(NULL, &config) == DOVECOTE_ERR_ARGUMENT);
    config.layers = &empty;
    CHECK(try_open(NULL, &config) == DOVECOTE_ERR_ARGUMENT);
    config = good;
    config.dtype = 3;
    CHECK(try_open(NULL, &config) == DOVECOTE_ERR_ARGUMENT);
    config = good;
    config.codec = 5;
    CHECK(try_open(NULL, &config) == DOVECOTE_ERR_ARGUMENT);
    config = good;
    config.size_bytes = UINT64_MAX;
    CHECK(try_open(NULL, &config) == DOVECOTE_ERR_ARGUMENT);
}

static void many_layers_make_a_longer_header(void) {
    const char *path = small_path();
    static dovecote_layer layers[1024];
    dovecote_pool_config config = small_config(8);
    for (int i = 0; i < 1024; i++)
        layers[i] = (dovecote_layer){1, 1, 1};
    config.layers = layers;
    config.layer_count = 1024;
    config.size_bytes = 1 << 20;
    CHECK(try_open(path, &config) == DOVECOTE_OK);
    CHECK(try_open(path, &config) == DOVECOTE_OK);
    layers[1023].v_dim = 2;
    CHECK(try_open(path, &config) == DOVECOTE_ERR_MISMATCH);
    config = small_config(0);
    CHECK(try_open(path, &config) == DOVECOTE_ERR_MISMATCH);
    small_forget();
}

static void a_pool_has_one_owner(void) {
    static dovecote_pool *pool; /* stays reachable in the child, for leak checkers */
    const char *path = small_path();
    dovecote_pool_config config = small_config(8);
    int status;
    pool = small_open(path, 8);
    CHECK(try_open(path, &config) == DOVECOTE_ERR_BUSY);
    pid_t child = fork();
    if (child == 0) _exit(try_open(path, &config) == DOVECOTE_ERR_BUSY ? 0 : 1);
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    small_close(pool);
    CHECK(try_open(path, &config) == DOVECOTE_OK);
    small_forget();
}

static void what_is_no_pool_is_left_alone(void) {
    const char *path = small_path();
    dovecote_pool_config config = small_config(8);
    int fd = open(path, O_RDWR | O_CREAT, 0600);
    char bytes[16] = "someone's diary", kept[16];
    CHECK(try_open(path, &config) == DOVECOTE_ERR_FORMAT); /* empty */
    CHECK(pwrite(fd, bytes, 16, 0) == 16);
    CHECK(try_open(path, &config) == DOVECOTE_ERR_FORMAT);
    CHECK(pread(fd, kept, 16, 0) == 16 && memcmp(bytes, kept, 16) == 0);
    CHECK(ftruncate(fd, (off_t)small_size(8)) == 0);
    CHECK(try_open(path, &config) == DOVECOTE_ERR_FORMAT);
    close(fd);
    small_forget();
}

static void a_missing_directory_is_an_error_with_its_errno(void) {
    dovecote_pool_config config = small_config(8);
    dovecote_pool *pool;
    int os_error;
    CHECK(dovecote_pool_open("/nonexistent/pool", &config, &pool, &os_error) == DOVECOTE_ERR_IO);
    CHECK(os_error == ENOENT);
    CHECK(dovecote_pool_open("/tmp", &config, &pool, &os_error) == DOVECOTE_ERR_IO);
    CHECK(os_error == EISDIR);
}

static void a_half_made_file_is_used_again(void) { /* P7 */
    const char *path = small_path();
    char fresh[96];
    dovecote_pool_config config = small_config(8);
    (void)snprintf(fresh, sizeof fresh, "%s.new", path);
    int fd = open(fresh, O_RDWR | O_CREAT, 0600);
    CHECK(write(fd, "half", 4) == 4);
    close(fd);
    CHECK(try_open(path, &config) == DOVECOTE_OK);
    CHECK(access(fresh, F_OK) != 0);
    small_forget();
}

/* RLIMIT_FSIZE stands in for a full disk. In a child, since the limit cannot be raised again. */
static void a_size_beyond_what_the_disk_has_is_refused_and_leaves_nothing(void) {
    const char *path = small_path();
    int status;
    pid_t child = fork();
    if (child == 0) {
        dovecote_pool_config config = small_config(64);
        dovecote_pool *pool;
        int os_error;
        (void)signal(SIGXFSZ, SIG_IGN);
        (void)setrlimit(RLIMIT_FSIZE, &(struct rlimit){65536, 65536});
        int rc = dovecote_pool_open(path, &config, &pool, &os_error);
        _exit(rc == DOVECOTE_ERR_IO && os_error == EFBIG ? 0 : 1);
    }
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    small_forget(); /* insists on an empty directory */
}

static void syncing_may_happen_at_any_time(void) {
    const char *path = small_path();
    dovecote_pool *pool = small_open(path, 8);
    CHECK(dovecote_pool_sync(pool) == DOVECOTE_OK);
    small_turn(pool, tokens, 8);
    CHECK(dovecote_pool_sync(pool) == DOVECOTE_OK);
    CHECK(small_look(pool, tokens, 8).exact && dovecote_pool_errno(pool) == 0);
    small_close(pool);
    small_forget();
}

int main(void) {
    RUN(a_pool_survives_closing);
    RUN(recency_survives_closing);
    RUN(a_freed_block_stays_free_after_closing);
    RUN(a_pool_file_is_private_and_has_its_full_size);
    RUN(a_size_that_is_no_whole_number_of_frames_reopens);
    RUN(the_size_decides_how_many_frames_fit);
    RUN(a_pool_opens_only_for_what_it_was_made_for);
    RUN(a_senseless_configuration_is_refused);
    RUN(many_layers_make_a_longer_header);
    RUN(a_pool_has_one_owner);
    RUN(what_is_no_pool_is_left_alone);
    RUN(a_missing_directory_is_an_error_with_its_errno);
    RUN(a_half_made_file_is_used_again);
    RUN(a_size_beyond_what_the_disk_has_is_refused_and_leaves_nothing);
    RUN(syncing_may_happen_at_any_time);
    return SUMMARY();
}
