/*
 * Chat templates: recognised from their source, rendered as it says, and no control token out of
 * what a user wrote.
 */
#include "tests/unit/model/gguf_build.h"
#include "tests/unit/model/vectors.h"

#include "worker/model/chat.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

/* --- template sources as models have them --- */

static const char smollm2_source[] =
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging "
    "Face<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] "
    "+ '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' "
    "}}{% endif %}";

static const char chatml_source[] =
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] "
    "+ "
    "'<|im_end|>' + '\\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' "
    "}}{% endif %}";

static const char qwen2_source[] =
    "{%- if tools %}\n    {{- '<|im_start|>system\\n' }}\n    {%- if messages[0]['role'] == "
    "'system' "
    "%}\n        {{- messages[0]['content'] }}\n    {%- else %}\n        {{- 'You are Qwen.' }}\n  "
    "  "
    "{%- endif %}\n{%- else %}\n    {%- if messages[0]['role'] == 'system' %}\n        {{- "
    "'<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}\n    {%- else %}\n      "
    "  "
    "{{- '<|im_start|>system\\nYou are Qwen, created by Alibaba Cloud. You are a helpful "
    "assistant.<|im_end|>\\n' }}\n    {%- endif %}\n{%- endif %}\n{%- for message in messages %}\n "
    "   "
    "{%- if (message.role == \"user\") or (message.role == \"system\" and not loop.first) %}\n     "
    "   "
    "{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}\n    "
    "{%- "
    "endif %}\n{%- endfor %}\n{%- if add_generation_prompt %}\n    {{- '<|im_start|>assistant\\n' "
    "}}\n"
    "{%- endif %}\n";

static const char llama3_source[] =
    "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = "
    "'<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim "
    "+ "
    "'<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ "
    "content }}{% endfor %}{% if add_generation_prompt %}{{ "
    "'<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}";

static const char llama31_source[] =
    "{{- bos_token }}\n{%- if not date_string is defined %}\n    {%- if strftime_now is defined "
    "%}\n"
    "        {%- set date_string = strftime_now(\"%d %b %Y\") %}\n    {%- else %}\n        {%- set "
    "date_string = \"26 Jul 2024\" %}\n    {%- endif %}\n{%- endif %}\n{%- if messages[0]['role'] "
    "== "
    "'system' %}\n    {%- set system_message = messages[0]['content']|trim %}\n    {%- set "
    "messages = "
    "messages[1:] %}\n{%- else %}\n    {%- set system_message = \"\" %}\n{%- endif %}\n{{- "
    "\"<|start_header_id|>system<|end_header_id|>\\n\\n\" }}\n{{- \"Cutting Knowledge Date: "
    "December "
    "2023\\n\" }}\n{{- \"Today Date: \" + date_string + \"\\n\\n\" }}\n{{- system_message }}\n{{- "
    "\"<|eot_id|>\" }}\n{%- for message in messages %}\n        {{- '<|start_header_id|>' + "
    "message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}\n{%- "
    "endfor %}\n{%- if add_generation_prompt %}\n    {{- "
    "'<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}\n{%- endif %}\n";

static const char gemma2_source[] =
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not "
    "supported') }}{% endif %}{% for message in messages %}{% if (message['role'] == 'user') != "
    "(loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate "
    "user/assistant/user/assistant/...') }}{% endif %}{% if (message['role'] == 'assistant') %}{% "
    "set "
    "role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}{{ '<start_of_turn>' + "
    "role "
    "+ '\\n' + message['content'] | trim + '<end_of_turn>\\n' }}{% endfor %}{% if "
    "add_generation_prompt "
    "%}{{'<start_of_turn>model\\n'}}{% endif %}";

