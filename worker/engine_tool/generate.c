/* cloister-engine generate: one job on one model, with others beside it where asked for. */
#include "worker/engine_tool/generate_options.h"
#include "worker/engine_tool/ranks.h"
#include "worker/engine_tool/tool.h"

#include "common/crypto.h"
#include "worker/model/gguf.h"
#include "worker/model/tokenizer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define MODEL_ID      1u
#define JOB_ID        1u
#define NEIGHBOUR_ID  1000u
#define OTHERS_TOKENS 64u /* longest prompt of a neighbour */

struct generating {
    struct generate_options options;
    struct ranks ranks;
    struct engine *engine;
    int wake_fd;
    struct tokens prompt_ids, ids;
    struct buf text;
    json_t *logprobs;        /* a list; NULL: none are wanted */
    struct engine_event end; /* the FINISHED event; its pointers are not used */
    uint64_t load_ms;
};

static void wake(void *arg)
{
    const struct generating *g = arg;
    uint64_t one = 1;

    /* The counter cannot overflow, and a reader that is gone needs no waking. */
    ssize_t n = write(g->wake_fd, &one, sizeof one);
    (void)n;
}

static void sleep_until_woken(const struct generating *g)
{
    uint64_t count;

    while (read(g->wake_fd, &count, sizeof count) < 0 && errno == EINTR)
        continue;
}

static void next_event(struct generating *g, struct engine_event *ret_event)
{
    while (!engine_poll(g->engine, ret_event))
        sleep_until_woken(g);
}

/* Settles --raw or --chat from the file where the command line did not. */
static int choose_mode(struct generate_options *o)
{
    struct errbuf eb = {{0}};
    struct gguf *g = NULL;
    struct tokenizer *t = NULL;
    struct chat_template *c = NULL;
    int result = TOOL_EXIT_OK;

    if (o->mode != GENERATE_MODE_AUTO)
        return TOOL_EXIT_OK;
    if (gguf_open_file(&g, o->path, true, &eb) != ERR_OK || tokenizer_open(&t, g, &eb) != ERR_OK) {
        result = tool_fail_file(o->path, &eb);
    } else if (chat_template_open(&c, g, t, &eb) == ERR_OK) {
        o->mode = GENERATE_MODE_CHAT;
        fprintf(stderr,
                "cloister-engine: the prompt goes through the file's %s template (--raw "
                "sends it as it is)\n",
                chat_template_name(c));
    } else {
        o->mode = GENERATE_MODE_RAW;
        fprintf(stderr, "cloister-engine: the prompt goes as raw text: %s\n", eb.text);
    }
    chat_template_close(c);
    tokenizer_close(t);
    gguf_close(g);
    return result;
}

/* A KV pool with one whole context, and as many more as the neighbours' short jobs fill. */
static enum err size_model(struct generating *g, struct errbuf *eb)
{
    struct generate_options *o = &g->options;
    struct engine_model_config *model = &o->model;
    struct engine_estimate estimate;

    model->slots = 1;
    enum err err = engine_estimate_file(&o->engine, model, &estimate, eb);

    if (err != ERR_OK)
        return err;
    uint64_t each = o->max_tokens + OTHERS_TOKENS + KV_PAGE_TOKENS;
    if (each > estimate.context_tokens)
        each = estimate.context_tokens;
    model->slots +=
        (uint32_t)((each * o->beside + estimate.context_tokens - 1) / estimate.context_tokens);
    return ERR_OK;
}

static enum err wait_for_model(struct generating *g, struct errbuf *eb)
{
    struct engine_event ev;
    enum err err = ERR_OK;

    while (!engine_poll(g->engine, &ev)) {
        if (atomic_load(&g->ranks.lost))
            return ranks_watched(&g->ranks, ERR_CANCELLED, eb);
        sleep_until_woken(g);
    }
    if (ev.kind == ENGINE_EVENT_MODEL_FAILED)
        err = err_set(eb, ev.error, "%s", ev.error_text);
    g->load_ms = ev.load_ms;
    return ranks_watched(&g->ranks, err, eb);
}

/* Other work of other lengths, drawn with other seeds, that goes on until the answer is there. */
static enum err submit_neighbours(struct generating *g, struct errbuf *eb)
{
    const struct generate_options *o = &g->options;

