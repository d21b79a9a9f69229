/*
 * settings.h - the worker's configuration file and command line as one struct.
 *
 * Every key is described in settings.c's table, from which deploy/examples/worker.cfg is
 * printed (`cloister-worker --print-config`).
 *
 * Ownership: settings_fini ends all strings and lists. Thread: one owner.
 */
#ifndef CLOISTER_WORKER_SETTINGS_H
#define CLOISTER_WORKER_SETTINGS_H

#include "common/buf.h"
#include "common/config.h"
#include "common/transport.h"
#include "common/err.h"
#include "common/log.h"
#include "worker/catalogue.h"

#include <stdbool.h>
#include <stdint.h>

struct settings_model {
    const char *name;
    const char *path;
    int64_t context_tokens;
    int64_t slots;
    int kv_type;
};

struct settings {
    const char *coordinator;
    const char *coordinator_key;
    const char *name;
    const char *state_dir;
    const char *key_file;
    struct transport_tls tls;
    struct config_list models; /* struct settings_model */
    struct {
        const char *device; /* "cpu", "cuda:0" */
        int isa;
        int64_t threads;
        int64_t step_tokens;
        int64_t sequences;
        int prefix_cache;
        bool gangs;
        int gang_transport;
        uint64_t nccl_bytes;
        const char *bandwidth; /* "measure", "off", "450GB/s" */
        uint64_t memory_bytes;
    } engine;
    int log_level;

    struct config *file;      /* owns the strings above; NULL where there is no file */
    char host[128];           /* default for `name` */
    char default_key[4096];   /* default for `key_file` */
    char default_state[4096]; /* default for `state_dir` */
};

/* Defaults, then the file (`path` NULL: defaults alone). */
enum err settings_read(struct settings *ret_config, const char *path, struct errbuf *eb);
void settings_fini(struct settings *c);
/* Fills what depends on this machine (node name, state directory, key file) where it is not set.
 * Call it after the command line had its say. Makes nothing. */
enum err settings_complete(struct settings *c, struct errbuf *eb);
void settings_print_example(struct buf *out);

#endif