static const char gemma3_source[] =
    "{{ bos_token }}\n{%- if messages[0]['role'] == 'system' -%}\n    {%- if "
    "messages[0]['content'] is "
    "string -%}\n        {%- set first_user_prefix = messages[0]['content'] + '\n\n' -%}\n    {%- "
    "else "
    "-%}\n        {%- set first_user_prefix = messages[0]['content'][0]['text'] + '\n\n' -%}\n    "
    "{%- "
    "endif -%}\n    {%- set loop_messages = messages[1:] -%}\n{%- else -%}\n    {%- set "
    "first_user_prefix = \"\" -%}\n    {%- set loop_messages = messages -%}\n{%- endif -%}\n{%- "
    "for "
    "message in loop_messages -%}\n    {%- if (message['role'] == 'user') != (loop.index0 % 2 == "
    "0) "
    "-%}\n        {{ raise_exception(\"Conversation roles must alternate "
    "user/assistant/user/assistant/...\") }}\n    {%- endif -%}\n    {%- if (message['role'] == "
    "'assistant') -%}\n        {%- set role = \"model\" -%}\n    {%- else -%}\n        {%- set "
    "role = "
    "message['role'] -%}\n    {%- endif -%}\n    {{ '<start_of_turn>' + role + '\n' + "
    "(first_user_prefix if loop.first else \"\") }}\n    {%- if message['content'] is string -%}\n "
    "     "
    "  {{ message['content'] | trim }}\n    {%- endif -%}\n    {{ '<end_of_turn>\n' }}\n{%- endfor "
    "-%}\n{%- if add_generation_prompt -%}\n    {{'<start_of_turn>model\n'}}\n{%- endif -%}\n";

#define MISTRAL_HEAD                                                                               \
    "{%- if messages[0][\"role\"] == \"system\" %}\n    {%- set system_message = "                 \
    "messages[0][\"content\"] %}\n    {%- set loop_messages = messages[1:] %}\n{%- else %}\n    "  \
    "{%- set loop_messages = messages %}\n{%- endif %}\n{{- bos_token }}\n{%- for message in "     \
    "loop_messages %}\n    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}\n     " \
    "   "                                                                                          \
    "{{- raise_exception('After the optional system message, conversation roles must alternate "   \
    "user/assistant/user/assistant/...') }}\n    {%- endif %}\n    {%- if message[\"role\"] == "   \
    "\"user\" %}\n        {%- if loop."
#define MISTRAL_TURN(place, open, close, answer)                                                   \
    MISTRAL_HEAD place " and system_message is defined %}\n            {{- \"" open                \
                       "\" + system_message + \"\\n\\n\" + message[\"content\"] + \"" close        \
                       "\" }}\n        {%- else %}\n            {{- \"" open                       \
                       "\" + message[\"content\"] + \"" close                                      \
                       "\" }}\n        {%- endif %}\n    {%- elif message[\"role\"] == "           \
                       "\"assistant\" %}\n        {{- " answer                                     \
                       " + eos_token}}\n    {%- endif %}\n{%- endfor %}\n"

static const char mistral_v1_source[] =
    MISTRAL_TURN("first", " [INST] ", " [/INST]", "\" \" + message[\"content\"]");
static const char mistral_v3_source[] =
    MISTRAL_TURN("last", "[INST] ", "[/INST]", "\" \" + message[\"content\"]|trim");
static const char mistral_v3_first_source[] =
    MISTRAL_TURN("first", "[INST] ", "[/INST]", "\" \" + message[\"content\"]|trim");
static const char mistral_v3_tekken_source[] =
    MISTRAL_TURN("first", "[INST]", "[/INST]", "message[\"content\"]");

#define MISTRAL_V7(space)                                                                          \
    "{{- bos_token }}\n{%- for message in messages %}\n    {%- if message[\"role\"] == \"user\" "  \
    "%}\n        {{- \"[INST]" space "\" + message[\"content\"] + \"[/INST]\" }}\n    {%- elif "   \
    "message[\"role\"] == \"system\" %}\n        {{- \"[SYSTEM_PROMPT]" space                      \
    "\" + message[\"content\"] + \"[/SYSTEM_PROMPT]\" }}\n    {%- else %}\n        {{- \"" space   \
    "\" + message[\"content\"] + eos_token }}\n    {%- endif %}\n{%- endfor %}\n"

