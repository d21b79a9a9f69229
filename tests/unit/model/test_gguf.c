/* The GGUF loader: what it reads, and that everything else is refused with place and reason. */
#include "tests/unit/model/gguf_build.h"

#include "common/err.h"
#include "worker/model/hparams.h"
#include "worker/model/tokenizer.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* --- good files --- */

static void test_reads_keys_and_tensors(void **state)
{
    (void)state;
    struct gguf_build b;
    struct buf file;
    struct gguf *g = NULL;
    struct errbuf eb = {{0}};
    gguf_build_init(&b);
    gguf_build_u32(&b, "a.u32", 7);
    gguf_build_i32(&b, "a.i32", -7);
    gguf_build_u64(&b, "a.u64", UINT64_MAX);
    gguf_build_f32(&b, "a.f32", 0.5f);
    gguf_build_bool(&b, "a.bool", 1);
    gguf_build_string(&b, "a.string", "text");
    gguf_build_strings(&b, "a.strings", (const char *const[]){"x", "", "yz"}, 3);
    gguf_build_i32s(&b, "a.i32s", (const int32_t[]){-1, 2}, 2);
    gguf_build_f32s(&b, "a.f32s", (const float[]){1.5f}, 1);
    gguf_build_tensor(&b, "m", QUANT_TYPE_Q8_0, 64, 3);
    gguf_build_tensor(&b, "v", QUANT_TYPE_F32, 5, 0);
    gguf_build_finish(&b, &file);
    assert_int_equal(gguf_open_memory(&g, file.data, file.size, &eb), ERR_OK);

    uint32_t u = 0;
    float f = 0;
    bool truth = false;
    uint64_t count = 0;
    struct gguf_string s;
    assert_int_equal(gguf_version(g), 3);
    assert_int_equal(gguf_key_count(g), 9);
    assert_int_equal(gguf_get_u32(g, "a.u32", &u, &eb), ERR_OK);
    assert_int_equal(u, 7);
    assert_int_equal(gguf_get_f32(g, "a.f32", &f, &eb), ERR_OK);
    assert_true(f == 0.5f);
    assert_int_equal(gguf_get_bool(g, "a.bool", &truth, &eb), ERR_OK);
    assert_true(truth);
    assert_int_equal(gguf_get_string(g, "a.string", &s, &eb), ERR_OK);
    assert_true(gguf_string_equal(s, "text"));
    assert_int_equal(gguf_get_array(g, "a.strings", GGUF_VALUE_STRING, &count, &eb), ERR_OK);
    assert_int_equal(count, 3);
    assert_int_equal(gguf_array_string(g, "a.strings", 1).size, 0);
    assert_true(gguf_string_equal(gguf_array_string(g, "a.strings", 2), "yz"));
    assert_int_equal(gguf_array_int(g, "a.i32s", 0), -1);
    assert_true(gguf_array_float(g, "a.f32s", 0) == 1.5);

    /* A value of another type, or one that does not fit, is named with its key. */
    assert_int_equal(gguf_get_u32(g, "a.i32", &u, &eb), ERR_INVALID);
    assert_non_null(strstr(eb.text, "a.i32"));
    assert_int_equal(gguf_get_u32(g, "a.u64", &u, &eb), ERR_INVALID);
    assert_int_equal(gguf_get_u32(g, "a.f32", &u, &eb), ERR_INVALID);
    assert_non_null(strstr(eb.text, "f32, not an integer"));
    assert_int_equal(gguf_get_f32(g, "a.u32", &f, &eb), ERR_INVALID);
    assert_int_equal(gguf_get_string(g, "a.strings", &s, &eb), ERR_INVALID);
    assert_non_null(strstr(eb.text, "an array of string, not a string"));
    assert_int_equal(gguf_get_array(g, "a.f32s", GGUF_VALUE_I32, &count, &eb), ERR_INVALID);
    assert_int_equal(gguf_get_u32(g, "b", &u, &eb), ERR_NOT_FOUND);

    const struct gguf_tensor *m = gguf_tensor_find(g, "m");
    const struct gguf_tensor *v = gguf_tensor_find(g, "v");
    assert_int_equal(gguf_tensor_count(g), 2);
    assert_int_equal(m->size, 3 * 2 * 34);
    assert_int_equal(m->dims[1], 3);
    assert_int_equal(m->dims[3], 1);
    assert_ptr_equal(m->data, file.data + m->offset);
    assert_int_equal(m->offset, gguf_data_offset(g));
    assert_int_equal(v->size, 20);
    assert_int_equal(v->offset % 32, 0);
    assert_null(gguf_tensor_find(g, "M"));
    gguf_close(g);
    buf_fini(&file);
    gguf_build_fini(&b);
}

