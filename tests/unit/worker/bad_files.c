#include "tests/unit/worker/bad_files.h"

#include "common/check.h"
#include "tests/unit/model/gguf_build.h"

#include <math.h>
#include <string.h>

/* --- the table --- */

#define MAX64         UINT64_MAX
#define NAN_64        0x7e00u     /* binary16 */
#define INF_16        0x7c00u     /* binary16 */
#define NAN_32        0x7fc00000u /* binary32 */
#define INF_32        0x7f800000u
#define KEY_VALUE     4u  /* behind the name: the type */
#define ARRAY_TYPE    4u  /* behind the name: the type */
#define ARRAY_COUNT   8u  /* ... and the elements' type */
#define ARRAY_FIRST   16u /* ... and their count */
#define TENSOR_DIM    4u  /* behind the name: how many there are */
#define MATRIX_TYPE   20u /* behind two dimensions */
#define MATRIX_OFFSET 24u
#define VECTOR_OFFSET 16u

#define FILE_AT(place, bytes, value)                                                               \
    .change = BAD_CHANGE_FILE, .at = (place), .size = (bytes), .bits = (value)
#define SIZE_OF(key, value) .change = BAD_CHANGE_SIZE, .name = (key), .size = 8, .bits = (value)
#define BEHIND(key, place, bytes, value)                                                           \
    .change = BAD_CHANGE_BEHIND, .name = (key), .at = (place), .size = (bytes), .bits = (value)
#define DATA(tensor, place, bytes, value)                                                          \
    .change = BAD_CHANGE_DATA, .name = (tensor), .at = (place), .size = (bytes), .bits = (value)
#define CUT_FILE(place)         .change = BAD_CHANGE_CUT_FILE, .at = (place)
#define CUT_BEHIND(key, place)  .change = BAD_CHANGE_CUT_BEHIND, .name = (key), .at = (place)
#define CUT_DATA(tensor, place) .change = BAD_CHANGE_CUT_DATA, .name = (tensor), .at = (place)
#define DROP(key)               .change = BAD_CHANGE_DROP, .name = (key)
#define AS_U32(key, value)      .change = BAD_CHANGE_U32, .name = (key), .number = (value)
#define AS_I32(key, value)      .change = BAD_CHANGE_I32, .name = (key), .number = (value)
#define AS_F32(key, value)      .change = BAD_CHANGE_F32, .name = (key), .number = (double)(value)
#define AS_BOOL(key, value)     .change = BAD_CHANGE_BOOL, .name = (key), .number = (value)
#define AS_TEXT(key, value)     .change = BAD_CHANGE_STRING, .name = (key), .text = (value)
#define AS_TEXTS(key, n, ...)                                                                      \
    .change = BAD_CHANGE_STRINGS, .name = (key), .count = (n),                                     \
    .texts = (const char *const[(n) + 1])                                                          \
    {                                                                                              \
        __VA_ARGS__                                                                                \
    }
#define AS_IDS(key, n, ...)                                                                        \
    .change = BAD_CHANGE_I32S, .name = (key), .count = (n), .ids = (const int32_t[(n) + 1])        \
    {                                                                                              \
        __VA_ARGS__                                                                                \
    }
#define AS_FLOATS(key, n, ...)                                                                     \
    .change = BAD_CHANGE_F32S, .name = (key), .count = (n), .floats = (const float[(n) + 1])       \
    {                                                                                              \
        __VA_ARGS__                                                                                \
    }
#define AS_TENSOR(key, kind, cols, rows)                                                           \
    .change = BAD_CHANGE_TENSOR, .name = (key), .type = (kind), .dims = {(cols), (rows)}
#define TWICE_KEY(key)    .change = BAD_CHANGE_TWICE_KEY, .name = (key)
#define TWICE_TENSOR(key) .change = BAD_CHANGE_TWICE_TENSOR, .name = (key)
#define LOADING           .when = BAD_WHEN_LOADING
#define SPM               .spm = true

#define BPE        BUILD_BPE_TOKENS
#define TOKENS     "tokenizer.ggml.tokens"
#define TYPES      "tokenizer.ggml.token_type"
#define MERGES     "tokenizer.ggml.merges"
#define SCORES     "tokenizer.ggml.scores"
#define SPM_TOKENS 269

#define TEXT_64   "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define TEXT_256  TEXT_64 TEXT_64 TEXT_64 TEXT_64
#define TEXT_1025 TEXT_256 TEXT_256 TEXT_256 TEXT_256 "!"

/* clang-format off */
#define ROW(in, what_is_wrong, code, says, ...) {in, what_is_wrong, code, says, __VA_ARGS__},
#define HEADER(...) ROW(BAD_PART_HEADER, __VA_ARGS__)
#define KEYS(...) ROW(BAD_PART_KEYS, __VA_ARGS__)
#define TENSORS(...) ROW(BAD_PART_TENSORS, __VA_ARGS__)
#define IN_DATA(...) ROW(BAD_PART_DATA, __VA_ARGS__)
#define TOKENIZER(...) ROW(BAD_PART_TOKENIZER, __VA_ARGS__)

