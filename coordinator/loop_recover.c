#include "coordinator/loop_private.h"

#include "common/clock.h"
#include "common/log.h"
#include "coordinator/loop_restore.h"

#define PROBE_EVERY_MS 2000u

enum err recover_storage_open(struct loop *l, struct errbuf *eb)
{
    const struct loop_config *k = l->config;
    struct store_lmdb_config store = {.path = k->store_path, .map_bytes = k->map_bytes};
    struct ledger_config ledger = {
        .origin = k->origin, .key = k->key, .checkpoint_path = k->checkpoint_path};
    enum err err = store_open_lmdb(&l->store, &store, eb);
    if (err == ERR_OK)
        err = ledger_open(&l->ledger, l->store, &ledger, eb);
    return err;
}

void recover_storage_close(struct loop *l)
{
    ledger_close(l->ledger);
    store_close(l->store);
    l->ledger = NULL;
    l->store = NULL;
}

enum err recover_core_open(struct loop *l, struct errbuf *eb)
{
    uint64_t jobs = 0, began_ns = clock_mono_ns();
    enum err err = restore_core(l->store, l->ledger, &l->config->core, l->boot_epoch, began_ns,
                                clock_wall_ns(), &l->core, &jobs, eb);
    if (err == ERR_OK)
        log_info("restored %llu jobs and %llu ledger records in %llu ms", (unsigned long long)jobs,
                 (unsigned long long)ledger_size(l->ledger),
                 (unsigned long long)((clock_mono_ns() - began_ns) / 1000000u));
    return err;
}

void recover_turns_reset(struct loop *l)
{
    for (int i = 0; i < 2; i++)
        turn_reset(&l->turns[i]);
    l->gathering = &l->turns[0];
    l->committing = NULL;
}

/* The core is ahead of what is on disk: it is made again from there. Who waits for a reply hears
 * that it failed, never that it was done. */
static void core_drop(struct loop *l, enum err answer, const char *reason)
{
    replies_error_all(&l->replies, answer, reason);
    recover_turns_reset(l);
    core_free(l->core);
    l->core = NULL;
}

/* `freeze`: why nothing can be stored now, and what that is called; or NULL. */
static enum err core_return(struct loop *l, enum err code, const char *freeze, struct errbuf *eb)
{
    enum err err = recover_core_open(l, eb);
    if (err != ERR_OK)
        return err;
    if (l->stopping)
        gather_plain(l, CORE_EVENT_STOP);
    if (freeze != NULL) {
        struct core_event event = {.kind = CORE_EVENT_FREEZE, .reason = freeze, .code = code};
        gather_event(l, &event);
    }
    return ERR_OK;
}

static enum err storage_again(struct loop *l, struct errbuf *eb)
{
    recover_storage_close(l);
    enum err err = recover_storage_open(l, eb);
    l->unread = ERR_OK;
    l->forked = false; /* opening it has compared them */
    return err == ERR_OK ? err : err_prefix(eb, err, "opening the store again after an error");
}

/* For good: asked again it would be refused again. */
static void asked_blame(struct loop *l, const struct turn *turn, enum err cause, const char *text)
{
    struct errbuf reason = {{0}};
    enum err code = err_retryable(cause) ? ERR_INTERNAL : cause;
    uint8_t public_key[32];
    if (core_session_worker_key(l->core, turn->request->session, public_key))
        failures_blame(&l->failures, public_key, clock_mono_ms());
    (void)err_set(&reason, code, "what this request asks for cannot be stored: %s", text);
    log_error("a request was refused for good: %s", reason.text);
    replies_error(&l->replies, turn->asked, code, reason.text);
}

