/* Models in parts: whichever is opened, all are; what is missing, changed or not of one model is
 * refused. And files that change under the reader. */
#include "tests/unit/model/gguf_build.h"

#include "common/check.h"
#include "common/crypto.h"
#include "worker/model/hparams.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <fcntl.h>
#include <unistd.h>

#include <cmocka.h>

#define PARTS 3u

/* A folder with a model in three parts: the keys and the embedding; the layers; the last norm. */
struct folder {
    char path[64];
    char part[PARTS][128];
    struct buf bytes[PARTS];
};

/* What a part says of itself; UINT32_MAX leaves the key out. */
struct part_keys {
    uint32_t no, count, tensors;
};

static const struct part_keys good_keys[PARTS] = {{0, 3, 20}, {1, 3, 20}, {2, 3, 20}};

static void put_part_keys(struct gguf_build *b, const struct part_keys *k)
{
    if (k->no != UINT32_MAX)
        gguf_build_u32(b, "split.no", k->no);
    if (k->count != UINT32_MAX)
        gguf_build_u32(b, "split.count", k->count);
    if (k->tensors != UINT32_MAX)
        gguf_build_i32(b, "split.tensors.count", (int32_t)k->tensors);
}

static void write_file(const char *path, const struct buf *bytes)
{
    FILE *f = fopen(path, "we");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes->data, 1, bytes->size, f), bytes->size);
    assert_int_equal(fclose(f), 0);
}

/* `more` goes into the last part: a key of its own, or a tensor. */
static void folder_make(struct folder *f, const struct part_keys keys[PARTS], const char *more_key,
                        const char *more_tensor)
{
    memset(f, 0, sizeof *f);
    (void)snprintf(f->path, sizeof f->path, "/tmp/cloister-test-split-XXXXXX");
    assert_non_null(mkdtemp(f->path));
    for (uint32_t i = 0; i < PARTS; i++) {
        struct gguf_build b;
        gguf_build_init(&b);
        if (i == 0) {
            gguf_build_model_keys(&b);
            gguf_build_tensor(&b, "token_embd.weight", QUANT_TYPE_F32, 32, BUILD_BPE_TOKENS);
        } else if (i == 1) {
            b.alignment = 64;
            gguf_build_u32(&b, "general.alignment", 64);
            gguf_build_model_layers(&b, QUANT_TYPE_F32);
        } else {
            gguf_build_tensor(&b, "output_norm.weight", QUANT_TYPE_F32, 32, 0);
            if (more_key != NULL)
                gguf_build_u32(&b, more_key, 1);
            if (more_tensor != NULL)
                gguf_build_tensor(&b, more_tensor, QUANT_TYPE_F32, 32, 0);
        }
        put_part_keys(&b, &keys[i]);
        gguf_build_finish(&b, &f->bytes[i]);
        gguf_build_fini(&b);
        (void)snprintf(f->part[i], sizeof f->part[i], "%s/big-%05u-of-00003.gguf", f->path, i + 1);
        write_file(f->part[i], &f->bytes[i]);
    }
}

static void folder_remove(struct folder *f)
{
    for (uint32_t i = 0; i < PARTS; i++) {
        (void)unlink(f->part[i]);
        buf_fini(&f->bytes[i]);
    }
    assert_int_equal(rmdir(f->path), 0);
}

static void check_tensor(const struct gguf *g, const char *name, const struct folder *f,
                         uint32_t part)
{
    const struct gguf_tensor *t = gguf_tensor_find(g, name);
    struct errbuf eb = {{0}};
    assert_non_null(t);
    assert_int_equal(t->file, part);
    assert_null(t->data);
    uint8_t *bytes = malloc(t->size);
    assert_non_null(bytes);
    assert_int_equal(gguf_tensor_read(g, t, 0, bytes, t->size, &eb), ERR_OK);
    assert_memory_equal(bytes, f->bytes[part].data + t->offset, t->size);
    free(bytes);
}

