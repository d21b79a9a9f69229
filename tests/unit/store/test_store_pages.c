/*
 * The structure of an LMDB file: one that LMDB wrote is whole, however it came to be; one that was
 * flipped, cut or patched anywhere is refused with page and reason, or opens, and then reads and
 * writes without a crash. Each damaged file is opened in a child process.
 */
#include "tests/unit/store/store_test.h"

#include "coordinator/store/store_fault.h"
#include "coordinator/store/store_pages.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE_BYTES 4096u

static const uint64_t map_bytes = 256u << 20;

static uint32_t random_next(uint64_t *seed)
{
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*seed >> 33);
}

/* Puts and deletes at random: keys of many lengths, values up to several pages. */
static enum err work(struct store *s, uint64_t *seed, unsigned steps, struct errbuf *eb)
{
    static uint8_t bytes[20000];
    struct store_txn *txn = NULL;
    enum err e = store_begin(s, true, &txn, eb);
    if (e != ERR_OK)
        return e;
    for (unsigned i = 0; i < steps && e == ERR_OK; i++) {
        enum store_table table =
            (enum store_table)(1 + random_next(seed) % (STORE_TABLE_COUNT - 1));
        uint8_t key[LIMIT_STORE_KEY_BYTES];
        memset(key, (int)(random_next(seed) % 3), sizeof key);
        store_key_u32(key, random_next(seed) % 3000);
        size_t key_size = 4 + key[3] % 60;
        size_t size = random_next(seed) % 16 == 0 ? 2000 + random_next(seed) % 18000
                                                  : random_next(seed) % 400;
        memset(bytes, (int)i, size);
        if (random_next(seed) % 3 == 0)
            e = store_delete(txn, table, key, key_size, eb);
        else
            e = store_put(txn, table, key, key_size, bytes, size, eb);
        e = e == ERR_NOT_FOUND ? ERR_OK : e;
    }
    if (e == ERR_OK)
        return store_commit(txn, eb);
    store_abort(txn);
    return e;
}

static void file_of(const struct store_test *t, char *ret_file, size_t size)
{
    (void)snprintf(ret_file, size, "%s/data.mdb", t->path);
}

static void whatever_lmdb_writes_is_whole(void **state)
{
    (void)state;
    /* One entry a transaction, some, and more than LMDB keeps in memory at once. */
    static const struct {
        unsigned commits, steps;
    } cases[] = {{200, 1}, {150, 100}, {6, 20000}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct store_test t;
        struct errbuf eb = {{0}};
        char file[400];
        uint64_t seed = 3 + i;
        store_test_open(&t, STORE_TEST_LMDB, map_bytes);
        file_of(&t, file, sizeof file);
        assert_err(store_pages_check(t.path, file, &eb), ERR_OK, &eb);
        for (unsigned n = 0; n < cases[i].commits; n++) {
            assert_err(work(t.store, &seed, cases[i].steps, &eb), ERR_OK, &eb);
            assert_err(store_pages_check(t.path, file, &eb), ERR_OK, &eb);
        }
        /* Until it is empty again, so that pages are merged and given back. */
        for (int table = 1; table < STORE_TABLE_COUNT; table++) {
            uint8_t key[LIMIT_STORE_KEY_BYTES];
            size_t size = 0;
            unsigned n = 0;
            struct store_txn *txn = store_test_begin(t.store, true);
            while (store_last_key(txn, (enum store_table)table, key, &size, &eb) == ERR_OK) {
                assert_err(store_delete(txn, (enum store_table)table, key, size, &eb), ERR_OK, &eb);
                if (++n % 50 != 0)
                    continue;
                store_test_commit(txn);
                assert_err(store_pages_check(t.path, file, &eb), ERR_OK, &eb);
                txn = store_test_begin(t.store, true);
            }
            store_test_commit(txn);
        }
        assert_err(store_pages_check(t.path, file, &eb), ERR_OK, &eb);
        store_test_close(&t);
    }
}

/* ---- damage ---- */

enum found { FOUND_WHOLE = 40, FOUND_REFUSED, FOUND_VALUE, FOUND_SILENT };

/* Opens, reads all of it, and writes enough to take pages from everywhere. */
static int child_use(const char *path, uint64_t seed)
{
    struct store_lmdb_config config = {.path = path, .map_bytes = map_bytes};
    struct errbuf eb = {{0}};
    struct store *s = NULL;
    if (store_open_lmdb(&s, &config, &eb) != ERR_OK)
        return strstr(eb.text, path) != NULL ? FOUND_REFUSED : FOUND_SILENT;
    enum err verified = store_verify(s, &eb);
    struct store_stat stat;
    if (store_stat(s, &stat, &eb) != ERR_OK)
        return FOUND_SILENT;
    for (int i = 0; i < 3; i++) {
        if (work(s, &seed, 200, &eb) != ERR_OK)
            return FOUND_SILENT;
    }
    store_close(s);
    return verified == ERR_OK ? FOUND_WHOLE : FOUND_VALUE;
}

struct image {
    char path[300], file[400], spare[400];
    uint8_t *bytes;
    size_t size;
};

