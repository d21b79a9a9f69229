#include "coordinator/settings.h"

#include "common/config_tls.h"
#include "common/check.h"
#include "common/folder.h"
#include "common/limits.h"
#include "common/log.h"
#include "common/shard_cut.h"

#include <errno.h>
#include <libgen.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* By enum core_gang_split. */
static const char *const gang_split_names[] = {"auto", "shards", "stages", "hosts", NULL};

#define FIELD(field) offsetof(struct settings, field)
#define WITHIN(group, field)                                                                       \
    (offsetof(struct settings, group.field) - offsetof(struct settings, group))

static const struct config_key queue_keys[] = {
    {.name = "jobs",
     .type = CONFIG_INT,
     .offset = WITHIN(queue, jobs),
     .fallback = "1000000",
     .min = 1,
     .max = 100000000,
     .help = "Most jobs that wait. More are refused, with a time to try again."},
    {.name = "tokens",
     .type = CONFIG_INT,
     .offset = WITHIN(queue, tokens),
     .fallback = "2000000000",
     .min = 1,
     .max = 1000000000000000,
     .help = "Most tokens that wait: of each job the most its prompt can be, and its max_tokens."},
    {.name = "age",
     .type = CONFIG_DURATION,
     .offset = WITHIN(queue, age_ms),
     .fallback = "1d",
     .min = 1000,
     .max = 30ll * 24 * 3600 * 1000,
     .help = "When the oldest job for a model has waited this long, new ones for it are refused."},
    {0}};

static const struct config_key tenant_keys[] = {
    {.name = "name",
     .type = CONFIG_STRING,
     .offset = offsetof(struct settings_tenant, name),
     .required = true,
     .check = config_check_name,
     .example = "research",
     .help = "As clients name it."},
    {.name = "budget_tokens",
     .type = CONFIG_INT,
     .offset = offsetof(struct settings_tenant, budget_tokens),
     .fallback = "0",
     .min = 0,
     .max = INT64_MAX,
     .help = "Tokens, prompt and completion, that it may use in all; a job that could pass it is "
             "refused. 0: no limit."},
    {0}};

static const struct config_key worker_keys[] = {
    {.name = "key",
     .type = CONFIG_STRING,
     .offset = offsetof(struct settings_worker, key),
     .required = true,
     .check = config_check_key_hex,
     .example = "a7c1f0e2d4b5968778695a4b3c2d1e0ff0e1d2c3b4a5968778695a4b3c2d1e0f",
     .help = "The worker's public key."},
    {.name = "name",
     .type = CONFIG_STRING,
     .offset = offsetof(struct settings_worker, name),
     .check = config_check_name,
     .example = "hall-2-rack-7",
     .help = "The only name it may use. Unset: any."},
    {0}};

static const struct config_key client_keys[] = {
    {.name = "key",
     .type = CONFIG_STRING,
     .offset = offsetof(struct settings_client, key),
     .required = true,
     .check = config_check_key_hex,
     .example = "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0",
     .help = "The client's public key."},
    {.name = "tenant",
     .type = CONFIG_STRING,
     .offset = offsetof(struct settings_client, tenant),
     .required = true,
     .check = config_check_name,
     .example = "research",
     .help = "Whose jobs these are: who sees them and who pays."},
    {.name = "name",
     .type = CONFIG_STRING,
     .offset = offsetof(struct settings_client, name),
     .check = config_check_name,
     .example = "ada",
     .help = "The only name it may use. Unset: any."},
    {.name = "operator",
     .type = CONFIG_BOOL,
     .offset = offsetof(struct settings_client, is_operator),
     .fallback = "false",
     .help = "Sees and cancels every tenant's jobs, and reads the ledger."},
    {0}};

