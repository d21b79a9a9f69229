#include "coordinator/loop_private.h"

#include "common/clock.h"
#include "common/log.h"
#include "coordinator/loop_fill.h"

#include <stdlib.h>
#include <string.h>

/* ---- replies of a turn that is durable ---- */

static int compare_u32(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static uint64_t commit_us_median(const struct loop *l)
{
    uint32_t sorted[LOOP_COMMITS_REMEMBERED];
    size_t n = l->commits < LOOP_COMMITS_REMEMBERED ? (size_t)l->commits : LOOP_COMMITS_REMEMBERED;
    if (n == 0)
        return 0;
    memcpy(sorted, l->commit_us, n * sizeof sorted[0]);
    qsort(sorted, n, sizeof sorted[0], compare_u32);
    return sorted[n / 2];
}

static void commit_us_add(struct loop *l, uint64_t us)
{
    l->commit_us[l->commits++ % LOOP_COMMITS_REMEMBERED] =
        us > UINT32_MAX ? UINT32_MAX : (uint32_t)us;
    if (us > l->commit_us_max)
        l->commit_us_max = us;
}

/* *txn is begun for the first reply that reads. */
static void effect_reply(struct loop *l, struct fill_context *context, struct store_txn **txn,
                         struct core_effect *e)
{
    struct errbuf eb = {{0}};
    struct pending *p = (struct pending *)(uintptr_t)e->reply.tag;
    enum err err = ERR_OK;
    if (transport_request_way(p->request).closed) {
        replies_drop(p);
        return;
    }
    if (e->reply.fill != CORE_FILL_NONE && *txn == NULL) {
        err = store_begin(l->store, false, txn, &eb);
        if (err != ERR_OK) {
            l->unread = err;
            l->unread_why = eb;
        }
    }
    if (err == ERR_OK)
        err = fill_reply(context, *txn, e, &l->fill, &eb);
    if (err == ERR_OK) {
        replies_send(&l->replies, p, &e->reply.reply);
    } else {
        log_error("a reply could not be completed: %s", eb.text);
        replies_error(&l->replies, p, err, eb.text);
    }
    arena_reset(&l->fill);
    if (!id_is_zero(&context->unreadable)) {
        l->lost = context->unreadable;
        l->lost_why = eb;
        context->unreadable = (struct id){{0}};
    }
}

uint64_t finish_commit_age_ms(const struct loop *l)
{
    return committer_busy(l->committer) ? clock_mono_ms() - l->commit_ms : 0;
}

/* All that are not answered yet, or those that promise nothing. */
static void turn_reply_some(struct loop *l, struct turn *turn, bool all)
{
    struct store_txn *txn = NULL;
    const uint64_t age_ms = finish_commit_age_ms(l);
    struct fill_context context = {
        .store = l->store,
        .ledger = l->ledger,
        .key = l->config->key,
        .origin = l->config->origin,
        .commits = l->commits,
        .commit_us_median = commit_us_median(l),
        .commit_us_max = l->commit_us_max,
        .requests = l->requests,
        .refused = l->refused,
        .unsigned_why = l->unsigned_why.text[0] != '\0' ? l->unsigned_why.text : NULL,
        .commit_age_ms = age_ms >= LOOP_OVERDUE_MS ? age_ms : 0,
        .dropped = inbox_dropped(l->inbox)};

    for (struct core_effect *e = turn->effects.first; e != NULL; e = e->next) {
        if (e->kind != CORE_EFFECT_REPLY || e->reply.tag == 0 ||
            !(all || e->reply.promises_nothing))
            continue;
        effect_reply(l, &context, &txn, e);
        e->reply.tag = 0;
    }
    store_abort(txn);
}

static void turn_reply(struct loop *l, struct turn *turn)
{
    turn_reply_some(l, turn, true);
    turn_reset(turn);
}

void finish_unbound(struct loop *l)
{
    if (l->gathering->n_unbound == 0)
        return;
    turn_reply_some(l, l->gathering, false);
    l->gathering->n_unbound = 0;
}

/* ---- the end of a turn ---- */

static bool turn_wants_checkpoint(const struct loop *l, const struct turn *turn)
{
    char note[LEDGER_NOTE_BYTES];
    return fill_wants_checkpoint(&turn->effects, ledger_size(l->ledger),
                                 ledger_checkpoint_read(l->ledger, note));
}

/* Ends the gathering turn. True where it has work for the commit thread. */
static bool turn_end(struct loop *l)
{
    gather_time(l);
    gather_plain(l, CORE_EVENT_TURN_END);
    return l->gathering->effects.n_persist > 0 || turn_wants_checkpoint(l, l->gathering);
}

static void turn_commit(struct loop *l)
{
    l->committing = l->gathering;
    const struct core_effects *effects = &l->committing->effects;
    l->commit_ms = clock_mono_ms();
    committer_start(l->committer, l->store, l->ledger, effects->n_persist > 0 ? effects : NULL,
                    turn_wants_checkpoint(l, l->committing));
}

static struct turn *turn_other(struct loop *l, const struct turn *turn)
{
    return turn == &l->turns[0] ? &l->turns[1] : &l->turns[0];
}

void finish_turn(struct loop *l)
{
    if (committer_busy(l->committer))
        return;
    if (l->gathering->n_events == 0) {
        turn_reset(l->gathering); /* it may be full of what was refused */
        return;
    }
    if (turn_end(l)) {
        turn_commit(l);
        l->gathering = turn_other(l, l->committing);
    } else {
        turn_reply(l, l->gathering);
    }
}

/* `done` is durable. */
static void turn_done(struct loop *l, struct turn *done)
{
    /* The next turn first, so that the disk works while these replies are packed. */
    if (l->gathering->n_events > 0 && turn_end(l)) {
        turn_commit(l);
        turn_reply(l, done);
        l->gathering = done;
    } else {
        turn_reply(l, done);
        if (l->gathering->n_events > 0)
            turn_reply(l, l->gathering);
    }
}

enum err finish_commit(struct loop *l, struct errbuf *eb)
{
    struct committer_result result;
    if (!committer_take(l->committer, &result))
        return ERR_OK;
    struct turn *done = l->committing;
    l->committing = NULL;
    if (result.err != ERR_OK)
        return recover_from_commit(l, done, &result, eb);
    l->unsigned_why = result.unsigned_why;
    if (result.unsigned_err == ERR_OK)
        l->unsigned_why.text[0] = '\0';
    bool forked = result.unsigned_err == ERR_CORRUPT && !l->forked;
    if (result.commit_us > 0) {
        commit_us_add(l, result.commit_us);
        failures_stored(&l->failures, done->n_requests > 0);
    }
    if (forked) {
        if (done != NULL)
            turn_reply(l, done); /* what is stored was accepted */
        return recover_from_fork(l, eb);
    }
    if (done != NULL)
        turn_done(l, done);
    return ERR_OK;
}

/* ---- checkpoints beside turns ---- */

void finish_checkpoint_look(struct loop *l)
{
    char note[LEDGER_NOTE_BYTES];
    uint64_t now_ms = clock_mono_ms();
    if (now_ms < l->look_ms)
        return;
    l->look_ms = now_ms + LOOP_LOOK_EVERY_MS;
    if (!committer_busy(l->committer) && !core_frozen(l->core) &&
        ledger_checkpoint_read(l->ledger, note) != ledger_size(l->ledger)) {
        l->commit_ms = now_ms;
        committer_start(l->committer, l->store, l->ledger, NULL, false);
    }
}

void finish_checkpoint_last(struct loop *l)
{
    struct committer_result result;
    if (finish_commit_age_ms(l) >= LOOP_OVERDUE_MS)
        log_warn("the disk hangs: this ends when it goes on; killed before, it loses nothing that "
                 "was acknowledged");
    if (committer_busy(l->committer))
        committer_wait(l->committer, &result);
    if (l->ledger != NULL && l->core != NULL && !core_frozen(l->core)) {
        committer_start(l->committer, l->store, l->ledger, NULL, true);
        committer_wait(l->committer, &result);
    }
}