static const char mistral_v7_source[] = MISTRAL_V7(" ");
static const char mistral_v7_tekken_source[] = MISTRAL_V7("");

/* --- a vocabulary that has every control token --- */

static const char *const controls[] = {
    "<|im_start|>", "<|im_end|>",      "<|start_header_id|>", "<|end_header_id|>",
    "<|eot_id|>",   "<start_of_turn>", "<end_of_turn>",       "[INST]",
    "[/INST]",      "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]",    "</s>",
    "<s>",
};
enum { N_CONTROLS = sizeof controls / sizeof controls[0], EOS_ID = 256 + 11, BOS_ID = 256 + 12 };

/* The 256 bytes of the small vocabulary, then `n_controls` of the control tokens. */
static enum err open_all(const char *source, size_t n_controls, struct tokenizer **ret_t,
                         struct chat_template **ret_c, struct errbuf *eb)
{
    struct gguf_build small;
    struct gguf_build b;
    struct buf file;
    struct gguf *g = NULL;
    const char *texts[256 + N_CONTROLS];
    char copies[256][4];
    int32_t types[256 + N_CONTROLS];
    gguf_build_init(&small);
    gguf_build_bpe(&small, "gpt-2");
    gguf_build_finish(&small, &file);
    assert_int_equal(gguf_open_memory(&g, file.data, file.size, NULL), ERR_OK);
    for (size_t i = 0; i < 256 + n_controls; i++) {
        if (i < 256) {
            struct gguf_string s = gguf_array_string(g, "tokenizer.ggml.tokens", i);
            memcpy(copies[i], s.bytes, s.size);
            copies[i][s.size] = 0;
        }
        texts[i] = i < 256 ? copies[i] : controls[i - 256];
        types[i] = i < 256 ? 1 : 3;
    }
    gguf_close(g);
    buf_fini(&file);
    gguf_build_fini(&small);

    gguf_build_init(&b);
    gguf_build_string(&b, "tokenizer.ggml.model", "gpt2");
    gguf_build_string(&b, "tokenizer.ggml.pre", "gpt-2");
    gguf_build_strings(&b, "tokenizer.ggml.tokens", texts, 256 + n_controls);
    gguf_build_i32s(&b, "tokenizer.ggml.token_type", types, 256 + n_controls);
    gguf_build_strings(&b, "tokenizer.ggml.merges", NULL, 0);
    if (n_controls == N_CONTROLS) {
        gguf_build_u32(&b, "tokenizer.ggml.eos_token_id", EOS_ID);
        gguf_build_u32(&b, "tokenizer.ggml.bos_token_id", BOS_ID);
    }
    if (source != NULL)
        gguf_build_string(&b, "tokenizer.chat_template", source);
    gguf_build_finish(&b, &file);
    gguf_build_fini(&b);
    assert_int_equal(gguf_open_memory(&g, file.data, file.size, eb), ERR_OK);
    enum err e = tokenizer_open(ret_t, g, eb);
    assert_int_equal(e, ERR_OK);
    e = chat_template_open(ret_c, g, *ret_t, eb);
    gguf_close(g);
    buf_fini(&file);
    return e;
}

struct opened {
    struct tokenizer *t;
    struct chat_template *c;
};

static struct opened open_source(const char *source, const char *name)
{
    struct opened o = {0};
    struct errbuf eb = {{0}};
    if (open_all(source, N_CONTROLS, &o.t, &o.c, &eb) != ERR_OK)
        fail_msg("%s: %s", name, eb.text);
    assert_string_equal(chat_template_name(o.c), name);
    return o;
}

static void close_source(struct opened o)
{
    chat_template_close(o.c);
    tokenizer_close(o.t);
}

#define MESSAGE(role, content)                                                                     \
    {                                                                                              \
        role, sizeof(role) - 1, content, sizeof(content) - 1                                       \
    }

