#include "worker/engine_tool/shard_options.h"

#include "common/units.h"
#include "worker/engine/gang.h"

#include <stddef.h>

#define SHARD(field) offsetof(struct shard_flags, field)

static const char *const transport_names[] = {"shm", "ucx", "nccl", NULL};

const struct flag shard_flags_table[] = {
    {.name = "shards",
     .type = FLAG_UINT,
     .argument = "N",
     .offset = SHARD(shards),
     .min = 1,
     .max = SHARD_RANKS_MAX,
     .help = "Cut the model into so many shards, each with a part of every layer."},
    {.name = "stages",
     .type = FLAG_UINT,
     .argument = "N",
     .offset = SHARD(stages),
     .min = 1,
     .max = SHARD_RANKS_MAX,
     .help = "Cut it by layers into so many stages first, and each of these into the shards."},
    {.name = "split",
     .type = FLAG_TEXT,
     .argument = "A,B,...",
     .offset = SHARD(split),
     .help = "In what proportion, one number or size each, stage by stage: 3,1 or 80GiB,24GiB "
             "(even)."},
    {.name = "transport",
     .type = FLAG_CHOICE,
     .argument = "NAME",
     .offset = SHARD(transport),
     .choices = transport_names,
     .help =
         "How shards reach each other: shm; ucx, over this machine's network; or nccl, from GPU to "
         "GPU (shm). Changes no bit of what is computed."},
    {0}};

enum err shard_options_of(const struct shard_flags *flags, struct engine_model_config *model,
                          struct errbuf *eb)
{
    static const struct gang_config gangs[] = {
        [COLL_TRANSPORT_UCX] = {.coll.transport = COLL_TRANSPORT_UCX},
        [COLL_TRANSPORT_NCCL] = {.coll = {.transport = COLL_TRANSPORT_NCCL,
                                          .control = COLL_TRANSPORT_SHM},
                                 .nccl_bytes = COLL_NCCL_BYTES},
    };
    enum coll_transport transport;
    struct shard_request r = {.shards = (uint32_t)flags->shards, .stages = (uint32_t)flags->stages};
    size_t n = 0;

    if (flags->split != NULL && !units_shares_parse(flags->split, SHARD_RANKS_MAX, r.weights, &n))
        return err_set(eb, ERR_INVALID,
                       "--split: '%s' is no list of at most %u numbers or sizes with commas",
                       flags->split, SHARD_RANKS_MAX);
    r.n_weights = (uint32_t)n;
    if (r.stages == 0 && (r.shards > 0 || n > 0))
        r.stages = 1;
    if (r.shards == 0 && n > 0) {
        if (n % r.stages != 0)
            return err_set(eb, ERR_INVALID, "--split: %zu parts for %u stages", n, r.stages);
        r.shards = r.n_weights / r.stages;
    } else if (r.shards == 0 && r.stages > 0) {
        r.shards = 1;
    }
    if (r.shards * r.stages > SHARD_RANKS_MAX)
        return err_set(eb, ERR_INVALID, "%u stages of %u shards: at most %u ranks are possible",
                       r.stages, r.shards, SHARD_RANKS_MAX);
    model->shard = r;
    model->gang = NULL;
    if (flags->transport != NULL && coll_transport_parse(flags->transport, &transport) &&
        transport != COLL_TRANSPORT_SHM)
        model->gang = &gangs[transport];
    return ERR_OK;
}