const struct bad_file bad_files[] = {
/* The first 24 bytes: magic, version, count of tensors, count of keys. */
HEADER("nothing in it", ERR_CORRUPT, "byte 0: the magic number needs 4 bytes", CUT_FILE(0))
HEADER("three bytes", ERR_CORRUPT, "the file ends after 3", CUT_FILE(3))
HEADER("the magic number only", ERR_CORRUPT, "byte 4: the version needs 4 bytes", CUT_FILE(4))
HEADER("half a version", ERR_CORRUPT, "byte 4: the version", CUT_FILE(6))
HEADER("half a count of tensors", ERR_CORRUPT, "byte 8: tensor count needs 8", CUT_FILE(12))
HEADER("half a count of keys", ERR_CORRUPT,
    "byte 8: tensor count 20 does not fit the file's 20 bytes", CUT_FILE(20))
HEADER("counts and nothing else", ERR_CORRUPT, "does not fit the file's 24 bytes", CUT_FILE(24))
HEADER("the format before GGUF", ERR_CORRUPT,
    "byte 0: this is not a GGUF file (it begins 47 47 4d 4c)", FILE_AT(0, 4, 0x4c4d4747u))
HEADER("a zip archive", ERR_CORRUPT, "it begins 50 4b 03 04", FILE_AT(0, 4, 0x04034b50u))
HEADER("a web page", ERR_CORRUPT, "it begins 3c 21 44 4f", FILE_AT(0, 4, 0x4f44213cu))
HEADER("zeros in front", ERR_CORRUPT, "it begins 00 00 00 00", FILE_AT(0, 4, 0))
HEADER("version 0", ERR_UNSUPPORTED, "byte 4: GGUF version 0; 2 and 3 are read", FILE_AT(4, 4, 0))
HEADER("version 1", ERR_UNSUPPORTED, "byte 4: GGUF version 1;", FILE_AT(4, 4, 1))
HEADER("version 4", ERR_UNSUPPORTED, "byte 4: GGUF version 4;", FILE_AT(4, 4, 4))
HEADER("big-endian", ERR_UNSUPPORTED, "GGUF version 3 in big-endian order",
    FILE_AT(4, 4, 0x03000000u))
HEADER("2^64 - 1 tensors", ERR_CORRUPT, "byte 8: tensor count 18446744073709551615 does not fit",
    FILE_AT(8, 8, MAX64))
HEADER("more tensors than bytes", ERR_CORRUPT, "byte 8: tensor count 16777216 does not fit",
    FILE_AT(8, 8, 1u << 24))
HEADER("a tensor more than there are", ERR_CORRUPT, "byte ", FILE_AT(8, 8, 21))
HEADER("a tensor less than there are", ERR_NOT_FOUND, "tensor 'output_norm.weight' is missing",
    FILE_AT(8, 8, 19))
HEADER("no tensors", ERR_NOT_FOUND, "tensor 'token_embd.weight' is missing", FILE_AT(8, 8, 0))
HEADER("2^64 - 1 keys", ERR_CORRUPT, "byte 16: key count 18446744073709551615 does not fit",
    FILE_AT(16, 8, MAX64))
HEADER("more keys than bytes", ERR_CORRUPT, "byte 16: key count 1099511627776",
    FILE_AT(16, 8, 1ull << 40))
HEADER("a key more than there are", ERR_CORRUPT, "tensor name needs", FILE_AT(16, 8, 17))
HEADER("a key less than there are", ERR_CORRUPT, "tensor 'tokenizer.ggml.eos_token_id'",
    FILE_AT(16, 8, 15))
HEADER("no keys", ERR_CORRUPT, "tensor 'general.architecture', byte 52: 8 dimensions",
    FILE_AT(16, 8, 0))

/* How a key is written: the length of its name, the name, the type, the value. */
KEYS("a key of 2^64 - 1 bytes", ERR_CORRUPT, "key needs 18446744073709551615 bytes",
    SIZE_OF("llama.block_count", MAX64))
KEYS("a key of 2^63 bytes", ERR_CORRUPT, "key needs 9223372036854775808 bytes",
    SIZE_OF("llama.block_count", 1ull << 63))
KEYS("a key of 65536 bytes", ERR_CORRUPT, "key of 65536 bytes", SIZE_OF("llama.block_count", 65536))
KEYS("a key of no bytes", ERR_CORRUPT, "key of 0 bytes; 1 to 65535 are allowed",
    SIZE_OF("llama.block_count", 0))
KEYS("a key one byte longer", ERR_CORRUPT, "key holds the byte 0x04",
    SIZE_OF("llama.block_count", 18))
KEYS("a NUL in a key", ERR_CORRUPT, "key holds the byte 0x00; names are visible ASCII",
    BEHIND("llama.block_count", MAX64, 1, 0))
KEYS("a line feed in a key", ERR_CORRUPT, "key holds the byte 0x0a",
    BEHIND("llama.block_count", MAX64, 1, '\n'))
KEYS("a letter beyond ASCII in a key", ERR_CORRUPT, "key holds the byte 0xe9",
    BEHIND("llama.block_count", MAX64, 1, 0xe9))
KEYS("a key twice", ERR_CORRUPT, "key 'llama.block_count' is there twice",
    TWICE_KEY("llama.block_count"))
KEYS("value type 13", ERR_CORRUPT, "key 'llama.block_count': byte",
    BEHIND("llama.block_count", 0, 4, 13))
KEYS("value type 2^32 - 1", ERR_CORRUPT, "value type 4294967295 is not one of 0 to 12",
    BEHIND("llama.block_count", 0, 4, UINT32_MAX))
KEYS("a string of 2^64 - 1 bytes", ERR_CORRUPT, "key 'general.name': byte",
    BEHIND("general.name", KEY_VALUE, 8, MAX64))
KEYS("a string of 2^63 bytes", ERR_CORRUPT, "string needs 9223372036854775808 bytes",
    BEHIND("general.name", KEY_VALUE, 8, 1ull << 63))
KEYS("a string past the end", ERR_CORRUPT, "string needs 16777216 bytes",
    BEHIND("general.name", KEY_VALUE, 8, 1u << 24))
KEYS("a bool of 2", ERR_CORRUPT, "a bool is 0 or 1, not 2",
    AS_BOOL("tokenizer.ggml.add_bos_token", 2))
KEYS("an array of arrays", ERR_UNSUPPORTED, "key 'tokenizer.ggml.tokens': byte",
    BEHIND(TOKENS, ARRAY_TYPE, 4, 9))
KEYS("an array of type 13", ERR_CORRUPT, "element type 13 is not one of 0 to 12",
    BEHIND(TOKENS, ARRAY_TYPE, 4, 13))
KEYS("an array of 2^64 - 1 elements", ERR_CORRUPT, "18446744073709551615 elements do not fit",
    BEHIND(TOKENS, ARRAY_COUNT, 8, MAX64))
KEYS("an array whose bytes wrap 2^64", ERR_CORRUPT, "key 'tokenizer.ggml.token_type': byte",
    BEHIND(TYPES, ARRAY_COUNT, 8, (1ull << 62) + 1))
KEYS("a string of 2^64 - 1 bytes in an array", ERR_CORRUPT,
    "key 'tokenizer.ggml.tokens': element 0: byte", BEHIND(TOKENS, ARRAY_FIRST, 8, MAX64))
KEYS("the end within the length of a name", ERR_CORRUPT,
    "key needs 8 bytes, but the file ends after 4",
    CUT_BEHIND("tokenizer.ggml.bos_token_id", MAX64 - 30))
KEYS("the end within a name", ERR_CORRUPT, "key needs 27 bytes, but the file ends after 22",
    CUT_BEHIND("tokenizer.ggml.bos_token_id", MAX64 - 4))
KEYS("the end before a type", ERR_CORRUPT, "key 'tokenizer.ggml.bos_token_id': byte",
    CUT_BEHIND("tokenizer.ggml.bos_token_id", 0))
KEYS("the end within a value", ERR_CORRUPT, "value needs 4 bytes, but the file ends after 2",
    CUT_BEHIND("tokenizer.ggml.bos_token_id", 6))
KEYS("the end within an array", ERR_CORRUPT, "key 'tokenizer.ggml.token_type': byte",
    CUT_BEHIND(TYPES, 100))
KEYS("the end within an array of strings", ERR_CORRUPT,
    "key 'tokenizer.ggml.merges': element 5: byte", CUT_BEHIND(MERGES, ARRAY_FIRST + 70))
KEYS("an alignment of 0", ERR_CORRUPT, "key 'general.alignment': 0 is not a power of two",
    AS_U32("general.alignment", 0))
KEYS("an alignment of 4", ERR_CORRUPT, "key 'general.alignment': 4 is not a power of two between 8",
    AS_U32("general.alignment", 4))
KEYS("an alignment of 48", ERR_CORRUPT, "key 'general.alignment': 48 is not",
    AS_U32("general.alignment", 48))
KEYS("an alignment of 2^31", ERR_CORRUPT, "key 'general.alignment': 2147483648 is not",
    AS_U32("general.alignment", 0x1p31))
KEYS("an alignment below 0", ERR_INVALID, "key 'general.alignment': a value of type i32",
    AS_I32("general.alignment", -32))
KEYS("an alignment in letters", ERR_INVALID, "key 'general.alignment' is string, not an integer",
    AS_TEXT("general.alignment", "32"))
KEYS("an alignment the data does not have", ERR_CORRUPT, "is not a multiple of 4096",
    AS_U32("general.alignment", 4096))

/* What the keys say of the model. */
KEYS("no architecture", ERR_NOT_FOUND, "key 'general.architecture' (a string) is missing",
    DROP("general.architecture"))
KEYS("an architecture this build lacks", ERR_UNSUPPORTED,
    "key 'general.architecture': 'mamba' is not one of llama",
    AS_TEXT("general.architecture", "mamba"))
KEYS("an architecture of no letters", ERR_UNSUPPORTED,
    "key 'general.architecture': '' is not one of", AS_TEXT("general.architecture", ""))
KEYS("an architecture that is a number", ERR_INVALID,
    "key 'general.architecture' is u32, not a string", AS_U32("general.architecture", 1))
KEYS("another architecture's keys", ERR_NOT_FOUND,
    "key 'qwen3.block_count' (an integer) is missing", AS_TEXT("general.architecture", "qwen3"))
KEYS("a name that is a number", ERR_INVALID, "key 'general.name' is u32, not a string",
    AS_U32("general.name", 1))
KEYS("one of two parts, but not which", ERR_NOT_FOUND, "key 'split.no' (an integer) is missing",
    AS_U32("split.count", 2))
KEYS("parts in letters", ERR_INVALID, "key 'split.count' is string", AS_TEXT("split.count", "two"))
KEYS("100000 parts", ERR_TOO_LARGE, "key 'split.count': 100000 parts are over the bound of 512",
    AS_U32("split.count", 100000))
KEYS("no layers told", ERR_NOT_FOUND, "key 'llama.block_count' (an integer) is missing",
    DROP("llama.block_count"))
KEYS("0 layers", ERR_INVALID, "key 'llama.block_count' is 0", AS_U32("llama.block_count", 0))
KEYS("a layer more than there are", ERR_NOT_FOUND, "tensor 'blk.2.attn_norm.weight' is missing",
    AS_U32("llama.block_count", 3))
KEYS("a layer less than there are", ERR_UNSUPPORTED,
    "tensor 'blk.1.attn_norm.weight' has no place in a llama model of 1 layers",
    AS_U32("llama.block_count", 1))
KEYS("2^32 - 1 layers", ERR_TOO_LARGE,
    "key 'llama.block_count': 4294967295 is over the bound of 1024",
    AS_U32("llama.block_count", UINT32_MAX))
KEYS("layers in letters", ERR_INVALID, "key 'llama.block_count' is string, not an integer",
    AS_TEXT("llama.block_count", "2"))
KEYS("layers below 0", ERR_INVALID,
    "key 'llama.block_count': a value of type i32 that is not in 0 to",
    AS_I32("llama.block_count", -2))
KEYS("2.0 layers", ERR_INVALID, "key 'llama.block_count' is f32, not an integer",
    AS_F32("llama.block_count", 2))
KEYS("no context", ERR_NOT_FOUND, "key 'llama.context_length'", DROP("llama.context_length"))
KEYS("a context of 0", ERR_INVALID, "key 'llama.context_length' is 0",
    AS_U32("llama.context_length", 0))
KEYS("a context of 1", ERR_INVALID, "key 'llama.context_length'", AS_U32("llama.context_length", 1))
KEYS("a context of 2^32 - 1", ERR_TOO_LARGE, "key 'llama.context_length': 4294967295",
    AS_U32("llama.context_length", UINT32_MAX))
KEYS("no width", ERR_NOT_FOUND, "key 'llama.embedding_length'", DROP("llama.embedding_length"))
KEYS("a width of 0", ERR_INVALID, "key 'llama.embedding_length' is 0",
    AS_U32("llama.embedding_length", 0))
KEYS("a width the tensors lack", ERR_INVALID, "tensor 'token_embd.weight' is 32 x 268",
    AS_U32("llama.embedding_length", 64))
KEYS("a width of 2^31", ERR_TOO_LARGE, "key 'llama.embedding_length': 2147483648",
    AS_U32("llama.embedding_length", 0x1p31))
KEYS("no feed-forward width", ERR_NOT_FOUND, "key 'llama.feed_forward_length'",
    DROP("llama.feed_forward_length"))
KEYS("a feed-forward width the tensors lack", ERR_INVALID,
    "tensor 'blk.0.ffn_gate.weight' is 32 x 64", AS_U32("llama.feed_forward_length", 96))
KEYS("feed-forward widths of three layers", ERR_INVALID,
    "key 'llama.feed_forward_length' has 3 numbers for 2 layers",
    AS_IDS("llama.feed_forward_length", 3, 64, 64, 64))
KEYS("a feed-forward width below 0", ERR_INVALID, "layer 1: key 'llama.feed_forward_length' is -64",
    AS_IDS("llama.feed_forward_length", 2, 64, -64))
KEYS("0 heads", ERR_INVALID, "key 'llama.attention.head_count' is 0",
    AS_U32("llama.attention.head_count", 0))
KEYS("heads that do not divide the width", ERR_INVALID,
    "key 'llama.attention.head_count': 6 heads do not divide 32",
    AS_U32("llama.attention.head_count", 6))
KEYS("heads of one element", ERR_INVALID, "llama.attention.key_length",
    AS_U32("llama.attention.head_count", 32))
KEYS("a million heads", ERR_TOO_LARGE, "key 'llama.attention.head_count': 1000000",
    AS_U32("llama.attention.head_count", 1e6))
KEYS("0 key/value heads", ERR_INVALID, "key 'llama.attention.head_count_kv' is 0",
    AS_U32("llama.attention.head_count_kv", 0))
KEYS("key/value heads that do not divide the heads", ERR_INVALID,
    "key 'llama.attention.head_count_kv': 3 key/value heads do not divide 4",
    AS_U32("llama.attention.head_count_kv", 3))
KEYS("a layer of 0 key/value heads", ERR_INVALID,
    "layer 1: key 'llama.attention.head_count_kv' is 0",
    AS_IDS("llama.attention.head_count_kv", 2, 2, 0))
KEYS("heads of an odd size", ERR_INVALID, "llama.attention.key_length",
    AS_U32("llama.attention.key_length", 7))
KEYS("values of another size than keys", ERR_UNSUPPORTED,
    "key 'llama.attention.value_length': values of 4 elements",
    AS_U32("llama.attention.value_length", 4))
KEYS("a rotation of an odd size", ERR_INVALID,
    "key 'llama.rope.dimension_count': 7 is not an even number",
    AS_U32("llama.rope.dimension_count", 7))
KEYS("a rotation past the head", ERR_INVALID, "key 'llama.rope.dimension_count': 10 is not",
    AS_U32("llama.rope.dimension_count", 10))
KEYS("no epsilon", ERR_NOT_FOUND, "key 'llama.attention.layer_norm_rms_epsilon'",
    DROP("llama.attention.layer_norm_rms_epsilon"))
KEYS("an epsilon of 0", ERR_INVALID, "layer_norm_rms_epsilon': 0 is not a finite number above 0",
    AS_F32("llama.attention.layer_norm_rms_epsilon", 0))
KEYS("an epsilon that is NaN", ERR_INVALID, "layer_norm_rms_epsilon': nan",
    AS_F32("llama.attention.layer_norm_rms_epsilon", NAN))
KEYS("an epsilon of infinity", ERR_INVALID, "layer_norm_rms_epsilon': inf",
    AS_F32("llama.attention.layer_norm_rms_epsilon", INFINITY))
KEYS("a rope base of 0", ERR_INVALID, "key 'llama.rope.freq_base': 0",
    AS_F32("llama.rope.freq_base", 0))
KEYS("a rope base that is NaN", ERR_INVALID, "key 'llama.rope.freq_base': nan",
    AS_F32("llama.rope.freq_base", NAN))
KEYS("a rope scaling this build lacks", ERR_UNSUPPORTED,
    "key 'llama.rope.scaling.type': 'longrope' is not one of",
    AS_TEXT("llama.rope.scaling.type", "longrope"))
KEYS("a rope factor below 1", ERR_INVALID, "key 'llama.rope.scaling.factor': 0.5 is not in 1 to",
    AS_F32("llama.rope.scaling.factor", 0.5))
KEYS("a key that changes the model in a way unknown", ERR_UNSUPPORTED,
    "key 'llama.logit_scale' is not one this build knows", AS_F32("llama.logit_scale", 2))
KEYS("experts", ERR_UNSUPPORTED, "key 'llama.expert_count' is 8; this build computes only with 0",
    AS_U32("llama.expert_count", 8))
KEYS("attention to what comes later", ERR_UNSUPPORTED, "key 'llama.attention.causal' is false",
    AS_BOOL("llama.attention.causal", 0))
KEYS("a window where the model has none", ERR_UNSUPPORTED,
    "key 'llama.attention.sliding_window' is 64", AS_U32("llama.attention.sliding_window", 64))
KEYS("another vocabulary than the tensor's", ERR_INVALID,
    "key 'llama.vocab_size' is 300, but tensor 'token_embd.weight' has 268",
    AS_U32("llama.vocab_size", 300))

/* An entry of the table of tensors: name, dimensions, type, offset. */
TENSORS("a name of 2^64 - 1 bytes", ERR_CORRUPT, "tensor name needs 18446744073709551615 bytes",
    SIZE_OF("blk.0.attn_q.weight", MAX64))
TENSORS("a name of no bytes", ERR_CORRUPT, "tensor name of 0 bytes; 1 to 64 are allowed",
    SIZE_OF("blk.0.attn_q.weight", 0))
TENSORS("a name of 65 bytes", ERR_CORRUPT, "tensor name of 65 bytes",
    SIZE_OF("blk.0.attn_q.weight", 65))
TENSORS("a NUL in a name", ERR_CORRUPT, "tensor name holds the byte 0x00",
    BEHIND("blk.0.attn_q.weight", MAX64, 1, 0))
TENSORS("an escape in a name", ERR_CORRUPT, "tensor name holds the byte 0x1b",
    BEHIND("blk.0.attn_q.weight", MAX64, 1, 0x1b))
TENSORS("a tensor twice", ERR_CORRUPT, "tensor 'blk.0.attn_q.weight' is there twice",
    TWICE_TENSOR("blk.0.attn_q.weight"))
TENSORS("no dimensions", ERR_CORRUPT, "tensor 'blk.0.attn_q.weight', byte",
    BEHIND("blk.0.attn_q.weight", 0, 4, 0))
TENSORS("five dimensions", ERR_CORRUPT, "5 dimensions; 1 to 4 are allowed",
    BEHIND("blk.0.attn_q.weight", 0, 4, 5))
TENSORS("2^32 - 1 dimensions", ERR_CORRUPT, "4294967295 dimensions",
    BEHIND("blk.0.attn_q.weight", 0, 4, UINT32_MAX))
TENSORS("a dimension of 0", ERR_CORRUPT, "dimension 1 is 0",
    BEHIND("blk.0.attn_q.weight", TENSOR_DIM + 8, 8, 0))
TENSORS("a dimension of 2^64 - 1", ERR_CORRUPT, "its dimensions multiply past 2^59",
    BEHIND("blk.0.attn_q.weight", TENSOR_DIM, 8, MAX64))
TENSORS("dimensions whose product wraps 2^64", ERR_CORRUPT, "its dimensions multiply past 2^59",
    BEHIND("blk.0.attn_q.weight", TENSOR_DIM, 8, 1ull << 59))
TENSORS("a type that never was", ERR_UNSUPPORTED, "type 1000 is not known",
    BEHIND("blk.0.attn_q.weight", MATRIX_TYPE, 4, 1000))
TENSORS("a type that was retired", ERR_UNSUPPORTED, "type 4 (Q4_2) was retired",
    BEHIND("blk.0.attn_q.weight", MATRIX_TYPE, 4, 4))
TENSORS("a type that was repacked", ERR_UNSUPPORTED, "type 31 (Q4_0_4_4) was retired",
    BEHIND("blk.0.attn_q.weight", MATRIX_TYPE, 4, 31))
TENSORS("a type without kernels", ERR_UNSUPPORTED,
    "tensor 'blk.0.attn_q.weight' has type I8 (id 24), which this build has no kernels for",
    AS_TENSOR("blk.0.attn_q.weight", 24, 32, 32))
TENSORS("rows of half a block", ERR_CORRUPT, "rows of 32 elements are not whole Q4_K blocks of 256",
    BEHIND("blk.0.attn_q.weight", MATRIX_TYPE, 4, QUANT_TYPE_Q4_K))
TENSORS("an offset between two multiples", ERR_CORRUPT,
    "tensor 'blk.0.attn_q.weight': offset 4 is not a multiple of 32",
    BEHIND("blk.0.attn_q.weight", MATRIX_OFFSET, 8, 4))
TENSORS("an offset past the end", ERR_CORRUPT,
    "tensor 'blk.0.attn_q.weight': 4096 bytes at 16777216",
    BEHIND("blk.0.attn_q.weight", MATRIX_OFFSET, 8, 1u << 24))
TENSORS("an offset near 2^64", ERR_CORRUPT, "4096 bytes at 18446744073709551584",
    BEHIND("blk.0.attn_q.weight", MATRIX_OFFSET, 8, MAX64 & ~31ull))
TENSORS("two tensors on the same bytes", ERR_CORRUPT,
    "tensors 'token_embd.weight' and 'blk.0.attn_q.weight' share bytes",
    BEHIND("blk.0.attn_q.weight", MATRIX_OFFSET, 8, 64))
TENSORS("two tensors in one place", ERR_CORRUPT, "share bytes of the data section",
    BEHIND("blk.1.attn_norm.weight", VECTOR_OFFSET, 8, 0))
TENSORS("the end within a name", ERR_CORRUPT, "tensor name needs 19 bytes",
    CUT_BEHIND("blk.0.attn_q.weight", MAX64))
TENSORS("the end within a dimension", ERR_CORRUPT, "tensor 'blk.0.attn_q.weight': byte",
    CUT_BEHIND("blk.0.attn_q.weight", 6))
TENSORS("the end within an offset", ERR_CORRUPT, "offset needs 8 bytes, but the file ends after 1",
    CUT_BEHIND("output_norm.weight", VECTOR_OFFSET + 1))
TENSORS("the end behind the table", ERR_CORRUPT, "(is the file cut short?)",
    CUT_BEHIND("output_norm.weight", VECTOR_OFFSET + 8))
TENSORS("no embedding", ERR_NOT_FOUND, "tensor 'token_embd.weight' is missing",
    DROP("token_embd.weight"))
TENSORS("a row of the embedding too few", ERR_INVALID,
    "key 'tokenizer.ggml.tokens' has 268 tokens, but tensor 'token_embd.weight' has 267 rows",
    AS_TENSOR("token_embd.weight", QUANT_TYPE_F32, 32, 267))
TENSORS("an embedding that is a vector", ERR_INVALID, "tensor 'token_embd.weight' has 1 rows",
    AS_TENSOR("token_embd.weight", QUANT_TYPE_F32, 32, 0))
TENSORS("no last norm", ERR_NOT_FOUND, "tensor 'output_norm.weight' is missing",
    DROP("output_norm.weight"))
TENSORS("a norm that is a matrix", ERR_INVALID, "tensor 'output_norm.weight' is 32 x 2",
    AS_TENSOR("output_norm.weight", QUANT_TYPE_F32, 32, 2))
TENSORS("a norm in F16", ERR_UNSUPPORTED,
    "tensor 'output_norm.weight' has type F16 (id 1); a vector of this kind is F32",
    AS_TENSOR("output_norm.weight", QUANT_TYPE_F16, 32, 0))
TENSORS("a layer without queries", ERR_NOT_FOUND, "tensor 'blk.1.attn_q.weight' is missing",
    DROP("blk.1.attn_q.weight"))
TENSORS("a matrix on its side", ERR_INVALID,
    "tensor 'blk.1.ffn_down.weight' is 32 x 64 x 1 x 1, but the model's sizes make it 64 x 32",
    AS_TENSOR("blk.1.ffn_down.weight", QUANT_TYPE_F32, 32, 64))
TENSORS("a head of another vocabulary", ERR_INVALID, "tensor 'output.weight' is 32 x 100",
    AS_TENSOR("output.weight", QUANT_TYPE_F32, 32, 100))
TENSORS("a bias of the wrong size", ERR_INVALID,
    "tensor 'blk.0.attn_k.bias' is 32 x 1 x 1 x 1, but the model's sizes make it 16 x 1",
    AS_TENSOR("blk.0.attn_k.bias", QUANT_TYPE_F32, 32, 0))
TENSORS("a tensor the architecture has no place for", ERR_UNSUPPORTED,
    "tensor 'blk.0.attn_q_norm.weight' has no place",
    AS_TENSOR("blk.0.attn_q_norm.weight", QUANT_TYPE_F32, 8, 0))
TENSORS("a layer past the last", ERR_UNSUPPORTED, "tensor 'blk.2.attn_q.weight' has no place",
    AS_TENSOR("blk.2.attn_q.weight", QUANT_TYPE_F32, 32, 32))
TENSORS("a layer with two digits for one", ERR_UNSUPPORTED,
    "tensor 'blk.00.attn_q.weight' has no place",
    AS_TENSOR("blk.00.attn_q.weight", QUANT_TYPE_F32, 32, 32))
TENSORS("an adapter", ERR_UNSUPPORTED, "tensor 'blk.0.attn_q.weight.lora_a' has no place",
    AS_TENSOR("blk.0.attn_q.weight.lora_a", QUANT_TYPE_F32, 32, 8))

/* The tensors' own bytes. What no header shows is found out while they are read. */
IN_DATA("a file without its last byte", ERR_CORRUPT, "tensor 'output_norm.weight': 128 bytes at",
    CUT_DATA("output_norm.weight", 127))
IN_DATA("a file without its last tensor", ERR_CORRUPT, "tensor 'output_norm.weight': 128 bytes at",
    CUT_DATA("output_norm.weight", 0))
IN_DATA("half a file", ERR_CORRUPT, "(is the file cut short?)",
    CUT_DATA("blk.0.ffn_gate.weight", 1000))
IN_DATA("a file without data", ERR_CORRUPT, "tensor 'token_embd.weight': 34304 bytes at 0",
    CUT_DATA("token_embd.weight", 0))
IN_DATA("a norm with a NaN", ERR_INVALID, "tensor 'output_norm.weight': element 31 is nan",
    DATA("output_norm.weight", 124, 4, NAN_32))
IN_DATA("a norm with infinity", ERR_INVALID, "tensor 'blk.1.ffn_norm.weight': element 0 is inf",
    DATA("blk.1.ffn_norm.weight", 0, 4, INF_32))
IN_DATA("F32 with a NaN at the end", ERR_INVALID, "tensor 'token_embd.weight': row 267, byte",
    DATA("token_embd.weight", 34300, 4, NAN_32), LOADING)
IN_DATA("F32 with infinity in front", ERR_INVALID, "tensor 'blk.0.attn_q.weight': row 0, byte",
    DATA("blk.0.attn_q.weight", 0, 4, INF_32), LOADING)
IN_DATA("F16 with infinity", ERR_INVALID, "tensor 'blk.1.attn_v.weight': row 1, byte",
    DATA("blk.1.attn_v.weight", 64, 2, INF_16), LOADING, .matrices = QUANT_TYPE_F16)
IN_DATA("BF16 with a NaN", ERR_INVALID, "the element is no finite number",
    DATA("blk.0.ffn_up.weight", 4094, 2, 0x7fc0u), LOADING, .matrices = QUANT_TYPE_BF16)
IN_DATA("Q4_0 with a scale of infinity", ERR_INVALID, "tensor 'blk.0.ffn_down.weight': row 0, byte",
    DATA("blk.0.ffn_down.weight", 18, 2, INF_16), LOADING, .matrices = QUANT_TYPE_Q4_0)
IN_DATA("Q4_1 with a scale of infinity", ERR_INVALID,
    "the block has a scale that is no finite number", DATA("blk.0.attn_k.weight", 0, 2, INF_16),
    LOADING, .matrices = QUANT_TYPE_Q4_1)
IN_DATA("Q4_1 with a minimum that is NaN", ERR_INVALID,
    "tensor 'blk.0.attn_k.weight': row 15, byte", DATA("blk.0.attn_k.weight", 302, 2, NAN_64),
    LOADING, .matrices = QUANT_TYPE_Q4_1)
IN_DATA("Q5_0 with a scale that is NaN", ERR_INVALID,
    "tensor 'blk.0.attn_output.weight': row 3, byte",
    DATA("blk.0.attn_output.weight", 66, 2, NAN_64), LOADING, .matrices = QUANT_TYPE_Q5_0)
IN_DATA("Q5_1 with a minimum of infinity", ERR_INVALID, "tensor 'token_embd.weight': row 100, byte",
    DATA("token_embd.weight", 2402, 2, INF_16), LOADING, .matrices = QUANT_TYPE_Q5_1)
IN_DATA("Q8_0 with a scale that is NaN", ERR_INVALID,
    "tensor 'blk.1.ffn_gate.weight': row 63, byte", DATA("blk.1.ffn_gate.weight", 2142, 2, NAN_64),
    LOADING, .matrices = QUANT_TYPE_Q8_0)
IN_DATA("IQ4_NL with a scale of infinity", ERR_INVALID,
    "tensor 'blk.0.attn_q.weight': row 31, byte", DATA("blk.0.attn_q.weight", 558, 2, INF_16),
    LOADING, .matrices = QUANT_TYPE_IQ4_NL)
IN_DATA("MXFP4 with an exponent of 255", ERR_INVALID, "tensor 'blk.0.attn_q.weight': row 1, byte",
    DATA("blk.0.attn_q.weight", 17, 1, 255), LOADING, .matrices = QUANT_TYPE_MXFP4)

/* What the tokenizer is made of. */
TOKENIZER("no kind", ERR_NOT_FOUND, "key 'tokenizer.ggml.model' (a string) is missing",
    DROP("tokenizer.ggml.model"))
TOKENIZER("a kind this build lacks", ERR_UNSUPPORTED,
    "key 'tokenizer.ggml.model': 'bert' is not one of gpt2, llama",
    AS_TEXT("tokenizer.ggml.model", "bert"))
TOKENIZER("a kind that is a number", ERR_INVALID, "key 'tokenizer.ggml.model' is u32, not a string",
    AS_U32("tokenizer.ggml.model", 1))
TOKENIZER("no way to cut words", ERR_NOT_FOUND, "key 'tokenizer.ggml.pre' (a string) is missing",
    DROP("tokenizer.ggml.pre"))
TOKENIZER("a way to cut words this build lacks", ERR_UNSUPPORTED,
    "key 'tokenizer.ggml.pre': 'superbpe' is not one of", AS_TEXT("tokenizer.ggml.pre", "superbpe"))
TOKENIZER("a way to cut words in capitals", ERR_UNSUPPORTED,
    "key 'tokenizer.ggml.pre': 'LLAMA-BPE' is not", AS_TEXT("tokenizer.ggml.pre", "LLAMA-BPE"))
TOKENIZER("no tokens", ERR_NOT_FOUND, "key 'tokenizer.ggml.tokens'", DROP(TOKENS))
TOKENIZER("an empty list of tokens", ERR_INVALID, "key 'tokenizer.ggml.tokens' has 0 tokens",
    AS_TEXTS(TOKENS, 0, NULL))
TOKENIZER("three tokens", ERR_INVALID, "'tokenizer.ggml.tokens' has 3",
    AS_TEXTS(TOKENS, 3, "a", "b", "c"))
TOKENIZER("tokens that are numbers", ERR_INVALID, "key 'tokenizer.ggml.tokens' is an array of i32",
    AS_IDS(TOKENS, 3, 1, 2, 3))
TOKENIZER("tokens that are one text", ERR_INVALID, "key 'tokenizer.ggml.tokens' is string",
    AS_TEXT(TOKENS, "abc"))
TOKENIZER("a token of 1025 bytes", ERR_TOO_LARGE,
    "key 'tokenizer.ggml.tokens': token 1 has 1025 bytes, over the bound of 1024",
    AS_TEXTS(TOKENS, BPE, "a", TEXT_1025))
TOKENIZER("two tokens with one text", ERR_INVALID,
    "key 'tokenizer.ggml.tokens': tokens 33 and 34 are both '\"'",
    BEHIND(TOKENS, ARRAY_FIRST + 10 * 33 + 8, 1, '"'))
TOKENIZER("no types", ERR_NOT_FOUND, "key 'tokenizer.ggml.token_type'", DROP(TYPES))
TOKENIZER("types of three tokens", ERR_INVALID, "key 'tokenizer.ggml.token_type' has 3 elements",
    AS_IDS(TYPES, 3, 1, 1, 1))
TOKENIZER("types that are fractions", ERR_INVALID,
    "key 'tokenizer.ggml.token_type' is an array of f32", AS_FLOATS(TYPES, BPE, 1))
TOKENIZER("a type of 0", ERR_INVALID,
    "key 'tokenizer.ggml.token_type': element 2 is 0, not one of 1 to 6",
    BEHIND(TYPES, ARRAY_FIRST + 8, 4, 0))
TOKENIZER("a type of 7", ERR_INVALID, "key 'tokenizer.ggml.token_type': element 2 is 7",
    BEHIND(TYPES, ARRAY_FIRST + 8, 4, 7))
TOKENIZER("a type of -1", ERR_INVALID, "key 'tokenizer.ggml.token_type': element 267 is -1",
    BEHIND(TYPES, ARRAY_FIRST + 4 * 267, 4, UINT32_MAX))
TOKENIZER("a letter that says it is a byte", ERR_INVALID,
    "key 'tokenizer.ggml.token_type': element 5 says byte", BEHIND(TYPES, ARRAY_FIRST + 20, 4, 6))
TOKENIZER("no merges", ERR_NOT_FOUND, "key 'tokenizer.ggml.merges'", DROP(MERGES))
TOKENIZER("merges that are numbers", ERR_INVALID, "key 'tokenizer.ggml.merges' is an array of i32",
    AS_IDS(MERGES, 1, 1))
TOKENIZER("a merge of what is no token", ERR_INVALID,
    "key 'tokenizer.ggml.merges': element 1, 'zz e', begins with what is not a token",
    AS_TEXTS(MERGES, 2, "h e", "zz e"))
TOKENIZER("a merge with what is no token", ERR_INVALID,
    "element 0, 'h zz', ends with what is not a token", AS_TEXTS(MERGES, 1, "h zz"))
TOKENIZER("a merge into what is no token", ERR_INVALID,
    "element 0, 'h x', makes what is not a token", AS_TEXTS(MERGES, 1, "h x"))
TOKENIZER("a merge of one text", ERR_INVALID, "element 0, 'he', is not two texts and a space",
    AS_TEXTS(MERGES, 1, "he"))
TOKENIZER("a merge of nothing", ERR_INVALID, "element 0, '', is not two texts and a space",
    AS_TEXTS(MERGES, 1, ""))
TOKENIZER("a merge twice", ERR_INVALID,
    "key 'tokenizer.ggml.merges': elements 0 and 2 are the same",
    AS_TEXTS(MERGES, 3, "h e", "l l", "h e"))
TOKENIZER("a first token past the last", ERR_INVALID,
    "key 'tokenizer.ggml.bos_token_id' is 268, but there are 268 tokens",
    AS_U32("tokenizer.ggml.bos_token_id", 268))
TOKENIZER("a first token in letters", ERR_INVALID, "key 'tokenizer.ggml.bos_token_id' is string",
    AS_TEXT("tokenizer.ggml.bos_token_id", "<s>"))
TOKENIZER("a first token asked for and not named", ERR_INVALID,
    "key 'tokenizer.ggml.bos_token_id' is missing, but prompts are to begin",
    DROP("tokenizer.ggml.bos_token_id"))
TOKENIZER("an end of 2^32 - 1", ERR_INVALID, "key 'tokenizer.ggml.eos_token_id' is 4294967295",
    AS_U32("tokenizer.ggml.eos_token_id", UINT32_MAX))
TOKENIZER("an end below 0", ERR_INVALID, "key 'tokenizer.ggml.eos_token_id': a value of type i32",
    AS_I32("tokenizer.ggml.eos_token_id", -1))
TOKENIZER("an end of a turn past the last", ERR_INVALID,
    "key 'tokenizer.ggml.eot_token_id' is 1000", AS_U32("tokenizer.ggml.eot_token_id", 1000))
TOKENIZER("an unknown token past the last", ERR_INVALID,
    "key 'tokenizer.ggml.unknown_token_id' is 1000",
    AS_U32("tokenizer.ggml.unknown_token_id", 1000))
TOKENIZER("a truth that is a number", ERR_INVALID,
    "key 'tokenizer.ggml.add_bos_token' is u32, not a bool",
    AS_U32("tokenizer.ggml.add_bos_token", 1))
TOKENIZER("a space prefix in letters", ERR_INVALID,
    "key 'tokenizer.ggml.add_space_prefix' is string",
    AS_TEXT("tokenizer.ggml.add_space_prefix", "no"))
TOKENIZER("no scores", ERR_NOT_FOUND, "key 'tokenizer.ggml.scores'", DROP(SCORES), SPM)
TOKENIZER("scores of three tokens", ERR_INVALID, "key 'tokenizer.ggml.scores' has 3 elements",
    AS_FLOATS(SCORES, 3, 0), SPM)
TOKENIZER("scores that are whole numbers", ERR_INVALID,
    "key 'tokenizer.ggml.scores' is an array of i32", AS_IDS(SCORES, SPM_TOKENS, 0), SPM)
TOKENIZER("a score that is NaN", ERR_INVALID, "key 'tokenizer.ggml.scores': element 260 is nan",
    BEHIND(SCORES, ARRAY_FIRST + 4 * 260, 4, NAN_32), SPM)
TOKENIZER("a score of infinity", ERR_INVALID, "key 'tokenizer.ggml.scores': element 0 is inf",
    BEHIND(SCORES, ARRAY_FIRST, 4, INF_32), SPM)
TOKENIZER("types of bytes on no bytes", ERR_INVALID,
    "key 'tokenizer.ggml.token_type': element 259 says byte",
    BEHIND(TYPES, ARRAY_FIRST + 4 * 259, 4, 6), SPM)
TOKENIZER("no token for a space", ERR_INVALID,
    "key 'tokenizer.ggml.tokens': there is no token '\\xe2\\x96\\x81'",
    BEHIND(TOKENS, ARRAY_FIRST + 36 + 256 * 14 + 8, 1, 'x'), SPM)
};
/* clang-format on */

