/*
 * chat_render.c - messages to text, with a note of which bytes are the template's and which the
 * user's; the tokenizer lets control tokens come only out of the former.
 */
#include "worker/model/chat_internal.h"

#include "common/limits.h"

#include <stdlib.h>
#include <string.h>

struct prompt {
    struct buf text;
    struct tokenizer_span *spans;
    size_t n_spans;
    size_t capacity;
    bool failed;
};

static void put(struct prompt *p, const char *bytes, size_t size, enum tokenizer_special special)
{
    if (size == 0 || p->failed)
        return;
    buf_append(&p->text, bytes, size);
    if (p->n_spans > 0 && p->spans[p->n_spans - 1].special == special) {
        p->spans[p->n_spans - 1].size += size;
        return;
    }
    if (p->n_spans == p->capacity) {
        size_t capacity = p->capacity < 16 ? 16 : p->capacity * 2;
        struct tokenizer_span *spans = realloc(p->spans, capacity * sizeof *spans);
        if (spans == NULL) {
            p->failed = true;
            return;
        }
        p->spans = spans;
        p->capacity = capacity;
    }
    p->spans[p->n_spans++] = (struct tokenizer_span){.size = size, .special = special};
}

static void put_template(struct prompt *p, const char *text)
{
    put(p, text, strlen(text), TOKENIZER_SPECIAL_PARSE);
}

static void put_user(struct prompt *p, const char *bytes, size_t size)
{
    put(p, bytes, size, TOKENIZER_SPECIAL_PLAIN);
}

/* Bytes of the white space character at `p`, by Python's str.strip, which Jinja's trim is. */
static size_t space_size(const char *bytes, size_t size)
{
    const unsigned char *p = (const unsigned char *)bytes;
    if (size >= 1 &&
        (p[0] == ' ' || (p[0] >= 0x09 && p[0] <= 0x0d) || (p[0] >= 0x1c && p[0] <= 0x1f)))
        return 1;
    if (size >= 2 && p[0] == 0xc2 && (p[1] == 0x85 || p[1] == 0xa0))
        return 2;
    if (size < 3)
        return 0;
    unsigned point = (p[0] & 0x0fu) << 12 | (p[1] & 0x3fu) << 6 | (p[2] & 0x3fu);
    bool three = (p[0] & 0xf0u) == 0xe0 && (p[1] & 0xc0u) == 0x80 && (p[2] & 0xc0u) == 0x80;
    bool space = point == 0x1680 || (point >= 0x2000 && point <= 0x200a) || point == 0x2028 ||
                 point == 0x2029 || point == 0x202f || point == 0x205f || point == 0x3000;
    return three && space ? 3 : 0;
}

static void put_trimmed(struct prompt *p, const struct chat_message *m)
{
    const char *bytes = m->content;
    size_t size = m->content_size;
    for (size_t n = space_size(bytes, size); n > 0; n = space_size(bytes, size)) {
        bytes += n;
        size -= n;
    }
    for (size_t n = 1; n > 0;) {
        n = 0;
        for (size_t tail = 1; tail <= 3 && tail <= size && n == 0; tail++) {
            if (space_size(bytes + size - tail, tail) == tail)
                n = tail;
        }
        size -= n;
    }
    put_user(p, bytes, size);
}

static void put_content(struct prompt *p, const struct chat_message *m, bool trim)
{
    if (trim)
        put_trimmed(p, m);
    else
        put_user(p, m->content, m->content_size);
}

static bool is_role(const struct chat_message *m, const char *role)
{
    return m->role_size == strlen(role) && memcmp(m->role, role, m->role_size) == 0;
}

/* Roles we know, and the orders that the template itself raises an exception for. */
static enum err check_roles(const struct chat_template *c, const struct chat_message *m, size_t n,
                            struct errbuf *eb)
{
    if (n == 0)
        return err_set(eb, ERR_INVALID, "a chat of no messages");
    size_t turn = 0;
    for (size_t i = 0; i < n; i++) {
        bool system = is_role(&m[i], "system");
        bool user = is_role(&m[i], "user");
        if (!system && !user && !is_role(&m[i], "assistant"))
            return err_set(eb, ERR_INVALID,
                           "message %zu: its role is not one of system, user, assistant", i);
        if (system && c->system == CHAT_SYSTEM_NOWHERE)
            return err_set(eb, ERR_INVALID,
                           "message %zu: the %s template has no place for a system message", i,
                           c->name);
        if (system && c->system != CHAT_SYSTEM_ANYWHERE && i > 0)
            return err_set(eb, ERR_INVALID,
                           "message %zu: in the %s template a system message can only be the first",
                           i, c->name);
        if (system)
            continue;
        if (c->alternate && user != (turn % 2 == 0))
            return err_set(eb, ERR_INVALID,
                           "message %zu: in the %s template user and assistant take turns, "
                           "beginning with user",
                           i, c->name);
        turn++;
    }
    return ERR_OK;
}

