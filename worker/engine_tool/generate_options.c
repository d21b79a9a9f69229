#include "worker/engine_tool/generate_options.h"

#include "common/check.h"
#include "common/limits.h"
#include "common/units.h"
#include "worker/engine_tool/tool.h"

#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#define BESIDE_MAX 256u

enum option_id {
    OPTION_PROMPT = 256,
    OPTION_PROMPT_FILE,
    OPTION_PROMPT_IDS,
    OPTION_RESUME_IDS,
    OPTION_SPECIAL,
    OPTION_RAW,
    OPTION_CHAT,
    OPTION_SYSTEM,
    OPTION_MAX_TOKENS,
    OPTION_TEMPERATURE,
    OPTION_TOP_P,
    OPTION_TOP_K,
    OPTION_MIN_P,
    OPTION_TYPICAL_P,
    OPTION_LOGIT_BIAS,
    OPTION_LOGPROBS,
    OPTION_REPETITION_PENALTY,
    OPTION_PRESENCE_PENALTY,
    OPTION_FREQUENCY_PENALTY,
    OPTION_SEED,
    OPTION_STOP,
    OPTION_STOP_TOKEN,
    OPTION_IGNORE_END,
    OPTION_JSON,
    OPTION_THREADS,
    OPTION_ISA,
    OPTION_CHUNK,
    OPTION_BESIDE,
    OPTION_KV,
    OPTION_CONTEXT,
};

static const struct option long_options[] = {
    {"prompt", required_argument, NULL, OPTION_PROMPT},
    {"prompt-file", required_argument, NULL, OPTION_PROMPT_FILE},
    {"prompt-ids", required_argument, NULL, OPTION_PROMPT_IDS},
    {"resume-ids", required_argument, NULL, OPTION_RESUME_IDS},
    {"special", no_argument, NULL, OPTION_SPECIAL},
    {"raw", no_argument, NULL, OPTION_RAW},
    {"chat", no_argument, NULL, OPTION_CHAT},
    {"system", required_argument, NULL, OPTION_SYSTEM},
    {"max-tokens", required_argument, NULL, OPTION_MAX_TOKENS},
    {"temperature", required_argument, NULL, OPTION_TEMPERATURE},
    {"top-p", required_argument, NULL, OPTION_TOP_P},
    {"top-k", required_argument, NULL, OPTION_TOP_K},
    {"min-p", required_argument, NULL, OPTION_MIN_P},
    {"typical-p", required_argument, NULL, OPTION_TYPICAL_P},
    {"logit-bias", required_argument, NULL, OPTION_LOGIT_BIAS},
    {"logprobs", required_argument, NULL, OPTION_LOGPROBS},
    {"repetition-penalty", required_argument, NULL, OPTION_REPETITION_PENALTY},
    {"presence-penalty", required_argument, NULL, OPTION_PRESENCE_PENALTY},
    {"frequency-penalty", required_argument, NULL, OPTION_FREQUENCY_PENALTY},
    {"seed", required_argument, NULL, OPTION_SEED},
    {"stop", required_argument, NULL, OPTION_STOP},
    {"stop-token", required_argument, NULL, OPTION_STOP_TOKEN},
    {"ignore-end", no_argument, NULL, OPTION_IGNORE_END},
    {"json", no_argument, NULL, OPTION_JSON},
    {"threads", required_argument, NULL, OPTION_THREADS},
    {"isa", required_argument, NULL, OPTION_ISA},
    {"chunk", required_argument, NULL, OPTION_CHUNK},
    {"beside", required_argument, NULL, OPTION_BESIDE},
    {"kv", required_argument, NULL, OPTION_KV},
    {"context", required_argument, NULL, OPTION_CONTEXT},
    {0},
};

struct parsing {
    struct generate_options *o;
    bool has_prompt, has_ids, raw, chat;
};

static int parse_float(const char *name, const char *text, float *ret_value)
{
    double value;

    if (!units_float_parse(text, &value))
        return tool_usage("generate: --%s %s: not a number", name, text);
    *ret_value = (float)value;
    return TOOL_EXIT_OK;
}

static int parse_u32(const char *name, const char *text, uint32_t min, uint32_t max,
                     uint32_t *ret_value)
{
    if (!tool_parse_u32(text, min, max, ret_value))
        return tool_usage("generate: --%s %s: not a whole number of %u to %u", name, text, min,
                          max);
    return TOOL_EXIT_OK;
}

static int parse_ids(const char *name, const char *text, int32_t **ret_ids, size_t *ret_count)
{
    struct errbuf eb = {{0}};

    free(*ret_ids);
    *ret_ids = NULL;
    if (tool_parse_ids(text, strlen(text), ret_ids, ret_count, &eb) != ERR_OK)
        return tool_usage("generate: --%s: %s", name, eb.text);
    return TOOL_EXIT_OK;
}

