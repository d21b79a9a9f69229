/*
 * settings.h - the coordinator's configuration file: its keys, their rules, and what follows from
 * them. deploy/examples/coordinator.cfg is printed from the same table.
 */
#ifndef CLOISTER_COORDINATOR_SETTINGS_H
#define CLOISTER_COORDINATOR_SETTINGS_H

#include "common/buf.h"
#include "common/config.h"
#include "common/transport.h"
#include "common/err.h"
#include "coordinator/loop.h"

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

struct settings_tenant {
    const char *name;
    int64_t budget_tokens;
};

struct settings_worker {
    const char *key;
    const char *name;
};

struct settings_client {
    const char *key;
    const char *name;
    const char *tenant;
    bool is_operator;
};

struct settings {
    const char *listen;
    struct transport_tls tls;
    bool allow_plaintext;
    bool allow_any_key;
    const char *name;
    const char *data;
    const char *key_file;
    const char *checkpoint_file;
    const char *origin;
    uint64_t map_bytes;
    int64_t checkpoint_records;
    uint64_t checkpoint_ms;
    uint64_t heartbeat_ms, lease_ms, grace_ms, disconnect_ms, session_idle_ms;
    uint64_t residency_ms, load_retry_ms, stall_ms, energy_ms;
    struct {
        int64_t jobs, tokens;
        uint64_t age_ms;
    } queue;
    int64_t worker_jobs, gang_workers;
    int gang_split; /* enum core_gang_split */
    int64_t default_max_tokens;
    int64_t retain_jobs;
    int64_t default_budget_tokens;
    struct config_list tenants; /* settings_tenant */
    struct config_list workers; /* settings_worker */
    struct config_list clients; /* settings_client */
    struct config_list expected_models;
    int log_level; /* enum log_level */

    /* What the file leaves open. */
    struct config *file;
    char host[256];
    char data_default[PATH_MAX];
    char key_default[PATH_MAX + 32];
    char checkpoint_default[PATH_MAX + 32];
    char store_path[PATH_MAX + 32];
    struct core_tenant_config *core_tenants;
    struct core_key_config *core_workers;
    struct core_key_config *core_clients;
};

/* `path` NULL: defaults. `listen`, `data` and `name` replace those of the file where they are not
 * NULL. ERR_INVALID with FILE:LINE. */
enum err settings_read(struct settings *ret_settings, const char *path, const char *listen,
                       const char *data, const char *name, struct errbuf *eb);
void settings_fini(struct settings *s);
/* All of it but the key; borrows from `s`. `build` lives as long. */
void settings_loop_config(struct settings *s, const char *build, struct loop_config *ret_config);
/* What the operator should know about where the last checkpoint is kept: NULL where it lies on
 * another file system than the store, as it should. Both places must be there. */
const char *settings_checkpoint_place(const struct settings *s);
void settings_print_example(struct buf *out);

#endif
