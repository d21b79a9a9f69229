#include "worker/engine_tool/generate_options.h"

#include "common/limits.h"
#include "common/units.h"
#include "worker/engine_tool/tool.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#define BESIDE_MAX 256u

#define FLAG(field) offsetof(struct generate_flags, field)

static const struct flag flags_table[] = {
    {.name = "prompt",
     .type = FLAG_TEXT,
     .argument = "TEXT",
     .offset = FLAG(prompt),
     .help = "The prompt."},
    {.name = "prompt-file",
     .type = FLAG_TEXT,
     .argument = "FILE",
     .offset = FLAG(prompt_file),
     .help = "The prompt is in this file (- is standard input)."},
    {.name = "prompt-ids",
     .type = FLAG_TEXT,
     .argument = "IDS",
     .offset = FLAG(prompt_ids),
     .help = "The prompt as token ids, used as they are: \"1 2 3\"."},
    {.name = "raw",
     .type = FLAG_SWITCH,
     .offset = FLAG(raw),
     .help = "The text goes as it is; without --raw and --chat through the file's template where "
             "that is known."},
    {.name = "chat",
     .type = FLAG_SWITCH,
     .offset = FLAG(chat),
     .help = "The text goes as the user's message through the file's chat template."},
    {.name = "system",
     .type = FLAG_TEXT,
     .argument = "TEXT",
     .offset = FLAG(system),
     .help = "A system message before the user's."},
    {.name = "special",
     .type = FLAG_SWITCH,
     .offset = FLAG(special),
     .help = "Control tokens in raw text become their ids."},
    {.name = "resume-ids",
     .type = FLAG_TEXT,
     .argument = "IDS",
     .offset = FLAG(resume_ids),
     .help = "Goes on behind these tokens of the answer."},
    {.name = "seed",
     .type = FLAG_UINT,
     .argument = "N",
     .offset = FLAG(seed),
     .help = "The same seed draws the same tokens (0)."},
    {.name = "stop",
     .type = FLAG_TEXTS,
     .argument = "TEXT",
     .offset = FLAG(stops),
     .max = LIMIT_STOP_STRINGS,
     .help = "The answer ends before this text. May be repeated."},
    {.name = "ignore-end",
     .type = FLAG_SWITCH,
     .offset = FLAG(ignore_end),
     .help = "Goes on past end-of-generation tokens."},
    {.name = "chunk",
     .type = FLAG_UINT,
     .argument = "N",
     .offset = FLAG(chunk),
     .min = 1,
     .max = 65536,
     .help = "Prompt tokens computed in one step (512). Changes no bit of the answer."},
    {.name = "beside",
     .type = FLAG_UINT,
     .argument = "N",
     .offset = FLAG(beside),
     .min = 0,
     .max = BESIDE_MAX,
     .help = "So many other jobs run in the batch meanwhile. Changes no bit of the answer."},
    {0}};

const struct flag_set generate_flags_sets[] = {{flags_table, 0},
                                               {sampling_flags_table, FLAG(sampling)},
                                               {model_flags_table, FLAG(model)},
                                               {shard_flags_table, FLAG(shard)},
                                               {0}};

void generate_flags_defaults(void *values)
{
    struct generate_flags *f = values;

    f->sampling = sampling_flags_default();
}

static int read_ids(const char *name, const char *text, int32_t **ret_ids, size_t *ret_count)
{
    struct errbuf eb = {{0}};

    if (tool_parse_ids(text, strlen(text), ret_ids, ret_count, &eb) != ERR_OK)
        return tool_usage("generate: --%s: %s", name, eb.text);
    return TOOL_EXIT_OK;
}

static int read_prompt_file(struct generate_options *o, const char *path)
{
    struct errbuf eb = {{0}};
    FILE *file = strcmp(path, "-") == 0 ? stdin : fopen(path, "rb");
    enum err err;

    if (file == NULL)
        return tool_fail("%s: %s", path, strerror(errno));
    err = tool_read_all(file, LIMIT_PROMPT_BYTES, &o->prompt, &eb);
    if (file != stdin)
        (void)fclose(file);
    return err == ERR_OK ? TOOL_EXIT_OK : tool_fail_file(path, &eb);
}

static int read_prompt(struct generate_options *o, const struct generate_flags *f)
{
    int given = (f->prompt != NULL) + (f->prompt_file != NULL) + (f->prompt_ids != NULL);

    if (given != 1)
        return tool_usage("generate: one of --prompt, --prompt-file and --prompt-ids is needed");
    if (f->prompt_ids != NULL)
        return read_ids("prompt-ids", f->prompt_ids, &o->prompt_ids, &o->n_prompt_ids);
    if (f->prompt_file != NULL)
        return read_prompt_file(o, f->prompt_file);
    buf_append_str(&o->prompt, f->prompt);
    return o->prompt.failed ? tool_fail("no memory for the prompt") : TOOL_EXIT_OK;
}

