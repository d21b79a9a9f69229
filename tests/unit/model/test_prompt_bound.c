/* No prompt has more tokens than admission reserves for it, whatever the vocabulary and the
 * template: the vocabularies here are made to bring as many as can be. */
#include "common/limits.h"
#include "tests/unit/model/gguf_build.h"
#include "worker/model/chat.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* "<s>", bytes, U+2581, a user-defined token, and what the templates need. */
enum { N_BYTES = 256, N_TEXTS = 3 + N_BYTES + 16 };

struct vocabulary {
    bool prefix;          /* a space before text */
    bool space_is_token;  /* text may become U+2581 */
    const char *user;     /* a user-defined token; NULL: none */
    const char *template; /* NULL: none */
};

struct opened {
    struct tokenizer *t;
    struct chat_template *c;
    struct prompt_bound bound;
};

static struct opened open_vocabulary(const struct vocabulary *v)
{
    static const char *const controls[] = {"<|im_start|>",      "<|im_end|>", "<|start_header_id|>",
                                           "<|end_header_id|>", "<|eot_id|>", "<start_of_turn>",
                                           "<end_of_turn>",     "[INST]",     "[/INST]"};
    const char *texts[N_TEXTS] = {"<unk>", "<s>", "</s>"};
    int32_t types[N_TEXTS] = {2, 3, 3};
    float scores[N_TEXTS] = {0};
    char bytes[N_BYTES][8];
    size_t n = 3;
    for (int i = 0; i < N_BYTES; i++) {
        (void)snprintf(bytes[i], sizeof bytes[i], "<0x%02X>", i);
        types[n] = 6;
        texts[n++] = bytes[i];
    }
    types[n] = v->space_is_token ? 1 : 3;
    texts[n++] = "\u2581";
    for (size_t i = 0; i < sizeof controls / sizeof controls[0]; i++) {
        types[n] = 3;
        texts[n++] = controls[i];
    }
    if (v->user != NULL) {
        types[n] = 4;
        texts[n++] = v->user;
    }
    struct gguf_build b;
    struct buf file;
    struct gguf *g = NULL;
    struct opened o = {0};
    struct errbuf eb = {{0}};
    gguf_build_init(&b);
    gguf_build_string(&b, "tokenizer.ggml.model", "llama");
    gguf_build_bool(&b, "tokenizer.ggml.add_space_prefix", v->prefix);
    gguf_build_strings(&b, "tokenizer.ggml.tokens", texts, n);
    gguf_build_i32s(&b, "tokenizer.ggml.token_type", types, n);
    gguf_build_f32s(&b, "tokenizer.ggml.scores", scores, n);
    gguf_build_u32(&b, "tokenizer.ggml.bos_token_id", 1);
    gguf_build_u32(&b, "tokenizer.ggml.eos_token_id", 2);
    if (v->template != NULL)
        gguf_build_string(&b, "tokenizer.chat_template", v->template);
    gguf_build_finish(&b, &file);
    gguf_build_fini(&b);
    assert_int_equal(gguf_open_memory(&g, file.data, file.size, &eb), ERR_OK);
    if (tokenizer_open(&o.t, g, &eb) != ERR_OK ||
        (v->template != NULL && chat_template_open(&o.c, g, o.t, &eb) != ERR_OK) ||
        chat_prompt_bound(o.c, o.t, &o.bound, &eb) != ERR_OK)
        fail_msg("%s", eb.text);
    gguf_close(g);
    buf_fini(&file);
    assert_in_range(o.bound.per_kib, 1024, LIMIT_TOKENS_PER_KIB);
    return o;
}

static void opened_close(struct opened o)
{
    chat_template_close(o.c);
    tokenizer_close(o.t);
}

static uint64_t bound_of(const struct prompt_bound *b, size_t n_messages, size_t bytes)
{
    return b->per_job + (uint64_t)b->per_message * n_messages +
           ((uint64_t)b->per_kib * bytes + 1023) / 1024;
}

/* Texts that are hard on some vocabulary or other. */
static const char *const units[] = {"a",   " ",   "x",  "xQ",     "x ",
                                    "xyQ", "xy ", "\n", "\u2581", "\xff"};
enum { N_UNITS = sizeof units / sizeof units[0] };

static void fill(char *text, size_t size, const char *unit)
{
    size_t n = strlen(unit);
    for (size_t i = 0; i < size; i++)
        text[i] = unit[i % n];
}

static void raw_text_stays_within_the_bound(void **state)
{
    static const struct {
        struct vocabulary v;
        const char *hardest; /* the text that comes closest */
        uint32_t per_kib;
    } rows[] = {
        {{false, true, NULL, NULL}, "a", 1024}, {{true, true, NULL, NULL}, "a", 1024},
        {{true, true, "x", NULL}, "xQ", 1536},  {{true, true, "xy", NULL}, "xyQ", 1024},
        {{false, true, "x", NULL}, "xQ", 1024}, {{false, false, NULL, NULL}, " ", 3072},
        {{true, false, NULL, NULL}, " ", 3072}, {{true, false, "x", NULL}, "x ", 3584},
    };
    char text[4096];
    (void)state;

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct opened o = open_vocabulary(&rows[i].v);
        assert_int_equal(o.bound.per_kib, rows[i].per_kib);
        for (size_t u = 0; u < N_UNITS; u++) {
            for (size_t size = 1; size <= sizeof text; size += size < 16 ? 1 : size) {
                struct tokens ids = {0};
                struct errbuf eb = {{0}};
                fill(text, size, units[u]);
                assert_int_equal(
                    tokenizer_encode(o.t, text, size, TOKENIZER_SPECIAL_PLAIN, true, &ids, &eb),
                    ERR_OK);
                size_t count = ids.count + tokenizer_adds_bos(o.t);
                if (count > bound_of(&o.bound, 0, size))
                    fail_msg("row %zu: %zu bytes of '%s' are %zu tokens", i, size, units[u], count);
                /* It is no higher than it must be. */
                if (size == sizeof text && strcmp(units[u], rows[i].hardest) == 0)
                    assert_true(count + 16 > bound_of(&o.bound, 0, size));
                tokens_fini(&ids);
            }
        }
        opened_close(o);
    }
}

