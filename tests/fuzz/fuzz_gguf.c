/* Any bytes as a model file: everything that reads one, as far as it gets. */
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

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct gguf *g = NULL;
    struct tokenizer *t = NULL;
    struct chat_template *c = NULL;
    struct model_hparams h;
    struct model_estimate m;
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
    if (model_hparams_read(&h, g, &eb) == ERR_OK &&
        model_estimate_bytes(&m, &h, g, 1, 2, &eb) != ERR_OK)
        abort();
    if (tokenizer_open(&t, g, &eb) == ERR_OK && chat_template_open(&c, g, t, &eb) == ERR_OK)
        chat_template_close(c);
    tokenizer_close(t);
    gguf_close(g);
    return 0;
}