static const struct config_key settings_keys[] = {
    {.name = "listen",
     .type = CONFIG_STRING,
     .offset = FIELD(listen),
     .fallback = "tcp://127.0.0.1:7420",
     .check = config_check_listen_url,
     .help = "Where workers and clients dial: tcp://HOST:PORT or tls+tcp://HOST:PORT."},
    {.name = "tls",
     .type = CONFIG_GROUP,
     .offset = FIELD(tls),
     .keys = config_tls_keys,
     .help = "For tls+tcp://; both sides show a certificate."},
    {.name = "allow_plaintext",
     .type = CONFIG_BOOL,
     .offset = FIELD(allow_plaintext),
     .fallback = "false",
     .help = "Allows tcp:// on an address that is not loopback: prompts and answers can be read "
             "on the wire."},
    {.name = "allow_any_key",
     .type = CONFIG_BOOL,
     .offset = FIELD(allow_any_key),
     .fallback = "false",
     .help = "Lets in workers and clients that are not listed also where the address is not "
             "loopback."},
    {.name = "name",
     .type = CONFIG_STRING,
     .offset = FIELD(name),
     .check = config_check_name,
     .example = "hall-2",
     .help = "The coordinator's name, in replies and in the ledger. Unset: the host's name."},
    {.name = "data",
     .type = CONFIG_STRING,
     .offset = FIELD(data),
     .check = config_check_absolute_path,
     .example = "/var/lib/cloister",
     .help = "Directory of the store and the key, on a local file system. Unset: "
             "$STATE_DIRECTORY, /var/lib/cloister for root, else ~/.local/share/cloister."},
    {.name = "key_file",
     .type = CONFIG_STRING,
     .offset = FIELD(key_file),
     .check = config_check_absolute_path,
     .example = "/var/lib/cloister/coordinator.key",
     .help = "Ed25519 key that signs checkpoints and answers to Hello; made at first start. "
             "Unset: coordinator.key in the data directory."},
    {.name = "checkpoint_file",
     .type = CONFIG_STRING,
     .offset = FIELD(checkpoint_file),
     .check = config_check_absolute_path,
     .example = "/srv/other-disk/cloister.checkpoint",
     .help =
         "The last signed checkpoint: what shows that the store was set back to an older state. "
         "On another disk, best of another administrator, what takes the store does not take "
         "it too; while it lies beside the store, each start says so. Unset: ledger.checkpoint "
         "in the data directory."},
    {.name = "origin",
     .type = CONFIG_STRING,
     .offset = FIELD(origin),
     .fallback = "cloister.local/ledger",
     .min = 1,
     .max = 255,
     .help = "The ledger's name in its checkpoints. Not to be changed once there are any."},
    {.name = "map_size",
     .type = CONFIG_SIZE,
     .offset = FIELD(map_bytes),
     .fallback = "64GiB",
     .min = 64ll << 20,
     .max = 1ll << 46,
     .help = "Most that the store may grow to. It is address space; disk is used as records come."},
    {.name = "checkpoint_records",
     .type = CONFIG_INT,
     .offset = FIELD(checkpoint_records),
     .fallback = "1000",
     .min = 1,
     .max = 1000000000,
     .help = "A checkpoint is signed after so many ledger records,"},
    {.name = "checkpoint_interval",
     .type = CONFIG_DURATION,
     .offset = FIELD(checkpoint_ms),
     .fallback = "10s",
     .min = 1000,
     .max = 24ll * 3600 * 1000,
     .help = "or this long after the last one when there are new records."},
    {.name = "energy_interval",
     .type = CONFIG_DURATION,
     .offset = FIELD(energy_ms),
     .fallback = "10m",
     .min = 0,
     .max = 24ll * 3600 * 1000,
     .help = "The ledger records the energy counter of each worker's GPU this often. 0: never."},
    {.name = "heartbeat",
     .type = CONFIG_DURATION,
     .offset = FIELD(heartbeat_ms),
     .fallback = "1s",
     .min = 50,
     .max = 60000,
     .help = "Workers report at least this often."},
    {.name = "lease",
     .type = CONFIG_DURATION,
     .offset = FIELD(lease_ms),
     .fallback = "10s",
     .min = 200,
     .max = 3600000,
     .help = "A worker that is silent for half of it gets nothing new; for all of it, its jobs go "
             "elsewhere. At least three heartbeats."},
    {.name = "grace",
     .type = CONFIG_DURATION,
     .offset = FIELD(grace_ms),
     .fallback = "0",
     .min = 0,
     .max = 3600000,
     .help = "How long after a restart workers have to come back to the jobs they are running. "
             "0: twice the lease."},
    {.name = "disconnect",
     .type = CONFIG_DURATION,
     .offset = FIELD(disconnect_ms),
     .fallback = "15s",
     .min = 1000,
     .max = 3600000,
     .help = "A job that asked to be cancelled with its client is, when nobody has watched it for "
             "this long."},
    {.name = "session_idle",
     .type = CONFIG_DURATION,
     .offset = FIELD(session_idle_ms),
     .fallback = "1h",
     .min = 60000,
     .max = 7ll * 24 * 3600 * 1000,
     .help = "A client unheard for this long is forgotten and says Hello again."},
    {.name = "residency",
     .type = CONFIG_DURATION,
     .offset = FIELD(residency_ms),
     .fallback = "30s",
     .min = 0,
     .max = 24ll * 3600 * 1000,
     .help = "A loaded model stays at least this long, and a job waits this long before a worker "
             "is emptied for it: what keeps models from taking turns."},
    {.name = "gang_workers",
     .type = CONFIG_INT,
     .offset = FIELD(gang_workers),
     .fallback = "16",
     .min = 0,
     .max = SHARD_RANKS_MAX,
     .help = "A model that no worker alone has room for is shared out among as few as have it "
             "together, up to this many. 0: jobs for it are refused."},
    {.name = "gang_split",
     .type = CONFIG_ENUM,
     .offset = FIELD(gang_split),
     .fallback = "auto",
     .names = gang_split_names,
     .help =
         "How it is shared out: shards, each has a part of every layer; stages, each has some "
         "of the layers; hosts, each host has some of the layers and its workers parts of them; "
         "or auto: shards, but hosts between GPUs, and stages where shards do not fit."},
    {.name = "load_retry",
     .type = CONFIG_DURATION,
     .offset = FIELD(load_retry_ms),
     .fallback = "30s",
     .min = 1000,
     .max = 24ll * 3600 * 1000,
     .help =
         "A worker that failed to load a model is asked again after this. After three times its "
         "jobs end with the reason, and it is asked again after twenty times as long."},
    {.name = "stall",
     .type = CONFIG_DURATION,
     .offset = FIELD(stall_ms),
     .fallback = "2m",
     .min = 1000,
     .max = 24ll * 3600 * 1000,
     .help = "The cluster is not healthy when the oldest thing that should have moved has not for "
             "this long."},
    {.name = "queue",
     .type = CONFIG_GROUP,
     .offset = FIELD(queue),
     .keys = queue_keys,
     .help = "Bounds of what waits."},
    {.name = "worker_jobs",
     .type = CONFIG_INT,
     .offset = FIELD(worker_jobs),
     .fallback = "64",
     .min = 1,
     .max = LIMIT_LEASES_PER_WORKER,
     .help = "Most jobs given to one worker at a time; the others wait here, where they can still "
             "go elsewhere."},
    {.name = "default_max_tokens",
     .type = CONFIG_INT,
     .offset = FIELD(default_max_tokens),
     .fallback = "512",
     .min = 1,
     .max = LIMIT_MAX_TOKENS,
     .help = "For jobs that do not say how long the answer may be."},
    {.name = "retain_jobs",
     .type = CONFIG_INT,
     .offset = FIELD(retain_jobs),
     .fallback = "1000000",
     .min = 0,
     .max = 100000000,
     .help = "Jobs that ended, with prompt and answer, are kept up to this number; the oldest go "
             "first. The ledger keeps everything."},
    {.name = "default_budget_tokens",
     .type = CONFIG_INT,
     .offset = FIELD(default_budget_tokens),
     .fallback = "0",
     .min = 0,
     .max = INT64_MAX,
     .help = "Budget of tenants that are not listed. 0: no limit."},
    {.name = "tenants",
     .type = CONFIG_GROUPS,
     .offset = FIELD(tenants),
     .keys = tenant_keys,
     .element_bytes = sizeof(struct settings_tenant),
     .unique = "name",
     .max = LIMIT_TENANTS,
     .help = "Tenants with a budget of their own."},
    {.name = "workers",
     .type = CONFIG_GROUPS,
     .offset = FIELD(workers),
     .keys = worker_keys,
     .element_bytes = sizeof(struct settings_worker),
     .unique = "key",
     .max = LIMIT_WORKERS,
     .help = "Workers that are let in (`cloister-worker --print-key`), and no others. None listed: "
             "any, on loopback. Says nothing about clients."},
    {.name = "clients",
     .type = CONFIG_GROUPS,
     .offset = FIELD(clients),
     .keys = client_keys,
     .element_bytes = sizeof(struct settings_client),
     .unique = "key",
     .max = LIMIT_TENANTS,
     .help = "Clients that are let in, and no others. None listed: any, as any tenant and as "
             "operator, on loopback. Says nothing about workers."},
    {.name = "expected_models",
     .type = CONFIG_STRINGS,
     .offset = FIELD(expected_models),
     .max = LIMIT_MODELS_PER_WORKER,
     .example = "smollm2",
     .help = "Jobs for these are taken also before a worker has ever offered them."},
    {.name = "log_level",
     .type = CONFIG_ENUM,
     .offset = FIELD(log_level),
     .fallback = "info",
     .names = log_level_names,
     .help = "error, warn, info or debug."},
    {0}};

