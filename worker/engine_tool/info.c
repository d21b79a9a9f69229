/* cloister-engine info: what a file says it is, and whether this build can run it. */
#include "worker/engine_tool/tool.h"

#include "common/units.h"
#include "worker/engine/engine.h"
#include "worker/model/chat.h"
#include "worker/model/file_type.h"
#include "worker/model/hparams.h"

#include <inttypes.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#define TYPES_MAX 64

struct type_count {
    const char *name;
    uint64_t tensors, bytes;
};

/* All that is found out; what could not be is "" or 0, and `reason` says why. */
struct file_info {
    const struct gguf *g;
    char architecture[64], name[128];
    struct model_hparams hparams;
    bool has_hparams;
    struct type_count types[TYPES_MAX];
    size_t n_types;
    uint64_t tensor_bytes, parameters;
    struct tokenizer *tokenizer;
    char tokenizer_reason[ERRBUF_BYTES];
    char tokenizer_pre[64];
    struct chat_template *chat;
    char chat_reason[ERRBUF_BYTES];
    struct engine_estimate estimate;
    char reason[ERRBUF_BYTES]; /* why this build cannot run it; "" where it can */
};

static void string_of_key(const struct gguf *g, const char *key, char *ret_text, size_t size)
{
    struct gguf_string value;

    if (gguf_get_string(g, key, &value, NULL) == ERR_OK)
        gguf_string_print(value, ret_text, size);
}

static void count_types(struct file_info *info)
{
    for (size_t i = 0; i < gguf_tensor_count(info->g); i++) {
        const struct gguf_tensor *t = gguf_tensor_at(info->g, i);
        const struct quant_type_info *type = quant_type_info((uint32_t)t->type);
        const char *name = type == NULL ? "?" : type->name;
        size_t k = 0;
        while (k < info->n_types && strcmp(info->types[k].name, name) != 0)
            k++;
        if (k == TYPES_MAX)
            continue;
        if (k == info->n_types)
            info->types[info->n_types++] = (struct type_count){.name = name};
        info->types[k].tensors++;
        info->types[k].bytes += t->size;
        info->tensor_bytes += t->size;
        info->parameters += t->dims[0] * t->dims[1] * t->dims[2] * t->dims[3];
    }
}

static void keep_reason(struct file_info *info, const struct errbuf *eb)
{
    if (info->reason[0] == 0)
        memcpy(info->reason, eb->text, sizeof info->reason);
}

static void look(struct file_info *info, const char *path)
{
    const struct engine_config engine = {0};
    const struct engine_model_config model = {.path = path};
    struct errbuf eb = {{0}};

    string_of_key(info->g, "general.architecture", info->architecture, sizeof info->architecture);
    string_of_key(info->g, "general.name", info->name, sizeof info->name);
    string_of_key(info->g, "tokenizer.ggml.pre", info->tokenizer_pre, sizeof info->tokenizer_pre);
    count_types(info);
    if (model_hparams_read(&info->hparams, info->g, &eb) == ERR_OK)
        info->has_hparams = true;
    else
        keep_reason(info, &eb);
    eb.text[0] = 0;
    if (info->has_hparams && engine_estimate_file(&engine, &model, &info->estimate, &eb) != ERR_OK)
        keep_reason(info, &eb);
    eb.text[0] = 0;
    if (tokenizer_open(&info->tokenizer, info->g, &eb) != ERR_OK) {
        memcpy(info->tokenizer_reason, eb.text, sizeof eb.text);
        keep_reason(info, &eb);
        return;
    }
    eb.text[0] = 0;
    if (chat_template_open(&info->chat, info->g, info->tokenizer, &eb) != ERR_OK)
        memcpy(info->chat_reason, eb.text, sizeof eb.text);
}

static void print_bytes(const char *label, uint64_t bytes)
{
    char text[UNITS_TEXT_BYTES];

    units_size_format(bytes, text);
    printf("  %-18s %s\n", label, text);
}

