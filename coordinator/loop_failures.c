#include "coordinator/loop_failures.h"

#include <string.h>

/* Does the request itself name this job? Where it does not, the job's turn was only due. */
static bool request_names(const struct wire_request *request, const struct id *job_id)
{
    switch (request->kind) {
    case WIRE_REQUEST_SUBMIT:
        return id_compare(&request->submit.job_id, job_id) == 0;
    case WIRE_REQUEST_CANCEL:
        return id_compare(&request->cancel.job_id, job_id) == 0;
    case WIRE_REQUEST_REPORT:
        for (size_t i = 0; i < request->report.n_leases; i++) {
            if (id_compare(&request->report.leases[i].job_id, job_id) == 0)
                return true;
        }
        return false;
    default:
        return false;
    }
}

static enum failures_answer judge_request(struct failures *f, const struct failures_turn *turn,
                                          struct id *ret_lost)
{
    const struct wire_request *request = turn->request;
    if (!id_is_zero(&turn->job_id)) {
        /* A job that was only to be accepted is not there, and losing it changes nothing. */
        *ret_lost = turn->job_id;
        if (request_names(request, &turn->job_id))
            return FAILURES_BLAME;
        return ++f->internal < FAILURES_INTERNAL_MAX ? FAILURES_REOPEN : FAILURES_END;
    }
    /* A worker says again what was not taken: without its jobs it has nothing to say. */
    if (request->kind == WIRE_REQUEST_REPORT && request->report.n_leases > 0)
        *ret_lost = request->report.leases[0].job_id;
    return FAILURES_BLAME;
}

enum failures_answer failures_judge(struct failures *f, enum err cause,
                                    const struct failures_turn *turn, uint64_t now_ms,
                                    struct id *ret_lost)
{
    *ret_lost = (struct id){{0}};
    if (cause == ERR_NO_SPACE)
        return FAILURES_FREEZE;
    if (cause == ERR_IO || cause == ERR_NO_MEMORY)
        return ++f->disk < FAILURES_DISK_MAX ? FAILURES_REOPEN : FAILURES_END_DISK;
    f->alone_until_ms = now_ms + FAILURES_ALONE_MS;
    if (turn->events > 1)
        return FAILURES_REOPEN;
    if (turn->request != NULL)
        return judge_request(f, turn, ret_lost);
    *ret_lost = turn->job_id;
    return ++f->internal < FAILURES_INTERNAL_MAX ? FAILURES_REOPEN : FAILURES_END;
}

void failures_stored(struct failures *f, bool with_request)
{
    f->disk = 0;
    if (!with_request)
        f->internal = 0;
}

bool failures_alone(const struct failures *f, uint64_t now_ms)
{
    return now_ms < f->alone_until_ms;
}

bool failures_time_first(struct failures *f, uint64_t now_ms)
{
    bool first = f->time_waits && failures_alone(f, now_ms);
    f->time_waits = true;
    return first;
}

void failures_time_passed(struct failures *f)
{
    f->time_waits = false;
}

static bool key_is(const struct failures_key *k, const uint8_t public_key[32])
{
    return k->times > 0 && memcmp(k->public_key, public_key, sizeof k->public_key) == 0;
}

static uint64_t key_wait_ms(unsigned times)
{
    uint64_t wait_ms = FAILURES_KEY_MS_MIN;
    if (times <= FAILURES_KEY_FREE)
        return 0;
    for (unsigned i = FAILURES_KEY_FREE + 1; i < times && wait_ms < FAILURES_KEY_MS_MAX; i++)
        wait_ms *= 2;
    return wait_ms;
}

void failures_blame(struct failures *f, const uint8_t public_key[32], uint64_t now_ms)
{
    struct failures_key *k = &f->keys[0];
    for (size_t i = 0; i < FAILURES_KEYS_MAX && !key_is(k, public_key); i++) {
        if (key_is(&f->keys[i], public_key) || f->keys[i].until_ms < k->until_ms)
            k = &f->keys[i];
    }
    if (!key_is(k, public_key) || now_ms >= k->until_ms + FAILURES_KEY_MS_MAX)
        k->times = 0;
    memcpy(k->public_key, public_key, sizeof k->public_key);
    k->times++;
    k->until_ms = now_ms + key_wait_ms(k->times);
}

uint64_t failures_key_wait_ms(const struct failures *f, const uint8_t public_key[32],
                              uint64_t now_ms)
{
    for (size_t i = 0; i < FAILURES_KEYS_MAX; i++) {
        if (key_is(&f->keys[i], public_key))
            return now_ms < f->keys[i].until_ms ? f->keys[i].until_ms - now_ms : 0;
    }
    return 0;
}