    for (uint32_t i = 0; i < o->beside; i++) {
        char text[OTHERS_TOKENS];
        int n = snprintf(text, sizeof text, "Neighbour %u counts", i);
        for (uint32_t k = 0; k < i % 8 && (size_t)n + 4 < sizeof text; k++)
            n += snprintf(text + n, sizeof text - (size_t)n, " %u,", k);
        struct engine_job job = {
            .job_id = NEIGHBOUR_ID + i,
            .model_id = MODEL_ID,
            .prompt_kind = ENGINE_PROMPT_TEXT,
            .text = text,
            .text_size = (size_t)n,
            .max_tokens =
                o->max_tokens < LIMIT_MAX_TOKENS - 16 ? o->max_tokens + 16 : o->max_tokens,
            .sampling = sampling_default(),
            .ignore_end = true,
        };
        job.sampling.temperature = 1.0f;
        job.sampling.seed = i;
        enum err err = engine_submit(g->engine, &job, eb);
        if (err != ERR_OK)
            return err;
    }
    return ERR_OK;
}

static enum err submit(struct generating *g, struct errbuf *eb)
{
    const struct generate_options *o = &g->options;
    struct chat_message messages[2];
    size_t n_messages = 0;
    struct engine_job job = {
        .job_id = JOB_ID,
        .model_id = MODEL_ID,
        .prompt_ids = o->prompt_ids,
        .n_prompt_ids = o->n_prompt_ids,
        .resume_ids = o->resume_ids,
        .n_resume_ids = o->n_resume_ids,
        .max_tokens = o->max_tokens,
        .sampling = o->sampling,
        .stops = o->stops,
        .n_stops = o->n_stops,
        .stop_tokens = o->stop_tokens,
        .n_stop_tokens = o->n_stop_tokens,
        .ignore_end = o->ignore_end,
        .want_logits_digest = o->json,
    };

    if (o->mode == GENERATE_MODE_IDS) {
        job.prompt_kind = ENGINE_PROMPT_IDS;
    } else if (o->mode == GENERATE_MODE_RAW) {
        job.prompt_kind = ENGINE_PROMPT_TEXT;
        job.text = buf_str(&o->prompt);
        job.text_size = o->prompt.size;
        job.text_special = o->special;
    } else {
        job.prompt_kind = ENGINE_PROMPT_CHAT;
        if (o->system != NULL)
            messages[n_messages++] =
                (struct chat_message){"system", 6, o->system, strlen(o->system)};
        messages[n_messages++] =
            (struct chat_message){"user", 4, buf_str(&o->prompt), o->prompt.size};
        job.messages = messages;
        job.n_messages = n_messages;
    }
    return engine_submit(g->engine, &job, eb);
}

static enum err keep_ids(struct tokens *to, const struct engine_event *ev, struct errbuf *eb)
{
    for (size_t i = 0; i < ev->n_ids; i++)
        if (tokens_append(to, ev->ids[i]) != ERR_OK)
            return err_set(eb, ERR_NO_MEMORY, "no memory for token ids");
    return ERR_OK;
}

static json_t *logprob_json(const struct engine_logprob *one, const char *bytes)
{
    json_t *list = json_array();

    for (uint32_t i = 0; i < one->n_bytes; i++)
        (void)json_array_append_new(list, json_integer((uint8_t)bytes[i]));
    return json_pack("{s:i, s:o, s:f, s:o}", "id", (int)one->of.id, "token",
                     tool_json_text(bytes, one->n_bytes), "logprob", (double)one->of.logprob,
                     "bytes", list);
}

/* As OpenAI's API has them: of each token itself and the likeliest in its place. */
static void keep_logprobs(struct generating *g, const struct engine_event *ev)
{
    const char *bytes = ev->logprob_bytes;
    json_t *top = NULL;

    for (size_t i = 0, n_top = 0; i < ev->n_logprobs; i++) {
        const struct engine_logprob *one = &ev->logprobs[i];
        json_t *value = logprob_json(one, bytes);
        bytes += one->n_bytes;
        if (n_top > 0) {
            n_top--;
            (void)json_array_append_new(top, value);
            continue;
        }
        n_top = one->n_top;
        top = json_array();
        (void)json_object_set_new(value, "top_logprobs", top);
        (void)json_array_append_new(g->logprobs, value);
    }
}

/* Takes the job's events until its last one; prints text as it comes unless --json. */
static enum err follow(struct generating *g, struct errbuf *eb)
{
    for (;;) {
        struct engine_event ev;
        enum err err;
        next_event(g, &ev);
        if (ev.job_id != JOB_ID)
            continue;
        err = keep_ids(ev.kind == ENGINE_EVENT_STARTED ? &g->prompt_ids : &g->ids, &ev, eb);
        if (err != ERR_OK)
            return err;
        if (g->options.json) {
            buf_append(&g->text, ev.text, ev.text_size);
            keep_logprobs(g, &ev);
        } else if (ev.text_size > 0) {
            (void)fwrite(ev.text, 1, ev.text_size, stdout);
            if (fflush(stdout) != 0)
                return err_set_errno(eb, errno, "cannot write the output");
        }
        if (ev.kind == ENGINE_EVENT_FINISHED) {
            g->end = ev;
            if (ev.finish == ENGINE_FINISH_ERROR)
                return err_set(eb, ev.error, "%s", ev.error_text);
            return ERR_OK;
        }
    }
}