/* "24", or "16 to 24" where layers differ. */
static void range_text(const struct model_hparams *h, size_t field, char ret_text[32])
{
    uint32_t least = UINT32_MAX, most = 0;

    for (uint32_t i = 0; i < h->n_layers; i++) {
        uint32_t value;
        memcpy(&value, (const char *)&h->layer[i] + field, sizeof value);
        least = value < least ? value : least;
        most = value > most ? value : most;
    }
    (void)snprintf(ret_text, 32, least == most ? "%u" : "%u to %u", least, most);
}

static uint32_t window_of(const struct model_hparams *h, uint32_t *ret_layers)
{
    uint32_t window = 0;

    *ret_layers = 0;
    for (uint32_t i = 0; i < h->n_layers; i++)
        if (h->layer[i].window > 0) {
            window = h->layer[i].window;
            *ret_layers += 1;
        }
    return window;
}

static const char *scaling_name(const struct model_rope *rope)
{
    return rope->yarn ? "yarn" : "linear";
}

static void print_layers(const struct model_hparams *h)
{
    const struct model_rope *rope = &h->rope[MODEL_ROPE_GLOBAL];
    char heads[32], kv_heads[32], ff[32];
    uint32_t layers;

    range_text(h, offsetof(struct model_layer_hparams, n_heads), heads);
    range_text(h, offsetof(struct model_layer_hparams, n_kv_heads), kv_heads);
    range_text(h, offsetof(struct model_layer_hparams, n_ff), ff);
    printf("layers               %u of %u wide, feed-forward %s\n", h->n_layers, h->n_embd, ff);
    printf("attention            %s heads of %u, %s for keys and values\n", heads, h->head_dim,
           kv_heads);
    uint32_t window = window_of(h, &layers);
    if (window > 0)
        printf("windows              the last %u tokens in %u layers, rope base %g\n", window,
               layers, (double)h->rope[MODEL_ROPE_LOCAL].base);
    printf("rope                 base %g over %u of %u", (double)rope->base, h->rope_dim,
           h->head_dim);
    if (rope->factor != 1.0f)
        printf(", stretched %g times (%s)", (double)rope->factor, scaling_name(rope));
    printf("\n");
}

static void print_model(const struct file_info *info)
{
    const struct model_hparams *h = &info->hparams;
    char count[UNITS_TEXT_BYTES];

    printf("architecture         %s\n", info->architecture[0] ? info->architecture : "(none)");
    printf("name                 %s\n", info->name[0] ? info->name : "(none)");
    printf("quantization         %s\n", model_file_type_name(info->g));
    if (info->has_hparams) {
        print_layers(h);
        printf("context              %u tokens\n", h->context_length);
    }
    units_count_format(info->parameters, count);
    printf("parameters           %s in %zu tensors\n", count, gguf_tensor_count(info->g));
    for (size_t i = 0; i < info->n_types; i++) {
        char size[UNITS_TEXT_BYTES];
        units_size_format(info->types[i].bytes, size);
        printf("  %-18s %" PRIu64 " tensors, %s\n", info->types[i].name, info->types[i].tensors,
               size);
    }
}

/* By which Unicode words are split; NULL where they are not (SPM). */
static const char *unicode_of(const struct tokenizer *t, char text[32])
{
    if (strcmp(tokenizer_kind(t), "spm") == 0)
        return NULL;
    tokenizer_unicode_version(text);
    return text;
}

static void print_tokens(const struct file_info *info)
{
    const struct tokenizer *t = info->tokenizer;
    char unicode[32];

    if (t == NULL) {
        printf("tokenizer            not usable: %s\n", info->tokenizer_reason);
        return;
    }
    printf("tokenizer            %s, %d tokens", tokenizer_kind(t), tokenizer_vocab_size(t));
    if (tokenizer_bos(t) >= 0)
        printf(", BOS %d%s", tokenizer_bos(t), tokenizer_adds_bos(t) ? " (added)" : "");
    if (tokenizer_eos(t) >= 0)
        printf(", EOS %d", tokenizer_eos(t));
    putchar('\n');
    if (unicode_of(t, unicode) != NULL)
        printf("  %-18s %s\n", "words by Unicode", unicode);
    if (info->chat != NULL)
        printf("chat template        %s\n", chat_template_name(info->chat));
    else
        printf("chat template        not usable: %s\n", info->chat_reason);
}

