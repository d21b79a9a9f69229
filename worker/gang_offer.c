#include "worker/gang_offer.h"

#include "common/buf.h"
#include "common/crypto.h"
#include "common/log.h"
#include "common/shard_cut.h"
#include "proto/wire.h"
#include "worker/coll/coll.h"
#include "worker/engine/gang.h"
#include "worker/engine/runtime.h"
#include "worker/engine/runtime_shape.h"
#include "worker/model/gguf.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- the machine ---- */

/* What names a namespace while something is in it. */
static bool namespace_read(const char *path, struct buf *out)
{
    struct stat s;
    if (stat(path, &s) != 0)
        return false;
    buf_printf(out, "%s %llu:%llu\n", path, (unsigned long long)s.st_dev,
               (unsigned long long)s.st_ino);
    return true;
}

static bool boot_read(struct buf *out)
{
    char id[64];
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t n = read(fd, id, sizeof id);
    (void)close(fd);
    if (n > 0)
        buf_append(out, id, (size_t)n);
    return n > 0;
}

/* shm's ranks meet at a socket in the abstract namespace, which is the network namespace's, ask for
 * the other's user, and hand each other memory and processes as open files: nothing in a file
 * system is needed, nor a common view of processes. Users are told apart within a user namespace.
 */
static bool host_read(uint8_t ret_host[COLL_HOST_BYTES])
{
    uint8_t digest[SHA256_BYTES];
    struct buf words;

    buf_init(&words);
    bool ok = boot_read(&words) && namespace_read("/proc/self/ns/net", &words) &&
              namespace_read("/proc/self/ns/user", &words);
    buf_printf(&words, "uid %lu\n", (unsigned long)geteuid());
    ok = ok && !words.failed;
    if (ok) {
        sha256(words.data, words.size, digest);
        memcpy(ret_host, digest, COLL_HOST_BYTES);
    }
    buf_fini(&words);
    return ok;
}

/* What works goes into `ret_set`. */
static enum err shm_look(struct gang_offer *o, uint32_t *ret_set, struct errbuf *eb)
{
    if (!host_read(o->host))
        return err_set(eb, ERR_UNSUPPORTED,
                       "no gangs over shared memory: /proc does not say which boot and namespaces "
                       "this process is in");
    *ret_set |= 1u << WIRE_GANG_TRANSPORT_SHM;
    return ERR_OK;
}

static enum err ucx_look(uint32_t *ret_set, struct errbuf *eb)
{
    enum err e = coll_transport_available(COLL_TRANSPORT_UCX, eb);
    if (e == ERR_OK)
        *ret_set |= 1u << WIRE_GANG_TRANSPORT_UCX;
    return e;
}

/* Beside what it can stand on. */
static enum err nccl_look(struct gang_offer *o, enum engine_backend backend, uint32_t controls,
                          uint64_t bytes, struct errbuf *eb)
{
    if (backend != ENGINE_BACKEND_CUDA)
        return err_set(eb, ERR_UNSUPPORTED,
                       "nccl moves bytes between GPUs, and this worker computes on a CPU");
    if (controls == 0)
        return err_set(eb, ERR_UNSUPPORTED, "nccl stands on shm or ucx, and neither works here");
    enum err e = coll_nccl_version(o->nccl_version, eb);
    if (e != ERR_OK)
        return e;
    o->transports |= 1u << WIRE_GANG_TRANSPORT_NCCL;
    o->controls = controls;
    o->nccl_bytes = bytes;
    return ERR_OK;
}

/* What is chosen by name must work; what is taken where it works need not. */
static enum err look_over(bool is_chosen, enum err e, const char *otherwise,
                          const struct errbuf *why, struct errbuf *eb)
{
    if (e == ERR_OK)
        return ERR_OK;
    if (is_chosen)
        return err_set(eb, ERR_UNSUPPORTED, "%s", why->text);
    log_info("%s: %s", otherwise, why->text);
    return ERR_OK;
}

/* Gangs want the same version of all, and room: so it is said, as what is missing was. */
static void nccl_say(const struct gang_offer *o)
{
    if (o->nccl_version[0] != '\0')
        log_info("gangs over NCCL %s: %.1f MB of the GPU are kept for each group of ranks",
                 o->nccl_version, (double)o->nccl_bytes / 1e6);
}