static void image_write(const char *file, const uint8_t *bytes, size_t size)
{
    int fd = open(file, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, size), (ssize_t)size);
    close(fd);
}

static enum found image_use(const struct image *image, uint64_t seed, const char *what, size_t at)
{
    int status = 0;
    image_write(image->file, image->bytes, image->size);
    pid_t pid = store_test_fork();
    if (pid == 0) {
        _exit(child_use(image->path, seed));
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (!WIFEXITED(status) || WEXITSTATUS(status) < FOUND_WHOLE ||
        WEXITSTATUS(status) >= FOUND_SILENT) {
        image_write(image->spare, image->bytes, image->size);
        fail_msg("%s %zu: status %#x; the file is %s", what, at, (unsigned)status, image->spare);
    }
    return (enum found)WEXITSTATUS(status);
}

static void image_setup(struct store_test *t, struct image *image)
{
    struct stat st;
    struct errbuf eb = {{0}};
    uint64_t seed = 9;
    store_test_open(t, STORE_TEST_LMDB, map_bytes);
    for (int i = 0; i < 8; i++)
        assert_err(work(t->store, &seed, 200, &eb), ERR_OK, &eb);
    store_close(t->store);
    t->store = NULL;
    (void)snprintf(image->path, sizeof image->path, "%s", t->path);
    file_of(t, image->file, sizeof image->file);
    (void)snprintf(image->spare, sizeof image->spare, "/tmp/cloister-damaged-%ld.mdb",
                   (long)getpid());
    assert_int_equal(stat(image->file, &st), 0);
    image->size = (size_t)st.st_size;
    image->bytes = malloc(image->size);
    assert_non_null(image->bytes);
    int fd = open(image->file, O_RDONLY);
    assert_int_equal(read(fd, image->bytes, image->size), (ssize_t)image->size);
    close(fd);
    assert_int_equal(image_use(image, 1, "whole", 0), FOUND_WHOLE);
}

static void image_teardown(struct store_test *t, struct image *image)
{
    free(image->bytes);
    store_test_close(t);
}

static bool is_page_of_entries(const uint8_t *page)
{
    return (page[10] == 1 || page[10] == 2) && page[11] == 0;
}

/* Where a flip hurts most: heads of pages, their tables of entries, heads of entries, numbers of
 * pages; and now and then anywhere. */
static size_t place_draw(const struct image *image, uint64_t *seed)
{
    size_t page = random_next(seed) % (image->size / PAGE_BYTES) * PAGE_BYTES;
    switch (random_next(seed) % 4) {
    case 0:
        return page + random_next(seed) % 24;
    case 1:
        return random_next(seed) % (2 * PAGE_BYTES) % 160 + random_next(seed) % 2 * PAGE_BYTES;
    case 2:
        if (is_page_of_entries(image->bytes + page)) {
            unsigned n =
                (unsigned)((image->bytes[page + 12] | image->bytes[page + 13] << 8) - 16) / 2;
            unsigned i = n > 0 ? random_next(seed) % n : 0;
            const uint8_t *p = image->bytes + page + 16 + 2 * i;
            return page + (size_t)(p[0] | p[1] << 8) % (PAGE_BYTES - 16) + random_next(seed) % 16;
        }
        break;
    default:
        break;
    }
    return page + random_next(seed) % PAGE_BYTES;
}

static void no_flip_is_a_crash(void **state)
{
    (void)state;
    struct store_test t;
    struct image image;
    uint64_t seed = 21;
    unsigned counts[3] = {0};

    image_setup(&t, &image);
    for (unsigned n = 0; n < 1200; n++) {
        size_t at = place_draw(&image, &seed);
        uint8_t was = image.bytes[at];
        /* A bit, or a whole byte. */
        unsigned bits = n % 3 == 0 ? 1 + random_next(&seed) % 255 : 1u << random_next(&seed) % 8;
        image.bytes[at] = (uint8_t)(was ^ bits);
        counts[image_use(&image, n, "flip at byte", at) - FOUND_WHOLE]++;
        image.bytes[at] = was;
    }
    print_message("1200 flips: %u harmless, %u refused at start, %u found in values\n", counts[0],
                  counts[1], counts[2]);
    assert_true(counts[1] > 120);
    image_teardown(&t, &image);
}

static void no_page_in_anothers_place_is_a_crash(void **state)
{
    (void)state;
    struct store_test t;
    struct image image;
    uint64_t seed = 33;
    uint8_t was[PAGE_BYTES];
    unsigned refused = 0;

    image_setup(&t, &image);
    for (unsigned n = 0; n < 150; n++) {
        size_t pages = image.size / PAGE_BYTES;
        size_t to = random_next(&seed) % pages * PAGE_BYTES;
        size_t from = random_next(&seed) % pages * PAGE_BYTES;
        memcpy(was, image.bytes + to, PAGE_BYTES);
        switch (n % 3) {
        case 0: /* a write that went elsewhere */
            memmove(image.bytes + to, image.bytes + from, PAGE_BYTES);
            break;
        case 1: /* a sector that was never written */
            memset(image.bytes + to + 512 * (random_next(&seed) % 8), 0, 512);
            break;
        default: /* noise */
            for (size_t i = 0; i < PAGE_BYTES; i++)
                image.bytes[to + i] = (uint8_t)random_next(&seed);
            break;
        }
        refused += image_use(&image, n, "page at byte", to) == FOUND_REFUSED;
        memcpy(image.bytes + to, was, PAGE_BYTES);
    }
    assert_true(refused > 30);
    image_teardown(&t, &image);
}

static void no_cut_is_a_crash(void **state)
{
    (void)state;
    struct store_test t;
    struct image image;
    uint64_t seed = 5;
    unsigned refused = 0;

    image_setup(&t, &image);
    size_t whole = image.size;
    for (unsigned n = 0; n < 160; n++) {
        image.size =
            n < 80 ? random_next(&seed) % whole : whole / PAGE_BYTES * n / 160 * PAGE_BYTES;
        refused += image_use(&image, n, "cut to bytes", image.size) == FOUND_REFUSED;
    }
    assert_true(refused > 130);
    image.size = whole;
    image_teardown(&t, &image);
}

/* What an operator reads: one line with file, page, table and reason. */
static void the_reason_names_page_and_table(void **state)
{
    (void)state;
    struct store_test t;
    struct image image;
    struct errbuf eb = {{0}};

    image_setup(&t, &image);
    static const struct {
        const char *text;
        size_t at; /* in a leaf */
        uint8_t bits;
    } cases[] = {
        {"it calls itself page", 0, 1},
        {"a leaf was expected, its kind is", 10, 4},
        {"its free space is said to be from", 13, 0x80},
        {"is said to begin at byte", 17, 0x80},
    };
    size_t leaf = 0;
    for (size_t page = 2 * PAGE_BYTES; page < image.size && leaf == 0; page += PAGE_BYTES) {
        image.bytes[page + 10] ^= 4;
        if (image_use(&image, 1, "leaf", page) == FOUND_REFUSED && image.bytes[page + 10] == 6)
            leaf = page;
        image.bytes[page + 10] ^= 4;
    }
    assert_true(leaf != 0);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char page[64];
        image.bytes[leaf + cases[i].at] ^= cases[i].bits;
        image_write(image.file, image.bytes, image.size);
        image.bytes[leaf + cases[i].at] ^= cases[i].bits;
        assert_err(store_pages_check(image.path, image.file, &eb), ERR_CORRUPT, &eb);
        (void)snprintf(page, sizeof page, "data.mdb is damaged: page %zu, ", leaf / PAGE_BYTES);
        if (strstr(eb.text, page) == NULL || strstr(eb.text, cases[i].text) == NULL)
            fail_msg("\"%s\" does not say \"%s%s\"", eb.text, page, cases[i].text);
    }
    image_teardown(&t, &image);
}