static int read_mode(struct generate_options *o, const struct generate_flags *f)
{
    bool has_ids = f->prompt_ids != NULL;

    if (f->raw && f->chat)
        return tool_usage("generate: --raw and --chat exclude each other");
    if (has_ids && (f->raw || f->chat || f->system != NULL || f->special))
        return tool_usage("generate: --prompt-ids go as they are, without --raw, --chat, "
                          "--system or --special");
    if (f->system != NULL && f->raw)
        return tool_usage("generate: --system needs a chat template; --raw has none");
    if (f->special && f->chat)
        return tool_usage("generate: --special is for raw text; in a chat only the template puts "
                          "control tokens");
    if (f->system != NULL && f->special)
        return tool_usage("generate: --system and --special exclude each other");
    if (has_ids)
        o->mode = GENERATE_MODE_IDS;
    else if (f->raw || f->special)
        o->mode = GENERATE_MODE_RAW;
    else if (f->chat || f->system != NULL)
        o->mode = GENERATE_MODE_CHAT;
    o->system = f->system;
    o->special = f->special;
    return TOOL_EXIT_OK;
}

static int read_biases(struct generate_options *o, const struct generate_flags *f)
{
    for (size_t i = 0; i < f->sampling.biases.count; i++) {
        struct sampling_bias *b = &o->biases[i];
        if (!units_bias_parse(f->sampling.biases.items[i], &b->id, &b->bias))
            return tool_usage("generate: --logit-bias %s: not ID:BIAS, such as 50256:-100",
                              f->sampling.biases.items[i]);
    }
    o->sampling.biases = o->biases;
    o->sampling.n_biases = f->sampling.biases.count;
    return TOOL_EXIT_OK;
}

static int read_sampling(struct generate_options *o, const struct generate_flags *f)
{
    const struct sampling_flags *s = &f->sampling;
    struct errbuf eb = {{0}};

    o->sampling = (struct sampling){
        .temperature = (float)s->temperature,
        .top_k = (uint32_t)s->top_k,
        .typical_p = (float)s->typical_p,
        .top_p = (float)s->top_p,
        .min_p = (float)s->min_p,
        .repetition_penalty = (float)s->repetition_penalty,
        .presence_penalty = (float)s->presence_penalty,
        .frequency_penalty = (float)s->frequency_penalty,
        .seed = f->seed,
        .logprobs = s->has_logprobs,
        .top_logprobs = (uint32_t)s->top_logprobs,
    };
    if (s->has_logprobs && !f->model.json)
        return tool_usage("generate: --logprobs are part of the --json answer");
    int result = read_biases(o, f);
    if (result == TOOL_EXIT_OK && sampling_check(&o->sampling, &eb) != ERR_OK)
        result = tool_usage("generate: %s", eb.text);
    return result;
}

static int read_stops(struct generate_options *o, const struct generate_flags *f)
{
    for (size_t i = 0; i < f->stops.count; i++)
        o->stops[i] = (struct sampling_stop){f->stops.items[i], strlen(f->stops.items[i])};
    o->n_stops = f->stops.count;
    for (size_t i = 0; i < f->sampling.stop_tokens.count; i++) {
        uint32_t id;
        if (!tool_parse_u32(f->sampling.stop_tokens.items[i], 0, INT32_MAX, &id))
            return tool_usage("generate: --stop-token %s: not a token id",
                              f->sampling.stop_tokens.items[i]);
        o->stop_tokens[i] = (int32_t)id;
    }
    o->n_stop_tokens = f->sampling.stop_tokens.count;
    return TOOL_EXIT_OK;
}

int generate_options_read(struct generate_options *ret_options, const struct generate_flags *flags,
                          const char *path)
{
    struct generate_options *o = ret_options;
    struct model_options model = model_options_of(&flags->model, path);
    struct errbuf eb = {{0}};
    int result;

    *o = (struct generate_options){
        .path = path,
        .ignore_end = flags->ignore_end,
        .json = model.json,
        .max_tokens = (uint32_t)flags->sampling.max_tokens,
        .beside = (uint32_t)flags->beside,
        .engine = model.engine,
        .model = model.model,
    };
    o->engine.chunk_tokens = (uint32_t)flags->chunk;
    buf_init(&o->prompt);
    if (shard_options_of(&flags->shard, &o->model, &eb) != ERR_OK)
        return tool_usage("generate: %s", eb.text);
    result = read_mode(o, flags);
    if (result == TOOL_EXIT_OK)
        result = read_sampling(o, flags);
    if (result == TOOL_EXIT_OK)
        result = read_stops(o, flags);
    if (result == TOOL_EXIT_OK && flags->resume_ids != NULL)
        result = read_ids("resume-ids", flags->resume_ids, &o->resume_ids, &o->n_resume_ids);
    if (result == TOOL_EXIT_OK)
        result = read_prompt(o, flags);
    return result;
}

void generate_options_fini(struct generate_options *o)
{
    buf_fini(&o->prompt);
    free(o->prompt_ids);
    free(o->resume_ids);
}
