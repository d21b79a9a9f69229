#include "worker/engine_tool/ranks.h"

#include "common/clock.h"
#include "common/crypto.h"
#include "worker/engine/forward.h"
#include "worker/engine/runtime.h"
#include "worker/engine_tool/tool.h"

#include <errno.h>
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

/* A child: loads its shard and computes what rank 0 says, until the gang ends. */
static int rank_main(const struct engine_config *given, const struct engine_model_config *model)
{
    struct engine_config config;
    struct runtime *r = NULL;
    struct errbuf eb = {{0}};
    enum err e = runtime_config_complete(given, &config, &eb);

    if (e == ERR_OK)
        e = runtime_open(&r, &config, model, NULL, &eb);
    if (e != ERR_OK) {
        fprintf(stderr, "cloister-engine: rank %u: %s\n", model->gang->coll.rank, eb.text);
        return TOOL_EXIT_FAILED;
    }
    while (e == ERR_OK)
        e = forward_follow(r, &eb);
    /* Rank 0 is done, or says itself what is wrong. */
    runtime_close(r);
    return TOOL_EXIT_OK;
}

static enum err rank_start(struct ranks *r, const struct engine_config *engine,
                           const struct engine_model_config *model, uint32_t rank,
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
    gang.coll.rank = rank;
    own.rank = rank;
    own.gang = &gang;
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || getppid() != parent)
        _exit(TOOL_EXIT_FAILED);
    _exit(rank_main(engine, &own));
}

enum err ranks_start(struct ranks *ret_ranks, struct engine_config *engine,
                     struct engine_model_config *model, struct errbuf *eb)
{
    const uint32_t n = model->shard.shards;
    enum err e = ERR_OK;

    *ret_ranks = (struct ranks){0};
    if (n <= 1)
        return ERR_OK;
    ret_ranks->gang = (struct gang_config){
        .coll = {.transport = COLL_TRANSPORT_SHM, .epoch = 1, .n_ranks = n, .build = "one program"},
        .meet_ms = MEET_MS,
        .load_ms = LOAD_MS,
        .wait_ms = WAIT_MS,
    };
    crypto_random(ret_ranks->gang.coll.group, sizeof ret_ranks->gang.coll.group);
    if (engine->threads == 0)
        engine->threads = backend_threads_auto() / n > 0 ? backend_threads_auto() / n : 1;
    model->rank = 0;
    for (uint32_t rank = 1; e == ERR_OK && rank < n; rank++)
        e = rank_start(ret_ranks, engine, model, rank, eb);
    model->gang = &ret_ranks->gang;
    return e;
}

/* Whether a child has ended; one that ended badly is named. */
static bool rank_ended(const struct ranks *r, uint32_t i, int flags)
{
    int status;
    pid_t ended;

    do
        ended = waitpid(r->child[i], &status, flags);
    while (ended < 0 && errno == EINTR);
    if (ended == 0)
        return false;
    if (ended > 0 && WIFSIGNALED(status) && WTERMSIG(status) != SIGTERM)
        fprintf(stderr, "cloister-engine: rank %u was ended by signal %d\n", i + 1,
                WTERMSIG(status));
    return true;
}

void ranks_join(struct ranks *r)
{
    const uint64_t began_ms = clock_mono_ms();

    /* They end by themselves, now that rank 0 is gone, unless it never met them. */
    for (uint32_t i = 0; i < r->n_children; i++) {
        bool ended = rank_ended(r, i, WNOHANG);
        while (!ended && clock_mono_ms() - began_ms < LEAVE_MS) {
            (void)poll(NULL, 0, 1);
            ended = rank_ended(r, i, WNOHANG);
        }
        if (ended)
            continue;
        (void)kill(r->child[i], SIGTERM);
        (void)rank_ended(r, i, 0);
    }
    r->n_children = 0;
}
