#include "worker/engine_tool/ranks.h"

#include "common/clock.h"
#include "common/crypto.h"
#include "worker/engine/forward.h"
#include "worker/engine/runtime.h"
#include "worker/engine_tool/tool.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define MEET_MS  30000u
#define LOAD_MS  3600000u
#define WAIT_MS  60000u
#define LEAVE_MS 1000u /* for all of them to end by themselves */

#define LOOK_MS 10

/* What a rank that cannot load leaves behind: written at once, so it comes whole. */
struct rank_reason {
    uint32_t rank;
    struct errbuf why;
};
_Static_assert(sizeof(struct rank_reason) <= 4096, "PIPE_BUF: no other rank's words lie between");

/* A child: loads its shard and computes what rank 0 says, until the gang ends. */
static int rank_main(const struct engine_config *given, const struct engine_model_config *model,
                     int reasons)
{
    struct engine_config config;
    struct runtime *r = NULL;
    struct rank_reason reason = {.rank = model->gang->coll.rank};
    enum err e = runtime_config_complete(given, &config, &reason.why);

    if (e == ERR_OK)
        e = runtime_open(&r, &config, model, NULL, &reason.why);
    if (e != ERR_OK) {
        /* Rank 0 knows by now, if it was there to hear it; else its watch finds this. */
        ssize_t written = write(reasons, &reason, sizeof reason);
        (void)written;
        return TOOL_EXIT_FAILED;
    }
    while (e == ERR_OK)
        e = forward_follow(r, &reason.why);
    /* Rank 0 is done, or says itself what is wrong. */
    runtime_close(r);
    return TOOL_EXIT_OK;
}

static enum err rank_start(struct ranks *r, const struct engine_config *engine,
                           const struct engine_model_config *model, uint32_t rank, int reasons,
                           struct errbuf *eb)
{
    const pid_t parent = getpid();
    const pid_t child = fork();

    if (child < 0)
        return err_set_errno(eb, errno, "cannot start rank %u", rank);
    if (child > 0) {
        r->child[r->n_children++] = child;
        return ERR_OK;
    }
    struct gang_config gang = r->gang;
    struct engine_model_config own = *model;
    struct engine_config config = *engine;
    config.gpu += rank; /* each has a GPU of its own */
    gang.coll.rank = rank;
    r->cards.rank = rank;
    own.rank = rank;
    own.gang = &gang;
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || getppid() != parent)
        _exit(TOOL_EXIT_FAILED);
    _exit(rank_main(&config, &own, reasons));
}

enum err ranks_start(struct ranks *ret_ranks, struct engine_config *engine,
                     struct engine_model_config *model, struct errbuf *eb)
{
    const uint32_t n = model->shard.shards * (model->shard.stages > 1 ? model->shard.stages : 1);
    const enum coll_transport transport =
        model->gang == NULL ? COLL_TRANSPORT_SHM : model->gang->coll.transport;
    enum err e = ERR_OK;
    int ends[2];

    *ret_ranks = (struct ranks){.reasons = -1};
    model->gang = NULL;
    if (n <= 1)
        return ERR_OK;
    e = coll_transport_available(transport, eb);
    if (e == ERR_OK && transport == COLL_TRANSPORT_UCX)
        e = rank_cards_init(&ret_ranks->cards, n, eb);
    if (e != ERR_OK)
        return e;
    ret_ranks->gang = (struct gang_config){
        .coll = {.transport = transport,
                 .epoch = 1,
                 .n_ranks = n,
                 .build = "one program",
                 .rendezvous = rank_cards_rendezvous(&ret_ranks->cards)},
        .meet_ms = MEET_MS,
        .load_ms = LOAD_MS,
        .wait_ms = WAIT_MS,
        .nccl_bytes = COLL_NCCL_BYTES,
    };
    crypto_random(ret_ranks->gang.coll.group, sizeof ret_ranks->gang.coll.group);
    if (engine->threads == 0)
        engine->threads = backend_threads_auto() / n > 0 ? backend_threads_auto() / n : 1;
    if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0)
        return err_set_errno(eb, errno, "a pipe to the ranks");
    ret_ranks->reasons = ends[0];
    model->rank = 0;
    for (uint32_t rank = 1; e == ERR_OK && rank < n; rank++)
        e = rank_start(ret_ranks, engine, model, rank, ends[1], eb);
    (void)close(ends[1]);
    model->gang = &ret_ranks->gang;
    return e;
}

