/* cloister-engine tokenize, detokenize: a file's own tokenizer on standard input. */
#include "worker/engine_tool/tool.h"

#include "common/limits.h"
#include "worker/model/tokenizer.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#define INPUT_BYTES_MAX (1u << 30)

struct tokens_options {
    bool special, json, jsonl;
};

static const struct flag flags[] = {
    {.name = "special",
     .type = FLAG_SWITCH,
     .offset = offsetof(struct tokens_options, special),
     .help = "Control tokens: in a text they become their ids, and their ids become text."},
    {.name = "json",
     .type = FLAG_SWITCH,
     .offset = offsetof(struct tokens_options, json),
     .help = "The result as one JSON list of ids, or JSON string."},
    {.name = "jsonl",
     .type = FLAG_SWITCH,
     .offset = offsetof(struct tokens_options, jsonl),
     .help = "A JSON string, or list of ids, on each line of input; the other on each of output."},
    {0}};

static const struct flag_set sets[] = {{flags, 0}, {0}};

static enum err open_tokenizer(const char *path, struct tokenizer **ret_tokenizer,
                               struct errbuf *eb)
{
    struct gguf *g = NULL;
    enum err err = gguf_open_file(&g, path, true, eb);

    if (err != ERR_OK)
        return err;
    err = tokenizer_open(ret_tokenizer, g, eb);
    gguf_close(g);
    return err;
}

static enum err encode(const struct tokens_options *o, const struct tokenizer *t, const void *text,
                       size_t size, struct tokens *ids, struct errbuf *eb)
{
    ids->count = 0;
    return tokenizer_encode(t, text, size,
                            o->special ? TOKENIZER_SPECIAL_PARSE : TOKENIZER_SPECIAL_PLAIN, true,
                            ids, eb);
}

static enum err decode(const struct tokens_options *o, const struct tokenizer *t,
                       const int32_t *ids, size_t count, struct buf *bytes, struct errbuf *eb)
{
    buf_clear(bytes);
    for (size_t i = 0; i < count; i++) {
        if (ids[i] < 0 || ids[i] >= tokenizer_vocab_size(t))
            return err_set(eb, ERR_INVALID, "id %d (number %zu): the vocabulary has %d tokens",
                           ids[i], i + 1, tokenizer_vocab_size(t));
        tokenizer_decode(t, ids[i], o->special, i == 0, bytes);
    }
    return bytes->failed ? err_set(eb, ERR_NO_MEMORY, "no memory for the text") : ERR_OK;
}

static void print_ids(const struct tokens *ids)
{
    for (size_t i = 0; i < ids->count; i++)
        printf("%s%d", i == 0 ? "" : " ", ids->ids[i]);
    putchar('\n');
}

/* A JSON value a line, one answer a line. */
typedef enum err line_fn(const struct tokens_options *o, const struct tokenizer *t,
                         const json_t *line, json_t **ret_answer, struct errbuf *eb);

static enum err tokenize_line(const struct tokens_options *o, const struct tokenizer *t,
                              const json_t *line, json_t **ret_answer, struct errbuf *eb)
{
    struct tokens ids = {0};
    enum err err;

    if (!json_is_string(line))
        return err_set(eb, ERR_INVALID, "not a JSON string");
    err = encode(o, t, json_string_value(line), json_string_length(line), &ids, eb);
    if (err == ERR_OK)
        *ret_answer = tool_json_ids(ids.ids, ids.count);
    tokens_fini(&ids);
    return err;
}

static enum err detokenize_line(const struct tokens_options *o, const struct tokenizer *t,
                                const json_t *line, json_t **ret_answer, struct errbuf *eb)
{
    struct tokens ids = {0};
    struct buf bytes;
    enum err err = ERR_OK;

    if (!json_is_array(line))
        return err_set(eb, ERR_INVALID, "not a JSON list of token ids");
    for (size_t i = 0; i < json_array_size(line) && err == ERR_OK; i++) {
        const json_t *id = json_array_get(line, i);
        if (!json_is_integer(id) || json_integer_value(id) < 0 ||
            json_integer_value(id) > INT32_MAX)
            err = err_set(eb, ERR_INVALID, "element %zu is no token id", i + 1);
        else
            err = tokens_append(&ids, (int32_t)json_integer_value(id));
    }
    buf_init(&bytes);
    if (err == ERR_OK)
        err = decode(o, t, ids.ids, ids.count, &bytes, eb);
    if (err == ERR_OK)
        *ret_answer = tool_json_text(bytes.data, bytes.size);
    buf_fini(&bytes);
    tokens_fini(&ids);
    return err;
}

