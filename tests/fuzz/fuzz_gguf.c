/* Any bytes as a model file: everything that reads one, as far as it gets. */
#include "worker/engine/runtime.h"
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

/* What can be held by one can be held by several, and they have all of it together. */
static void fuzz_shards(const struct gguf *g)
{
    static const struct shard_request requests[] = {{1, 1, 0, {0}},
                                                    {3, 1, 0, {0}},
                                                    {16, 1, 0, {0}},
                                                    {2, 1, 2, {1, 1ull << 40}},
                                                    {2, 2, 0, {0}}};
    const struct engine_config given = {.isa = BACKEND_ISA_SCALAR, .threads = 1};
    struct engine_config config;
    uint64_t whole = 0;

    if (runtime_config_complete(&given, &config, NULL) != ERR_OK)
        abort();
    for (size_t i = 0; i < sizeof requests / sizeof requests[0]; i++) {
        const struct engine_model_config model = {.shard = requests[i]};
        struct runtime_shape shape;
        struct errbuf eb = {{0}};
        uint64_t held = 0;
        enum err e = runtime_shape_read(&shape, &config, &model, g, &eb);
        if (e != ERR_OK) {
            /* One layer makes no two stages; many ways to share KV heads are too many. */
            if (eb.text[0] == 0 || (whole > 0 && e != ERR_UNSUPPORTED && requests[i].stages == 1))
                abort();
            continue;
        }
        for (uint32_t r = 0; r < shape.plan->cut->n_ranks; r++)
            if (runtime_shape_turn(&shape, r, &eb) == ERR_OK)
                held += runtime_shape_estimate(&shape, &config, g).weights_bytes;
        whole = i == 0 ? held : whole;
        if (held < whole && eb.text[0] == 0)
            abort();
        runtime_shape_fini(&shape);
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
    fuzz_shards(g);
    if (tokenizer_open(&t, g, &eb) == ERR_OK && chat_template_open(&c, g, t, &eb) == ERR_OK)
        chat_template_close(c);
    tokenizer_close(t);
    gguf_close(g);
    return 0;
}
