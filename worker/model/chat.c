/*
 * chat.c - which known template a file has.
 *
 * The Jinja source is flattened to the text it would make: string literals and raw text as they
 * are, `message['role']` and `message['content']` as one mark each, statements in {% %}. Two
 * sources that are written differently and say the same become the same here, and what a template
 * makes of one message can be compared as a whole.
 */
#include "worker/model/chat_internal.h"

#include "common/check.h"

#include <stdlib.h>
#include <string.h>

#define ROLE    "\x01"
#define CONTENT "\x02"

#define TEMPLATE_BYTES_MAX (1u << 20)

/* --- flattening --- */

struct flat {
    struct buf *out;
    const char *at;
    const char *end;
    size_t raw_start; /* in out: where the present raw text begins */
    bool line_start;  /* the raw text begins a line */
};

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static bool flat_looking_at(const struct flat *f, const char *text)
{
    size_t size = strlen(text);
    return (size_t)(f->end - f->at) >= size && memcmp(f->at, text, size) == 0;
}

static void flat_truncate(struct flat *f, size_t size)
{
    f->out->size = size;
    if (f->out->data != NULL)
        f->out->data[size] = 0;
}

/* What a tag takes of the raw text before it: all white space for {%- and {{-, and for the other
 * statements the indentation of their line (lstrip_blocks, which chat templates are run with). */
static void flat_strip_left(struct flat *f, bool all, bool statement)
{
    size_t size = f->out->size;
    const char *text = buf_str(f->out);
    if (all) {
        while (size > f->raw_start && is_space(text[size - 1]))
            size--;
    } else if (statement) {
        while (size > f->raw_start && (text[size - 1] == ' ' || text[size - 1] == '\t'))
            size--;
        bool whole_line = size > f->raw_start ? text[size - 1] == '\n' : f->line_start;
        if (!whole_line)
            size = f->out->size;
    }
    if (!f->out->failed)
        flat_truncate(f, size);
}

static void flat_literal(struct flat *f)
{
    char quote = *f->at++;
    while (f->at < f->end && *f->at != quote) {
        char c = *f->at++;
        if (c == '\\' && f->at < f->end) {
            c = *f->at++;
            c = c == 'n' ? '\n' : c == 't' ? '\t' : c == 'r' ? '\r' : c;
        }
        buf_append_byte(f->out, (uint8_t)c);
    }
    if (f->at < f->end)
        f->at++;
}

/* From behind the opening mark to behind the closing one. */
static void flat_tag(struct flat *f, const char *close, bool keep)
{
    bool strip_right = false;
    size_t start = f->out->size;
    while (f->at < f->end) {
        if (*f->at == '-' && f->end - f->at >= 3 && memcmp(f->at + 1, close, 2) == 0) {
            strip_right = true;
            f->at++;
        }
        if (flat_looking_at(f, close)) {
            f->at += 2;
            break;
        }
        char c = *f->at;
        if (keep && (c == '\'' || c == '"')) {
            flat_literal(f);
            continue;
        }
        f->at++;
        if (!is_space(c) && c != '+' && c != '~' && c != '(' && c != ')')
            buf_append_byte(f->out, (uint8_t)c);
    }
    if (!keep && !f->out->failed)
        flat_truncate(f, start);
    f->line_start = false;
    if (strip_right) {
        while (f->at < f->end && is_space(*f->at))
            f->at++;
    } else if (close[0] != '}' && f->at < f->end && *f->at == '\n') {
        f->at++; /* trim_blocks */
        f->line_start = true;
    }
}

