/* What rank 0 says before each step, and while there is none; and how the others hear it. */
#include "worker/engine/gang_internal.h"

#include "common/check.h"

#define LOOK_NS 100000000u /* how often an idle rank 0 looks whether the others are there */
#define LATE_NS 50000000u  /* for a rank that has had its time */

void gang_rows_note(struct gang *g, uint32_t n_rows)
{
    const uint64_t rows = n_rows > g->last_rows ? n_rows : g->last_rows;

    g->last_rows = n_rows;
    g->stages_ns = g->wait_ns;
    if (g->n_stages > 1)
        g->stages_ns += g->wait_ns * 2 * g->n_layers * rows / g->limits.rows;
}

static enum err tell(struct gang *g, const struct batch_plan *plan, uint64_t wait_ns,
                     struct errbuf *eb)
{
    size_t size = gang_told_put(&g->told, plan);
    const void *bytes;

    CHECK(g->rank == 0);
    g->told_ns = clock_mono_ns();
    return coll_broadcast(g->coll[GANG_COLL_ALL], 0, g->told.words, size, gang_deadline(wait_ns),
                          &bytes, &size, eb);
}

enum err gang_tell(struct gang *g, const struct batch_plan *plan, struct errbuf *eb)
{
    gang_rows_note(g, plan->n_rows);
    return tell(g, plan, g->stages_ns, eb);
}

/* A rank that has not heard the last word is not waited for: others of this engine's models may
 * have work. It has its time all the same, and only then is told to its face. */
static bool is_due(struct gang *g, uint64_t now_ns)
{
    const uint64_t silent_ns = now_ns - g->told_ns;
    return silent_ns >= g->stages_ns ||
           (silent_ns >= g->wait_ns / 4 && coll_is_clear(g->coll[GANG_COLL_ALL]));
}

enum err gang_idle(struct gang *g, uint64_t now_ns, struct errbuf *eb)
{
    enum err e = ERR_OK;

    if (now_ns - g->looked_ns < LOOK_NS)
        return ERR_OK;
    g->looked_ns = now_ns;
    e = coll_check(g->coll[GANG_COLL_ALL], eb);
    if (e == ERR_OK && is_due(g, now_ns))
        e = tell(g, NULL, now_ns - g->told_ns >= g->stages_ns ? LATE_NS : g->stages_ns, eb);
    return e;
}

enum err gang_hear(struct gang *g, struct batch_plan *ret_plan, struct errbuf *eb)
{
    const void *bytes;
    size_t size;
    /* Rank 0 may be computing something else, for long; that it is gone is seen at once. */
    enum err e = coll_broadcast(g->coll[GANG_COLL_ALL], 0, NULL, 0, gang_deadline(g->load_ns),
                                &bytes, &size, eb);

    if (e != ERR_OK)
        return e;
    e = gang_told_take(&g->told, bytes, size, ret_plan, eb);
    if (e != ERR_OK)
        gang_abort(g, eb->text);
    else if (ret_plan->n_rows > 0)
        gang_rows_note(g, ret_plan->n_rows);
    return e;
}
