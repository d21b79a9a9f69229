/* Any bytes as a model file: everything that reads one, as far as it gets. */
#include "worker/engine/runtime_shape.h"
#include "worker/model/chat.h"
#include "worker/model/gguf.h"
#include "worker/model/hparams.h"
#include "worker/model/tokenizer.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void fuzz_keys(const struct gguf *g)
{
    for (size_t i = 0; i < gguf_key_count(g); i++) {
        char name[256];
        enum gguf_value_type type;
        enum gguf_value_type element;
        uint64_t count;
        uint32_t number;
        float real;
        bool truth;
        struct gguf_string text;
        struct gguf_string key = gguf_key_at(g, i, &type, &element, &count);
        if (key.size >= sizeof name)
            continue;
        memcpy(name, key.bytes, key.size);
        name[key.size] = 0;
        (void)gguf_get_u32(g, name, &number, NULL);
        (void)gguf_get_f32(g, name, &real, NULL);
        (void)gguf_get_bool(g, name, &truth, NULL);
        (void)gguf_get_string(g, name, &text, NULL);
        if (gguf_get_array(g, name, element, &count, NULL) == ERR_OK && count > 0 &&
            element == GGUF_VALUE_STRING)
            gguf_string_print(gguf_array_string(g, name, count - 1), name, sizeof name);
    }
}

/* What a worker reckons with before it loads: a file whose shapes are good has weights and a cache,
 * and one whose shapes are not has no estimate. */
static void fuzz_estimate(const struct gguf *g)
{
    static const enum backend_isa isas[] = {BACKEND_ISA_SCALAR, BACKEND_ISA_AUTO};
    static struct model_hparams h;
    bool good = model_hparams_read(&h, g, NULL) == ERR_OK;

    for (size_t i = 0; i < 4; i++) {
        const struct engine_config config = {.isa = isas[i % 2], .threads = 1};
        const struct engine_model_config model = {.kv_type = i < 2 ? KV_TYPE_F16 : KV_TYPE_Q8_0};
        struct engine_estimate e;
        struct errbuf eb = {{0}};
        enum err err = runtime_estimate(&config, &model, g, &e, &eb);
        if (err != ERR_OK ? eb.text[0] == 0
                          : !good || e.weights_bytes == 0 || e.kv_pages == 0 ||
                                e.kv_bytes != e.kv_pages * e.kv_page_bytes)
            abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct gguf *g = NULL;
    struct tokenizer *t = NULL;
    struct chat_template *c = NULL;
    struct errbuf eb = {{0}};
    if (gguf_open_memory(&g, data, size, &eb) != ERR_OK)
        return 0;
    fuzz_keys(g);
    /* Every byte of a tensor may be read. */
    volatile uint8_t sink = 0;
    for (size_t i = 0; i < gguf_tensor_count(g); i++) {
        const struct gguf_tensor *tensor = gguf_tensor_at(g, i);
        for (uint64_t at = 0; at < tensor->size; at++)
            sink = (uint8_t)(sink ^ tensor->data[at]);
    }
    fuzz_estimate(g);
    if (tokenizer_open(&t, g, &eb) == ERR_OK && chat_template_open(&c, g, t, &eb) == ERR_OK)
        chat_template_close(c);
    tokenizer_close(t);
    gguf_close(g);
    return 0;
}