static const char *finish_name(enum engine_finish finish)
{
    return finish == ENGINE_FINISH_STOP ? "stop" : "length";
}

static int print_answer(const struct generating *g)
{
    const struct engine_usage *u = &g->end.usage;
    char sha[SHA256_HEX_BYTES];

    hex_encode(g->end.logits_sha256, sizeof g->end.logits_sha256, sha);
    json_t *answer = json_pack(
        "{s:o, s:o, s:o, s:s, s:s, s:s, s:{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}}", "prompt_ids",
        tool_json_ids(g->prompt_ids.ids, g->prompt_ids.count), "ids",
        tool_json_ids(g->ids.ids, g->ids.count), "text", tool_json_text(g->text.data, g->text.size),
        "finish", finish_name(g->end.finish), "logits_sha256", sha, "isa",
        engine_isa_name(g->engine), "usage", "prompt_tokens", (json_int_t)u->prompt_tokens,
        "prompt_cached", (json_int_t)u->prompt_cached, "prompt_computed",
        (json_int_t)u->prompt_computed, "resumed_tokens", (json_int_t)u->resumed_tokens,
        "completion_tokens", (json_int_t)u->completion_tokens, "load_ms", (json_int_t)g->load_ms,
        "prefill_us", (json_int_t)u->prefill_us, "decode_us", (json_int_t)u->decode_us);

    if (g->options.sampling.logprobs)
        (void)json_object_set_new(answer, "logprobs", json_pack("{s:O}", "content", g->logprobs));
    return tool_json_print(answer, false);
}

static void print_summary(const struct generating *g)
{
    const struct engine_usage *u = &g->end.usage;
    double seconds = (double)u->decode_us / 1e6;
    uint32_t drawn = u->completion_tokens - u->resumed_tokens;

    if (isatty(STDOUT_FILENO))
        putchar('\n');
    fprintf(stderr,
            "cloister-engine: %u prompt and %u answer tokens, %.1f tokens/s (%s), finish: %s\n",
            u->prompt_tokens, u->completion_tokens,
            seconds > 0 && drawn > 1 ? (drawn - 1) / seconds : 0.0, engine_isa_name(g->engine),
            finish_name(g->end.finish));
}

static int answer(struct generating *g)
{
    struct errbuf eb = {{0}};
    struct engine_config *config = &g->options.engine;
    enum err err;

    config->sequences = g->options.beside + 1;
    config->notify = wake;
    config->notify_arg = g;
    err = size_model(g, &eb);
    if (err == ERR_OK)
        err = ranks_start(&g->ranks, config, &g->options.model, &eb);
    if (err != ERR_OK)
        return tool_fail_file(g->options.path, &eb);
    if (engine_open(&g->engine, config, &eb) != ERR_OK)
        return tool_fail("%s", eb.text);
    err = ranks_watch(&g->ranks, wake, g, &eb);
    if (err == ERR_OK)
        err = engine_load(g->engine, MODEL_ID, &g->options.model, &eb);
    if (err == ERR_OK)
        err = wait_for_model(g, &eb);
    if (err != ERR_OK)
        return tool_fail_file(g->options.path, &eb);
    err = submit_neighbours(g, &eb);
    if (err == ERR_OK)
        err = submit(g, &eb);
    if (err == ERR_OK)
        err = follow(g, &eb);
    if (err != ERR_OK)
        return tool_fail("%s", eb.text);
    if (g->options.json)
        return print_answer(g);
    print_summary(g);
    return tool_finish_output();
}

static int run(void *values, char **operands)
{
    struct generating g = {0};
    int result = generate_options_read(&g.options, values, operands[0]);

    g.logprobs = json_array();
    if (result == TOOL_EXIT_OK)
        result = choose_mode(&g.options);
    if (result == TOOL_EXIT_OK) {
        g.wake_fd = eventfd(0, EFD_CLOEXEC);
        result = g.wake_fd < 0 ? tool_fail("eventfd: %s", strerror(errno)) : answer(&g);
        engine_close(g.engine);
        ranks_join(&g.ranks);
        if (g.wake_fd >= 0)
            (void)close(g.wake_fd);
    }
    tokens_fini(&g.prompt_ids);
    tokens_fini(&g.ids);
    buf_fini(&g.text);
    json_decref(g.logprobs);
    generate_options_fini(&g.options);
    return result;
}

const struct tool_command tool_generate_command = {
    .name = "generate",
    .operands = "FILE",
    .n_operands = 1,
    .summary = "an answer",
    .sets = generate_flags_sets,
    .values_bytes = sizeof(struct generate_flags),
    .defaults = generate_flags_defaults,
    .run = run,
};
