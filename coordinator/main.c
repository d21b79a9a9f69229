/*
 * cloister-coordinator: takes jobs, gives them to workers, keeps the ledger. This file owns the
 * command line and the order in which things start; loop.c is the program.
 *
 * Exit status: 0 stopped by a signal; 1 could not start (address in use, store or ledger refused);
 * 2 wrong usage or configuration; 3 storage failed while it ran and could not be opened again.
 */
#include "common/buf.h"
#include "common/log.h"
#include "common/version.h"
#include "coordinator/loop.h"
#include "coordinator/settings.h"

#include <getopt.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { EXIT_USAGE = 2, EXIT_STORAGE = 3 };

static const char usage[] =
    "usage: cloister-coordinator [options]\n"
    "\n"
    "Takes jobs, gives them to workers, keeps the ledger. Without a configuration it listens on\n"
    "loopback and lets any local key in.\n"
    "\n"
    "  -c, --config FILE      configuration (see --print-config)\n"
    "  -l, --listen URL       tcp://HOST:PORT or tls+tcp://HOST:PORT\n"
    "  -d, --data DIR         where the store and the key are\n"
    "  -n, --name NAME        the coordinator's name\n"
    "      --log-level LEVEL  error, warn, info or debug\n"
    "      --check-config     read the configuration, say what is wrong, and end\n"
    "      --print-config     an example configuration with every key\n"
    "      --print-key        its public key, which is made where it is missing\n"
    "      --version, --help\n"
    "\n"
    "Exit status: 0 stopped by a signal; 1 could not start; 2 wrong usage or configuration;\n"
    "3 storage failed and could not be opened again.\n";

enum {
    OPT_LOG_LEVEL = 256,
    OPT_CHECK_CONFIG,
    OPT_PRINT_CONFIG,
    OPT_PRINT_KEY,
    OPT_VERSION,
    OPT_HELP,
};

static const struct option options[] = {
    {"config", required_argument, NULL, 'c'},
    {"listen", required_argument, NULL, 'l'},
    {"data", required_argument, NULL, 'd'},
    {"name", required_argument, NULL, 'n'},
    {"log-level", required_argument, NULL, OPT_LOG_LEVEL},
    {"check-config", no_argument, NULL, OPT_CHECK_CONFIG},
    {"print-config", no_argument, NULL, OPT_PRINT_CONFIG},
    {"print-key", no_argument, NULL, OPT_PRINT_KEY},
    {"version", no_argument, NULL, OPT_VERSION},
    {"help", no_argument, NULL, OPT_HELP},
    {NULL, 0, NULL, 0},
};

struct command_line {
    const char *config, *listen, *data, *name;
    bool has_level;
    enum log_level level;
    bool check_only, print_key;
};

static int usage_error(const char *what, const char *value)
{
    fprintf(stderr, "cloister-coordinator: %s %s (--help lists the options)\n", what, value);
    return EXIT_USAGE;
}

static void print_example(void)
{
    struct buf text;
    buf_init(&text);
    settings_print_example(&text);
    fputs(buf_str(&text), stdout);
    buf_fini(&text);
}

/* Returns -1 to go on, else the exit status. */
static int command_line_parse(int argc, char **argv, struct command_line *c)
{
    int opt;
    while ((opt = getopt_long(argc, argv, "c:l:d:n:", options, NULL)) != -1) {
        switch (opt) {
        case 'c':
            c->config = optarg;
            break;
        case 'l':
            c->listen = optarg;
            break;
        case 'd':
            c->data = optarg;
            break;
        case 'n':
            c->name = optarg;
            break;
        case OPT_LOG_LEVEL:
            if (!log_level_parse(optarg, &c->level))
                return usage_error("no log level", optarg);
            c->has_level = true;
            break;
        case OPT_CHECK_CONFIG:
            c->check_only = true;
            break;
        case OPT_PRINT_CONFIG:
            print_example();
            return EXIT_SUCCESS;
        case OPT_PRINT_KEY:
            c->print_key = true;
            break;
        case OPT_VERSION:
            printf("cloister-coordinator %s (%s)\n", cloister_version, cloister_revision);
            return EXIT_SUCCESS;
        case OPT_HELP:
            fputs(usage, stdout);
            return EXIT_SUCCESS;
        default:
            return EXIT_USAGE;
        }
    }
    if (optind < argc)
        return usage_error("unexpected argument", argv[optind]);
    return -1;
}

/* Before any library starts a thread: all of them inherit it, and the loop's signalfd is the only
 * one that hears them. */
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

static void key_print(const struct crypto_key *key)
{
    uint8_t public_key[ED25519_PUBLIC_BYTES];
    char text[2 * ED25519_PUBLIC_BYTES + 1];
    crypto_key_public(key, public_key);
    hex_encode(public_key, sizeof public_key, text);
    puts(text);
}

static int coordinator_run(struct settings *s, const struct command_line *line)
{
    struct errbuf eb = {{0}};
    struct crypto_key *key = NULL;
    struct loop *loop = NULL;
    struct loop_config config;
    char build[128];
    int status = EXIT_FAILURE;

    (void)snprintf(build, sizeof build, "%s+%s", cloister_version, cloister_revision);
    settings_loop_config(s, build, &config);
    enum err err = transport_endpoint_check(&config.endpoint, &eb);
    if (err != ERR_OK || line->check_only) {
        status = err == ERR_OK ? EXIT_SUCCESS : EXIT_USAGE;
        goto out;
    }
    err = settings_directory_make(s, &eb);
    if (err == ERR_OK)
        err = crypto_key_open_or_create(&key, s->key_file, &eb);
    if (err != ERR_OK)
        goto out;
    if (line->print_key) {
        key_print(key);
        status = EXIT_SUCCESS;
        goto out;
    }
    config.key = key;
    crypto_key_public(key, config.core.public_key);
    err = loop_open(&loop, &config, &eb);
    if (err == ERR_OK) {
        err = loop_run(loop, &eb);
        status = err == ERR_OK ? EXIT_SUCCESS : EXIT_STORAGE;
    }
out:
    if (err != ERR_OK)
        log_error("%s", eb.text);
    loop_close(loop);
    crypto_key_free(key);
    return status;
}

int main(int argc, char **argv)
{
    struct command_line line = {.level = LOG_LEVEL_INFO};
    struct errbuf eb = {{0}};
    char data[PATH_MAX];
    static struct settings settings;

    int status = command_line_parse(argc, argv, &line);
    if (status >= 0)
        return status;
    signals_block();
    log_open("coordinator", line.level);
    /* Relative to where it was started, like any other command's argument. */
    if (line.data != NULL && line.data[0] != '/') {
        char cwd[PATH_MAX];
        if (getcwd(cwd, sizeof cwd) == NULL ||
            (size_t)snprintf(data, sizeof data, "%s/%s", cwd, line.data) >= sizeof data)
            return usage_error("cannot use --data", line.data);
        line.data = data;
    }
    if (settings_read(&settings, line.config, line.listen, line.data, line.name, &eb) != ERR_OK) {
        fprintf(stderr, "cloister-coordinator: %s\n", eb.text);
        return EXIT_USAGE;
    }
    if (!line.has_level)
        log_open("coordinator", (enum log_level)settings.log_level);
    status = coordinator_run(&settings, &line);
    settings_fini(&settings);
    return status;
}