static void test_any_part_opens_all(void **state)
{
    (void)state;
    struct folder f;
    uint8_t whole[32], digest[32];
    struct sha256_stream *s = sha256_new();
    folder_make(&f, good_keys, NULL, NULL);
    for (uint32_t i = 0; i < PARTS; i++)
        sha256_update(s, f.bytes[i].data, f.bytes[i].size);
    sha256_finish(s, whole);
    for (uint32_t i = 0; i < PARTS; i++) {
        struct gguf *g = NULL;
        struct model_hparams h;
        struct errbuf eb = {{0}};
        if (gguf_open_file(&g, f.part[i], false, &eb) != ERR_OK)
            fail_msg("%s", eb.text);
        assert_int_equal(gguf_file_count(g), PARTS);
        assert_int_equal(gguf_file_size(g), f.bytes[0].size + f.bytes[1].size + f.bytes[2].size);
        assert_int_equal(gguf_tensor_count(g), 20);
        check_tensor(g, "token_embd.weight", &f, 0);
        check_tensor(g, "blk.1.ffn_down.weight", &f, 1);
        check_tensor(g, "output_norm.weight", &f, 2);
        assert_int_equal(model_hparams_read(&h, g, &eb), ERR_OK);
        assert_int_equal(h.n_layers, 2);
        assert_int_equal(gguf_check_unchanged(g, &eb), ERR_OK);
        gguf_close(g);
        assert_int_equal(gguf_open_file(&g, f.part[i], true, &eb), ERR_OK);
        gguf_close(g);
        assert_int_equal(model_file_digest(f.part[i], digest, &eb), ERR_OK);
        assert_memory_equal(digest, whole, 32);
    }
    folder_remove(&f);
}

/* ---- what is refused --------------------------------------------------------------------- */

#define NO UINT32_MAX

static const struct bad_keys {
    const char *name;
    struct part_keys keys[PARTS];
    const char *more_key, *more_tensor;
    enum err code;
    const char *says;
} bad_keys[] = {
    {"no number", {{NO, 3, 20}, {1, 3, 20}, {2, 3, 20}}, NULL, NULL, ERR_NOT_FOUND, "'split.no'"},
    {"a number past the end",
     {{3, 3, 20}, {1, 3, 20}, {2, 3, 20}},
     NULL,
     NULL,
     ERR_CORRUPT,
     "'split.no' is 3, but there are 3 parts"},
    {"two with one number",
     {{0, 3, 20}, {1, 3, 20}, {1, 3, 20}},
     NULL,
     NULL,
     ERR_CORRUPT,
     "part 2 of 3 by its keys, and 3 of 3 by its name"},
    {"another count",
     {{0, 3, 20}, {1, 4, 20}, {2, 3, 20}},
     NULL,
     NULL,
     ERR_CORRUPT,
     "part 2 of 4 by its keys, and 2 of 3 by its name"},
    {"not a part at all",
     {{0, 3, 20}, {NO, NO, NO}, {2, 3, 20}},
     NULL,
     NULL,
     ERR_CORRUPT,
     "part 1 of 1 by its keys, and 2 of 3 by its name"},
    {"another number of tensors",
     {{0, 3, 20}, {1, 3, 20}, {2, 3, 21}},
     NULL,
     NULL,
     ERR_CORRUPT,
     "'split.tensors.count' is 21, and 20 in another part"},
    {"too few tensors",
     {{0, 3, 21}, {1, 3, 21}, {2, 3, 21}},
     NULL,
     NULL,
     ERR_CORRUPT,
     "'split.tensors.count' is 21, but the parts have 20"},
    {"more parts than can be",
     {{0, 60000, 20}, {1, 3, 20}, {2, 3, 20}},
     NULL,
     NULL,
     ERR_TOO_LARGE,
     "60000 parts are over the bound"},
    {"named as another",
     {{1, 3, 20}, {1, 3, 20}, {2, 3, 20}},
     NULL,
     NULL,
     ERR_INVALID,
     "does not end in -00002-of-00003.gguf"},
    {"a key in a later part",
     {{0, 3, 20}, {1, 3, 20}, {2, 3, 20}},
     "llama.rope.dimension_count",
     NULL,
     ERR_UNSUPPORTED,
     "key 'llama.rope.dimension_count' is in a part that is not the first"},
    {"a tensor twice",
     {{0, 3, 21}, {1, 3, 21}, {2, 3, 21}},
     NULL,
     "blk.0.attn_norm.weight",
     ERR_CORRUPT,
     "tensor 'blk.0.attn_norm.weight' is there twice"},
};

static void test_parts_that_are_not_one_model(void **state)
{
    (void)state;
    size_t failed = 0;
    for (size_t i = 0; i < sizeof bad_keys / sizeof bad_keys[0]; i++) {
        const struct bad_keys *bad = &bad_keys[i];
        struct folder f;
        struct gguf *g = NULL;
        struct errbuf eb = {{0}};
        folder_make(&f, bad->keys, bad->more_key, bad->more_tensor);
        enum err e = gguf_open_file(&g, f.part[0], false, &eb);
        if (e != bad->code || strstr(eb.text, bad->says) == NULL ||
            strstr(eb.text, f.path) == NULL) {
            print_error("%s: %s '%s', expected %s '%s'\n", bad->name, err_name(e), eb.text,
                        err_name(bad->code), bad->says);
            failed++;
        }
        assert_null(g);
        folder_remove(&f);
    }
    assert_int_equal(failed, 0);
}