static int each_line(const struct tokens_options *o, const struct tokenizer *t, line_fn *fn)
{
    char *text = NULL;
    size_t capacity = 0, number = 0;
    ssize_t size;
    int result = TOOL_EXIT_OK;

    while (result == TOOL_EXIT_OK && (size = getline(&text, &capacity, stdin)) >= 0) {
        json_error_t why;
        struct errbuf eb = {{0}};
        json_t *answer = NULL;
        number++;
        json_t *line = json_loadb(text, (size_t)size, JSON_DECODE_ANY | JSON_ALLOW_NUL, &why);
        enum err err =
            line == NULL ? err_set(&eb, ERR_INVALID, "%s", why.text) : fn(o, t, line, &answer, &eb);
        json_decref(line);
        if (err != ERR_OK)
            result = tool_fail("line %zu: %s", number, eb.text);
        else
            result = tool_json_print(answer, false);
    }
    if (result == TOOL_EXIT_OK && ferror(stdin))
        result = tool_fail("cannot read the input: %s", strerror(errno));
    free(text);
    return result;
}

static int run_tokenize(void *values, char **operands)
{
    const struct tokens_options *o = values;
    struct tokenizer *t = NULL;
    struct tokens ids = {0};
    struct buf text;
    struct errbuf eb = {{0}};
    int result = TOOL_EXIT_OK;

    if (o->json && o->jsonl)
        return tool_usage("tokenize: --json and --jsonl exclude each other");
    if (open_tokenizer(operands[0], &t, &eb) != ERR_OK)
        return tool_fail_file(operands[0], &eb);
    buf_init(&text);
    if (o->jsonl)
        result = each_line(o, t, tokenize_line);
    else if (tool_read_all(stdin, INPUT_BYTES_MAX, &text, &eb) != ERR_OK ||
             encode(o, t, text.data, text.size, &ids, &eb) != ERR_OK)
        result = tool_fail("%s", eb.text);
    else if (o->json)
        result = tool_json_print(tool_json_ids(ids.ids, ids.count), false);
    else
        print_ids(&ids);
    buf_fini(&text);
    tokens_fini(&ids);
    tokenizer_close(t);
    return result == TOOL_EXIT_OK ? tool_finish_output() : result;
}

static int run_detokenize(void *values, char **operands)
{
    const struct tokens_options *o = values;
    struct tokenizer *t = NULL;
    int32_t *ids = NULL;
    size_t count = 0;
    struct buf text, bytes;
    struct errbuf eb = {{0}};
    int result = TOOL_EXIT_OK;

    if (o->json && o->jsonl)
        return tool_usage("detokenize: --json and --jsonl exclude each other");
    if (open_tokenizer(operands[0], &t, &eb) != ERR_OK)
        return tool_fail_file(operands[0], &eb);
    buf_init(&text);
    buf_init(&bytes);
    if (o->jsonl)
        result = each_line(o, t, detokenize_line);
    else if (tool_read_all(stdin, INPUT_BYTES_MAX, &text, &eb) != ERR_OK ||
             tool_parse_ids(buf_str(&text), text.size, &ids, &count, &eb) != ERR_OK ||
             decode(o, t, ids, count, &bytes, &eb) != ERR_OK)
        result = tool_fail("%s", eb.text);
    else if (o->json)
        result = tool_json_print(tool_json_text(bytes.data, bytes.size), false);
    else
        (void)fwrite(buf_str(&bytes), 1, bytes.size, stdout);
    buf_fini(&text);
    buf_fini(&bytes);
    free(ids);
    tokenizer_close(t);
    return result == TOOL_EXIT_OK ? tool_finish_output() : result;
}

const struct tool_command tool_tokenize_command = {
    .name = "tokenize",
    .operands = "FILE",
    .n_operands = 1,
    .summary = "text on standard input to token ids",
    .sets = sets,
    .values_bytes = sizeof(struct tokens_options),
    .run = run_tokenize,
};

const struct tool_command tool_detokenize_command = {
    .name = "detokenize",
    .operands = "FILE",
    .n_operands = 1,
    .summary = "token ids on standard input to text, byte for byte",
    .sets = sets,
    .values_bytes = sizeof(struct tokens_options),
    .run = run_detokenize,
};
