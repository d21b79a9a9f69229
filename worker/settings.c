#include "worker/settings.h"

#include "common/config_tls.h"
#include "common/folder.h"
#include "common/limits.h"
#include "worker/bandwidth.h"
#include "worker/device.h"
#include "worker/kernels/backend.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char *const kv_names[] = {"f16", "q8_0", NULL};
/* By enum prefix_cache. */
static const char *const prefix_cache_names[] = {"tenant", "shared", "off", NULL};
/* By enum gang_choice. */
static const char *const gang_transport_names[] = {"auto", "shm", "ucx", "nccl", NULL};

#define MODEL(field)  offsetof(struct settings_model, field)
#define CONFIG(field) offsetof(struct settings, field)

static const struct config_key model_keys[] = {
    {.name = "name",
     .type = CONFIG_STRING,
     .offset = MODEL(name),
     .required = true,
     .check = config_check_name,
     .example = "smollm2",
     .help = "What jobs call it. Workers that serve the same file should give it the same name."},
    {.name = "path",
     .type = CONFIG_STRING,
     .offset = MODEL(path),
     .required = true,
     .check = config_check_absolute_path,
     .example = "/var/lib/cloister/models/smollm2.gguf",
     .help = "The GGUF file."},
    {.name = "context",
     .type = CONFIG_INT,
     .offset = MODEL(context_tokens),
     .fallback = "0",
     .min = 0,
     .max = LIMIT_CONTEXT_TOKENS,
     .help = "Most tokens of one job, prompt and answer together. 0: what the file was made for, "
             "at most 8192."},
    {.name = "slots",
     .type = CONFIG_INT,
     .offset = MODEL(slots),
     .fallback = "0",
     .min = 0,
     .max = 1024,
     .help = "The KV cache holds this many jobs of full context; shorter ones share it. 0: 4."},
    {.name = "kv",
     .type = CONFIG_ENUM,
     .offset = MODEL(kv_type),
     .fallback = "f16",
     .names = kv_names,
     .help = "How keys and values are kept: f16, or q8_0 in half the memory."},
    {0}};

#define ENGINE(field) (offsetof(struct settings, engine.field) - offsetof(struct settings, engine))

static enum err device_check(const void *value, struct errbuf *eb)
{
    struct device_id id;
    return device_id_parse(*(const char *const *)value, &id, eb);
}

static enum err bandwidth_check(const void *value, struct errbuf *eb)
{
    struct bandwidth_choice choice;
    return bandwidth_parse(*(const char *const *)value, &choice, eb);
}

