/*
 * cloister-worker: serves models to a coordinator. This file owns the command line and the order
 * in which things start; agent.c is the program.
 */
#include "common/check.h"
#include "common/crypto.h"
#include "common/folder.h"
#include "common/limits.h"
#include "common/program.h"
#include "proto/hello.h"
#include "worker/agent.h"
#include "worker/bandwidth.h"
#include "worker/device.h"
#include "worker/kernels/backend.h"
#include "worker/settings.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What the command line adds to the file, or says instead of it. */
struct command_line {
    const char *coordinator, *name, *state_dir, *device, *isa;
    struct flag_texts models; /* NAME=PATH */
    uint64_t memory_bytes, threads;
    bool has_memory, has_threads;
};

#define LINE(field) offsetof(struct command_line, field)

static const struct flag flags[] = {{.name = "coordinator",
                                     .letter = 'u',
                                     .type = FLAG_TEXT,
                                     .argument = "URL",
                                     .offset = LINE(coordinator),
                                     .help = "tcp://HOST:PORT or tls+tcp://HOST:PORT."},
                                    {.name = "name",
                                     .letter = 'n',
                                     .type = FLAG_TEXT,
                                     .argument = "NAME",
                                     .offset = LINE(name),
                                     .help = "This worker's name in the cluster."},
                                    {.name = "model",
                                     .letter = 'm',
                                     .type = FLAG_TEXTS,
                                     .argument = "NAME=PATH",
                                     .offset = LINE(models),
                                     .help = "Serves this file too; may be repeated."},
                                    {.name = "state-dir",
                                     .type = FLAG_TEXT,
                                     .argument = "DIR",
                                     .offset = LINE(state_dir),
                                     .help = "Where its key and file digests are kept."},
                                    {.name = "memory",
                                     .type = FLAG_SIZE,
                                     .argument = "SIZE",
                                     .offset = LINE(memory_bytes),
                                     .given = LINE(has_memory),
                                     .help = "What models may take, such as 8GiB."},
                                    {.name = "threads",
                                     .letter = 't',
                                     .type = FLAG_UINT,
                                     .argument = "N",
                                     .offset = LINE(threads),
                                     .given = LINE(has_threads),
                                     .min = 0,
                                     .max = LIMIT_WORKER_THREADS,
                                     .help = "Compute threads; 0: one a core."},
                                    {.name = "device",
                                     .type = FLAG_TEXT,
                                     .argument = "NAME",
                                     .offset = LINE(device),
                                     .help = "cpu, or cuda:N, the GPU that nvidia-smi shows as N."},
                                    {.name = "isa",
                                     .type = FLAG_CHOICE,
                                     .argument = "NAME",
                                     .offset = LINE(isa),
                                     .choices = backend_isa_names,
                                     .help = "auto, scalar, avx2, avx512 or amx."},
                                    {0}};

static const struct program program = {
    .name = "cloister-worker",
    .log_name = "worker",
    .summary = "Serves GGUF models to the coordinator it dials.",
    .statuses = "Exit status: 0 stopped by a signal; 1 could not start; 2 wrong usage or "
                "configuration; 5 its\nGPU is lost or has failed.",
    .flags = flags,
    .print_example = settings_print_example,
};

/* `folder` keeps the state directory's path. */
static enum err overrides_apply(struct command_line *line, struct settings *c,
                                char folder[PATH_MAX], struct errbuf *eb)
{
    enum err e = ERR_OK;
    if (line->coordinator != NULL) {
        e = config_check_url(&line->coordinator, eb);
        if (e != ERR_OK)
            return err_prefix(eb, e, "--coordinator %s", line->coordinator);
        c->coordinator = line->coordinator;
    }
    if (line->name != NULL) {
        e = config_check_name(&line->name, eb);
        if (e != ERR_OK)
            return err_prefix(eb, e, "--name %s", line->name);
        c->name = line->name;
    }
    if (line->state_dir != NULL) {
        e = program_absolute_path(&line->state_dir, folder, eb);
        if (e != ERR_OK)
            return err_prefix(eb, e, "--state-dir");
        c->state_dir = line->state_dir;
    }
    if (line->device != NULL) {
        struct device_id id;
        e = device_id_parse(line->device, &id, eb);
        if (e != ERR_OK)
            return err_prefix(eb, e, "--device");
        c->engine.device = line->device;
    }
    enum backend_isa isa;
    if (line->isa != NULL && backend_isa_parse(line->isa, &isa))
        c->engine.isa = (int)isa;
    if (line->has_memory)
        c->engine.memory_bytes = line->memory_bytes;
    if (line->has_threads)
        c->engine.threads = (int64_t)line->threads;
    return ERR_OK;
}

