/*
 * Any bytes as a text, over small vocabularies of both families. The first byte chooses the
 * vocabulary and how special tokens are treated; what is encoded must decode to the same bytes.
 */
#include "tests/unit/model/gguf_build.h"
#include "tests/unit/model/tokens_most.h"

#include "worker/model/tokenizer.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* One name of each split, and SentencePiece. */
static const char *const pres[] = {
    "gpt-2",  "llama-bpe", "smollm",     "qwen2",        "default",     NULL,
    "tekken", "gpt-4o",    "falcon",     "deepseek-llm", "deepseek-v3", "deepseek-coder",
    "qwen35", "minicpm5",  "seed-coder", "ufakzeka",     "bloom",       "viking",
};
enum { N_TOKENIZERS = sizeof pres / sizeof pres[0] };

static struct tokenizer *tokenizers[N_TOKENIZERS];

static void fuzz_open(void)
{
    for (int i = 0; i < N_TOKENIZERS; i++) {
        struct gguf_build b;
        struct buf file;
        struct gguf *g = NULL;
        gguf_build_init(&b);
        if (pres[i] != NULL) {
            gguf_build_bpe(&b, pres[i]);
        } else {
            gguf_build_bool(&b, "tokenizer.ggml.add_space_prefix", 0);
            gguf_build_spm(&b);
        }
        gguf_build_finish(&b, &file);
        if (gguf_open_memory(&g, file.data, file.size, NULL) != ERR_OK ||
            tokenizer_open(&tokenizers[i], g, NULL) != ERR_OK)
            abort();
        gguf_close(g);
        buf_fini(&file);
        gguf_build_fini(&b);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (tokenizers[0] == NULL)
        fuzz_open();
    if (size < 2)
        return 0;
    const struct tokenizer *t = tokenizers[data[0] % N_TOKENIZERS];
    bool spm = pres[data[0] % N_TOKENIZERS] == NULL;
    size_t cut = data[1] % (size - 1);
    data += 2;
    size -= 2;
    if (cut > size)
        cut = size;
    const struct tokenizer_span spans[] = {{cut, TOKENIZER_SPECIAL_PARSE},
                                           {size - cut, TOKENIZER_SPECIAL_PLAIN}};
    struct tokens ids = {0};
    struct errbuf eb = {{0}};
    struct buf out;
    buf_init(&out);
    if (tokenizer_encode_spans(t, data, spans, 2, true, &ids, &eb) != ERR_OK)
        abort();
    if (ids.count > tokens_most(t, size, TOKENIZER_SPECIAL_PARSE))
        abort();
    for (size_t i = 0; i < ids.count; i++)
        tokenizer_decode(t, ids.ids[i], true, i == 0, &out);
    /* SentencePiece cannot tell U+2581 from a space. */
    bool same = out.size == size && (size == 0 || memcmp(out.data, data, size) == 0);
    if (!same && !(spm && memmem(data, size, "\u2581", 3) != NULL))
        abort();
    buf_fini(&out);
    tokens_fini(&ids);
    return 0;
}