const size_t bad_file_count = sizeof bad_files / sizeof bad_files[0];

/* --- the files --- */

/* Those that the row does not say are empty. */
static void put_strings(struct gguf_build *b, const struct bad_file *f)
{
    const char *texts[BPE];
    CHECK(f->count <= BPE);
    for (size_t i = 0; i < f->count; i++)
        texts[i] = f->texts[i] == NULL ? "" : f->texts[i];
    gguf_build_strings(b, f->name, texts, f->count);
}

static void put(struct gguf_build *b, const struct bad_file *f)
{
    switch (f->change) {
    case BAD_CHANGE_U32:
        gguf_build_u32(b, f->name, (uint32_t)f->number);
        break;
    case BAD_CHANGE_I32:
        gguf_build_i32(b, f->name, (int32_t)f->number);
        break;
    case BAD_CHANGE_F32:
        gguf_build_f32(b, f->name, (float)f->number);
        break;
    case BAD_CHANGE_BOOL:
        gguf_build_bool(b, f->name, (uint8_t)f->number);
        break;
    case BAD_CHANGE_STRING:
        gguf_build_string(b, f->name, f->text);
        break;
    case BAD_CHANGE_STRINGS:
        put_strings(b, f);
        break;
    case BAD_CHANGE_I32S:
        gguf_build_i32s(b, f->name, f->ids, f->count);
        break;
    case BAD_CHANGE_F32S:
        gguf_build_f32s(b, f->name, f->floats, f->count);
        break;
    case BAD_CHANGE_TENSOR:
        gguf_build_tensor(b, f->name, f->type, f->dims[0], f->dims[1]);
        break;
    case BAD_CHANGE_TWICE_KEY:
        gguf_build_u32(b, f->name, 2);
        return;
    case BAD_CHANGE_TWICE_TENSOR:
        gguf_build_tensor(b, f->name, QUANT_TYPE_F32, 32, 32);
        return;
    case BAD_CHANGE_DROP:
        break;
    default:
        return;
    }
    b->skip[0] = f->name;
}