static void expect_text(const struct opened *o, const struct chat_message *m, size_t n, bool add,
                        const char *want)
{
    struct buf text;
    struct errbuf eb = {{0}};
    buf_init(&text);
    if (chat_template_render(o->c, m, n, add, &text, &eb) != ERR_OK)
        fail_msg("%s", eb.text);
    assert_string_equal(buf_str(&text), want);
    buf_fini(&text);
}

static void expect_refusal(const struct opened *o, const struct chat_message *m, size_t n,
                           const char *says)
{
    struct buf text;
    struct tokens ids = {0};
    struct errbuf eb = {{0}};
    buf_init(&text);
    assert_int_equal(chat_template_render(o->c, m, n, true, &text, &eb), ERR_INVALID);
    assert_int_equal(text.size, 0);
    if (strstr(eb.text, says) == NULL)
        fail_msg("'%s' does not say '%s'", eb.text, says);
    assert_int_equal(chat_template_encode(o->c, o->t, m, n, true, &ids, &eb), ERR_INVALID);
    assert_int_equal(ids.count, 0);
    tokens_fini(&ids);
    buf_fini(&text);
}

/* --- against the other engine --- */

static const struct {
    const char *template;
    const char *name;
    const char *source;
} vector_sources[] = {
    {"chatml", "chatml", chatml_source},
    {"smollm2", "chatml", smollm2_source},
    {"llama3", "llama3", llama3_source},
    {"gemma", "gemma3", gemma3_source},
    {"mistral-v1", "mistral-v1", mistral_v1_source},
    {"mistral-v3", "mistral-v3", mistral_v3_first_source},
    {"mistral-v3-tekken", "mistral-v3-tekken", mistral_v3_tekken_source},
    {"mistral-v7", "mistral-v7", mistral_v7_source},
    {"mistral-v7-tekken", "mistral-v7-tekken", mistral_v7_tekken_source},
};
enum { N_SOURCES = sizeof vector_sources / sizeof vector_sources[0] };

static size_t messages_of(json_t *list, struct chat_message m[8])
{
    size_t n = json_array_size(list);
    assert_true(n <= 8);
    for (size_t i = 0; i < n; i++) {
        json_t *role = json_object_get(json_array_get(list, i), "role");
        json_t *content = json_object_get(json_array_get(list, i), "content");
        m[i] = (struct chat_message){json_string_value(role), json_string_length(role),
                                     json_string_value(content), json_string_length(content)};
    }
    return n;
}

/* The other engine's built-in code takes any order of roles; these templates raise an exception
 * for one that does not take turns, and so do we. */
static bool takes_turns(const struct chat_message *m, size_t n)
{
    size_t turn = 0;
    for (size_t i = 0; i < n; i++) {
        bool system = m[i].role_size == 6;
        if (system && i > 0)
            return false;
        if (!system && (m[i].role_size == 4) != (turn++ % 2 == 0))
            return false;
    }
    return true;
}

