/*
 * Any bytes as a chat template's source, and where it is one of ours, as messages. The input is cut
 * at its first NUL: the source before it, the messages after it.
 */
#include "tests/unit/model/gguf_build.h"

#include "worker/model/chat.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The small vocabulary has ChatML's tokens only; that family is rendered, the others are found. */
static enum err fuzz_open(const uint8_t *source, size_t size, struct tokenizer **ret_t,
                          struct chat_template **ret_c)
{
    struct gguf_build b;
    struct buf file;
    struct gguf *g = NULL;
    gguf_build_init(&b);
    gguf_build_bpe(&b, "gpt-2");
    (void)gguf_build_key(&b, "tokenizer.chat_template", GGUF_VALUE_STRING);
    gguf_build_raw_string(&b.keys, (const char *)source, size);
    gguf_build_finish(&b, &file);
    gguf_build_fini(&b);
    if (gguf_open_memory(&g, file.data, file.size, NULL) != ERR_OK ||
        tokenizer_open(ret_t, g, NULL) != ERR_OK)
        abort();
    struct errbuf eb = {{0}};
    enum err e = chat_template_open(ret_c, g, *ret_t, &eb);
    if (e != ERR_OK && eb.text[0] == 0)
        abort();
    gguf_close(g);
    buf_fini(&file);
    return e;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const roles[] = {"user", "assistant", "system", "tool"};
    struct tokenizer *t = NULL;
    struct chat_template *c = NULL;
    const uint8_t *nul = size > 0 ? memchr(data, 0, size) : NULL;
    size_t source_size = nul != NULL ? (size_t)(nul - data) : size;
    if (fuzz_open(data, source_size, &t, &c) == ERR_OK) {
        struct chat_message m[8];
        size_t n = 0;
        const uint8_t *at = nul != NULL ? nul + 1 : data + size;
        const uint8_t *end = data + size;
        while (at < end && n < 8) {
            const char *role = roles[*at++ % 4];
            const uint8_t *stop = memchr(at, 0, (size_t)(end - at));
            if (stop == NULL)
                stop = end;
            m[n++] =
                (struct chat_message){role, strlen(role), (const char *)at, (size_t)(stop - at)};
            at = stop < end ? stop + 1 : end;
        }
        struct tokens ids = {0};
        struct errbuf eb = {{0}};
        struct buf text;
        buf_init(&text);
        enum err rendered = chat_template_render(c, m, n, true, &text, &eb);
        enum err encoded = chat_template_encode(c, t, m, n, true, &ids, &eb);
        if (rendered != encoded)
            abort();
        buf_fini(&text);
        tokens_fini(&ids);
    }
    chat_template_close(c);
    tokenizer_close(t);
    return 0;
}