static bool url_is_tls(const char *url)
{
    return strncmp(url, "tls+", 4) == 0;
}

static bool url_is_loopback(const char *url)
{
    const char *host = strstr(url, "://");
    host = host != NULL ? host + 3 : url;
    return strncmp(host, "127.", 4) == 0 || strncmp(host, "localhost:", 10) == 0 ||
           strncmp(host, "[::1]:", 6) == 0;
}

/* Rules between keys. */
static enum err rules_check(const struct settings *s, struct errbuf *eb)
{
    bool given = s->tls.ca_file != NULL;
    bool tls = url_is_tls(s->listen), loopback = url_is_loopback(s->listen);

    if (tls && !given)
        return config_fail(s->file, eb, "listen",
                           "%s needs the group tls with ca_file, cert_file and key_file",
                           s->listen);
    if (given && !tls)
        return config_fail(s->file, eb, "tls", "certificates are given, but %s is not tls+tcp://",
                           s->listen);
    if (!tls && !loopback && !s->allow_plaintext)
        return config_fail(s->file, eb, "listen",
                           "%s is not loopback: use tls+tcp://, or set allow_plaintext = true",
                           s->listen);
    if (!loopback && !s->allow_any_key && (s->workers.count == 0 || s->clients.count == 0))
        return config_fail(s->file, eb, "listen",
                           "%s is not loopback: list the keys of workers and clients, or set "
                           "allow_any_key = true",
                           s->listen);
    if (s->lease_ms < 3 * s->heartbeat_ms)
        return config_fail(s->file, eb, "lease",
                           "lease is %llu ms, less than three heartbeats of %llu ms",
                           (unsigned long long)s->lease_ms, (unsigned long long)s->heartbeat_ms);
    return ERR_OK;
}