static int read_prompt_file(struct parsing *p, const char *path)
{
    struct errbuf eb = {{0}};
    FILE *file = strcmp(path, "-") == 0 ? stdin : fopen(path, "rb");
    enum err err;

    if (file == NULL)
        return tool_fail("%s: %s", path, strerror(errno));
    err = tool_read_all(file, LIMIT_PROMPT_BYTES, &p->o->prompt, &eb);
    if (file != stdin)
        (void)fclose(file);
    return err == ERR_OK ? TOOL_EXIT_OK : tool_fail_file(path, &eb);
}

static int take_prompt(struct parsing *p, int id, const char *text)
{
    if (p->has_prompt || p->has_ids)
        return tool_usage("generate: one of --prompt, --prompt-file and --prompt-ids, once");
    if (id == OPTION_PROMPT_IDS) {
        p->has_ids = true;
        return parse_ids("prompt-ids", text, &p->o->prompt_ids, &p->o->n_prompt_ids);
    }
    p->has_prompt = true;
    if (id == OPTION_PROMPT_FILE)
        return read_prompt_file(p, text);
    buf_append_str(&p->o->prompt, text);
    return TOOL_EXIT_OK;
}

static int take_stop(struct generate_options *o, const char *text)
{
    if (o->n_stops == LIMIT_STOP_STRINGS)
        return tool_usage("generate: --stop: at most %u stop strings", LIMIT_STOP_STRINGS);
    o->stops[o->n_stops++] = (struct sampling_stop){text, strlen(text)};
    return TOOL_EXIT_OK;
}

static int take_stop_token(struct generate_options *o, const char *text)
{
    uint32_t id;

    if (o->n_stop_tokens == LIMIT_STOP_TOKENS)
        return tool_usage("generate: --stop-token: at most %u stop tokens", LIMIT_STOP_TOKENS);
    int result = parse_u32("stop-token", text, 0, INT32_MAX, &id);
    if (result == TOOL_EXIT_OK)
        o->stop_tokens[o->n_stop_tokens++] = (int32_t)id;
    return result;
}

static int take_bias(struct generate_options *o, const char *text)
{
    struct sampling_bias *b = &o->biases[o->sampling.n_biases];

    if (o->sampling.n_biases == LIMIT_LOGIT_BIASES)
        return tool_usage("generate: --logit-bias: at most %u of them", LIMIT_LOGIT_BIASES);
    if (!units_bias_parse(text, &b->id, &b->bias))
        return tool_usage("generate: --logit-bias %s: not ID:BIAS, such as 50256:-100", text);
    o->sampling.n_biases++;
    return TOOL_EXIT_OK;
}

static int take_kv(struct generate_options *o, const char *text)
{
    if (strcmp(text, "f16") == 0)
        o->kv_type = KV_TYPE_F16;
    else if (strcmp(text, "q8_0") == 0)
        o->kv_type = KV_TYPE_Q8_0;
    else
        return tool_usage("generate: --kv %s: f16 or q8_0", text);
    return TOOL_EXIT_OK;
}