static void test_renders_as_the_other_engine(void **state)
{
    (void)state;
    struct opened o[N_SOURCES];
    struct vectors v;
    size_t n_equal = 0;
    size_t n_refused = 0;
    size_t n_other = 0;
    for (size_t i = 0; i < N_SOURCES; i++)
        o[i] = open_source(vector_sources[i].source, vector_sources[i].name);
    vectors_open(&v, "chat_templates.jsonl");
    while (vectors_next(&v)) {
        size_t size;
        size_t i = 0;
        struct chat_message m[8];
        struct buf text;
        struct errbuf eb = {{0}};
        const char *template = vectors_string(&v, "template", &size);
        while (i < N_SOURCES && strcmp(vector_sources[i].template, template) != 0)
            i++;
        assert_true(i < N_SOURCES);
        size_t n = messages_of(json_object_get(v.object, "messages"), m);
        bool add = json_is_true(json_object_get(v.object, "add_generation_prompt"));
        bool turns_only = strcmp(template, "gemma") == 0 ||
                          (strncmp(template, "mistral", 7) == 0 && strstr(template, "v7") == NULL);
        const char *want = vectors_string(&v, "text", &size);
        buf_init(&text);
        enum err e = chat_template_render(o[i].c, m, n, add, &text, &eb);
        if (turns_only && !takes_turns(m, n)) {
            assert_int_equal(e, ERR_INVALID);
            n_refused++;
        } else if (e != ERR_OK) {
            fail_msg("line %zu: %s", v.line_number, eb.text);
        } else if (strcmp(template, "gemma") == 0 && m[0].role_size == 6 &&
                   m[0].content[0] == ' ') {
            /* Gemma's template puts the system message as it is; the other engine trims it. */
            assert_non_null(strstr(buf_str(&text), "<start_of_turn>user\n \n padded system \n \n\n"
                                                   "line one\nline two\n\nline four<end_of_turn>"));
            n_other++;
        } else {
            if (text.size != size || memcmp(text.data, want, size) != 0)
                fail_msg("line %zu: '%s'", v.line_number, buf_str(&text));
            n_equal++;
        }
        buf_fini(&text);
    }
    vectors_close(&v);
    for (size_t i = 0; i < N_SOURCES; i++)
        close_source(o[i]);
    assert_int_equal(n_equal + n_refused + n_other, 216);
    assert_int_equal(n_refused,
                     2 * 2 * 4); /* two lists, with and without the prompt, 4 templates */
    assert_int_equal(n_other, 2);
}

/* Sources that the other engine goes by a mark or two of: we take the same family or none. */
static void test_recognises_or_refuses(void **state)
{
    (void)state;
    struct vectors v;
    size_t n_same = 0;
    size_t n_refused = 0;
    vectors_open(&v, "chat_detect.jsonl");
    while (vectors_next(&v)) {
        struct opened o = {0};
        struct errbuf eb = {{0}};
        size_t size;
        const char *source = vectors_string(&v, "source", &size);
        const char *name = json_string_value(json_object_get(v.object, "template"));
        enum err e = open_all(source, N_CONTROLS, &o.t, &o.c, &eb);
        if (e == ERR_OK) {
            if (name == NULL || strcmp(name, chat_template_name(o.c)) != 0)
                fail_msg("line %zu is taken for %s", v.line_number, chat_template_name(o.c));
            n_same++;
        } else {
            assert_int_equal(e, ERR_UNSUPPORTED);
            assert_non_null(strstr(eb.text, "chat_template"));
            n_refused++;
        }
        close_source(o);
    }
    vectors_close(&v);
    assert_int_equal(n_same, 3); /* chatml and both llama3; the others do not say enough */
    assert_int_equal(n_same + n_refused, 23);
}

/* --- templates of our own choice --- */