static const struct folder_default data_default = {.of_root = "/var/lib/cloister",
                                                   .variable = "XDG_DATA_HOME",
                                                   .in_home = ".local/share",
                                                   .name = "cloister",
                                                   .key = "data"};

/* What was left open: names and paths. */
static enum err settings_complete(struct settings *s, struct errbuf *eb)
{
    enum err err = ERR_OK;
    if (s->name == NULL) {
        if (gethostname(s->host, sizeof s->host - 1) != 0)
            return err_set_errno(eb, errno, "host name");
        s->name = s->host;
    }
    if (s->data == NULL) {
        err = folder_default(&data_default, s->data_default, sizeof s->data_default, eb);
        s->data = s->data_default;
    }
    if (err != ERR_OK)
        return err;
    if (strlen(s->data) >= PATH_MAX)
        return err_set(eb, ERR_TOO_LARGE, "the data directory's path is too long");
    (void)snprintf(s->store_path, sizeof s->store_path, "%s/store", s->data);
    (void)snprintf(s->key_default, sizeof s->key_default, "%s/coordinator.key", s->data);
    (void)snprintf(s->checkpoint_default, sizeof s->checkpoint_default, "%s/ledger.checkpoint",
                   s->data);
    if (s->key_file == NULL)
        s->key_file = s->key_default;
    if (s->checkpoint_file == NULL)
        s->checkpoint_file = s->checkpoint_default;
    if (s->grace_ms == 0)
        s->grace_ms = 2 * s->lease_ms;
    return ERR_OK;
}

static enum err lists_convert(struct settings *s, struct errbuf *eb)
{
    const struct settings_tenant *tenants = s->tenants.items;
    const struct settings_worker *workers = s->workers.items;
    const struct settings_client *clients = s->clients.items;

    s->core_tenants = calloc(s->tenants.count + 1, sizeof *s->core_tenants);
    s->core_workers = calloc(s->workers.count + 1, sizeof *s->core_workers);
    s->core_clients = calloc(s->clients.count + 1, sizeof *s->core_clients);
    if (s->core_tenants == NULL || s->core_workers == NULL || s->core_clients == NULL)
        return err_set(eb, ERR_NO_MEMORY, "no memory for the configuration");
    for (size_t i = 0; i < s->tenants.count; i++)
        s->core_tenants[i] = (struct core_tenant_config){
            .name = tenants[i].name, .budget_tokens = (uint64_t)tenants[i].budget_tokens};
    for (size_t i = 0; i < s->workers.count; i++) {
        struct core_key_config *k = &s->core_workers[i];
        CHECK(hex_decode(workers[i].key, k->public_key, sizeof k->public_key));
        k->name = workers[i].name != NULL ? workers[i].name : "";
        k->tenant = "";
    }
    for (size_t i = 0; i < s->clients.count; i++) {
        struct core_key_config *k = &s->core_clients[i];
        CHECK(hex_decode(clients[i].key, k->public_key, sizeof k->public_key));
        k->name = clients[i].name != NULL ? clients[i].name : "";
        k->tenant = clients[i].tenant;
        k->is_operator = clients[i].is_operator;
    }
    return ERR_OK;
}