static void flatten(struct buf *out, struct gguf_string source)
{
    struct flat f = {
        .out = out, .at = source.bytes, .end = source.bytes + source.size, .line_start = true};
    while (f.at < f.end) {
        bool statement = flat_looking_at(&f, "{%");
        bool comment = flat_looking_at(&f, "{#");
        if (!statement && !comment && !flat_looking_at(&f, "{{")) {
            char c = *f.at++;
            if (c != ROLE[0] && c != CONTENT[0])
                buf_append_byte(out, (uint8_t)c);
            continue;
        }
        f.at += 2;
        bool all = f.at < f.end && *f.at == '-';
        if (all)
            f.at++;
        flat_strip_left(&f, all, statement || comment);
        if (statement)
            buf_append_str(out, "{%");
        flat_tag(&f, statement ? "%}" : comment ? "#}" : "}}", !comment);
        if (statement)
            buf_append_str(out, "%}");
        f.raw_start = out->size;
    }
}

/* message['role'], message["role"] and message.role to one mark, contents likewise. */
static void flat_mark(struct buf *b)
{
    static const struct {
        const char *text;
        const char *mark;
    } marks[] = {
        {"message[role]", ROLE},
        {"message.role", ROLE},
        {"message[content]", CONTENT},
        {"message.content", CONTENT},
    };
    size_t to = 0;
    for (size_t at = 0; at < b->size;) {
        size_t taken = 0;
        for (size_t i = 0; i < sizeof marks / sizeof marks[0] && taken == 0; i++) {
            size_t size = strlen(marks[i].text);
            if (b->size - at >= size && memcmp(b->data + at, marks[i].text, size) == 0) {
                b->data[to++] = (uint8_t)marks[i].mark[0];
                taken = size;
            }
        }
        if (taken == 0) {
            b->data[to++] = b->data[at];
            taken = 1;
        }
        at += taken;
    }
    b->size = to;
    if (b->data != NULL)
        b->data[to] = 0;
}

static const char *flat_find(const struct buf *b, const char *text)
{
    return b->size > 0 ? memmem(b->data, b->size, text, strlen(text)) : NULL;
}

/* --- recognising --- */

#define INST(outer, inner) outer "[INST]" inner CONTENT outer "[/INST]"

struct chat_row {
    const char *name;
    const char *sign; /* what makes one think of this family at all */
    const char *must[4];
    const char *must_not[6];
    enum chat_family family;
    const char *outer;
    const char *inner;
};

static const struct chat_row rows[] = {
    {"chatml",
     "<|im_start|>",
     {"<|im_start|>" ROLE "\n" CONTENT "<|im_end|>\n"},
     {"<|im_sep|>", "<end_of_utterance>", "<think>", "strip", "|trim"},
     CHAT_FAMILY_CHATML,
     "",
     ""},
    {"llama3",
     "<|start_header_id|>",
     {"<|start_header_id|>" ROLE "<|end_header_id|>\n\n" CONTENT "|trim<|eot_id|>"},
     {"Today Date", "Cutting Knowledge"},
     CHAT_FAMILY_LLAMA3,
     "",
     ""},
    {"llama3",
     "<|start_header_id|>",
     {"<|start_header_id|>" ROLE "<|end_header_id|>\n\n" CONTENT "<|eot_id|>"},
     {"Today Date", "Cutting Knowledge", "|trim"},
     CHAT_FAMILY_LLAMA3,
     "",
     ""},
    {"llama3.1",
     "<|start_header_id|>",
     {"<|start_header_id|>" ROLE "<|end_header_id|>\n\n" CONTENT "|trim<|eot_id|>",
      "<|start_header_id|>system<|end_header_id|>\n\n",
      "Cutting Knowledge Date: December 2023\nToday Date: date_string\n\n", "{%setdate_string="},
     {0},
     CHAT_FAMILY_LLAMA3,
     "",
     ""},
    {"gemma",
     "<start_of_turn>",
     {"<start_of_turn>role\n" CONTENT "|trim<end_of_turn>\n", "{%setrole=model%}",
      "System role not supported"},
     {0},
     CHAT_FAMILY_GEMMA,
     "",
     ""},
    {"gemma3",
     "<start_of_turn>",
     {"<start_of_turn>role\nfirst_user_prefixifloop.firstelse",
      "{%setfirst_user_prefix=messages[0][content]\n\n%}", CONTENT "|trim", "<end_of_turn>\n"},
     {0},
     CHAT_FAMILY_GEMMA,
     "",
     ""},
    {"mistral-v7",
     "[SYSTEM_PROMPT]",
     {"[SYSTEM_PROMPT] " CONTENT "[/SYSTEM_PROMPT]", INST("", " "), " " CONTENT "eos_token"},
     {"default_system_message", "|trim"},
     CHAT_FAMILY_MISTRAL_V7,
     "",
     " "},
    {"mistral-v7-tekken",
     "[SYSTEM_PROMPT]",
     {"[SYSTEM_PROMPT]" CONTENT "[/SYSTEM_PROMPT]", INST("", ""), CONTENT "eos_token"},
     {"default_system_message", "|trim", " " CONTENT "eos_token"},
     CHAT_FAMILY_MISTRAL_V7,
     "",
     ""},
    {"mistral-v1",
     "[INST]",
     {INST(" ", " "), " " CONTENT "eos_token"},
     {"<<SYS>>", "[SYSTEM_PROMPT]", "|trim"},
     CHAT_FAMILY_MISTRAL,
     " ",
     " "},
    {"mistral-v3",
     "[INST]",
     {INST("", " "), " " CONTENT "|trimeos_token"},
     {"<<SYS>>", "[SYSTEM_PROMPT]"},
     CHAT_FAMILY_MISTRAL,
     "",
     " "},
    {"mistral-v3-tekken",
     "[INST]",
     {INST("", ""), CONTENT "eos_token"},
     {"<<SYS>>", "[SYSTEM_PROMPT]", "|trim", " " CONTENT "eos_token"},
     CHAT_FAMILY_MISTRAL,
     "",
     ""},
};