/* What there is to serve: the models of the file, then those of the command line. */
struct sources {
    struct catalogue_source *items;
    char **names, **paths; /* of the command line's */
    size_t count, n_named;
};

static void sources_fini(struct sources *s)
{
    for (size_t i = 0; i < s->n_named; i++) {
        free(s->names[i]);
        free(s->paths[i]);
    }
    free(s->names);
    free(s->paths);
    free(s->items);
}

static enum err source_add(struct sources *s, const char *word, struct errbuf *eb)
{
    const char *equals = strchr(word, '=');
    if (equals == NULL)
        return err_set(eb, ERR_INVALID, "--model %s: write NAME=PATH", word);
    size_t i = s->n_named++;
    s->names[i] = strndup(word, (size_t)(equals - word));
    if (s->names[i] == NULL)
        return err_set(eb, ERR_NO_MEMORY, "no memory for a model's name");
    enum err e = config_check_name(&s->names[i], eb);
    if (e != ERR_OK)
        return err_prefix(eb, e, "--model %s", s->names[i]);
    s->paths[i] = realpath(equals + 1, NULL);
    if (s->paths[i] == NULL)
        return err_set_errno(eb, errno, "--model %s: %s", s->names[i], equals + 1);
    s->items[s->count++] = (struct catalogue_source){.name = s->names[i], .path = s->paths[i]};
    return ERR_OK;
}

static enum err sources_collect(struct sources *s, const struct settings *c,
                                const struct flag_texts *named, struct errbuf *eb)
{
    const struct settings_model *models = c->models.items;
    enum err e = ERR_OK;

    *s = (struct sources){
        .items = calloc(c->models.count + named->count + 1, sizeof *s->items),
        .names = calloc(named->count + 1, sizeof *s->names),
        .paths = calloc(named->count + 1, sizeof *s->paths),
    };
    if (s->items == NULL || s->names == NULL || s->paths == NULL)
        return err_set(eb, ERR_NO_MEMORY, "no memory for the models");
    for (size_t i = 0; i < c->models.count; i++)
        s->items[s->count++] =
            (struct catalogue_source){.name = models[i].name,
                                      .path = models[i].path,
                                      .context_tokens = (uint32_t)models[i].context_tokens,
                                      .slots = (uint32_t)models[i].slots,
                                      .kv_type = (enum kv_type)models[i].kv_type};
    for (size_t i = 0; i < named->count && e == ERR_OK; i++)
        e = source_add(s, named->items[i], eb);
    return e;
}

/* The same words are wrong tomorrow where this build has no such device at all. */
static int status_of_device(enum err e)
{
    return e == ERR_LOST          ? BACKEND_EXIT_DEVICE
           : e == ERR_UNSUPPORTED ? PROGRAM_STATUS_USAGE
                                  : PROGRAM_STATUS_FAILED;
}

/* Nothing is measured that nobody would look at. */
static uint64_t bandwidth_offer(const struct settings *c, const struct agent_config *agent)
{
    const bool is_scalar = backend_isa_resolve(agent->engine.isa) == BACKEND_ISA_SCALAR;
    struct bandwidth_choice choice = {0};
    CHECK(bandwidth_parse(c->engine.bandwidth, &choice, NULL) == ERR_OK);
    if (choice.is_measured && agent->gangs.transports == 0)
        return 0;
    return bandwidth_read(&choice, agent->device, is_scalar ? 1 : agent->engine.threads);
}

/* What it says so that the coordinator can join it with others. */
static enum err gangs_offer(const struct settings *c, struct catalogue *catalogue,
                            struct agent_config *agent, struct errbuf *eb)
{
    if (!c->engine.gangs)
        return ERR_OK;
    enum err e = gang_offer_read((enum gang_choice)c->engine.gang_transport, agent->engine.backend,
                                 c->engine.nccl_bytes, &agent->gangs, eb);
    if (e != ERR_OK)
        return err_prefix(eb, e, "engine.gang_transport");
    return agent->gangs.transports != 0
               ? gang_offer_models(catalogue, &agent->gangs, &agent->engine, agent->build, eb)
               : ERR_OK;
}