static void render_chatml(struct prompt *p, const struct chat_template *c,
                          const struct chat_message *m, size_t n)
{
    if (c->system_default != NULL && !is_role(&m[0], "system")) {
        put_template(p, "<|im_start|>system\n");
        put_template(p, c->system_default);
        put_template(p, "<|im_end|>\n");
    }
    for (size_t i = 0; i < n; i++) {
        put_template(p, "<|im_start|>");
        put(p, m[i].role, m[i].role_size, TOKENIZER_SPECIAL_PARSE);
        put_template(p, "\n");
        put_user(p, m[i].content, m[i].content_size);
        put_template(p, "<|im_end|>\n");
    }
}

static void put_llama3_header(struct prompt *p, const char *role, size_t size)
{
    put_template(p, "<|start_header_id|>");
    put(p, role, size, TOKENIZER_SPECIAL_PARSE);
    put_template(p, "<|end_header_id|>\n\n");
}

static void render_llama3(struct prompt *p, const struct chat_template *c,
                          const struct chat_message *m, size_t n)
{
    size_t i = 0;
    if (c->date != NULL) {
        put_llama3_header(p, "system", strlen("system"));
        put_template(p, "Cutting Knowledge Date: December 2023\nToday Date: ");
        put_template(p, c->date);
        put_template(p, "\n\n");
        if (is_role(&m[0], "system"))
            put_content(p, &m[i++], c->trim);
        put_template(p, "<|eot_id|>");
    }
    for (; i < n; i++) {
        put_llama3_header(p, m[i].role, m[i].role_size);
        put_content(p, &m[i], c->trim);
        put_template(p, "<|eot_id|>");
    }
}

static void render_gemma(struct prompt *p, const struct chat_message *m, size_t n)
{
    size_t first = is_role(&m[0], "system") ? 1 : 0;
    for (size_t i = first; i < n; i++) {
        put_template(p, "<start_of_turn>");
        put_template(p, is_role(&m[i], "assistant") ? "model" : "user");
        put_template(p, "\n");
        if (i == first && first == 1) {
            put_user(p, m[0].content, m[0].content_size);
            put_template(p, "\n\n");
        }
        put_trimmed(p, &m[i]);
        put_template(p, "<end_of_turn>\n");
    }
}

static void render_mistral(struct prompt *p, const struct chat_template *c,
                           const struct chat_message *m, size_t n)
{
    bool v7 = c->family == CHAT_FAMILY_MISTRAL_V7;
    size_t first = !v7 && is_role(&m[0], "system") ? 1 : 0;
    size_t with_system = n;
    if (first == 1)
        with_system = c->system == CHAT_SYSTEM_FIRST ? first : n - 1;
    for (size_t i = first; i < n; i++) {
        if (is_role(&m[i], "assistant")) {
            put_template(p, c->inner);
            put_content(p, &m[i], c->trim);
            put_template(p, c->eos);
            continue;
        }
        bool system = is_role(&m[i], "system");
        put_template(p, c->outer);
        put_template(p, system ? "[SYSTEM_PROMPT]" : "[INST]");
        put_template(p, c->inner);
        if (i == with_system) {
            put_user(p, m[0].content, m[0].content_size);
            put_template(p, "\n\n");
        }
        put_user(p, m[i].content, m[i].content_size);
        put_template(p, c->outer);
        put_template(p, system ? "[/SYSTEM_PROMPT]" : "[/INST]");
    }
}

static enum err render(struct prompt *p, const struct chat_template *c,
                       const struct chat_message *m, size_t n, bool add_generation_prompt,
                       struct errbuf *eb)
{
    enum err e = check_roles(c, m, n, eb);
    if (e != ERR_OK)
        return e;
    switch (c->family) {
    case CHAT_FAMILY_CHATML:
        render_chatml(p, c, m, n);
        if (add_generation_prompt)
            put_template(p, "<|im_start|>assistant\n");
        break;
    case CHAT_FAMILY_LLAMA3:
        render_llama3(p, c, m, n);
        if (add_generation_prompt)
            put_llama3_header(p, "assistant", strlen("assistant"));
        break;
    case CHAT_FAMILY_GEMMA:
        render_gemma(p, m, n);
        if (add_generation_prompt)
            put_template(p, "<start_of_turn>model\n");
        break;
    case CHAT_FAMILY_MISTRAL:
    case CHAT_FAMILY_MISTRAL_V7:
        render_mistral(p, c, m, n);
        break;
    }
    if (p->failed || p->text.failed)
        return err_set(eb, ERR_NO_MEMORY, "no memory for a prompt of %zu messages", n);
    return ERR_OK;
}

static void prompt_fini(struct prompt *p)
{
    buf_fini(&p->text);
    free(p->spans);
}

/* What the template itself puts into a prompt, in bytes: measured on conversations of empty
 * messages. */