#define N_ROWS (sizeof rows / sizeof rows[0])

/* A condition as people would write it. */
static void show_condition(struct buf *out, const char *text)
{
    buf_append_str(out, "'");
    for (; *text != 0; text++) {
        if (*text == ROLE[0])
            buf_append_str(out, "{role}");
        else if (*text == CONTENT[0])
            buf_append_str(out, "{content}");
        else if (*text == '\n')
            buf_append_str(out, "\\n");
        else
            buf_append_byte(out, (uint8_t)*text);
    }
    buf_append_str(out, "'");
}

/* The first condition the row fails by; false where there is none. */
static bool row_fails(const struct chat_row *r, const struct buf *flat, struct buf *why)
{
    for (size_t i = 0; i < sizeof r->must / sizeof r->must[0] && r->must[i] != NULL; i++) {
        if (flat_find(flat, r->must[i]) == NULL) {
            buf_printf(why, "%s would have ", r->name);
            show_condition(why, r->must[i]);
            return true;
        }
    }
    for (size_t i = 0; i < sizeof r->must_not / sizeof r->must_not[0]; i++) {
        if (r->must_not[i] != NULL && flat_find(flat, r->must_not[i]) != NULL) {
            buf_printf(why, "%s would not have ", r->name);
            show_condition(why, r->must_not[i]);
            return true;
        }
    }
    return false;
}

static enum err recognise(const struct buf *flat, const struct chat_row **ret, struct errbuf *eb)
{
    struct buf why;
    const char *sign = NULL;
    enum err e = ERR_OK;
    buf_init(&why);
    for (size_t i = 0; i < N_ROWS; i++) {
        if (flat_find(flat, rows[i].sign) == NULL)
            continue;
        /* [SYSTEM_PROMPT] templates have [INST] as well; their own rows say more. */
        if (sign != NULL && strcmp(sign, "[SYSTEM_PROMPT]") == 0 &&
            strcmp(rows[i].sign, "[INST]") == 0)
            continue;
        if (sign != NULL)
            buf_append_str(&why, "; ");
        sign = rows[i].sign;
        if (!row_fails(&rows[i], flat, &why)) {
            *ret = &rows[i];
            goto out;
        }
    }
    if (sign == NULL)
        e = err_set(
            eb, ERR_UNSUPPORTED,
            "key 'tokenizer.chat_template': none of the signs of a template this build "
            "renders is in it (<|im_start|>, <|start_header_id|>, <start_of_turn>, [INST])");
    else
        e = err_set(eb, ERR_UNSUPPORTED,
                    "key 'tokenizer.chat_template' has %s, but is none of the templates this build "
                    "renders: %s",
                    sign, buf_str(&why));
out:
    buf_fini(&why);
    return e;
}