static const struct config_key engine_keys[] = {
    {.name = "device",
     .type = CONFIG_STRING,
     .offset = ENGINE(device),
     .fallback = "cpu",
     .check = device_check,
     .help = "What computes: cpu, or cuda:N, the GPU that nvidia-smi shows under N. One worker a "
             "GPU; it needs a build with CUDA kernels."},
    {.name = "isa",
     .type = CONFIG_ENUM,
     .offset = ENGINE(isa),
     .fallback = "auto",
     .names = backend_isa_names,
     .help = "Instruction set of the kernels. auto takes the best this machine has; none changes "
             "a bit of any answer."},
    {.name = "threads",
     .type = CONFIG_INT,
     .offset = ENGINE(threads),
     .fallback = "0",
     .min = 0,
     .max = LIMIT_WORKER_THREADS,
     .help = "Compute threads. 0: one for each core this process may use."},
    {.name = "step_tokens",
     .type = CONFIG_INT,
     .offset = ENGINE(step_tokens),
     .fallback = "512",
     .min = ENGINE_STEP_TOKENS_MIN,
     .max = ENGINE_STEP_TOKENS_MAX,
     .help = "Most tokens of one step, prompt and answers of all jobs together. Smaller: running "
             "answers stutter less while a long prompt comes in. Larger: prompts are faster."},
    {.name = "sequences",
     .type = CONFIG_INT,
     .offset = ENGINE(sequences),
     .fallback = "64",
     .min = 1,
     .max = LIMIT_LEASES_PER_WORKER,
     .help = "Most jobs computed at once, per model."},
    {.name = "prefix_cache",
     .type = CONFIG_ENUM,
     .offset = ENGINE(prefix_cache),
     .fallback = "tenant",
     .names = prefix_cache_names,
     .help = "Whose jobs share what they begin with, so that it is computed once: those of one "
             "tenant, all jobs (shared: a tenant can then tell by the time an answer takes what "
             "others have asked), or none (off)."},
    {.name = "gangs",
     .type = CONFIG_BOOL,
     .offset = ENGINE(gangs),
     .fallback = "true",
     .help =
         "Whether this worker computes a part of a model together with others, where one worker "
         "cannot hold all of it."},
    {.name = "gang_transport",
     .type = CONFIG_ENUM,
     .offset = ENGINE(gang_transport),
     .fallback = "auto",
     .names = gang_transport_names,
     .help =
         "Over what it does: shm, the memory of this host, with workers of the same host, network "
         "namespace and user only; ucx, the network, through libucx, which opens ports that do "
         "not authenticate; nccl, from GPU to GPU, through NCCL, which opens such ports too, "
         "between workers on one host as well; or auto, what of these is installed, the best for "
         "each gang."},
    {.name = "nccl_memory",
     .type = CONFIG_SIZE,
     .offset = ENGINE(nccl_bytes),
     .fallback = "512MiB",
     .help = "What NCCL is reckoned to take of the GPU for each group of ranks: one where a model "
             "is cut into shards, up to four in stages. Room is kept for it, nothing is measured: "
             "more where a model that should fit does not load, less where NCCL_BUFFSIZE or "
             "NCCL_MAX_NCHANNELS make it take less."},
    {.name = "bandwidth",
     .type = CONFIG_STRING,
     .offset = ENGINE(bandwidth),
     .fallback = "measure",
     .check = bandwidth_check,
     .help = "How fast this worker reads weights, which shares of a gang go by. measure: a CPU's "
             "memory is read for a tenth of a second at each start, a GPU's driver is asked. Or "
             "what it is, such as 450GB/s or 20500MB/s. off: it is not said, and shares are even "
             "or by room."},
    {.name = "memory",
     .type = CONFIG_SIZE,
     .offset = ENGINE(memory_bytes),
     .fallback = "0",
     .help = "Memory that models may take here. 0: all that the device has, or, of main memory, "
             "this process's cgroup where that is less; of a GPU less 1 GiB, or an eighth of it, "
             "which is kept for what CUDA itself takes."},
    {0}};