#define CHATML                                                                                     \
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + "                   \
    "message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}{% if add_generation_prompt %}"        \
    "{{ '<|im_start|>assistant\\n' }}{% endif %}"

static const char llama3[] =
    "{% for message in messages %}{% set content = '<|start_header_id|>' + message['role'] + "
    "'<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}{{ content }}{% endfor %}";
static const char gemma3[] =
    "{%- set first_user_prefix = messages[0]['content'] + '\n\n' -%}{%- for message in "
    "loop_messages -%}{%- set role = \"model\" -%}{{ '<start_of_turn>' + role + '\n' + "
    "(first_user_prefix if loop.first else \"\") }}{{ message['content'] | trim }}"
    "{{ '<end_of_turn>\n' }}{%- endfor -%}";
#define MISTRAL(place)                                                                             \
    "{%- for message in loop_messages %}{%- if loop." place                                        \
    " and system_message is defined %}{{- \" [INST] \" + system_message + \"\\n\\n\" + "           \
    "message[\"content\"] + \" [/INST]\" }}{%- else %}{{- \" [INST] \" + message[\"content\"] + "  \
    "\" [/INST]\" }}{%- endif %}{{- \" \" + message[\"content\"] + eos_token}}{%- endfor %}"

/* Every conversation of up to five messages, each of whose contents is the hardest text. */
static void conversations_stay_within_the_bound(void **state)
{
    static const char *const templates[] = {CHATML, llama3, gemma3, MISTRAL("first"),
                                            MISTRAL("last")};
    static const char *const roles[] = {"system", "user", "assistant"};
    static const char *const users[] = {NULL, "x", "<|im_start|>u", "\n"};
    unsigned n_good = 0;
    (void)state;

    for (unsigned k = 0; k < 5 * 4 * 4; k++) {
        const struct vocabulary v = {.prefix = k % 2 != 0,
                                     .space_is_token = k / 2 % 2 != 0,
                                     .user = users[k / 4 % 4],
                                     .template = templates[k / 16]};
        struct opened o = open_vocabulary(&v);
        for (unsigned code = 0, n = 1, count = 3; n <= 5; code++) {
            struct chat_message m[5];
            struct tokens ids = {0};
            struct errbuf eb = {{0}};
            char text[64];
            size_t bytes = 0, size = code % 7 == 0 ? 0 : code % sizeof text;
            if (code == count) {
                code = 0;
                count *= 3;
                if (++n > 5)
                    break;
            }
            fill(text, size, units[code % N_UNITS]);
            for (unsigned i = 0, rest = code; i < n; i++, rest /= 3) {
                m[i] = (struct chat_message){roles[rest % 3], strlen(roles[rest % 3]), text, size};
                bytes += size;
            }
            enum err e = chat_template_encode(o.c, o.t, m, n, true, &ids, &eb);
            if (e == ERR_OK && ids.count > bound_of(&o.bound, n, bytes))
                fail_msg("%s, user token %s: %u messages of %zu bytes are %zu tokens, not %llu",
                         chat_template_name(o.c), v.user != NULL ? v.user : "none", n, bytes,
                         ids.count, (unsigned long long)bound_of(&o.bound, n, bytes));
            n_good += e == ERR_OK;
            tokens_fini(&ids);
        }
        opened_close(o);
    }
    assert_true(n_good > 5000);
}

/* What a template brings of its own counts, however long it is. */
static void a_default_system_message_is_in_the_bound(void **state)
{
    enum { SIZE = 100000 };
    static const char open[] = "{{ '<|im_start|>system\n", close[] = "<|im_end|>\n' }}";
    char *source = calloc(1, SIZE + sizeof CHATML + 64);
    struct tokens ids = {0};
    struct errbuf eb = {{0}};
    const struct chat_message user = {"user", 4, "Hi", 2};
    (void)state;

    assert_non_null(source);
    strcpy(source, open);
    memset(source + strlen(source), 'a', SIZE);
    strcat(source, close);
    strcat(source, CHATML);
    const struct vocabulary v = {.prefix = true, .space_is_token = true, .template = source};
    struct opened o = open_vocabulary(&v);
    assert_int_equal(chat_template_encode(o.c, o.t, &user, 1, true, &ids, &eb), ERR_OK);
    assert_true(ids.count > SIZE);
    assert_true(ids.count <= bound_of(&o.bound, 1, 2));
    assert_in_range(o.bound.per_job, SIZE, SIZE + 200);
    tokens_fini(&ids);
    opened_close(o);
    free(source);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(raw_text_stays_within_the_bound),
        cmocka_unit_test(conversations_stay_within_the_bound),
        cmocka_unit_test(a_default_system_message_is_in_the_bound),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
