/*
 * agent.h - the worker's one control loop: commands from the coordinator go to the engine, events
 * of the engine go back as reports, leases run out when nobody renews them.
 *
 * Thread: agent_run owns the calling thread until a signal ends it. All signals are blocked before
 * it is called (main does), so that threads of nng and the engine never take one.
 */
#ifndef CLOISTER_WORKER_AGENT_H
#define CLOISTER_WORKER_AGENT_H

#include "common/crypto.h"
#include "common/err.h"
#include "common/transport.h"
#include "worker/catalogue.h"
#include "worker/device.h"
#include "worker/engine/engine.h"
#include "worker/gang_offer.h"
#include "worker/spaces.h"

#include <stdint.h>

struct agent_config {
    struct transport_endpoint coordinator;
    const char *node;
    const struct crypto_key *key;
    const uint8_t *coordinator_key; /* 32 bytes, or NULL: any */
    struct engine_config engine;    /* notify is the agent's own */
    struct catalogue *catalogue;
    struct device *device;
    struct gang_offer gangs;   /* all zero: it joins none */
    uint64_t read_bytes_per_s; /* of the device; 0: not known */
    const char *build;
    enum prefix_cache prefix_cache;
    /* 0: all of the device but what is kept of it (device.h), or of its cgroup where that is less
     */
    uint64_t memory_budget_bytes;
};

/* Returns when SIGTERM or SIGINT has been obeyed: running leases are handed back by Goodbye, the
 * coordinator places them elsewhere. ERR_LOST: the device is gone. Leases were handed back
 * likewise, but the engine's threads may hang in it and are left behind: the process has to end. */
enum err agent_run(const struct agent_config *config, struct errbuf *eb);

#endif