static const struct config_key worker_keys[] = {
    {.name = "coordinator",
     .type = CONFIG_STRING,
     .offset = CONFIG(coordinator),
     .fallback = "tcp://127.0.0.1:7420",
     .check = config_check_url,
     .help = "Where the coordinator listens. The worker dials; it opens no port itself."},
    {.name = "coordinator_key",
     .type = CONFIG_STRING,
     .offset = CONFIG(coordinator_key),
     .check = config_check_key_hex,
     .example = "a7c1f0e2d4b5968778695a4b3c2d1e0ff0e1d2c3b4a5968778695a4b3c2d1e0f",
     .help = "The only coordinator key this worker obeys (`cloister-coordinator --print-key`). "
             "Unset: any coordinator at that address."},
    {.name = "name",
     .type = CONFIG_STRING,
     .offset = CONFIG(name),
     .check = config_check_name,
     .example = "hall-2-rack-7",
     .help = "This worker's name in the cluster, unique. Unset: the host's name."},
    {.name = "state_dir",
     .type = CONFIG_STRING,
     .offset = CONFIG(state_dir),
     .check = config_check_absolute_path,
     .example = "/var/lib/cloister/worker",
     .help = "Where the key and digests of model files are kept. Unset: $STATE_DIRECTORY, "
             "/var/lib/cloister/worker for root, else ~/.local/state/cloister/worker."},
    {.name = "key_file",
     .type = CONFIG_STRING,
     .offset = CONFIG(key_file),
     .check = config_check_absolute_path,
     .example = "/var/lib/cloister/worker/worker.key",
     .help = "This worker's Ed25519 key, made at first start. Unset: worker.key in state_dir."},
    {.name = "tls",
     .type = CONFIG_GROUP,
     .offset = CONFIG(tls),
     .keys = config_tls_keys,
     .help = "For a coordinator at tls+tcp://; both sides show a certificate."},
    {.name = "models",
     .type = CONFIG_GROUPS,
     .offset = CONFIG(models),
     .keys = model_keys,
     .element_bytes = sizeof(struct settings_model),
     .unique = "name",
     .max = LIMIT_MODELS_PER_WORKER,
     .help = "The model files this worker can serve. They are loaded when jobs ask for them."},
    {.name = "engine",
     .type = CONFIG_GROUP,
     .offset = CONFIG(engine),
     .keys = engine_keys,
     .help = "How this machine computes."},
    {.name = "log_level",
     .type = CONFIG_ENUM,
     .offset = CONFIG(log_level),
     .fallback = "info",
     .names = log_level_names,
     .help = "error, warn, info or debug."},
    {0}};

/* What the table cannot say: rules between keys. */
static enum err config_rules_check(const struct settings *c, struct errbuf *eb)
{
    if (c->tls.ca_file != NULL && strncmp(c->coordinator, "tls+", 4) != 0)
        return config_fail(c->file, eb, "tls", "the coordinator's URL is not tls+tcp://");
    return ERR_OK;
}

enum err settings_read(struct settings *ret_config, const char *path, struct errbuf *eb)
{
    struct settings c;
    struct config *file = NULL;
    enum err e = path != NULL
                     ? config_load_file(&file, worker_keys, &c, sizeof c, path, eb)
                     : config_load_memory(&file, worker_keys, &c, sizeof c, "", 0, "defaults", eb);
    if (e != ERR_OK)
        return e;
    c.file = file;
    e = config_rules_check(&c, eb);
    if (e != ERR_OK)
        config_free(file);
    else
        *ret_config = c;
    return e;
}

void settings_fini(struct settings *c)
{
    config_free(c->file);
    *c = (struct settings){0};
}

static const struct folder_default state_dir = {.of_root = "/var/lib/cloister/worker",
                                                .variable = "XDG_STATE_HOME",
                                                .in_home = ".local/state",
                                                .name = "cloister/worker",
                                                .key = "state_dir"};

enum err settings_complete(struct settings *c, struct errbuf *eb)
{
    if (c->name == NULL) {
        if (gethostname(c->host, sizeof c->host) != 0)
            return err_set_errno(eb, errno, "host name");
        c->host[sizeof c->host - 1] = '\0';
        c->name = c->host;
    }
    enum err e = config_check_name(&c->name, eb);
    if (e != ERR_OK)
        return err_prefix(eb, e, "worker name %s", c->name);
    if (c->state_dir == NULL) {
        e = folder_default(&state_dir, c->default_state, sizeof c->default_state, eb);
        if (e != ERR_OK)
            return e;
        c->state_dir = c->default_state;
    }
    if (c->key_file == NULL) {
        int n = snprintf(c->default_key, sizeof c->default_key, "%s/worker.key", c->state_dir);
        if (n < 0 || (size_t)n >= sizeof c->default_key)
            return err_set(eb, ERR_TOO_LARGE, "the key file's path is too long");
        c->key_file = c->default_key;
    }
    return ERR_OK;
}

void settings_print_example(struct buf *out)
{
    config_describe(worker_keys, "Configuration of cloister-worker", out);
}
