#include "worker/engine/steps.h"

#include "common/check.h"
#include "common/clock.h"
#include "worker/engine/forward.h"

uint32_t steps_max(const struct runtime *runtime)
{
    _Static_assert(COLL_RANKS_MAX <= BATCH_PLANS_MAX, "a plan for each stage");
    return runtime->gang == NULL ? 1 : gang_steps_max(runtime->gang);
}

void steps_init(struct steps *s, struct batch *batch, struct runtime *runtime, struct draws *draws,
                steps_want *want, void *ctx)
{
    *s = (struct steps){.batch = batch,
                        .runtime = runtime,
                        .draws = draws,
                        .want = want,
                        .ctx = ctx,
                        .max = steps_max(runtime)};
}

static uint32_t place(const struct steps *s, uint32_t i)
{
    return (s->oldest + i) % s->max;
}

static void steps_ask(struct steps *s, const struct batch_plan *plan)
{
    s->want(s->ctx, s->draws, plan);
    draws_ask(s->draws, s->runtime, plan);
}

/* Of those that have begun; *ret_oldest: the first of them. */
static uint32_t n_owing(const struct steps *s, const struct batch_plan **ret_oldest)
{
    uint32_t n = 0;

    for (uint32_t i = s->n_begun; i-- > 0;) {
        const struct batch_plan *plan = &s->under_way[place(s, i)].plan;
        if (!forward_owes_logits(s->runtime, plan))
            continue;
        *ret_oldest = plan;
        n++;
    }
    return n;
}

static bool steps_may_begin(const struct steps *s, const struct batch_plan *plan)
{
    const struct batch_plan *oldest;

    return s->runtime->gang == NULL ||
           n_owing(s, &oldest) <= gang_owing_max(s->runtime->gang, plan->n_rows);
}

static enum err steps_begin(struct steps *s, struct errbuf *eb)
{
    const struct batch_plan *plan = &s->under_way[place(s, s->n_begun)].plan, *oldest = NULL;
    const uint32_t owing = n_owing(s, &oldest);

    if (!forward_owes_logits(s->runtime, plan))
        steps_ask(s, plan);
    if (owing > 0 && gang_must_take(s->runtime->gang, plan->n_rows, owing)) {
        gang_take_before_rows(s->runtime->gang, oldest->n_logits);
        s->has_come = true;
    }
    s->n_begun++;
    return forward_step(s->runtime, plan, eb);
}

enum err steps_turn(struct steps *s, bool may_plan, const struct batch_plan **ret_plan,
                    struct errbuf *eb)
{
    bool has_planned = false;
    enum err e = ERR_OK;

    *ret_plan = NULL;
    if (may_plan && s->n < s->max && s->n_begun == s->n) {
        const uint32_t at = place(s, s->n);
        has_planned = batch_plan_step(s->batch, &s->under_way[at].plan);
        s->under_way[at].began_ns = clock_mono_ns();
        s->n += has_planned;
    }
    if (s->n == 0)
        return ERR_OK;
    if (s->n_begun < s->n && steps_may_begin(s, &s->under_way[place(s, s->n_begun)].plan))
        e = steps_begin(s, eb);
    const struct batch_plan *oldest = &s->under_way[s->oldest].plan;
    const bool owes = forward_owes_logits(s->runtime, oldest);
    /* Logits are waited for when nothing else can be begun. */
    if (e == ERR_OK && owes && !s->has_come && has_planned && s->n_begun == s->n && s->n < s->max)
        return ERR_OK;
    if (e == ERR_OK && owes) {
        s->has_come = false;
        steps_ask(s, oldest);
        e = forward_collect(s->runtime, oldest, eb);
    }
    if (e != ERR_OK) {
        steps_abandon(s);
        return e;
    }
    *ret_plan = oldest;
    return ERR_OK;
}

uint64_t steps_commit(struct steps *s)
{
    const uint64_t began_ns = s->under_way[s->oldest].began_ns;
    const uint64_t since_ns = began_ns > s->ended_ns ? began_ns : s->ended_ns;

    CHECK(s->n_begun > 0);
    draws_step(s->draws, s->runtime, &s->under_way[s->oldest].plan);
    batch_commit(s->batch, s->draws->ids);
    s->oldest = place(s, 1);
    s->n--;
    s->n_begun--;
    s->ended_ns = clock_mono_ns();
    return s->ended_ns - since_ns;
}

void steps_abandon(struct steps *s)
{
    if (s->n > 0)
        batch_abandon(s->batch);
    s->n = s->n_begun = 0;
    s->has_come = false;
}
