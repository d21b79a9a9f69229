#include "coordinator/loop_commit.h"

#include "common/check.h"
#include "common/clock.h"
#include "common/log.h"
#include "coordinator/loop_apply.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum committer_state { COMMITTER_IDLE, COMMITTER_ASKED, COMMITTER_DONE, COMMITTER_STOP };

struct committer {
    struct committer_config config;
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    int done_fd;
    bool busy; /* the loop's own view */

    /* under the mutex */
    enum committer_state state;
    struct store *store;
    struct ledger *ledger;
    const struct core_effects *effects;
    bool sign;
    struct committer_result result;

    /* the thread's own */
    uint64_t signed_size;
    uint64_t signed_ms;
    enum err unsigned_err; /* of the last try */
    struct errbuf unsigned_why;
};

/* A checkpoint that cannot be written now is written later; the records are safe either way. */
static void checkpoint_sign(struct committer *c, struct ledger *ledger, bool sign)
{
    uint64_t size = ledger_size(ledger), now_ms = clock_mono_ms();
    if (size == c->signed_size && !sign) {
        c->signed_ms = now_ms;
        return;
    }
    if (!sign && size - c->signed_size < c->config.checkpoint_records &&
        now_ms - c->signed_ms < c->config.checkpoint_ms)
        return;
    c->unsigned_err = ledger_checkpoint_sign(ledger, &c->unsigned_why);
    if (c->unsigned_err != ERR_OK)
        log_error("checkpoint of %llu records not signed: %s", (unsigned long long)size,
                  c->unsigned_why.text);
    else
        c->signed_size = size;
    c->signed_ms = now_ms;
}

static void *committer_thread(void *arg)
{
    struct committer *c = arg;
    pthread_mutex_lock(&c->mutex);
    for (;;) {
        while (c->state != COMMITTER_ASKED && c->state != COMMITTER_STOP)
            pthread_cond_wait(&c->changed, &c->mutex);
        if (c->state == COMMITTER_STOP)
            break;
        struct store *store = c->store;
        struct ledger *ledger = c->ledger;
        const struct core_effects *effects = c->effects;
        bool sign = c->sign;
        pthread_mutex_unlock(&c->mutex);

        struct committer_result r = {.err = ERR_OK};
        if (effects != NULL) {
            uint64_t began_ns = clock_mono_ns();
            r.err = apply_effects(store, ledger, effects, &r.job_id, &r.eb);
            r.commit_us = (clock_mono_ns() - began_ns) / 1000u + 1;
        }
        if (r.err == ERR_OK)
            checkpoint_sign(c, ledger, sign);
        r.unsigned_err = c->unsigned_err;
        r.unsigned_why = c->unsigned_why;

        pthread_mutex_lock(&c->mutex);
        c->result = r;
        c->state = COMMITTER_DONE;
        pthread_cond_broadcast(&c->changed);
        uint64_t one = 1;
        if (write(c->done_fd, &one, sizeof one) < 0)
            log_error("commit: the loop could not be woken");
    }
    pthread_mutex_unlock(&c->mutex);
    return NULL;
}

enum err committer_open(struct committer **ret_committer, const struct committer_config *config,
                        struct errbuf *eb)
{
    struct committer *c = calloc(1, sizeof *c);
    if (c == NULL)
        return err_set(eb, ERR_NO_MEMORY, "no memory for the commit thread");
    c->config = *config;
    c->signed_ms = clock_mono_ms();
    c->done_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (c->done_fd < 0) {
        free(c);
        return err_set_errno(eb, errno, "eventfd");
    }
    CHECK(pthread_mutex_init(&c->mutex, NULL) == 0);
    CHECK(pthread_cond_init(&c->changed, NULL) == 0);
    int rv = pthread_create(&c->thread, NULL, committer_thread, c);
    if (rv != 0) {
        close(c->done_fd);
        free(c);
        return err_set_errno(eb, rv, "commit thread");
    }
    *ret_committer = c;
    return ERR_OK;
}

void committer_close(struct committer *c)
{
    struct committer_result r;
    if (c == NULL)
        return;
    if (c->busy)
        committer_wait(c, &r);
    pthread_mutex_lock(&c->mutex);
    c->state = COMMITTER_STOP;
    pthread_cond_broadcast(&c->changed);
    pthread_mutex_unlock(&c->mutex);
    pthread_join(c->thread, NULL);
    pthread_cond_destroy(&c->changed);
    pthread_mutex_destroy(&c->mutex);
    close(c->done_fd);
    free(c);
}

int committer_fd(const struct committer *c)
{
    return c->done_fd;
}

bool committer_busy(const struct committer *c)
{
    return c->busy;
}

void committer_start(struct committer *c, struct store *store, struct ledger *ledger,
                     const struct core_effects *effects, bool sign)
{
    CHECK(!c->busy);
    c->busy = true;
    pthread_mutex_lock(&c->mutex);
    c->store = store;
    c->ledger = ledger;
    c->effects = effects;
    c->sign = sign;
    c->state = COMMITTER_ASKED;
    pthread_cond_broadcast(&c->changed);
    pthread_mutex_unlock(&c->mutex);
}

static bool result_take(struct committer *c, bool wait, struct committer_result *ret_result)
{
    uint64_t n;
    bool done;
    pthread_mutex_lock(&c->mutex);
    while (wait && c->state == COMMITTER_ASKED)
        pthread_cond_wait(&c->changed, &c->mutex);
    done = c->state == COMMITTER_DONE;
    if (done) {
        *ret_result = c->result;
        c->state = COMMITTER_IDLE;
        c->busy = false;
        /* Reset under the mutex: the thread writes it there, together with the state. */
        if (read(c->done_fd, &n, sizeof n) < 0)
            n = 0;
    }
    pthread_mutex_unlock(&c->mutex);
    return done;
}

bool committer_take(struct committer *c, struct committer_result *ret_result)
{
    return c->busy && result_take(c, false, ret_result);
}

void committer_wait(struct committer *c, struct committer_result *ret_result)
{
    CHECK(c->busy);
    (void)result_take(c, true, ret_result);
}