enum err gang_offer_read(enum gang_choice choice, enum engine_backend backend, uint64_t nccl_bytes,
                         struct gang_offer *ret_offer, struct errbuf *eb)
{
    const bool is_auto = choice == GANG_CHOICE_AUTO, has_gpu = backend == ENGINE_BACKEND_CUDA;
    struct gang_offer o = {0};
    struct errbuf why = {{0}};
    uint32_t set = 0;
    enum err e = ERR_OK;

    if (choice != GANG_CHOICE_UCX)
        e = look_over(choice == GANG_CHOICE_SHM, shm_look(&o, &set, &why),
                      "gangs are over a network", &why, eb);
    if (e == ERR_OK && choice != GANG_CHOICE_SHM)
        e = look_over(choice == GANG_CHOICE_UCX, ucx_look(&set, &why), "gangs are of one host",
                      &why, eb);
    if (choice != GANG_CHOICE_NCCL)
        o.transports = set;
    if (e == ERR_OK && (choice == GANG_CHOICE_NCCL || (is_auto && has_gpu)))
        e = look_over(choice == GANG_CHOICE_NCCL, nccl_look(&o, backend, set, nccl_bytes, &why),
                      "gangs are without NCCL", &why, eb);
    if (e != ERR_OK)
        return e;
    nccl_say(&o);
    *ret_offer = o;
    return ERR_OK;
}

static const enum coll_transport coll_of[] = {
    [WIRE_GANG_TRANSPORT_SHM] = COLL_TRANSPORT_SHM,
    [WIRE_GANG_TRANSPORT_UCX] = COLL_TRANSPORT_UCX,
    [WIRE_GANG_TRANSPORT_NCCL] = COLL_TRANSPORT_NCCL,
};

static bool is_offered(uint32_t set, enum coll_transport transport)
{
    for (uint32_t i = WIRE_GANG_TRANSPORT_SHM; i <= WIRE_GANG_TRANSPORT_NCCL; i++) {
        if (coll_of[i] == transport)
            return (set & 1u << i) != 0;
    }
    return false;
}

enum err gang_offer_covers(const struct gang_offer *offer, enum coll_transport transport,
                           enum coll_transport control, struct errbuf *eb)
{
    if (!is_offered(offer->transports, transport))
        return err_set(eb, ERR_UNSUPPORTED, "this worker joins no gangs over %s",
                       coll_transport_name(transport));
    if (transport == COLL_TRANSPORT_NCCL && !is_offered(offer->controls, control))
        return err_set(eb, ERR_UNSUPPORTED, "this worker's nccl does not stand on %s",
                       coll_transport_name(control));
    return ERR_OK;
}

/* ---- the models ---- */

/* What a rank holds beside what the coordinator reckons in proportion from the model's shape. */
static uint64_t beside_bytes(const struct engine_estimate *e, const struct wire_model_offer *offer,
                             const struct shard_shape *shape, const struct shard_cut *cut,
                             uint32_t rank)
{
    const uint64_t total = engine_estimate_total(e);
    const uint64_t part =
        shard_in_proportion(offer->weights_bytes, shard_cut_weights(shape, cut, rank),
                            shard_shape_weights(shape)) +
        shard_in_proportion(offer->kv_bytes, shard_cut_kv(shape, cut, rank), shard_shape_kv(shape));
    return total > part ? total - part : 0;
}

/* All that may be offered, NCCL's own memory aside. */
static const struct gang_config ways[] = {
    {.coll.transport = COLL_TRANSPORT_SHM},
    {.coll.transport = COLL_TRANSPORT_UCX},
    {.coll = {.transport = COLL_TRANSPORT_NCCL, .control = COLL_TRANSPORT_SHM}},
    {.coll = {.transport = COLL_TRANSPORT_NCCL, .control = COLL_TRANSPORT_UCX}},
};

/* Of the rank that `runtime` is turned to, over whichever of what is offered takes most. */
static struct engine_estimate rank_estimate(struct runtime_shape *runtime,
                                            const struct gang_offer *offer,
                                            const struct engine_config *engine,
                                            const struct gguf *g)
{
    struct engine_estimate most = {0};
    for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++) {
        if (gang_offer_covers(offer, ways[i].coll.transport, ways[i].coll.control, NULL) != ERR_OK)
            continue;
        runtime->carrier = gang_carrier_of(&ways[i]);
        const struct engine_estimate e = runtime_shape_estimate(runtime, engine, g);
        if (engine_estimate_total(&e) > engine_estimate_total(&most))
            most = e;
    }
    return most;
}