/* ---- while the gang forms ---- */

/* Whether a child has ended, and how. */
static bool rank_ended(struct ranks *r, uint32_t i, int flags, int *ret_status)
{
    pid_t ended;

    if (r->child[i] == 0)
        return false;
    do
        ended = waitpid(r->child[i], ret_status, flags);
    while (ended < 0 && errno == EINTR);
    if (ended == r->child[i])
        r->child[i] = 0;
    return ended != 0;
}

/* Why rank i + 1 ended: what it says itself, or what can be seen of it. */
static void rank_why(struct ranks *r, uint32_t i, int status, struct errbuf *ret_why)
{
    struct rank_reason reason;

    if (WIFSIGNALED(status))
        (void)err_set(ret_why, ERR_UNAVAILABLE, "rank %u was ended by signal %d", i + 1,
                      WTERMSIG(status));
    else
        (void)err_set(ret_why, ERR_UNAVAILABLE, "rank %u ended with status %d", i + 1,
                      WEXITSTATUS(status));
    while (read(r->reasons, &reason, sizeof reason) == sizeof reason)
        if (reason.rank == i + 1)
            (void)err_set(ret_why, ERR_UNAVAILABLE, "rank %u: %s", reason.rank, reason.why.text);
}

static void *ranks_watcher(void *arg)
{
    struct ranks *r = arg;

    while (!atomic_load(&r->is_over)) {
        for (uint32_t i = 0; i < r->n_children; i++) {
            int status;
            if (!rank_ended(r, i, WNOHANG, &status))
                continue;
            rank_why(r, i, status, &r->why);
            atomic_store(&r->lost, true);
            if (r->notify != NULL)
                r->notify(r->notify_arg);
            return NULL;
        }
        (void)poll(NULL, 0, LOOK_MS);
    }
    return NULL;
}

enum err ranks_watch(struct ranks *r, void (*notify)(void *arg), void *arg, struct errbuf *eb)
{
    if (r->n_children == 0)
        return ERR_OK;
    r->notify = notify;
    r->notify_arg = arg;
    const int failed = pthread_create(&r->watcher, NULL, ranks_watcher, r);
    r->is_watching = failed == 0;
    return failed == 0 ? ERR_OK : err_set_errno(eb, failed, "cannot start a thread");
}

enum err ranks_watched(struct ranks *r, enum err err, struct errbuf *eb)
{
    if (!r->is_watching)
        return err;
    atomic_store(&r->is_over, true);
    (void)pthread_join(r->watcher, NULL);
    r->is_watching = false;
    return err == ERR_CANCELLED && atomic_load(&r->lost)
               ? err_set(eb, ERR_UNAVAILABLE, "%s", r->why.text)
               : err;
}

/* ---- when it is over ---- */

/* Ended badly, one is named: but for what rank 0 has told of already. */
static void rank_say(uint32_t i, int status)
{
    if (WIFSIGNALED(status) && WTERMSIG(status) != SIGTERM)
        fprintf(stderr, "cloister-engine: rank %u was ended by signal %d\n", i + 1,
                WTERMSIG(status));
}

void ranks_join(struct ranks *r)
{
    const uint64_t began_ms = clock_mono_ms();

    (void)ranks_watched(r, ERR_OK, NULL);
    /* They end by themselves, now that rank 0 is gone, unless it never met them. */
    for (uint32_t i = 0; i < r->n_children; i++) {
        int status = 0;
        bool ended = r->child[i] == 0 || rank_ended(r, i, WNOHANG, &status);
        while (!ended && clock_mono_ms() - began_ms < LEAVE_MS) {
            (void)poll(NULL, 0, 1);
            ended = rank_ended(r, i, WNOHANG, &status);
        }
        if (!ended) {
            (void)kill(r->child[i], SIGTERM);
            (void)rank_ended(r, i, 0, &status);
        }
        rank_say(i, status);
    }
    if (r->n_children > 0)
        (void)close(r->reasons);
    r->n_children = 0;
    rank_cards_fini(&r->cards);
}
