/*
 * cloister-worker: serves models to a coordinator. This file owns the command line and the order
 * in which things start; agent.c is the program.
 *
 * Exit status: 0 stopped by a signal; 1 could not start; 2 wrong usage or configuration.
 */
#include "common/buf.h"
#include "common/log.h"
#include "common/version.h"
#include "worker/agent.h"
#include "worker/worker_config.h"

#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { EXIT_USAGE = 2 };

static const char usage[] =
    "usage: cloister-worker [options]\n"
    "\n"
    "Serves GGUF models to the coordinator it dials.\n"
    "\n"
    "  -c, --config FILE        configuration (see --print-config)\n"
    "  -u, --coordinator URL    tcp://HOST:PORT or tls+tcp://HOST:PORT\n"
    "  -n, --name NAME          this worker's name in the cluster\n"
    "  -m, --model NAME=PATH    serve this file too; may be repeated\n"
    "      --state-dir DIR      where its key and file digests are kept\n"
    "      --memory SIZE        what models may take, e.g. 8GiB\n"
    "  -t, --threads N          compute threads; 0: one a core\n"
    "      --isa NAME           auto, scalar, avx2 or avx512\n"
    "      --log-level LEVEL    error, warn, info or debug\n"
    "      --check-config       read the configuration, say what is wrong, and end\n"
    "      --print-config       an example configuration with every key\n"
    "      --version, --help\n";

enum {
    OPT_STATE_DIR = 256,
    OPT_MEMORY,
    OPT_ISA,
    OPT_LOG_LEVEL,
    OPT_CHECK_CONFIG,
    OPT_PRINT_CONFIG,
    OPT_VERSION,
    OPT_HELP,
};

static const struct option options[] = {
    {"config", required_argument, NULL, 'c'},
    {"coordinator", required_argument, NULL, 'u'},
    {"name", required_argument, NULL, 'n'},
    {"model", required_argument, NULL, 'm'},
    {"state-dir", required_argument, NULL, OPT_STATE_DIR},
    {"memory", required_argument, NULL, OPT_MEMORY},
    {"threads", required_argument, NULL, 't'},
    {"isa", required_argument, NULL, OPT_ISA},
    {"log-level", required_argument, NULL, OPT_LOG_LEVEL},
    {"check-config", no_argument, NULL, OPT_CHECK_CONFIG},
    {"print-config", no_argument, NULL, OPT_PRINT_CONFIG},
    {"version", no_argument, NULL, OPT_VERSION},
    {"help", no_argument, NULL, OPT_HELP},
    {NULL, 0, NULL, 0},
};

/* What the command line adds to the file. */
struct command_line {
    const char *config, *coordinator, *name, *state_dir, *memory, *threads, *isa, *log_level;
    char **models; /* NAME=PATH */
    size_t n_models;
    bool check_only;
};

static int usage_error(const char *format, const char *what)
{
    fprintf(stderr, "cloister-worker: ");
    fprintf(stderr, format, what);
    fprintf(stderr, " (--help lists the options)\n");
    return EXIT_USAGE;
}

/* Returns -1 to go on, else the exit status. */
static int command_line_parse(int argc, char **argv, struct command_line *c)
{
    struct buf example;
    int opt;

    while ((opt = getopt_long(argc, argv, "c:u:n:m:t:", options, NULL)) != -1) {
        switch (opt) {
        case 'c':
            c->config = optarg;
            break;
        case 'u':
            c->coordinator = optarg;
            break;
        case 'n':
            c->name = optarg;
            break;
        case 'm':
            c->models[c->n_models++] = optarg;
            break;
        case 't':
            c->threads = optarg;
            break;
        case OPT_STATE_DIR:
            c->state_dir = optarg;
            break;
        case OPT_MEMORY:
            c->memory = optarg;
            break;
        case OPT_ISA:
            c->isa = optarg;
            break;
        case OPT_LOG_LEVEL:
            c->log_level = optarg;
            break;
        case OPT_CHECK_CONFIG:
            c->check_only = true;
            break;
        case OPT_PRINT_CONFIG:
            buf_init(&example);
            worker_config_print_example(&example);
            fputs(buf_str(&example), stdout);
            buf_fini(&example);
            return EXIT_SUCCESS;
        case OPT_VERSION:
            printf("cloister-worker %s (%s)\n", cloister_version, cloister_revision);
            return EXIT_SUCCESS;
        case OPT_HELP:
            fputs(usage, stdout);
            return EXIT_SUCCESS;
        default:
            return EXIT_USAGE;
        }
    }
    if (optind < argc)
        return usage_error("unexpected argument %s", argv[optind]);
    return -1;
}