static int print_text(const struct file_info *info, const char *path)
{
    char size[UNITS_TEXT_BYTES];

    units_size_format(gguf_file_size(info->g), size);
    printf("file                 %s\n", path);
    printf("format               GGUF version %u, %s, data from byte %" PRIu64 "\n",
           gguf_version(info->g), size, gguf_data_offset(info->g));
    print_model(info);
    print_tokens(info);
    if (info->estimate.weights_bytes > 0) {
        printf("memory when loaded   for 4 jobs of %u tokens, f16 cache\n",
               info->estimate.context_tokens);
        print_bytes("weights", info->estimate.weights_bytes);
        print_bytes("KV pool", info->estimate.kv_bytes);
        print_bytes("everything else", info->estimate.scratch_bytes);
    }
    if (info->reason[0] == 0)
        printf("this build           can run it\n");
    else
        printf("this build           cannot run it: %s\n", info->reason);
    return tool_finish_output();
}

/* One number, or a list with one for each layer where they differ. */
static json_t *json_of_layers(const struct model_hparams *h, size_t field)
{
    json_t *list = json_array(), *one;
    bool differ = false;

    for (uint32_t i = 0; i < h->n_layers; i++) {
        uint32_t value;
        memcpy(&value, (const char *)&h->layer[i] + field, sizeof value);
        json_array_append_new(list, json_integer(value));
        differ = differ || !json_equal(json_array_get(list, 0), json_array_get(list, i));
    }
    if (differ)
        return list;
    one = json_incref(json_array_get(list, 0));
    json_decref(list);
    return one;
}

static json_t *json_of_rope(const struct model_rope *rope)
{
    return json_pack("{s:f, s:s?, s:f}", "base", (double)rope->base, "scaling",
                     rope->factor == 1.0f ? NULL : scaling_name(rope), "factor",
                     (double)rope->factor);
}

static json_t *json_of_hparams(const struct model_hparams *h)
{
    uint32_t layers, window = window_of(h, &layers);
    json_t *root = json_pack(
        "{s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:b, s:f, s:f, s:f, s:f}", "layers",
        (json_int_t)h->n_layers, "embedding", (json_int_t)h->n_embd, "head_dim",
        (json_int_t)h->head_dim, "context_tokens", (json_int_t)h->context_length, "vocabulary",
        (json_int_t)h->vocab_size, "rope_dim", (json_int_t)h->rope_dim, "rms_epsilon",
        (double)h->rms_eps, "tied_embedding", h->tied_embedding, "embedding_scale",
        (double)h->embed_scale, "attention_scale", (double)h->attention_scale, "attention_softcap",
        (double)h->attention_softcap, "logit_softcap", (double)h->logit_softcap);

    json_object_set_new(root, "feed_forward",
                        json_of_layers(h, offsetof(struct model_layer_hparams, n_ff)));
    json_object_set_new(root, "heads",
                        json_of_layers(h, offsetof(struct model_layer_hparams, n_heads)));
    json_object_set_new(root, "kv_heads",
                        json_of_layers(h, offsetof(struct model_layer_hparams, n_kv_heads)));
    json_object_set_new(root, "rope_base", json_real((double)h->rope[MODEL_ROPE_GLOBAL].base));
    json_object_set_new(root, "rope", json_of_rope(&h->rope[MODEL_ROPE_GLOBAL]));
    json_object_set_new(root, "window", window > 0 ? json_integer(window) : json_null());
    if (window > 0) {
        json_object_set_new(root, "window_rope", json_of_rope(&h->rope[MODEL_ROPE_LOCAL]));
        json_object_set_new(root, "windows",
                            json_of_layers(h, offsetof(struct model_layer_hparams, window)));
    }
    return root;
}

static json_t *json_of_tokenizer(const struct file_info *info)
{
    const struct tokenizer *t = info->tokenizer;
    char unicode[32];

    if (t == NULL)
        return json_pack("{s:b, s:o}", "usable", 0, "reason",
                         tool_json_text(info->tokenizer_reason, strlen(info->tokenizer_reason)));
    return json_pack("{s:b, s:s, s:s, s:s?, s:i, s:i, s:i, s:b}", "usable", 1, "kind",
                     tokenizer_kind(t), "pre", info->tokenizer_pre, "unicode",
                     unicode_of(t, unicode), "tokens", tokenizer_vocab_size(t), "bos",
                     tokenizer_bos(t), "eos", tokenizer_eos(t), "adds_bos", tokenizer_adds_bos(t));
}