enum err recover_from_commit(struct loop *l, const struct turn *turn,
                             const struct committer_result *result, struct errbuf *eb)
{
    struct errbuf reason = {{0}};
    /* Ends of turns are events too. */
    struct failures_turn failed = {.events = turn != NULL ? (unsigned)turn->n_events - 1 : 0,
                                   .request =
                                       turn != NULL && turn->n_requests > 0 ? turn->request : NULL,
                                   .job_id = result->job_id};
    enum failures_answer answer =
        failures_judge(&l->failures, result->err, &failed, clock_mono_ms(), &l->lost);
    bool is_full = answer == FAILURES_FREEZE;

    log_error("storing failed, nothing of it was acknowledged: %s", result->eb.text);
    (void)err_set(&reason, result->err, "the coordinator cannot store: %s", result->eb.text);
    l->lost_why = reason;
    if (answer == FAILURES_BLAME)
        asked_blame(l, turn, result->err, result->eb.text);
    core_drop(l, is_full ? ERR_NO_SPACE : ERR_UNAVAILABLE, reason.text);
    if (answer == FAILURES_END_DISK)
        return err_set(eb, result->err,
                       "storing failed %u times and nothing was stored between: %s",
                       FAILURES_DISK_MAX, result->eb.text);
    if (answer == FAILURES_END) {
        l->stuck = true;
        return err_set(eb, result->err,
                       "what has to be stored next was refused %u times; all that was acknowledged "
                       "is stored: %s",
                       FAILURES_INTERNAL_MAX, result->eb.text);
    }
    enum err err = is_full ? ERR_OK : storage_again(l, eb);
    if (err != ERR_OK)
        return err;
    l->probe_ms = clock_mono_ms() + PROBE_EVERY_MS;
    return core_return(l, ERR_NO_SPACE, is_full ? reason.text : NULL, eb);
}

/* The second place holds a checkpoint that is not of our log: two copies of the store are in use,
 * or one was set back beneath us. Whatever is accepted now is in one of two logs of which only one
 * can be kept, so nothing more is, until somebody has looked. */
enum err recover_from_fork(struct loop *l, struct errbuf *eb)
{
    struct errbuf reason = {{0}};
    (void)err_set(&reason, ERR_CORRUPT, "the ledger and its last checkpoint do not agree: %s",
                  l->unsigned_why.text);
    log_error("nothing more is accepted: %s", reason.text);
    core_drop(l, ERR_UNAVAILABLE, reason.text); /* asked again, it hears the rest */
    l->forked = true;
    l->probe_ms = UINT64_MAX; /* room on the disk would mend nothing */
    return core_return(l, ERR_FORKED, reason.text, eb);
}

/* While nothing can be stored: whether that is over. ERR_IO: the store has to be opened again. */
static enum err space_probe(struct loop *l, struct errbuf *eb)
{
    if (!core_frozen(l->core) || clock_mono_ms() < l->probe_ms)
        return ERR_OK;
    enum err err = restore_probe(l->store, eb);
    if (err == ERR_OK) {
        log_info("storing works again");
        gather_plain(l, CORE_EVENT_UNFREEZE);
        return ERR_OK;
    }
    l->probe_ms = clock_mono_ms() + PROBE_EVERY_MS;
    return err == ERR_NO_SPACE || err == ERR_NO_MEMORY ? ERR_OK : ERR_IO;
}

enum err recover_look(struct loop *l, struct errbuf *eb)
{
    struct committer_result failed = {.err = l->unread, .eb = l->unread_why};
    if (committer_busy(l->committer))
        return ERR_OK; /* the store cannot be closed beneath it */
    l->unread = ERR_OK;
    if (failed.err != ERR_IO)
        failed.err = space_probe(l, &failed.eb);
    return failed.err == ERR_OK ? ERR_OK : recover_from_commit(l, NULL, &failed, eb);
}

void recover_job_lost(struct loop *l)
{
    struct core_event event = {
        .kind = CORE_EVENT_JOB_LOST, .job_id = l->lost, .reason = l->lost_why.text};
    if (id_is_zero(&l->lost) || gather_is_taken(l))
        return;
    gather_event(l, &event);
    l->lost = (struct id){{0}};
}