static void test_reads_version_2_and_other_alignments(void **state)
{
    (void)state;
    static const uint32_t alignments[] = {8, 16, 64, 4096, GGUF_ALIGNMENT_MAX};
    for (size_t i = 0; i < sizeof alignments / sizeof alignments[0]; i++) {
        struct gguf_build b;
        struct buf file;
        struct gguf *g = NULL;
        gguf_build_init(&b);
        b.version = 2;
        b.alignment = alignments[i];
        gguf_build_u32(&b, "general.alignment", alignments[i]);
        gguf_build_tensor(&b, "one", QUANT_TYPE_F32, 3, 0);
        gguf_build_tensor(&b, "two", QUANT_TYPE_F32, 3, 0);
        gguf_build_finish(&b, &file);
        assert_int_equal(gguf_open_memory(&g, file.data, file.size, NULL), ERR_OK);
        assert_int_equal(gguf_tensor_find(g, "two")->offset - gguf_tensor_find(g, "one")->offset,
                         alignments[i] > 12 ? alignments[i] : 16);
        gguf_close(g);
        buf_fini(&file);
        gguf_build_fini(&b);
    }
}

static void test_opens_files(void **state)
{
    (void)state;
    struct gguf_build b;
    struct buf file;
    struct errbuf eb = {{0}};
    char path[] = "/tmp/cloister-test-gguf-XXXXXX";
    gguf_build_init(&b);
    /* Longer than the first piece that a header-only open reads. */
    struct buf text;
    buf_init(&text);
    for (int i = 0; i < (3 << 20) / 8; i++)
        buf_append_str(&text, "padding ");
    gguf_build_string(&b, "long", buf_str(&text));
    gguf_build_model(&b, QUANT_TYPE_Q8_0);
    gguf_build_finish(&b, &file);
    int fd = mkstemp(path);
    assert_true(fd >= 0 && write(fd, file.data, file.size) == (ssize_t)file.size);
    for (int header_only = 0; header_only < 2; header_only++) {
        struct gguf *g = NULL;
        struct model_hparams h;
        assert_int_equal(gguf_open_file(&g, path, header_only, &eb), ERR_OK);
        const struct gguf_tensor *t = gguf_tensor_find(g, "output_norm.weight");
        assert_int_equal(gguf_file_size(g), file.size);
        assert_int_equal(model_hparams_read(&h, g, &eb), ERR_OK);
        assert_null(t->data);
        if (!header_only) {
            uint8_t bytes[BUILD_BPE_TOKENS];
            assert_true(t->size <= sizeof bytes);
            assert_int_equal(gguf_tensor_read(g, t, 0, bytes, t->size, &eb), ERR_OK);
            assert_memory_equal(bytes, file.data + t->offset, t->size);
            assert_int_equal(gguf_tensor_read(g, t, t->size - 5, bytes, 4, &eb), ERR_OK);
            assert_memory_equal(bytes, file.data + t->offset + t->size - 5, 4);
        }
        assert_int_equal(gguf_check_unchanged(g, &eb), ERR_OK);
        gguf_close(g);
    }
    /* The same file without its last byte: the table says so, though only the header is read. */
    struct gguf *g = NULL;
    assert_int_equal(ftruncate(fd, (off_t)file.size - 1), 0);
    assert_int_equal(gguf_open_file(&g, path, true, &eb), ERR_CORRUPT);
    assert_non_null(strstr(eb.text, path));
    assert_non_null(strstr(eb.text, "cut short"));
    assert_int_equal(gguf_open_file(&g, "/", false, &eb), ERR_INVALID);
    assert_int_equal(gguf_open_file(&g, "/nowhere/at/all", false, &eb), ERR_NOT_FOUND);
    (void)close(fd);
    (void)unlink(path);
    buf_fini(&text);
    buf_fini(&file);
    gguf_build_fini(&b);
}