static char *copy_range(const char *from, size_t size)
{
    char *copy = malloc(size + 1);
    if (copy != NULL) {
        memcpy(copy, from, size);
        copy[size] = 0;
    }
    return copy;
}

/* ChatML templates that bring a system message of their own write it out as one literal. */
static enum err find_system_default(struct chat_template *c, const struct buf *flat)
{
    static const char open[] = "<|im_start|>system\n";
    static const char close[] = "<|im_end|>\n";
    const char *end = (const char *)flat->data + flat->size;
    for (const char *at = flat_find(flat, open); at != NULL;
         at = memmem(at, (size_t)(end - at), open, strlen(open))) {
        at += strlen(open);
        /* Up to what no literal has: the next search goes on from there. */
        const char *from = at;
        while (at < end && *at != '{' && *at != CONTENT[0] && *at != '[' &&
               !((size_t)(end - at) >= 5 && memcmp(at, "<|im_", 5) == 0))
            at++;
        bool literal = at > from && (size_t)(end - at) >= strlen(close) &&
                       memcmp(at, close, strlen(close)) == 0;
        if (literal) {
            c->system_default = copy_range(from, (size_t)(at - from));
            return c->system_default != NULL ? ERR_OK : ERR_NO_MEMORY;
        }
    }
    return ERR_OK;
}

/* The date that Llama 3.1's template falls back to. That of the day would make yesterday's prompt
 * another one today. */
static enum err find_date(struct chat_template *c, const struct buf *flat, struct errbuf *eb)
{
    static const char open[] = "{%setdate_string=";
    const char *end = (const char *)flat->data + flat->size;
    for (const char *at = flat_find(flat, open); at != NULL;
         at = memmem(at, (size_t)(end - at), open, strlen(open))) {
        at += strlen(open);
        if (at == end || *at < '0' || *at > '9')
            continue;
        const char *stop = memmem(at, (size_t)(end - at), "%}", 2);
        if (stop == NULL)
            break;
        c->date = copy_range(at, (size_t)(stop - at));
        return c->date != NULL ? ERR_OK : err_set(eb, ERR_NO_MEMORY, "no memory");
    }
    return err_set(eb, ERR_UNSUPPORTED,
                   "key 'tokenizer.chat_template': it writes a date into every prompt and has none "
                   "to fall back to");
}

/* Control tokens the family cannot do without: as plain text they would be read as the user's. */
static enum err check_tokens(const struct chat_template *c, const struct tokenizer *t,
                             struct errbuf *eb)
{
    static const char *const chatml[] = {"<|im_start|>", "<|im_end|>", NULL};
    static const char *const llama3[] = {"<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>",
                                         NULL};
    static const char *const gemma[] = {"<start_of_turn>", "<end_of_turn>", NULL};
    static const char *const none[] = {NULL};
    const char *const *want = c->family == CHAT_FAMILY_CHATML   ? chatml
                              : c->family == CHAT_FAMILY_LLAMA3 ? llama3
                              : c->family == CHAT_FAMILY_GEMMA  ? gemma
                                                                : none;
    for (; *want != NULL; want++) {
        if (tokenizer_find_special(t, *want) < 0)
            return err_set(
                eb, ERR_INVALID,
                "key 'tokenizer.chat_template' is %s, but '%s' is not a control token of "
                "the vocabulary",
                c->name, *want);
    }
    return ERR_OK;
}