/* Of a gang of `n` with even shares, in so many stages. A rank that has more than that of the model
 * keeps less room for it than the whole model does. */
static enum err gang_bytes(const struct catalogue_model *m, const struct gang_offer *offer,
                           const struct engine_config *engine, const struct gguf *g,
                           const struct shard_shape *shape, uint32_t n, uint32_t stages,
                           uint64_t *ret_bytes, struct errbuf *eb)
{
    struct engine_model_config config = m->config;
    struct runtime_shape runtime;
    struct shard_cut *cut = NULL;
    uint64_t most = 0;

    config.shard = (struct shard_request){.shards = n / stages, .stages = stages};
    enum err e = runtime_shape_read(&runtime, engine, &config, g, eb);
    if (e != ERR_OK)
        return e;
    e = shard_cut_new(&cut, shape, &config.shard, eb);
    for (uint32_t rank = 0; e == ERR_OK && rank < n; rank++) {
        e = runtime_shape_turn(&runtime, rank, eb);
        if (e != ERR_OK)
            break;
        const struct engine_estimate estimate = rank_estimate(&runtime, offer, engine, g);
        const uint64_t beside = beside_bytes(&estimate, &m->offer, shape, cut, rank);
        const uint64_t uneven = m->offer.scratch_bytes + estimate.exchange_bytes;
        most = beside > most ? beside : most;
        most = uneven > most ? uneven : most;
    }
    shard_cut_free(cut);
    runtime_shape_fini(&runtime);
    if (e == ERR_OK)
        *ret_bytes = most;
    return e;
}

static enum err rank_bytes(const struct catalogue_model *m, const struct gang_offer *offer,
                           const struct engine_config *engine, uint64_t *ret_bytes,
                           struct errbuf *eb)
{
    struct shard_shape shape;
    struct gguf *g = NULL;
    uint64_t most = 0, bytes;
    enum err e = shard_shape_unpack(&shape, m->offer.shape.data, m->offer.shape.size, eb);

    if (e != ERR_OK)
        return e;
    e = gguf_open_file(&g, m->path, true, eb);
    for (uint32_t n = 2; n <= SHARD_RANKS_MAX; n++) {
        for (uint32_t stages = 1; e == ERR_OK && stages <= n; stages++) {
            if (n % stages != 0 || stages > shape.n_layers)
                continue;
            e = gang_bytes(m, offer, engine, g, &shape, n, stages, &bytes, eb);
            most = e == ERR_OK && bytes > most ? bytes : most;
        }
    }
    gguf_close(g);
    shard_shape_fini(&shape);
    if (e == ERR_OK)
        *ret_bytes = most;
    return e;
}

static enum err settings_words(struct catalogue_model *m, const struct engine_config *engine,
                               const char *build, struct errbuf *eb)
{
    static const char *const kv_names[] = {[KV_TYPE_F16] = "f16", [KV_TYPE_Q8_0] = "q8_0"};
    const uint32_t pages = (m->offer.context_tokens + KV_PAGE_TOKENS - 1) / KV_PAGE_TOKENS;
    struct buf words;

    buf_init(&words);
    buf_printf(&words, "%s, context %u, slots %u, KV %s, steps of %u, %u sequences, build %s",
               engine->backend == ENGINE_BACKEND_CUDA ? "GPUs" : "CPUs", m->offer.context_tokens,
               m->kv_pages / pages, kv_names[m->config.kv_type], engine->step_tokens,
               engine->sequences, build);
    m->gang_settings = words.failed ? NULL : strdup(buf_str(&words));
    buf_fini(&words);
    if (m->gang_settings == NULL)
        return err_set(eb, ERR_NO_MEMORY, "no memory for the model list");
    m->offer.gang_settings = m->gang_settings;
    return ERR_OK;
}

enum err gang_offer_models(struct catalogue *c, const struct gang_offer *offer,
                           const struct engine_config *engine, const char *build, struct errbuf *eb)
{
    struct engine_config complete;

    enum err e = runtime_config_complete(engine, &complete, eb);
    for (size_t i = 0; e == ERR_OK && i < c->count; i++) {
        struct catalogue_model *m = &c->models[i];
        if (m->offer.shape.size == 0)
            continue;
        e = rank_bytes(m, offer, &complete, &m->offer.rank_bytes, eb);
        if (e == ERR_OK)
            e = settings_words(m, &complete, build, eb);
        if (e != ERR_OK)
            return err_prefix(eb, e, "model %s", m->name);
    }
    return e;
}