/* The command line is a small configuration of its own: the same table, checks and errors. */
static void option_append(struct buf *text, const char *key, const char *value, bool quoted)
{
    if (value == NULL)
        return;
    buf_printf(text, quoted ? "%s = \"" : "%s = ", key);
    for (const char *p = value; *p != '\0'; p++) {
        if (quoted && (*p == '"' || *p == '\\'))
            buf_append_byte(text, '\\');
        buf_append_byte(text, (uint8_t)*p);
    }
    buf_append_str(text, quoted ? "\";\n" : ";\n");
}

static int overrides_apply(const struct command_line *line, struct worker_config *over,
                           struct worker_config *c)
{
    struct errbuf eb = {{0}};
    struct buf text;

    buf_init(&text);
    option_append(&text, "coordinator", line->coordinator, true);
    option_append(&text, "name", line->name, true);
    option_append(&text, "state_dir", line->state_dir, true);
    option_append(&text, "log_level", line->log_level, true);
    buf_append_str(&text, "engine = {\n");
    option_append(&text, "memory", line->memory, true);
    option_append(&text, "threads", line->threads, false);
    option_append(&text, "isa", line->isa, true);
    buf_append_str(&text, "};\n");
    enum err e = worker_config_read_text(over, buf_str(&text), text.size, "command line", &eb);
    buf_fini(&text);
    if (e != ERR_OK) {
        fprintf(stderr, "cloister-worker: %s\n", eb.text);
        return EXIT_USAGE;
    }
    if (line->coordinator != NULL)
        c->coordinator = over->coordinator;
    if (line->name != NULL)
        c->name = over->name;
    if (line->state_dir != NULL)
        c->state_dir = over->state_dir;
    if (line->log_level != NULL)
        c->log_level = over->log_level;
    if (line->memory != NULL)
        c->engine.memory_bytes = over->engine.memory_bytes;
    if (line->threads != NULL)
        c->engine.threads = over->engine.threads;
    if (line->isa != NULL)
        c->engine.isa = over->engine.isa;
    return -1;
}

/* The models of the file, then those of the command line. `paths` keeps the resolved ones. */
static enum err sources_collect(const struct worker_config *c, const struct command_line *line,
                                struct catalogue_source *sources, char **paths, size_t *ret_n,
                                struct errbuf *eb)
{
    const struct worker_config_model *models = c->models.items;
    size_t n = 0;

    for (size_t i = 0; i < c->models.count; i++)
        sources[n++] =
            (struct catalogue_source){.name = models[i].name,
                                      .path = models[i].path,
                                      .context_tokens = (uint32_t)models[i].context_tokens,
                                      .slots = (uint32_t)models[i].slots,
                                      .kv_type = (enum kv_type)models[i].kv_type};
    for (size_t i = 0; i < line->n_models; i++) {
        char *equals = strchr(line->models[i], '=');
        if (equals == NULL)
            return err_set(eb, ERR_INVALID, "--model %s: want NAME=PATH", line->models[i]);
        *equals = '\0';
        const char *name = line->models[i];
        enum err e = config_check_name(&name, eb);
        if (e != ERR_OK)
            return err_prefix(eb, e, "--model %s", name);
        paths[i] = realpath(equals + 1, NULL);
        if (paths[i] == NULL)
            return err_set_errno(eb, errno, "--model %s: %s", name, equals + 1);
        sources[n++] = (struct catalogue_source){.name = name, .path = paths[i]};
    }
    *ret_n = n;
    return ERR_OK;
}