static int take_option(struct parsing *p, int id, const char *text)
{
    struct generate_options *o = p->o;

    switch (id) {
    case OPTION_PROMPT:
    case OPTION_PROMPT_FILE:
    case OPTION_PROMPT_IDS:
        return take_prompt(p, id, text);
    case OPTION_RESUME_IDS:
        return parse_ids("resume-ids", text, &o->resume_ids, &o->n_resume_ids);
    case OPTION_SPECIAL:
        o->special = true;
        return TOOL_EXIT_OK;
    case OPTION_RAW:
        p->raw = true;
        return TOOL_EXIT_OK;
    case OPTION_CHAT:
        p->chat = true;
        return TOOL_EXIT_OK;
    case OPTION_SYSTEM:
        o->system = text;
        return TOOL_EXIT_OK;
    case OPTION_MAX_TOKENS:
        return parse_u32("max-tokens", text, 1, LIMIT_MAX_TOKENS, &o->max_tokens);
    case OPTION_TEMPERATURE:
        return parse_float("temperature", text, &o->sampling.temperature);
    case OPTION_TOP_P:
        return parse_float("top-p", text, &o->sampling.top_p);
    case OPTION_TOP_K:
        return parse_u32("top-k", text, 0, UINT32_MAX, &o->sampling.top_k);
    case OPTION_MIN_P:
        return parse_float("min-p", text, &o->sampling.min_p);
    case OPTION_TYPICAL_P:
        return parse_float("typical-p", text, &o->sampling.typical_p);
    case OPTION_LOGIT_BIAS:
        return take_bias(o, text);
    case OPTION_LOGPROBS:
        o->sampling.logprobs = true;
        return parse_u32("logprobs", text, 0, LIMIT_TOP_LOGPROBS, &o->sampling.top_logprobs);
    case OPTION_REPETITION_PENALTY:
        return parse_float("repetition-penalty", text, &o->sampling.repetition_penalty);
    case OPTION_PRESENCE_PENALTY:
        return parse_float("presence-penalty", text, &o->sampling.presence_penalty);
    case OPTION_FREQUENCY_PENALTY:
        return parse_float("frequency-penalty", text, &o->sampling.frequency_penalty);
    case OPTION_SEED:
        if (!units_uint_parse(text, &o->sampling.seed))
            return tool_usage("generate: --seed %s: not a whole number of 64 bits", text);
        return TOOL_EXIT_OK;
    case OPTION_STOP:
        return take_stop(o, text);
    case OPTION_STOP_TOKEN:
        return take_stop_token(o, text);
    case OPTION_IGNORE_END:
        o->ignore_end = true;
        return TOOL_EXIT_OK;
    case OPTION_JSON:
        o->json = true;
        return TOOL_EXIT_OK;
    case OPTION_THREADS:
        return parse_u32("threads", text, 1, LIMIT_WORKER_THREADS, &o->engine.threads);
    case OPTION_ISA:
        if (!backend_isa_parse(text, &o->engine.isa))
            return tool_usage("generate: --isa %s: auto, scalar, avx2 or avx512", text);
        return TOOL_EXIT_OK;
    case OPTION_CHUNK:
        return parse_u32("chunk", text, 1, 65536, &o->engine.chunk_tokens);
    case OPTION_BESIDE:
        return parse_u32("beside", text, 0, BESIDE_MAX, &o->beside);
    case OPTION_KV:
        return take_kv(o, text);
    case OPTION_CONTEXT:
        return parse_u32("context", text, 2, LIMIT_CONTEXT_TOKENS, &o->context_tokens);
    default:
        CHECK(false);
        return TOOL_EXIT_USAGE;
    }
}

static int settle(struct parsing *p, int argc, char **argv)
{
    struct generate_options *o = p->o;
    struct errbuf eb = {{0}};

    if (optind + 1 != argc)
        return tool_usage("generate: one FILE is needed");
    o->path = argv[optind];
    if (!p->has_prompt && !p->has_ids)
        return tool_usage("generate: --prompt, --prompt-file or --prompt-ids is needed");
    if (p->raw && p->chat)
        return tool_usage("generate: --raw and --chat exclude each other");
    if (p->has_ids && (p->raw || p->chat || o->system != NULL || o->special))
        return tool_usage("generate: --prompt-ids go as they are, without --raw, --chat, "
                          "--system or --special");
    if (o->system != NULL && p->raw)
        return tool_usage("generate: --system needs a chat template; --raw has none");
    if (o->special && p->chat)
        return tool_usage("generate: --special is for raw text; in a chat only the template puts "
                          "control tokens");
    if (p->has_ids)
        o->mode = GENERATE_MODE_IDS;
    else if (p->raw || o->special)
        o->mode = GENERATE_MODE_RAW;
    else if (p->chat || o->system != NULL)
        o->mode = GENERATE_MODE_CHAT;
    if (o->system != NULL && o->mode == GENERATE_MODE_RAW)
        return tool_usage("generate: --system and --special exclude each other");
    if (o->prompt.failed)
        return tool_fail("no memory for the prompt");
    if (o->sampling.logprobs && !o->json)
        return tool_usage("generate: --logprobs are part of the --json answer");
    o->sampling.biases = o->biases;
    if (sampling_check(&o->sampling, &eb) != ERR_OK)
        return tool_usage("generate: %s", eb.text);
    return TOOL_EXIT_OK;
}

int generate_options_parse(struct generate_options *ret_options, int argc, char **argv)
{
    struct parsing p = {.o = ret_options};
    int id, result = TOOL_EXIT_OK;

    *ret_options = (struct generate_options){.max_tokens = 256, .sampling = sampling_default()};
    buf_init(&ret_options->prompt);
    opterr = 0;
    while (result == TOOL_EXIT_OK && (id = getopt_long(argc, argv, ":", long_options, NULL)) != -1)
        result = id == '?' || id == ':' ? tool_usage_option(argc, argv, id)
                                        : take_option(&p, id, optarg);
    return result == TOOL_EXIT_OK ? settle(&p, argc, argv) : result;
}

void generate_options_fini(struct generate_options *o)
{
    buf_fini(&o->prompt);
    free(o->prompt_ids);
    free(o->resume_ids);
}