static const uint8_t *find_name(const struct buf *file, const char *name)
{
    uint8_t wanted[128];
    uint64_t size = strlen(name);
    CHECK(size < sizeof wanted - 8);
    memcpy(wanted, &size, 8);
    memcpy(wanted + 8, name, size);
    const uint8_t *at = memmem(file->data, file->size, wanted, size + 8);
    CHECK(at != NULL);
    return at;
}

static size_t data_of(const struct buf *file, const char *name)
{
    struct gguf *g = NULL;
    CHECK(gguf_open_memory(&g, file->data, file->size, NULL) == ERR_OK);
    size_t at = gguf_tensor_find(g, name)->offset;
    gguf_close(g);
    return at;
}

/* Where in the file the change is; `at` may count backwards, as a number near 2^64. */
static size_t place_of(const struct buf *file, const struct bad_file *f)
{
    switch (f->change) {
    case BAD_CHANGE_SIZE:
        return (size_t)(find_name(file, f->name) - file->data);
    case BAD_CHANGE_BEHIND:
    case BAD_CHANGE_CUT_BEHIND:
        return (size_t)(find_name(file, f->name) - file->data) + 8 + strlen(f->name) + f->at;
    case BAD_CHANGE_DATA:
    case BAD_CHANGE_CUT_DATA:
        return data_of(file, f->name) + f->at;
    default:
        return f->at;
    }
}