/* --- bad files: the structure --- */

static void put_name_with_nul(struct gguf_build *b)
{
    gguf_build_raw_string(&b->keys, "llama\0x", 7);
    gguf_build_raw_u32(&b->keys, GGUF_VALUE_U32);
    gguf_build_raw_u32(&b->keys, 1);
    b->n_keys++;
}

static void put_name_of_size(struct gguf_build *b, uint64_t size)
{
    gguf_build_raw_u64(&b->keys, size);
    buf_append_str(&b->keys, "abc and some more of it");
    b->n_keys++;
}

static void put_array(struct gguf_build *b, uint32_t type, uint64_t count)
{
    (void)gguf_build_key(b, "list", GGUF_VALUE_ARRAY);
    gguf_build_raw_u32(&b->keys, type);
    gguf_build_raw_u64(&b->keys, count);
}

static void put_entry(struct gguf_build *b, uint32_t n_dims, uint64_t dim0, uint64_t dim1,
                      uint32_t type, uint64_t offset)
{
    const uint64_t dims[8] = {dim0, dim1, 1, 1, 1, 1, 1, 1};
    gguf_build_tensor_entry(b, "bad", n_dims, dims, type, offset);
    for (int i = 0; i < 256; i++)
        buf_append_byte(&b->data, 0);
}

#define CASE(id, body)                                                                             \
    static void make_##id(struct gguf_build *b)                                                    \
    {                                                                                              \
        body;                                                                                      \
    }

CASE(magic, b->magic = 0x47475546u)
CASE(version_0, b->version = 0)
CASE(version_1, b->version = 1)
CASE(version_4, b->version = 4)
CASE(version_swapped, b->version = 0x03000000u)
CASE(keys_huge, b->n_keys_more = UINT64_MAX)
CASE(keys_many, b->n_keys_more = 1u << 20)
CASE(keys_one_more, b->n_keys_more = 1)
CASE(tensors_huge, b->n_tensors_more = UINT64_MAX / 2)
CASE(tensors_one_more, gguf_build_u32(b, "k", 1); b->n_tensors_more = 1)
CASE(key_size_max, put_name_of_size(b, UINT64_MAX))
CASE(key_size_near, put_name_of_size(b, UINT64_MAX - 7))
CASE(key_size_past_end, put_name_of_size(b, 1000))
CASE(key_empty, gguf_build_u32(b, "", 1))
CASE(key_nul, put_name_with_nul(b))
CASE(key_newline, gguf_build_u32(b, "a\nb", 1))
CASE(key_not_ascii, gguf_build_u32(b, "caf\xc3\xa9", 1))
CASE(key_twice, gguf_build_u32(b, "k", 1); gguf_build_u32(b, "j", 1); gguf_build_f32(b, "k", 1))
CASE(value_type_13, (void)gguf_build_key(b, "k", 13); gguf_build_raw_u64(&b->keys, 0))
CASE(value_type_max, (void)gguf_build_key(b, "k", UINT32_MAX); gguf_build_raw_u64(&b->keys, 0))
CASE(value_cut, (void)gguf_build_key(b, "k", GGUF_VALUE_U64); gguf_build_raw_u32(&b->keys, 0))
CASE(bool_2, gguf_build_bool(b, "k", 2))
CASE(string_size_max, (void)gguf_build_key(b, "k", GGUF_VALUE_STRING);
     gguf_build_raw_u64(&b->keys, UINT64_MAX))
CASE(string_size_sign, (void)gguf_build_key(b, "k", GGUF_VALUE_STRING);
     gguf_build_raw_u64(&b->keys, (uint64_t)INT64_MAX + 1))