static uint32_t cores_usable(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) != 0)
        return 1;
    return (uint32_t)CPU_COUNT(&set);
}

static enum err worker_run(struct worker_config *c, const struct command_line *line,
                           struct errbuf *eb)
{
    size_t n_max = c->models.count + line->n_models, n = 0;
    struct catalogue_source *sources = calloc(n_max + 1, sizeof *sources);
    char **paths = calloc(line->n_models + 1, sizeof *paths);
    struct crypto_key *key = NULL;
    struct catalogue catalogue = {0};
    uint8_t coordinator_key[ED25519_PUBLIC_BYTES];
    enum err e;

    struct agent_config agent = {
        .coordinator = {.url = c->coordinator,
                        .tls = {.ca_file = c->tls.ca_file,
                                .cert_file = c->tls.cert_file,
                                .key_file = c->tls.key_file}},
        .engine = {.isa = (enum backend_isa)c->engine.isa,
                   .threads = c->engine.threads > 0 ? (uint32_t)c->engine.threads : cores_usable(),
                   .step_tokens = (uint32_t)c->engine.step_tokens,
                   .sequences = (uint32_t)c->engine.sequences},
        .catalogue = &catalogue,
        .memory_budget_bytes = c->engine.memory_bytes,
    };

    if (sources == NULL || paths == NULL) {
        e = err_set(eb, ERR_NO_MEMORY, "no memory");
        goto out;
    }
    e = sources_collect(c, line, sources, paths, &n, eb);
    if (e == ERR_OK)
        e = worker_config_complete(c, eb);
    if (e == ERR_OK)
        e = transport_endpoint_check(&agent.coordinator, eb);
    if (e == ERR_OK)
        e = catalogue_open(&catalogue, sources, n, &agent.engine, c->state_dir, eb);
    if (e != ERR_OK || line->check_only)
        goto out;
    e = crypto_key_open_or_create(&key, c->key_file, eb);
    if (e != ERR_OK)
        goto out;
    if (c->coordinator_key != NULL &&
        hex_decode(c->coordinator_key, coordinator_key, sizeof coordinator_key))
        agent.coordinator_key = coordinator_key;
    agent.key = key;
    agent.node = c->name;
    e = agent_run(&agent, eb);
out:
    catalogue_close(&catalogue);
    crypto_key_free(key);
    for (size_t i = 0; paths != NULL && i < line->n_models; i++)
        free(paths[i]);
    free(paths);
    free(sources);
    return e;
}

static void signals_block(void)
{
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGHUP);
    sigaddset(&signals, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &signals, NULL);
}

int main(int argc, char **argv)
{
    struct command_line line = {.models = calloc((size_t)argc + 1, sizeof(char *))};
    struct worker_config config = {0}, over = {0};
    struct errbuf eb = {{0}};
    int status = EXIT_FAILURE;

    if (line.models == NULL)
        return EXIT_FAILURE;
    status = command_line_parse(argc, argv, &line);
    if (status >= 0)
        goto out;
    log_open("worker", LOG_LEVEL_INFO);
    signals_block();
    status = EXIT_USAGE;
    if (worker_config_read(&config, line.config, &eb) != ERR_OK) {
        fprintf(stderr, "cloister-worker: %s\n", eb.text);
        goto out;
    }
    status = overrides_apply(&line, &over, &config);
    if (status >= 0)
        goto out;
    log_open("worker", (enum log_level)config.log_level);
    status = EXIT_SUCCESS;
    if (worker_run(&config, &line, &eb) != ERR_OK) {
        fprintf(stderr, "cloister-worker: %s\n", eb.text);
        status = EXIT_FAILURE;
    } else if (line.check_only) {
        printf("configuration is good: %zu models\n", config.models.count + line.n_models);
    }
out:
    worker_config_fini(&over);
    worker_config_fini(&config);
    free(line.models);
    return status;
}