static void patch(struct buf *file, const struct bad_file *f)
{
    switch (f->change) {
    case BAD_CHANGE_FILE:
    case BAD_CHANGE_SIZE:
    case BAD_CHANGE_BEHIND:
    case BAD_CHANGE_DATA: {
        size_t at = place_of(file, f);
        CHECK(at + f->size <= file->size && f->size <= sizeof f->bits);
        memcpy(file->data + at, &f->bits, f->size);
        break;
    }
    case BAD_CHANGE_CUT_FILE:
    case BAD_CHANGE_CUT_BEHIND:
    case BAD_CHANGE_CUT_DATA: {
        size_t at = place_of(file, f);
        CHECK(at < file->size);
        file->size = at;
        break;
    }
    default:
        break;
    }
}

void bad_file_build(const struct bad_file *bad, struct buf *ret_file)
{
    static const char *const replaced[] = {
        "tokenizer.ggml.model",
        "tokenizer.ggml.pre",
        TOKENS,
        TYPES,
        MERGES,
        "tokenizer.ggml.bos_token_id",
        "tokenizer.ggml.eos_token_id",
        "token_embd.weight",
    };
    struct gguf_build b;

    gguf_build_init(&b);
    put(&b, bad);
    if (bad->spm) {
        gguf_build_spm(&b);
        gguf_build_tensor(&b, "token_embd.weight", bad->matrices, 32, SPM_TOKENS);
        memcpy(b.skip, replaced, sizeof replaced);
    }
    gguf_build_model(&b, bad->matrices);
    gguf_build_finish(&b, ret_file);
    gguf_build_fini(&b);
    patch(ret_file, bad);
}