static int worker_run(struct settings *c, const struct sources *sources,
                      const struct program_options *options)
{
    struct errbuf eb = {{0}};
    struct crypto_key *key = NULL;
    struct catalogue catalogue = {0};
    struct device_id device_id;
    struct device *device = NULL;
    uint8_t coordinator_key[ED25519_PUBLIC_BYTES];
    char build[HELLO_BUILD_BYTES];
    int status = PROGRAM_STATUS_USAGE;

    struct agent_config agent = {
        .coordinator = {.url = c->coordinator, .tls = c->tls},
        .engine = {.isa = (enum backend_isa)c->engine.isa,
                   .threads =
                       c->engine.threads > 0 ? (uint32_t)c->engine.threads : backend_threads_auto(),
                   .step_tokens = (uint32_t)c->engine.step_tokens,
                   .sequences = (uint32_t)c->engine.sequences},
        .catalogue = &catalogue,
        .prefix_cache = (enum prefix_cache)c->engine.prefix_cache,
        .build = build,
        .memory_budget_bytes = c->engine.memory_bytes,
    };

    hello_build(build);
    enum err e = transport_endpoint_check(&agent.coordinator, &eb);
    if (e != ERR_OK) {
        struct errbuf why = eb;
        e = config_fail(c->file, &eb, "tls", "%s", why.text);
        goto out;
    }
    status = PROGRAM_STATUS_FAILED;
    /* A check is often made by another user than the one who will run it: it leaves no file. */
    if (!options->check_config) {
        e = folder_make(c->state_dir, &eb);
        if (e == ERR_OK)
            e = crypto_key_open_or_create(&key, c->key_file, &eb);
        if (e != ERR_OK)
            goto out;
    }
    if (options->print_key) {
        status = program_print_key(&program, key);
        goto out;
    }
    if (sources->count == 0) {
        status = PROGRAM_STATUS_USAGE;
        e = err_set(&eb, ERR_INVALID,
                    "no models to serve: name at least one, in `models` or by --model NAME=PATH");
        goto out;
    }
    e = device_id_parse(c->engine.device, &device_id, &eb);
    if (e == ERR_OK)
        e = device_open(&device, &device_id, &eb);
    if (e != ERR_OK) {
        status = status_of_device(e);
        goto out;
    }
    agent.device = device;
    if (device_id.is_cuda) {
        agent.engine.backend = ENGINE_BACKEND_CUDA;
        agent.engine.gpu = 0; /* device_open left CUDA no other one */
    }
    const struct catalogue_digests digests = {.folder = c->state_dir,
                                              .read_only = options->check_config};
    e = catalogue_open(&catalogue, sources->items, sources->count, &agent.engine, &digests, &eb);
    if (e == ERR_OK)
        e = gangs_offer(c, &catalogue, &agent, &eb);
    if (e != ERR_OK)
        goto out;
    if (options->check_config) {
        status = program_config_is_good(&program, "models: %zu; the coordinator is %s",
                                        sources->count, c->coordinator);
        goto out;
    }
    if (c->coordinator_key != NULL &&
        hex_decode(c->coordinator_key, coordinator_key, sizeof coordinator_key))
        agent.coordinator_key = coordinator_key;
    agent.key = key;
    agent.node = c->name;
    agent.read_bytes_per_s = bandwidth_offer(c, &agent);
    e = agent_run(&agent, &eb);
    status = e == ERR_OK     ? PROGRAM_STATUS_OK
             : e == ERR_LOST ? BACKEND_EXIT_DEVICE
                             : PROGRAM_STATUS_FAILED;
out:
    if (e != ERR_OK)
        program_fail(&program, status, "%s", eb.text);
    if (e == ERR_LOST)
        _exit(status); /* the engine still runs, and may hang in the device */
    device_close(device);
    catalogue_close(&catalogue);
    crypto_key_free(key);
    return status;
}

int main(int argc, char **argv)
{
    struct command_line line = {0};
    struct program_options options;
    struct settings config = {0};
    struct sources sources = {0};
    struct errbuf eb = {{0}};
    char folder[PATH_MAX];

    int status = program_begin(&program, argc, argv, &line, &options);
    if (status != PROGRAM_GO_ON)
        return status;
    status = PROGRAM_STATUS_USAGE;
    enum err e = settings_read(&config, options.config, &eb);
    if (e == ERR_OK)
        e = overrides_apply(&line, &config, folder, &eb);
    if (e == ERR_OK)
        e = settings_complete(&config, &eb);
    if (e == ERR_OK) {
        e = sources_collect(&sources, &config, &line.models, &eb);
        /* A model file that is missing may be there tomorrow: nothing is wrong with the words. */
        if (e != ERR_INVALID)
            status = PROGRAM_STATUS_FAILED;
    }
    if (e == ERR_OK) {
        program_log(&program, &options, (enum log_level)config.log_level);
        status = worker_run(&config, &sources, &options);
    } else {
        program_fail(&program, status, "%s", eb.text);
    }
    sources_fini(&sources);
    settings_fini(&config);
    return status;
}