CASE(array_of_arrays, put_array(b, GGUF_VALUE_ARRAY, 1); gguf_build_raw_u64(&b->keys, 0))
CASE(array_type_99, put_array(b, 99, 1); gguf_build_raw_u64(&b->keys, 0))
CASE(array_count_max, put_array(b, GGUF_VALUE_U8, UINT64_MAX))
CASE(array_count_wraps, put_array(b, GGUF_VALUE_U64, (UINT64_MAX / 8) + 2);
     gguf_build_raw_u64(&b->keys, 0))
CASE(array_count_one_more, put_array(b, GGUF_VALUE_U32, 3); gguf_build_raw_u64(&b->keys, 0))
CASE(array_bool_2, put_array(b, GGUF_VALUE_BOOL, 2); buf_append(&b->keys, "\1\2", 2))
CASE(array_strings_many, put_array(b, GGUF_VALUE_STRING, 1u << 30))
CASE(array_string_size, put_array(b, GGUF_VALUE_STRING, 2); gguf_build_raw_u64(&b->keys, 0);
     gguf_build_raw_u64(&b->keys, UINT64_MAX))
CASE(alignment_0, gguf_build_u32(b, "general.alignment", 0))
CASE(alignment_1, gguf_build_u32(b, "general.alignment", 1))
CASE(alignment_24, gguf_build_u32(b, "general.alignment", 24))
CASE(alignment_huge, gguf_build_u32(b, "general.alignment", 1u << 31))
CASE(alignment_string, gguf_build_string(b, "general.alignment", "32"))
CASE(alignment_negative, gguf_build_i32(b, "general.alignment", -32))
CASE(tensor_name_long, put_entry(b, 1, 8, 0, 0, 0);
     gguf_build_tensor_entry(b, "12345678901234567890123456789012345678901234567890123456789012345",
                             1, (const uint64_t[]){8}, 0, 32))
CASE(tensor_name_empty, gguf_build_tensor_entry(b, "", 1, (const uint64_t[]){8}, 0, 0))
CASE(tensor_no_dims, put_entry(b, 0, 0, 0, 0, 0))
CASE(tensor_five_dims, put_entry(b, 5, 8, 1, 0, 0))
CASE(tensor_dims_max, put_entry(b, UINT32_MAX & 7, 8, 1, 0, 0))
CASE(tensor_dim_zero, put_entry(b, 2, 8, 0, 0, 0))
CASE(tensor_dim_overflow, put_entry(b, 2, 1ull << 40, 1ull << 40, 0, 0))
CASE(tensor_dim_wraps, put_entry(b, 2, 1ull << 33, 1ull << 31, 0, 0))
CASE(tensor_dim_sign, put_entry(b, 1, UINT64_MAX, 0, 0, 0))
CASE(tensor_type_unknown, put_entry(b, 1, 32, 0, 1000, 0))
CASE(tensor_type_retired, put_entry(b, 1, 32, 0, 4, 0))
CASE(tensor_type_repacked, put_entry(b, 1, 32, 0, 31, 0))
CASE(tensor_row_not_blocks, put_entry(b, 1, 33, 0, QUANT_TYPE_Q8_0, 0))
CASE(tensor_row_not_superblocks, put_entry(b, 2, 32, 8, QUANT_TYPE_Q4_K, 0))
CASE(tensor_offset_odd, put_entry(b, 1, 8, 0, 0, 4))
CASE(tensor_offset_past, put_entry(b, 1, 8, 0, 0, 1024))
CASE(tensor_offset_max, put_entry(b, 1, 8, 0, 0, UINT64_MAX & ~31ull))
CASE(tensor_size_past, put_entry(b, 1, 1000, 0, 0, 0))
CASE(tensor_twice, put_entry(b, 1, 8, 0, 0, 0); put_entry(b, 1, 8, 0, 0, 32))
CASE(tensor_overlap, put_entry(b, 1, 16, 0, 0, 0);
     gguf_build_tensor_entry(b, "other", 1, (const uint64_t[]){16}, 0, 32))
