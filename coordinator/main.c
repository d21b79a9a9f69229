/*
 * cloister-coordinator: takes jobs, gives them to workers, keeps the ledger. This file owns the
 * command line and the order in which things start; loop.c is the program.
 */
#include "common/crypto.h"
#include "common/folder.h"
#include "common/program.h"
#include "common/version.h"
#include "coordinator/loop.h"
#include "coordinator/repair.h"
#include "coordinator/settings.h"
#include "coordinator/store/store_fault.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>

enum { STATUS_STORAGE = 3, STATUS_STUCK = 4 };

struct command_line {
    const char *listen, *data, *name;
    bool check_store, repair;
};

#define LINE(field) offsetof(struct command_line, field)

static const struct flag flags[] = {
    {.name = "listen",
     .letter = 'l',
     .type = FLAG_TEXT,
     .argument = "URL",
     .offset = LINE(listen),
     .help = "tcp://HOST:PORT or tls+tcp://HOST:PORT."},
    {.name = "data",
     .letter = 'd',
     .type = FLAG_TEXT,
     .argument = "DIR",
     .offset = LINE(data),
     .help = "Where the store and the key are."},
    {.name = "name",
     .letter = 'n',
     .type = FLAG_TEXT,
     .argument = "NAME",
     .offset = LINE(name),
     .help = "The coordinator's name."},
    {.name = "check-store",
     .type = FLAG_SWITCH,
     .offset = LINE(check_store),
     .help = "Says what stored is damaged and what --repair would do, and ends."},
    {.name = "repair",
     .type = FLAG_SWITCH,
     .offset = LINE(repair),
     .help = "Makes what is damaged again from the ledger, which "
             "must be whole, and ends."},
    {0}};

static const struct program program = {
    .name = "cloister-coordinator",
    .log_name = "coordinator",
    .summary = "Takes jobs, gives them to workers, keeps the ledger. Without a configuration it "
               "listens on\nloopback and lets any local key in.",
    .statuses =
        "Exit status: 0 stopped by a signal; 1 could not start, or found damage; 2 wrong usage or "
        "configuration;\n3 storage failed while it ran, again and again or so that it could not "
        "be opened;\n4 the store is well and refuses each time what has to be stored next.",
    .flags = flags,
    .print_example = settings_print_example,
};

/* 0: whole, or mended; 1: damaged, or not to be mended. */
static int store_mend(const struct loop_config *config, bool repair, struct errbuf *eb,
                      enum err *ret_err)
{
    struct repair_result result;
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGHUP);
    /* No loop hears them here, a long ledger takes its time, and to be ended does no harm. */
    (void)pthread_sigmask(SIG_UNBLOCK, &signals, NULL);
    *ret_err = repair_run(config, repair, stdout, &result, eb);
    if (*ret_err != ERR_OK)
        return PROGRAM_STATUS_FAILED;
    const bool derived = result.damaged > 0 || result.restored > 0;
    if (result.lost > 0)
        printf("%llu prompts and parts of answers cannot be read and are nowhere else: their jobs "
               "say so when they are asked for\n",
               (unsigned long long)result.lost);
    if (!derived && result.lost == 0)
        printf("nothing is damaged\n");
    if (derived)
        printf("%llu damaged, %llu made again from the ledger, %llu jobs end by it%s\n",
               (unsigned long long)result.damaged, (unsigned long long)result.restored,
               (unsigned long long)result.ended,
               repair ? "" : "; nothing was changed, --repair does it");
    bool mended = result.lost == 0 && (repair || !derived);
    int status = program_finish_output(&program);
    return status != PROGRAM_STATUS_OK || mended ? status : PROGRAM_STATUS_FAILED;
}

static int coordinator_run(struct settings *s, const struct program_options *options,
                           const struct command_line *line)
{
    struct errbuf eb = {{0}};
    struct crypto_key *key = NULL;
    struct loop *loop = NULL;
    struct loop_config config;
    char build[128];
    int status = PROGRAM_STATUS_FAILED;

    (void)snprintf(build, sizeof build, "%s+%s", cloister_version, cloister_revision);
    settings_loop_config(s, build, &config);
    enum err err = transport_endpoint_check(&config.endpoint, &eb);
    if (err != ERR_OK) {
        struct errbuf why = eb;
        (void)config_fail(s->file, &eb, "tls", "%s", why.text);
        return program_fail(&program, PROGRAM_STATUS_USAGE, "%s", eb.text);
    }
    if (options->check_config)
        return program_config_is_good(&program, "it listens on %s", s->listen);
    bool mends = line->check_store || line->repair;
    if (mends) { /* of a store that is there, by the key that signs its ledger */
        err = crypto_key_open(&key, s->key_file, &eb);
    } else {
        err = folder_make(s->data, &eb);
        if (err == ERR_OK)
            err = crypto_key_open_or_create(&key, s->key_file, &eb);
    }
    if (err != ERR_OK)
        goto out;
    if (options->print_key) {
        status = program_print_key(&program, key);
        goto out;
    }
    config.key = key;
    crypto_key_public(key, config.core.public_key);
    crypto_random(&config.core.tree_seed, sizeof config.core.tree_seed);
    store_fault_install();
    if (mends) {
        status = store_mend(&config, line->repair, &eb, &err);
        goto out;
    }
    const char *place = settings_checkpoint_place(s);
    if (place != NULL)
        log_warn(
            "the ledger's last checkpoint, %s, lies %s: what takes the store takes with it what "
            "shows that it was set back (checkpoint_file; docs/ledger.md)",
            s->checkpoint_file, place);
    err = loop_open(&loop, &config, &eb);
    if (err == ERR_OK) {
        err = loop_run(loop, &eb);
        if (err == ERR_OK)
            status = PROGRAM_STATUS_OK;
        else
            status = loop_is_stuck(loop) ? STATUS_STUCK : STATUS_STORAGE;
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
    struct command_line line = {0};
    struct program_options options;
    struct errbuf eb = {{0}};
    char data[PATH_MAX];
    static struct settings settings;

    int status = program_begin(&program, argc, argv, &line, &options);
    if (status != PROGRAM_GO_ON)
        return status;
    if (line.check_store && line.repair)
        return program_fail(&program, PROGRAM_STATUS_USAGE,
                            "--check-store changes nothing and --repair does: one of them");
    if (program_absolute_path(&line.data, data, &eb) != ERR_OK)
        return program_fail(&program, PROGRAM_STATUS_USAGE, "--data: %s", eb.text);
    if (settings_read(&settings, options.config, line.listen, line.data, line.name, &eb) != ERR_OK)
        return program_fail(&program, PROGRAM_STATUS_USAGE, "%s", eb.text);
    program_log(&program, &options, (enum log_level)settings.log_level);
    status = coordinator_run(&settings, &options, &line);
    settings_fini(&settings);
    return status;
}