static void test_default_system_messages(void **state)
{
    (void)state;
    const struct chat_message user[] = {MESSAGE("user", "Hi")};
    const struct chat_message both[] = {MESSAGE("system", "S"), MESSAGE("user", "Hi")};
    struct opened o = open_source(qwen2_source, "chatml");
    expect_text(&o, user, 1, true,
                "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful "
                "assistant.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
    expect_text(&o, both, 2, false,
                "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n");
    close_source(o);

    o = open_source(llama31_source, "llama3.1");
    expect_text(
        &o, both, 2, true,
        "<|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December "
        "2023\nToday Date: 26 Jul 2024\n\nS<|eot_id|><|start_header_id|>user<|end_header_id|>"
        "\n\nHi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n");
    expect_text(
        &o, user, 1, false,
        "<|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December "
        "2023\nToday Date: 26 Jul 2024\n\n<|eot_id|><|start_header_id|>user<|end_header_id|>"
        "\n\nHi<|eot_id|>");
    close_source(o);
}

static void test_places_of_system_messages(void **state)
{
    (void)state;
    const struct chat_message m[] = {MESSAGE("system", "S"), MESSAGE("user", "1"),
                                     MESSAGE("assistant", " 2 "), MESSAGE("user", "3")};
    struct opened o = open_source(mistral_v3_source, "mistral-v3");
    expect_text(&o, m, 4, true, "[INST] 1[/INST] 2</s>[INST] S\n\n3[/INST]");
    expect_text(&o, m, 3, true, "[INST] 1[/INST] 2</s>");
    close_source(o);
    o = open_source(gemma2_source, "gemma");
    expect_refusal(&o, m, 4, "message 0: the gemma template has no place for a system message");
    expect_text(&o, m + 1, 3, true,
                "<start_of_turn>user\n1<end_of_turn>\n<start_of_turn>model\n2<end_of_turn>\n"
                "<start_of_turn>user\n3<end_of_turn>\n<start_of_turn>model\n");
    close_source(o);
}

static void test_trims_as_jinja_does(void **state)
{
    (void)state;
    const struct chat_message m[] = {
        MESSAGE("user", "\u3000\u00a0 \x1f\n a \u2003b \u2028\xc2\x85\t"), MESSAGE("user", " \n "),
        MESSAGE("user", "\u200bz\xe3\x80"), MESSAGE("user", "")};
    struct opened o = open_source(llama3_source, "llama3");
#define TURN(text) "<|start_header_id|>user<|end_header_id|>\n\n" text "<|eot_id|>"
    expect_text(&o, m, 4, false, TURN("a \u2003b") TURN("") TURN("\u200bz\xe3\x80") TURN(""));
    close_source(o);
}

static void test_refuses_what_a_template_has_no_place_for(void **state)
{
    (void)state;
    const struct chat_message tool[] = {MESSAGE("user", "1"), MESSAGE("tool", "2")};
    const struct chat_message near[] = {MESSAGE("User", "1")};
    const struct chat_message first[] = {MESSAGE("assistant", "1")};
    const struct chat_message twice[] = {MESSAGE("user", "1"), MESSAGE("user", "2")};
    const struct chat_message late[] = {MESSAGE("user", "1"), MESSAGE("system", "2")};
    for (size_t i = 0; i < N_SOURCES; i++) {
        struct opened o = open_source(vector_sources[i].source, vector_sources[i].name);
        expect_refusal(&o, tool, 2, "message 1: its role is not one of");
        expect_refusal(&o, near, 1, "message 0: its role is not one of");
        expect_refusal(&o, tool, 0, "a chat of no messages");
        close_source(o);
    }
    struct opened o = open_source(mistral_v1_source, "mistral-v1");
    expect_refusal(&o, first, 1, "message 0: in the mistral-v1 template user and assistant");
    expect_refusal(&o, twice, 2, "message 1: in the mistral-v1 template user and assistant");
    expect_refusal(&o, late, 2, "message 1: in the mistral-v1 template a system message");
    close_source(o);
}

static const struct {
    const char *source;
    const char *says;
} refused[] = {
    {NULL, "the file has no chat template"},
    {"", "none of the signs"},
    {"{{ messages }}", "none of the signs"},
    {"{% for message in messages %}{{'<|im_start|>' + message['role'] + message['content']}}",
     "has <|im_start|>, but is none of the templates this build renders: chatml would have "
     "'<|im_start|>{role}\\n{content}<|im_end|>\\n'"},
    {"{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n'}}<think>",
     "chatml would not have '<think>'"},
    {"{{'<|im_start|>' + message['role'] + '\\n' + message['content']|trim + '<|im_end|>\\n'}}",
     "chatml would have"},
    {"{{'<start_of_turn>' + message['role']}}", "gemma would have"},
    {"{{'[INST] ' + message['content'] + ' [/INST]'}}", "mistral-v1 would have"},
    {"{{'[SYSTEM_PROMPT]' + default_system_message}}", "mistral-v7 would have"},
    {"{{ '<|im_start|", "none of the signs"},
    {"{% {{ {# '", "none of the signs"},
};

/* What looks like the beginning of a default message or a date, again and again. */
static void test_a_long_template_takes_a_moment(void **state)
{
    static const struct {
        const char *unit;
        const char *end;
        const char *source;
    } rows[] = {
        {"<|im_start|>system\n", "<|im_end|>\n", chatml_source},
        {"<|im_start|>system\n{", "<|im_end|>\n", chatml_source},
        {"{% set date_string = x %}", "", llama31_source},
        {"{%set date_string=", "%}", llama31_source},
    };
    enum { SIZE = 1000000 };
    char *source = malloc(SIZE + 8192);
    (void)state;

    assert_non_null(source);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct opened o = {0};
        struct errbuf eb = {{0}};
        size_t at = 0, unit = strlen(rows[i].unit);
        for (; at + unit <= SIZE; at += unit)
            memcpy(source + at, rows[i].unit, unit);
        strcpy(source + at, rows[i].end);
        strcat(source, rows[i].source);
        clock_t start = clock();
        enum err e = open_all(source, N_CONTROLS, &o.t, &o.c, &eb);
        double seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
        if (e != ERR_OK && e != ERR_UNSUPPORTED)
            fail_msg("row %zu: %s", i, eb.text);
        if (seconds > 1.5)
            fail_msg("row %zu took %.1f s", i, seconds);
        close_source(o);
    }
    free(source);
}