CASE(tensor_same_place, put_entry(b, 1, 16, 0, 0, 64);
     gguf_build_tensor_entry(b, "other", 1, (const uint64_t[]){1}, 0, 64))

static const struct bad_file {
    const char *what;
    void (*make)(struct gguf_build *b);
    enum err code;
    const char *says; /* part of the message: the place and the reason */
} bad_files[] = {
    {"wrong magic", make_magic, ERR_CORRUPT, "byte 0: this is not a GGUF file"},
    {"version 0", make_version_0, ERR_UNSUPPORTED, "byte 4: GGUF version 0"},
    {"version 1", make_version_1, ERR_UNSUPPORTED, "byte 4: GGUF version 1"},
    {"version 4", make_version_4, ERR_UNSUPPORTED, "2 and 3 are read"},
    {"big-endian", make_version_swapped, ERR_UNSUPPORTED, "version 3 in big-endian order"},
    {"2^64 keys", make_keys_huge, ERR_CORRUPT, "byte 16: key count"},
    {"more keys than bytes", make_keys_many, ERR_CORRUPT, "byte 16: key count 1048576"},
    {"a key too many", make_keys_one_more, ERR_CORRUPT, "key count 1 does not fit"},
    {"2^63 tensors", make_tensors_huge, ERR_CORRUPT, "byte 8: tensor count"},
    {"a tensor too many", make_tensors_one_more, ERR_CORRUPT, "byte 8: tensor count 1"},
    {"key of 2^64 bytes", make_key_size_max, ERR_CORRUPT,
     "byte 32: key needs 18446744073709551615"},
    {"key of 2^64 - 8 bytes", make_key_size_near, ERR_CORRUPT, "byte 32: key needs"},
    {"key past the end", make_key_size_past_end, ERR_CORRUPT, "byte 32: key needs 1000"},
    {"empty key", make_key_empty, ERR_CORRUPT, "byte 24: key of 0 bytes"},
    {"NUL in a key", make_key_nul, ERR_CORRUPT, "byte 37: key holds the byte 0x00"},
    {"line feed in a key", make_key_newline, ERR_CORRUPT, "holds the byte 0x0a"},
    {"key not ASCII", make_key_not_ascii, ERR_CORRUPT, "holds the byte 0xc3"},
    {"key twice", make_key_twice, ERR_CORRUPT, "key 'k' is there twice"},
    {"value type 13", make_value_type_13, ERR_CORRUPT, "key 'k': byte 33: value type 13"},
    {"value type 2^32-1", make_value_type_max, ERR_CORRUPT, "value type 4294967295"},
    {"value cut", make_value_cut, ERR_CORRUPT, "key 'k': byte 37: value needs 8 bytes"},
    {"bool 2", make_bool_2, ERR_CORRUPT, "key 'k': byte 37: a bool is 0 or 1, not 2"},
    {"string of 2^64 bytes", make_string_size_max, ERR_CORRUPT, "key 'k': byte 45: string needs"},
    {"string of 2^63 bytes", make_string_size_sign, ERR_CORRUPT, "key 'k': byte 45: string needs"},
    {"array of arrays", make_array_of_arrays, ERR_UNSUPPORTED, "arrays of arrays"},
    {"array of type 99", make_array_type_99, ERR_CORRUPT, "element type 99"},
    {"array of 2^64", make_array_count_max, ERR_CORRUPT,
     "key 'list': byte 44: 18446744073709551615"},
    {"array that wraps", make_array_count_wraps, ERR_CORRUPT, "elements do not fit"},
    {"array one longer", make_array_count_one_more, ERR_CORRUPT, "3 elements do not fit the 8"},
    {"bool 2 in an array", make_array_bool_2, ERR_CORRUPT, "byte 53: a bool is 0 or 1"},
    {"2^30 strings", make_array_strings_many, ERR_CORRUPT, "1073741824 elements do not fit"},
    {"string in an array", make_array_string_size, ERR_CORRUPT, "key 'list': element 1: byte 68"},
    {"alignment 0", make_alignment_0, ERR_CORRUPT, "general.alignment': 0 is not"},
    {"alignment 1", make_alignment_1, ERR_CORRUPT, "general.alignment': 1 is not"},
    {"alignment 24", make_alignment_24, ERR_CORRUPT, "general.alignment': 24 is not"},
    {"alignment 2^31", make_alignment_huge, ERR_CORRUPT, "general.alignment': 2147483648"},
    {"alignment a string", make_alignment_string, ERR_INVALID, "general.alignment' is string"},
    {"alignment negative", make_alignment_negative, ERR_INVALID, "general.alignment'"},
    {"tensor name of 65", make_tensor_name_long, ERR_CORRUPT, "tensor name of 65 bytes"},
    {"tensor without name", make_tensor_name_empty, ERR_CORRUPT, "tensor name of 0 bytes"},
    {"0 dimensions", make_tensor_no_dims, ERR_CORRUPT, "tensor 'bad', byte 35: 0 dimensions"},
    {"5 dimensions", make_tensor_five_dims, ERR_CORRUPT, "5 dimensions"},
    {"7 dimensions", make_tensor_dims_max, ERR_CORRUPT, "7 dimensions"},
    {"dimension of 0", make_tensor_dim_zero, ERR_CORRUPT, "byte 47: dimension 1 is 0"},
    {"2^80 elements", make_tensor_dim_overflow, ERR_CORRUPT, "multiply past"},
    {"2^64 elements", make_tensor_dim_wraps, ERR_CORRUPT, "multiply past"},
    {"2^64-1 elements", make_tensor_dim_sign, ERR_CORRUPT, "multiply past"},
    {"tensor type 1000", make_tensor_type_unknown, ERR_UNSUPPORTED, "'bad', byte 47: type 1000"},
    {"tensor type Q4_2", make_tensor_type_retired, ERR_UNSUPPORTED, "type 4 (Q4_2) was retired"},
    {"tensor type Q4_0_4_4", make_tensor_type_repacked, ERR_UNSUPPORTED, "(Q4_0_4_4) was retired"},
    {"row of half a block", make_tensor_row_not_blocks, ERR_CORRUPT, "rows of 33 elements"},
    {"row of no K block", make_tensor_row_not_superblocks, ERR_CORRUPT, "Q4_K blocks of 256"},
    {"offset not aligned", make_tensor_offset_odd, ERR_CORRUPT, "offset 4 is not a multiple of 32"},
    {"offset past the end", make_tensor_offset_past, ERR_CORRUPT, "32 bytes at 1024"},
    {"offset near 2^64", make_tensor_offset_max, ERR_CORRUPT, "32 bytes at 184467440737095515"},
    {"size past the end", make_tensor_size_past, ERR_CORRUPT, "4000 bytes at 0"},
    {"tensor twice", make_tensor_twice, ERR_CORRUPT, "tensor 'bad' is there twice"},
    {"tensors overlap", make_tensor_overlap, ERR_CORRUPT, "'bad' and 'other' share bytes"},
    {"tensors in one place", make_tensor_same_place, ERR_CORRUPT, "share bytes"},
};