static void expect(const char *path, enum err code, const char *says)
{
    struct gguf *g = NULL;
    struct errbuf eb = {{0}};
    assert_int_equal(gguf_open_file(&g, path, false, &eb), code);
    assert_null(g);
    if (strstr(eb.text, says) == NULL)
        fail_msg("'%s' does not say '%s'", eb.text, says);
}

static void test_a_part_is_missing_or_damaged(void **state)
{
    (void)state;
    struct folder f;
    uint8_t digest[32];
    char other[160];
    folder_make(&f, good_keys, NULL, NULL);
    /* Cut: the part says so, whichever was opened. */
    assert_int_equal(truncate(f.part[2], (off_t)f.bytes[2].size - 1), 0);
    expect(f.part[0], ERR_CORRUPT, "is the file cut short?");
    expect(f.part[0], ERR_CORRUPT, "big-00003-of-00003.gguf");
    /* Another file in its place. */
    write_file(f.part[2], &f.bytes[1]);
    expect(f.part[0], ERR_CORRUPT, "part 2 of 3 by its keys, and 3 of 3 by its name");
    /* Gone. */
    assert_int_equal(unlink(f.part[2]), 0);
    expect(f.part[0], ERR_NOT_FOUND, "part 3 of 3 is missing");
    expect(f.part[1], ERR_NOT_FOUND, "big-00003-of-00003.gguf");
    assert_int_equal(model_file_digest(f.part[0], digest, NULL), ERR_NOT_FOUND);
    /* A folder there. */
    assert_int_equal(mkdir(f.part[2], 0700), 0);
    expect(f.part[0], ERR_INVALID, "not a regular file");
    assert_int_equal(rmdir(f.part[2]), 0);
    /* The name says nothing of the others. */
    (void)snprintf(other, sizeof other, "%s/renamed.gguf", f.path);
    write_file(f.part[2], &f.bytes[2]);
    assert_int_equal(rename(f.part[1], other), 0);
    expect(other, ERR_INVALID, "does not end in -00002-of-00003.gguf");
    (void)unlink(other);
    folder_remove(&f);
}

/* ---- files that change ------------------------------------------------------------------- */

static void test_a_file_that_changes_is_noticed(void **state)
{
    (void)state;
    struct folder f;
    struct errbuf eb = {{0}};
    uint8_t byte;
    for (uint32_t i = 0; i < PARTS; i++) {
        struct gguf *g = NULL;
        folder_make(&f, good_keys, NULL, NULL);
        /* An old time of change, so that writing within the clock's tick shows as well. */
        struct timespec times[2] = {{.tv_sec = 1000000000}, {.tv_sec = 1000000000}};
        assert_int_equal(utimensat(0, f.part[i], times, 0), 0);
        assert_int_equal(gguf_open_file(&g, f.part[0], false, &eb), ERR_OK);
        assert_int_equal(gguf_check_unchanged(g, &eb), ERR_OK);
        FILE *file = fopen(f.part[i], "r+e");
        assert_non_null(file);
        assert_int_equal(fseek(file, -1, SEEK_END), 0);
        assert_int_equal(fputc(1, file), 1);
        assert_int_equal(fclose(file), 0);
        assert_int_equal(gguf_check_unchanged(g, &eb), ERR_CORRUPT);
        assert_non_null(strstr(eb.text, f.part[i]));
        assert_non_null(strstr(eb.text, "was written to"));
        /* Shorter: the read says where it ended. */
        static const char *const last[PARTS] = {"token_embd.weight", "blk.1.ffn_down.weight",
                                                "output_norm.weight"};
        const struct gguf_tensor *t = gguf_tensor_find(g, last[i]);
        assert_int_equal(truncate(f.part[i], (off_t)(t->offset + t->size - 1)), 0);
        assert_int_equal(gguf_tensor_read(g, t, t->size - 2, &byte, 1, &eb), ERR_OK);
        assert_int_equal(gguf_tensor_read(g, t, t->size - 1, &byte, 1, &eb), ERR_CORRUPT);
        assert_non_null(strstr(eb.text, "ended at byte"));
        /* Another file under the name does not matter: what was opened is read. */
        gguf_close(g);
        folder_remove(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_any_part_opens_all),
        cmocka_unit_test(test_parts_that_are_not_one_model),
        cmocka_unit_test(test_a_part_is_missing_or_damaged),
        cmocka_unit_test(test_a_file_that_changes_is_noticed),
    };
    return cmocka_run_group_tests_name("split", tests, NULL, NULL);
}
