/* What rank 0 says before each step, and while there is none; and how the others hear it: shards of
 * the first stage from rank 0, those of the others from the stage before. */
#include "worker/engine/gang_internal.h"

#include "common/check.h"

#define LOOK_NS 100000000u /* how often an idle rank 0 looks whether the others are there */
#define LATE_NS 50000000u  /* for a rank that has had its time */
/* Whatever a model's layers might take if each shard kept the others waiting: no step takes so. */
#define STAGES_NS_MAX 600000000000u

void gang_rows_note(struct gang *g, uint32_t n_rows)
{
    uint64_t rows = 0;

    g->last_rows[g->n_told++ % g->n_stages] = n_rows;
    for (uint32_t i = 0; i < g->n_stages; i++)
        rows = g->last_rows[i] > rows ? g->last_rows[i] : rows;
    g->stages_ns = g->wait_ns;
    if (g->n_stages > 1)
        g->stages_ns += g->wait_ns * 2 * g->n_layers * rows / g->limits.rows;
    if (g->stages_ns > STAGES_NS_MAX)
        g->stages_ns = g->wait_ns > STAGES_NS_MAX ? g->wait_ns : STAGES_NS_MAX;
}

static enum err tell(struct gang *g, struct coll *to, size_t size, uint64_t wait_ns,
                     struct errbuf *eb)
{
    const void *bytes;

    return to == NULL ? ERR_OK
                      : coll_broadcast(to, 0, g->told.words, size, gang_deadline(wait_ns), &bytes,
                                       &size, eb);
}

enum err gang_pass_on(struct gang *g, struct errbuf *eb)
{
    const size_t size = g->told_bytes;

    g->told_bytes = 0;
    return size == 0 ? ERR_OK : tell(g, g->coll[GANG_COLL_BEHIND], size, g->stages_ns, eb);
}

enum err gang_tell(struct gang *g, const struct batch_plan *plan, struct errbuf *eb)
{
    CHECK(g->rank == 0);
    gang_rows_note(g, plan->n_rows);
    g->told_ns = clock_mono_ns();
    g->told_bytes = gang_told_put(&g->told, plan);
    return tell(g, gang_shards(g), g->told_bytes, g->stages_ns, eb);
}

/* There is nothing to compute first, so it is passed on at once. */
static enum err tell_nothing(struct gang *g, uint64_t wait_ns, struct errbuf *eb)
{
    const size_t size = gang_told_put(&g->told, NULL);

    g->told_ns = clock_mono_ns();
    enum err e = tell(g, g->coll[GANG_COLL_BEHIND], size, wait_ns, eb);
    return e == ERR_OK ? tell(g, gang_shards(g), size, wait_ns, eb) : e;
}

/* A rank that has not heard the last word is not waited for: others of this engine's models may
 * have work. It has its time all the same, and only then is told to its face. */
static bool is_due(struct gang *g, uint64_t now_ns)
{
    struct coll *shards = gang_shards(g), *behind = g->coll[GANG_COLL_BEHIND];
    const uint64_t silent_ns = now_ns - g->told_ns;
    return silent_ns >= g->stages_ns ||
           (silent_ns >= g->wait_ns / 4 && (shards == NULL || coll_is_clear(shards)) &&
            (behind == NULL || coll_is_clear(behind)));
}

enum err gang_idle(struct gang *g, uint64_t now_ns, struct errbuf *eb)
{
    enum err e = ERR_OK;

    if (now_ns - g->looked_ns < LOOK_NS)
        return ERR_OK;
    g->looked_ns = now_ns;
    e = coll_check(g->coll[GANG_COLL_ALL], eb);
    if (e == ERR_OK && is_due(g, now_ns))
        e = tell_nothing(g, now_ns - g->told_ns >= g->stages_ns ? LATE_NS : g->stages_ns, eb);
    return e;
}

enum err gang_hear(struct gang *g, struct batch_plan *ret_plan, struct errbuf *eb)
{
    struct coll *from = g->stage == 0 ? gang_shards(g) : g->coll[GANG_COLL_BEFORE];
    const void *bytes;
    size_t size;
    /* Rank 0 may be computing something else, for long; that it is gone is seen at once. */
    enum err e = coll_broadcast(from, 0, NULL, 0, gang_deadline(g->load_ns), &bytes, &size, eb);

    if (e != ERR_OK)
        return e;
    e = gang_told_take(&g->told, bytes, size, ret_plan, eb);
    if (e != ERR_OK) {
        gang_abort(g, eb->text);
        return e;
    }
    g->told_bytes = size;
    if (ret_plan->n_rows == 0)
        return gang_pass_on(g, eb);
    gang_rows_note(g, ret_plan->n_rows);
    return ERR_OK;
}