struct template_bytes {
    const struct chat_template *c;
    struct chat_message messages[3];
    size_t first; /* the most that a conversation of one message has */
    size_t each;  /* the most that one more adds */
};

/* All conversations that begin with the `n` messages, which make `before` bytes. What a message
 * adds depends on its role and on whether it is the first, so three messages say what is to be
 * known of more. */
static enum err template_measure(struct template_bytes *b, size_t n, size_t before,
                                 struct errbuf *eb)
{
    static const char *const roles[] = {"system", "user", "assistant"};
    enum err e = ERR_OK;
    for (size_t i = 0; i < 3 && e != ERR_NO_MEMORY; i++) {
        struct prompt p = {0};
        b->messages[n] =
            (struct chat_message){.role = roles[i], .role_size = strlen(roles[i]), .content = ""};
        e = render(&p, b->c, b->messages, n + 1, true, eb);
        size_t size = p.text.size;
        size_t *most = n == 0 ? &b->first : &b->each;
        prompt_fini(&p);
        if (e != ERR_OK)
            continue; /* not an order that the template has */
        if (size > before && size - before > *most)
            *most = size - before;
        if (n + 1 < sizeof b->messages / sizeof b->messages[0])
            e = template_measure(b, n + 1, size, eb);
    }
    return e == ERR_NO_MEMORY ? e : ERR_OK;
}

static uint32_t tokens_of_bytes(size_t bytes, uint32_t per_kib)
{
    size_t tokens = bytes / 1024 * per_kib + (bytes % 1024 * per_kib + 1023) / 1024;
    return tokens < LIMIT_CONTEXT_TOKENS ? (uint32_t)tokens : LIMIT_CONTEXT_TOKENS;
}

enum err chat_prompt_bound(const struct chat_template *c, const struct tokenizer *t,
                           struct prompt_bound *ret_bound, struct errbuf *eb)
{
    struct tokenizer_bound text;
    struct prompt_bound bound;
    struct template_bytes bytes = {.c = c};
    tokenizer_bound(t, &text);
    if (c != NULL) {
        enum err e = template_measure(&bytes, 0, 0, eb);
        if (e != ERR_OK)
            return e;
    }
    /* A conversation has one message at least. */
    size_t fixed = bytes.first > bytes.each ? bytes.first - bytes.each : 0;
    bound.per_job = tokens_of_bytes(fixed, text.per_kib_template);
    if (bound.per_job > LIMIT_CONTEXT_TOKENS - text.fixed)
        bound.per_job = LIMIT_CONTEXT_TOKENS - text.fixed;
    bound.per_job += text.fixed;
    bound.per_message = tokens_of_bytes(bytes.each, text.per_kib_template);
    bound.per_kib = text.per_kib_user;
    *ret_bound = bound;
    return ERR_OK;
}

enum err chat_template_render(const struct chat_template *c, const struct chat_message *messages,
                              size_t n_messages, bool add_generation_prompt, struct buf *ret_text,
                              struct errbuf *eb)
{
    struct prompt p = {0};
    enum err e = render(&p, c, messages, n_messages, add_generation_prompt, eb);
    if (e == ERR_OK) {
        buf_append(ret_text, p.text.data, p.text.size);
        if (ret_text->failed)
            e = err_set(eb, ERR_NO_MEMORY, "no memory for a prompt of %zu bytes", p.text.size);
    }
    prompt_fini(&p);
    return e;
}

/* The vocabulary cannot express a byte of the prompt. Its place there is nothing to whoever sent
 * messages: it is looked for in each of them. */
static enum err name_message(const struct tokenizer *t, const struct chat_message *m, size_t n,
                             struct errbuf *eb)
{
    for (size_t i = 0; i < n; i++) {
        struct tokens ids = {0};
        struct errbuf own = {{0}};
        enum err e = tokenizer_encode(t, m[i].content, m[i].content_size, TOKENIZER_SPECIAL_PLAIN,
                                      false, &ids, &own);
        tokens_fini(&ids);
        if (e != ERR_OK)
            return err_set(eb, e, "message %zu: %s", i, own.text);
    }
    return err_prefix(eb, ERR_INVALID, "the chat template's own text");
}

enum err chat_template_encode(const struct chat_template *c, const struct tokenizer *t,
                              const struct chat_message *messages, size_t n_messages,
                              bool add_generation_prompt, struct tokens *tokens, struct errbuf *eb)
{
    struct prompt p = {0};
    size_t count_before = tokens->count;
    enum err e = render(&p, c, messages, n_messages, add_generation_prompt, eb);
    if (e == ERR_OK && c->bos)
        e = tokens_append(tokens, tokenizer_bos(t));
    if (e == ERR_OK) {
        e = tokenizer_encode_spans(t, p.text.data, p.spans, p.n_spans, true, tokens, eb);
        if (e == ERR_INVALID)
            e = name_message(t, messages, n_messages, eb);
    }
    if (e != ERR_OK)
        tokens->count = count_before;
    prompt_fini(&p);
    return e;
}