static void test_refuses_bad_structure(void **state)
{
    (void)state;
    size_t failed = 0;
    for (size_t i = 0; i < sizeof bad_files / sizeof bad_files[0]; i++) {
        const struct bad_file *bad = &bad_files[i];
        struct gguf_build b;
        struct buf file;
        struct gguf *g = NULL;
        struct errbuf eb = {{0}};
        gguf_build_init(&b);
        bad->make(&b);
        gguf_build_finish(&b, &file);
        /* On the heap with its exact size, so that a read past the end is seen. */
        uint8_t *exact = malloc(file.size);
        memcpy(exact, file.data, file.size);
        enum err e = gguf_open_memory(&g, exact, file.size, &eb);
        if (e != bad->code || strstr(eb.text, bad->says) == NULL || g != NULL) {
            print_error("%s: %s '%s', expected %s '%s'\n", bad->what, err_name(e), eb.text,
                        err_name(bad->code), bad->says);
            failed++;
        }
        gguf_close(g);
        free(exact);
        buf_fini(&file);
        gguf_build_fini(&b);
    }
    assert_int_equal(failed, 0);
}

/* --- files cut short and files with flipped bits --- */

/* Everything that reads a file, as far as it gets. */
static bool read_all(const uint8_t *bytes, size_t size)
{
    struct gguf *g = NULL;
    struct tokenizer *t = NULL;
    struct model_hparams h;
    struct tokens ids = {0};
    struct errbuf eb = {{0}};
    enum err e = gguf_open_memory(&g, bytes, size, &eb);
    assert_true(e == ERR_OK || eb.text[0] != 0);
    if (e != ERR_OK)
        return false;
    bool whole = model_hparams_read(&h, g, &eb) == ERR_OK;
    if (tokenizer_open(&t, g, &eb) == ERR_OK) {
        static const char text[] = "hello <|im_end|> xxxx  hello\n";
        enum err encoded =
            tokenizer_encode(t, text, sizeof text - 1, TOKENIZER_SPECIAL_PARSE, true, &ids, &eb);
        assert_true(encoded == ERR_OK || encoded == ERR_INVALID);
    } else {
        whole = false;
    }
    tokens_fini(&ids);
    tokenizer_close(t);
    gguf_close(g);
    return whole;
}