/* ---- while it is open ---- */

/* The file is cut under an open store: the process ends, as it must, but not without a word. */
static void a_fault_of_the_map_says_what_it_was(void **state)
{
    (void)state;
    struct store_test t;
    struct image image;
    char text[1024] = "", expected[500];
    int pipe_fds[2], status = 0;

    image_setup(&t, &image);
    assert_int_equal(pipe(pipe_fds), 0);
    image_write(image.file, image.bytes, image.size);
    pid_t pid = store_test_fork();
    if (pid == 0) {
        struct store_lmdb_config config = {.path = image.path, .map_bytes = map_bytes};
        struct store *s = NULL;
        (void)signal(SIGBUS, SIG_DFL);
        (void)signal(SIGSEGV, SIG_DFL);
        dup2(pipe_fds[1], STDERR_FILENO);
        store_fault_install();
        if (store_open_lmdb(&s, &config, NULL) != ERR_OK ||
            truncate(image.file, 3 * PAGE_BYTES) != 0)
            _exit(1);
        (void)store_verify(s, NULL);
        _exit(2);
    }
    close(pipe_fds[1]);
    size_t size = 0;
    ssize_t got;
    while (size < sizeof text - 1 &&
           (got = read(pipe_fds[0], text + size, sizeof text - 1 - size)) > 0)
        size += (size_t)got;
    close(pipe_fds[0]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGBUS);
    (void)snprintf(expected, sizeof expected, "store %s: data.mdb cannot be read at byte ",
                   image.path);
    if (strstr(text, expected) == NULL)
        fail_msg("it said \"%s\"", text);
    assert_ptr_equal(strchr(text, '\n'), text + strlen(text) - 1);
    image_teardown(&t, &image);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whatever_lmdb_writes_is_whole),
        cmocka_unit_test(no_flip_is_a_crash),
        cmocka_unit_test(no_page_in_anothers_place_is_a_crash),
        cmocka_unit_test(no_cut_is_a_crash),
        cmocka_unit_test(the_reason_names_page_and_table),
        cmocka_unit_test(a_fault_of_the_map_says_what_it_was),
    };
    return cmocka_run_group_tests_name("pages of the store", tests, NULL, NULL);
}