static enum err overrides_check(const char *listen, const char *data, const char *name,
                                struct errbuf *eb)
{
    enum err err = ERR_OK;
    if (listen != NULL && (err = config_check_listen_url(&listen, eb)) != ERR_OK)
        return err_prefix(eb, err, "--listen %s", listen);
    if (data != NULL && (err = config_check_absolute_path(&data, eb)) != ERR_OK)
        return err_prefix(eb, err, "--data %s", data);
    if (name != NULL && (err = config_check_name(&name, eb)) != ERR_OK)
        return err_prefix(eb, err, "--name %s", name);
    return err;
}

enum err settings_read(struct settings *ret_settings, const char *path, const char *listen,
                       const char *data, const char *name, struct errbuf *eb)
{
    struct settings *s = ret_settings;
    struct config *file = NULL;
    enum err err = overrides_check(listen, data, name, eb);
    if (err != ERR_OK)
        return err;
    *s = (struct settings){0};
    err = path != NULL
              ? config_load_file(&file, settings_keys, s, sizeof *s, path, eb)
              : config_load_memory(&file, settings_keys, s, sizeof *s, "", 0, "defaults", eb);
    if (err != ERR_OK)
        return err;
    s->file = file;
    s->listen = listen != NULL ? listen : s->listen;
    s->data = data != NULL ? data : s->data;
    s->name = name != NULL ? name : s->name;
    err = rules_check(s, eb);
    if (err == ERR_OK)
        err = settings_complete(s, eb);
    if (err == ERR_OK)
        err = lists_convert(s, eb);
    if (err != ERR_OK)
        settings_fini(s);
    return err;
}

void settings_fini(struct settings *s)
{
    free(s->core_tenants);
    free(s->core_workers);
    free(s->core_clients);
    config_free(s->file);
    s->core_tenants = NULL;
    s->core_workers = s->core_clients = NULL;
    s->file = NULL;
}

void settings_loop_config(struct settings *s, const char *build, struct loop_config *ret_config)
{
    struct loop_config k = {
        .endpoint = {.url = s->listen, .tls = s->tls},
        .store_path = s->store_path,
        .map_bytes = s->map_bytes,
        .origin = s->origin,
        .checkpoint_path = s->checkpoint_file,
        .checkpoint_records = (uint64_t)s->checkpoint_records,
        .checkpoint_ms = s->checkpoint_ms,
    };
    k.core = (struct core_config){
        .node = s->name,
        .build = build,
        .heartbeat_ms = s->heartbeat_ms,
        .lease_ms = s->lease_ms,
        .grace_ms = s->grace_ms,
        .disconnect_ms = s->disconnect_ms,
        .session_idle_ms = s->session_idle_ms,
        .residency_ms = s->residency_ms,
        .load_retry_ms = s->load_retry_ms,
        .stall_ms = s->stall_ms,
        .energy_ms = s->energy_ms,
        .queue_jobs_max = (uint64_t)s->queue.jobs,
        .queue_tokens_max = (uint64_t)s->queue.tokens,
        .queue_age_max_ms = s->queue.age_ms,
        .worker_leases_max = (uint32_t)s->worker_jobs,
        .gang_workers_max = (uint32_t)s->gang_workers,
        .gang_split = (enum core_gang_split)s->gang_split,
        .default_max_tokens = (uint32_t)s->default_max_tokens,
        .retain_ended_jobs = (uint64_t)s->retain_jobs,
        .tenants = s->core_tenants,
        .n_tenants = s->tenants.count,
        .default_budget_tokens = (uint64_t)s->default_budget_tokens,
        .open_workers = s->workers.count == 0,
        .open_clients = s->clients.count == 0,
        .workers = s->core_workers,
        .n_workers = s->workers.count,
        .clients = s->core_clients,
        .n_clients = s->clients.count,
        .expected_models = s->expected_models.items,
        .n_expected_models = s->expected_models.count,
    };
    *ret_config = k;
}

const char *settings_checkpoint_place(const struct settings *s)
{
    char folder[sizeof s->checkpoint_default];
    struct stat data, checkpoint;
    (void)snprintf(folder, sizeof folder, "%s", s->checkpoint_file);
    if (stat(s->data, &data) != 0 || stat(dirname(folder), &checkpoint) != 0 ||
        data.st_dev != checkpoint.st_dev)
        return NULL;
    return data.st_ino == checkpoint.st_ino ? "in the data directory"
                                            : "on the file system of the data directory";
}

void settings_print_example(struct buf *out)
{
    config_describe(settings_keys, "Configuration of cloister-coordinator", out);
}