static enum err fill(struct chat_template *c, const struct chat_row *r, const struct buf *flat,
                     const struct tokenizer *t, struct errbuf *eb)
{
    c->name = r->name;
    c->family = r->family;
    c->outer = r->outer;
    c->inner = r->inner;
    c->bos = tokenizer_adds_bos(t) || flat_find(flat, "bos_token") != NULL;
    if (c->bos && tokenizer_bos(t) < 0)
        return err_set(eb, ERR_INVALID,
                       "key 'tokenizer.chat_template' begins with the BOS token, but there is no "
                       "'tokenizer.ggml.bos_token_id'");
    c->alternate = flat_find(flat, "must alternate") != NULL;
    c->trim = flat_find(flat, CONTENT "|trim") != NULL;
    c->system = CHAT_SYSTEM_ANYWHERE;
    if (c->family == CHAT_FAMILY_GEMMA)
        c->system = strcmp(c->name, "gemma3") == 0 ? CHAT_SYSTEM_FIRST : CHAT_SYSTEM_NOWHERE;
    if (c->family == CHAT_FAMILY_MISTRAL)
        c->system = flat_find(flat, "loop.firstandsystem_message") != NULL  ? CHAT_SYSTEM_FIRST
                    : flat_find(flat, "loop.lastandsystem_message") != NULL ? CHAT_SYSTEM_LAST
                                                                            : CHAT_SYSTEM_NOWHERE;
    enum err e = check_tokens(c, t, eb);
    if (e != ERR_OK)
        return e;
    if (c->family == CHAT_FAMILY_CHATML && find_system_default(c, flat) != ERR_OK)
        return err_set(eb, ERR_NO_MEMORY, "no memory");
    if (strcmp(c->name, "llama3.1") == 0)
        return find_date(c, flat, eb);
    if (c->family == CHAT_FAMILY_MISTRAL || c->family == CHAT_FAMILY_MISTRAL_V7) {
        struct buf eos;
        buf_init(&eos);
        tokenizer_decode(t, tokenizer_eos(t), true, false, &eos);
        if (eos.size > 0)
            c->eos = copy_range(buf_str(&eos), eos.size);
        buf_fini(&eos);
        if (c->eos == NULL)
            return err_set(eb, ERR_INVALID,
                           "key 'tokenizer.chat_template' ends messages with the EOS token, but "
                           "there is no 'tokenizer.ggml.eos_token_id'");
    }
    return ERR_OK;
}

enum err chat_template_open(struct chat_template **ret_template, const struct gguf *g,
                            const struct tokenizer *t, struct errbuf *eb)
{
    struct gguf_string source;
    struct buf flat;
    const struct chat_row *row = NULL;
    struct chat_template *c = NULL;

    enum err e = gguf_get_string(g, "tokenizer.chat_template", &source, eb);
    if (e == ERR_NOT_FOUND)
        return err_set(eb, ERR_UNSUPPORTED,
                       "the file has no chat template (key 'tokenizer.chat_template'); it is not a "
                       "chat model");
    if (e != ERR_OK)
        return e;
    if (source.size > TEMPLATE_BYTES_MAX)
        return err_set(eb, ERR_TOO_LARGE, "key 'tokenizer.chat_template': %zu bytes", source.size);
    buf_init(&flat);
    flatten(&flat, source);
    if (flat.failed) {
        e = err_set(eb, ERR_NO_MEMORY, "no memory for the chat template");
        goto out;
    }
    flat_mark(&flat);
    e = recognise(&flat, &row, eb);
    if (e != ERR_OK)
        goto out;
    c = calloc(1, sizeof *c);
    if (c == NULL) {
        e = err_set(eb, ERR_NO_MEMORY, "no memory for the chat template");
        goto out;
    }
    e = fill(c, row, &flat, t, eb);
out:
    buf_fini(&flat);
    if (e != ERR_OK) {
        chat_template_close(c);
        return e;
    }
    *ret_template = c;
    return ERR_OK;
}

void chat_template_close(struct chat_template *c)
{
    if (c == NULL)
        return;
    free(c->system_default);
    free(c->date);
    free(c->eos);
    free(c);
}

const char *chat_template_name(const struct chat_template *c)
{
    return c->name;
}