static void test_says_why_a_template_is_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        struct opened o = {0};
        struct errbuf eb = {{0}};
        assert_int_equal(open_all(refused[i].source, N_CONTROLS, &o.t, &o.c, &eb), ERR_UNSUPPORTED);
        if (strstr(eb.text, refused[i].says) == NULL)
            fail_msg("row %zu: '%s' does not say '%s'", i, eb.text, refused[i].says);
        close_source(o);
    }
    /* A known template over a vocabulary without its tokens. */
    struct opened o = {0};
    struct errbuf eb = {{0}};
    assert_int_equal(open_all(chatml_source, 1, &o.t, &o.c, &eb), ERR_INVALID);
    assert_non_null(strstr(eb.text, "'<|im_end|>' is not a control token"));
    close_source(o);
}

/* Whatever a user writes: the control tokens of the prompt are the template's own. */
static void test_user_text_makes_no_control_token(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_SOURCES; i++) {
        struct opened o = open_source(vector_sources[i].source, vector_sources[i].name);
        const struct chat_message tame[] = {MESSAGE("user", "x"), MESSAGE("assistant", "y"),
                                            MESSAGE("user", "z")};
        size_t n_tame = 0;
        size_t n_wild = 0;
        struct tokens ids = {0};
        assert_int_equal(chat_template_encode(o.c, o.t, tame, 3, true, &ids, NULL), ERR_OK);
        for (size_t k = 0; k < ids.count; k++)
            n_tame += ids.ids[k] >= 256;
        tokens_fini(&ids);
        for (size_t k = 0; k < N_CONTROLS; k++) {
            struct chat_message wild[3];
            char text[64];
            memcpy(wild, tame, sizeof wild);
            (void)snprintf(text, sizeof text, "%s%s\n%s", controls[k], controls[k], controls[k]);
            wild[k % 3].content = text;
            wild[k % 3].content_size = strlen(text);
            n_wild = 0;
            ids = (struct tokens){0};
            assert_int_equal(chat_template_encode(o.c, o.t, wild, 3, true, &ids, NULL), ERR_OK);
            for (size_t j = 0; j < ids.count; j++)
                n_wild += ids.ids[j] >= 256;
            assert_int_equal(n_wild, n_tame);
            tokens_fini(&ids);
        }
        assert_true(n_tame >= 4);
        close_source(o);
    }
}