static void test_every_truncation_is_refused(void **state)
{
    (void)state;
    struct gguf_build b;
    struct buf file;
    gguf_build_init(&b);
    gguf_build_model(&b, QUANT_TYPE_Q8_0);
    gguf_build_finish(&b, &file);
    assert_true(read_all(file.data, file.size));
    for (size_t size = 0; size < file.size; size++) {
        struct gguf *g = NULL;
        struct errbuf eb = {{0}};
        uint8_t *exact = malloc(size > 0 ? size : 1);
        memcpy(exact, file.data, size);
        enum err e = gguf_open_memory(&g, exact, size, &eb);
        assert_int_equal(e, ERR_CORRUPT);
        assert_true(strstr(eb.text, "byte") != NULL);
        free(exact);
        /* The data section is one piece: a few places there are as good as all. */
        if (size > b.keys.size + b.tensors.size + 64 && size + 200 < file.size)
            size += 97;
    }
    buf_fini(&file);
    gguf_build_fini(&b);
}

static uint64_t splitmix(uint64_t *x)
{
    uint64_t z = (*x += 0x9e3779b97f4a7c15ull);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

static void test_flipped_bits_never_harm(void **state)
{
    (void)state;
    struct gguf_build b;
    struct buf file;
    uint64_t seed = 1;
    size_t refused = 0;
    gguf_build_init(&b);
    gguf_build_model(&b, QUANT_TYPE_Q8_0);
    gguf_build_finish(&b, &file);
    size_t header = 24 + b.keys.size + b.tensors.size;
    uint8_t *copy = malloc(file.size);
    for (int round = 0; round < 4000; round++) {
        memcpy(copy, file.data, file.size);
        int flips = 1 + (int)(splitmix(&seed) % 3);
        for (int i = 0; i < flips; i++) {
            uint64_t r = splitmix(&seed);
            copy[r % header] ^= (uint8_t)(1u << (r >> 32) % 8);
        }
        refused += read_all(copy, file.size) ? 0 : 1;
    }
    /* Most flips hit a length, a name or a text; those that only change a number or a letter of a
     * token may pass. */
    assert_true(refused > 1000 && refused < 4000);
    free(copy);
    buf_fini(&file);
    gguf_build_fini(&b);
}

static void test_quant_types(void **state)
{
    (void)state;
    for (uint32_t id = 0; id < 100; id++) {
        const struct quant_type_info *info = quant_type_info(id);
        if (info == NULL) {
            assert_true(id >= 43);
            continue;
        }
        assert_non_null(info->name);
        assert_true((info->block_items == 0) == (info->block_bytes == 0));
        assert_true(!info->supported || info->block_items > 0);
    }
    assert_null(quant_type_info(UINT32_MAX));
    assert_int_equal(quant_type_info(QUANT_TYPE_Q4_1)->block_bytes, 20);
    assert_int_equal(quant_type_info(QUANT_TYPE_Q6_K)->block_bytes, 210);
}

static void expect_type_refused(uint32_t id, const char *says)
{
    struct gguf_build b;
    struct buf file;
    struct gguf *g = NULL;
    struct errbuf eb = {{0}};
    gguf_build_init(&b);
    gguf_build_tensor_entry(&b, "bad", 2, (const uint64_t[]){256, 1}, id, 0);
    gguf_build_finish(&b, &file);
    enum err e = gguf_open_memory(&g, file.data, file.size, &eb);
    if (e != ERR_UNSUPPORTED || strstr(eb.text, says) == NULL)
        fail_msg("type %u: %s '%s', not '%s'", id, err_name(e), eb.text, says);
    buf_fini(&file);
    gguf_build_fini(&b);
}

/* Whoever has such a file is told what it is, be it retired, known by name alone, or no type at
 * all. Names by id, as GGUF's list has them; "" where this build computes with the type. */
static void test_types_without_kernels_are_named(void **state)
{
    (void)state;
    static const char *const names[] = {
        "",      "",           "",           "",           "Q4_2",     "Q4_3",     "",
        "",      "",           "Q8_1",       "",           "",         "",         "",
        "",      "Q8_K",       "IQ2_XXS",    "IQ2_XS",     "IQ3_XXS",  "IQ1_S",    "",
        "IQ3_S", "IQ2_S",      "",           "I8",         "I16",      "I32",      "I64",
        "F64",   "IQ1_M",      "",           "Q4_0_4_4",   "Q4_0_4_8", "Q4_0_8_8", "TQ1_0",
        "TQ2_0", "IQ4_NL_4_4", "IQ4_NL_4_8", "IQ4_NL_8_8", "",         "NVFP4",    "Q1_0",
        "Q2_0",
    };
    static const uint32_t retired[] = {4, 5, 31, 32, 33, 36, 37, 38};
    static const uint32_t unknown[] = {43, 63, 64, 100, 1000, UINT32_MAX};
    for (uint32_t id = 0; id < sizeof names / sizeof names[0]; id++) {
        const struct quant_type_info *info = quant_type_info(id);
        assert_non_null(info);
        assert_int_equal(info->supported, names[id][0] == 0);
        if (!info->supported)
            assert_string_equal(info->name, names[id]);
    }
    for (size_t i = 0; i < sizeof retired / sizeof retired[0]; i++) {
        char says[80];
        (void)snprintf(says, sizeof says, "'bad', byte 55: type %u (%s) was retired", retired[i],
                       names[retired[i]]);
        expect_type_refused(retired[i], says);
    }
    for (size_t i = 0; i < sizeof unknown / sizeof unknown[0]; i++) {
        char says[80];
        (void)snprintf(says, sizeof says, "'bad', byte 55: type %u is not known", unknown[i]);
        expect_type_refused(unknown[i], says);
    }
}

static void test_prints_strings_for_messages(void **state)
{
    (void)state;
    char text[16];
    gguf_string_print((struct gguf_string){"plain", 5}, text, sizeof text);
    assert_string_equal(text, "plain");
    gguf_string_print((struct gguf_string){"a\0\n\x1b", 4}, text, sizeof text);
    assert_string_equal(text, "a\\x00\\x0a...");
    gguf_string_print((struct gguf_string){"0123456789abcdef", 16}, text, sizeof text);
    assert_string_equal(text, "0123456789ab...");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reads_keys_and_tensors),
        cmocka_unit_test(test_reads_version_2_and_other_alignments),
        cmocka_unit_test(test_opens_files),
        cmocka_unit_test(test_refuses_bad_structure),
        cmocka_unit_test(test_every_truncation_is_refused),
        cmocka_unit_test(test_flipped_bits_never_harm),
        cmocka_unit_test(test_quant_types),
        cmocka_unit_test(test_types_without_kernels_are_named),
        cmocka_unit_test(test_prints_strings_for_messages),
    };
    return cmocka_run_group_tests_name("gguf", tests, NULL, NULL);
}