static json_t *json_of_types(const struct file_info *info)
{
    json_t *types = json_object();

    for (size_t i = 0; i < info->n_types; i++)
        json_object_set_new(types, info->types[i].name,
                            json_pack("{s:I, s:I}", "tensors", (json_int_t)info->types[i].tensors,
                                      "bytes", (json_int_t)info->types[i].bytes));
    return types;
}

static json_t *json_or_null(const char *text)
{
    return text[0] == 0 ? json_null() : tool_json_text(text, strlen(text));
}

static int print_json(const struct file_info *info, const char *path)
{
    const struct engine_estimate *e = &info->estimate;
    json_t *root = json_pack(
        "{s:o, s:I, s:I, s:I, s:I, s:o, s:I, s:I, s:I, s:o}", "file",
        tool_json_text(path, strlen(path)), "files", (json_int_t)gguf_file_count(info->g),
        "file_bytes", (json_int_t)gguf_file_size(info->g), "gguf_version",
        (json_int_t)gguf_version(info->g), "data_offset", (json_int_t)gguf_data_offset(info->g),
        "architecture", json_or_null(info->architecture), "parameters",
        (json_int_t)info->parameters, "tensors", (json_int_t)gguf_tensor_count(info->g),
        "tensor_bytes", (json_int_t)info->tensor_bytes, "types", json_of_types(info));

    if (root == NULL)
        return tool_fail("no memory for the output");
    json_object_set_new(root, "name", json_or_null(info->name));
    json_object_set_new(root, "quantization", json_string(model_file_type_name(info->g)));
    json_object_set_new(root, "model",
                        info->has_hparams ? json_of_hparams(&info->hparams) : json_null());
    json_object_set_new(root, "tokenizer", json_of_tokenizer(info));
    json_object_set_new(root, "chat_template",
                        info->chat != NULL ? json_string(chat_template_name(info->chat))
                                           : json_null());
    json_object_set_new(root, "chat_template_reason", json_or_null(info->chat_reason));
    json_object_set_new(
        root, "estimate",
        e->weights_bytes == 0
            ? json_null()
            : json_pack("{s:I, s:I, s:I, s:I, s:I, s:I}", "weights_bytes",
                        (json_int_t)e->weights_bytes, "kv_page_bytes", (json_int_t)e->kv_page_bytes,
                        "kv_bytes", (json_int_t)e->kv_bytes, "scratch_bytes",
                        (json_int_t)e->scratch_bytes, "context_tokens",
                        (json_int_t)e->context_tokens, "kv_pages", (json_int_t)e->kv_pages));
    json_object_set_new(root, "runnable", json_boolean(info->reason[0] == 0));
    json_object_set_new(root, "reason", json_or_null(info->reason));
    return tool_json_print(root, true);
}

struct info_flags {
    bool json;
};

static int run(void *values, char **operands)
{
    const struct info_flags *f = values;
    struct file_info info = {0};
    struct gguf *g = NULL;
    struct errbuf eb = {{0}};
    int result;

    if (gguf_open_file(&g, operands[0], true, &eb) != ERR_OK)
        return tool_fail_file(operands[0], &eb);
    info.g = g;
    look(&info, operands[0]);
    result = f->json ? print_json(&info, operands[0]) : print_text(&info, operands[0]);
    chat_template_close(info.chat);
    tokenizer_close(info.tokenizer);
    gguf_close(g);
    return result;
}

static const struct flag flags[] = {{.name = "json",
                                     .type = FLAG_SWITCH,
                                     .offset = offsetof(struct info_flags, json),
                                     .help = "The result as JSON."},
                                    {0}};
static const struct flag_set sets[] = {{flags, 0}, {0}};

const struct tool_command tool_info_command = {
    .name = "info",
    .operands = "FILE",
    .n_operands = 1,
    .summary = "what the file holds, what it needs, whether this build runs it",
    .sets = sets,
    .values_bytes = sizeof(struct info_flags),
    .run = run,
};