static void test_bos_where_the_template_wants_it(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_SOURCES; i++) {
        struct opened o = open_source(vector_sources[i].source, vector_sources[i].name);
        const struct chat_message m[] = {MESSAGE("user", "x")};
        struct tokens ids = {0};
        assert_int_equal(chat_template_encode(o.c, o.t, m, 1, true, &ids, NULL), ERR_OK);
        bool wanted = strstr(vector_sources[i].source, "bos_token") != NULL;
        assert_int_equal(ids.ids[0] == BOS_ID, wanted);
        assert_true(ids.ids[1] != BOS_ID);
        tokens_fini(&ids);
        close_source(o);
    }
}

/* --- the real file: prompts of the greedy vectors --- */

static const char *model_path;

static void test_smollm2_prompts(void **state)
{
    (void)state;
    struct gguf *g = NULL;
    struct tokenizer *t = NULL;
    struct chat_template *c = NULL;
    struct errbuf eb = {{0}};
    struct vectors v;
    size_t n_chats = 0;
    assert_int_equal(gguf_open_file(&g, model_path, true, &eb), ERR_OK);
    assert_int_equal(tokenizer_open(&t, g, &eb), ERR_OK);
    assert_int_equal(chat_template_open(&c, g, t, &eb), ERR_OK);
    vectors_open(&v, "greedy_smollm2.jsonl");
    while (vectors_next(&v)) {
        size_t size;
        struct tokens ids = {0};
        json_t *want = json_object_get(v.object, "prompt_ids");
        if (strcmp(vectors_string(&v, "kind", &size), "chat") == 0) {
            struct chat_message m[8];
            size_t n = messages_of(json_object_get(v.object, "messages"), m);
            assert_int_equal(chat_template_encode(c, t, m, n, true, &ids, &eb), ERR_OK);
            n_chats++;
        } else {
            const char *text = vectors_string(&v, "prompt", &size);
            assert_int_equal(
                tokenizer_encode(t, text, size, TOKENIZER_SPECIAL_PLAIN, true, &ids, &eb), ERR_OK);
        }
        assert_int_equal(ids.count, json_array_size(want));
        for (size_t i = 0; i < ids.count; i++)
            assert_int_equal(ids.ids[i], json_integer_value(json_array_get(want, i)));
        tokens_fini(&ids);
    }
    vectors_close(&v);
    assert_int_equal(n_chats, 10);
    /* Where a byte has no token, its place is told in the message that was sent. */
    const struct chat_message odd[] = {MESSAGE("user", "Hi"), MESSAGE("assistant", "Ho"),
                                       MESSAGE("user", " ab\xff")};
    struct tokens ids = {0};
    assert_int_equal(chat_template_encode(c, t, odd, 3, true, &ids, &eb), ERR_INVALID);
    assert_non_null(strstr(eb.text, "message 2: byte 3 of the text is 0xff"));
    assert_int_equal(ids.count, 0);
    tokens_fini(&ids);
    chat_template_close(c);
    tokenizer_close(t);
    gguf_close(g);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_renders_as_the_other_engine),
        cmocka_unit_test(test_recognises_or_refuses),
        cmocka_unit_test(test_default_system_messages),
        cmocka_unit_test(test_places_of_system_messages),
        cmocka_unit_test(test_trims_as_jinja_does),
        cmocka_unit_test(test_refuses_what_a_template_has_no_place_for),
        cmocka_unit_test(test_a_long_template_takes_a_moment),
        cmocka_unit_test(test_says_why_a_template_is_refused),
        cmocka_unit_test(test_user_text_makes_no_control_token),
        cmocka_unit_test(test_bos_where_the_template_wants_it),
    };
    const struct CMUnitTest smollm2[] = {
        cmocka_unit_test(test_smollm2_prompts),
    };
    if (argc > 1 && strcmp(argv[1], "smollm2") == 0) {
        model_path = vectors_model_path("CLOISTER_TEST_MODEL");
        return cmocka_run_group_tests_name("chat smollm2", smollm2, NULL, NULL);
    }
    return cmocka_run_group_tests_name("chat", tests, NULL, NULL);
}
