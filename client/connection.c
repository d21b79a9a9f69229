#include "client/connection.h"

#include "common/check.h"
#include "common/clock.h"
#include "common/config.h"
#include "common/limits.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* The first Hello is given little time, so that an address where nobody answers is soon said so;
 * the next ones more. */
#define HELLO_MS_MIN      1000u
#define HELLO_MS_MAX      5000u
#define RETRY_MS_MIN      50u
#define RETRY_MS_MAX      2000u
#define NOTICE_AFTER_MS   1000u
#define GARBLED_MOST      3u /* answers that cannot be read, before it is an error */
#define STALE_AT_ONCE     3u /* lost sessions that are renewed without a pause */
#define BUSY_RETRY_MS_MIN 200u
/* Sent again only behind a Hello: where nobody answered the session may be over, and bytes that a
 * coordinator takes of a stranger are bytes that it has to hold for him. */
#define LARGE_BYTES ((size_t)64 << 10)

/* ---- problems ---- */

enum err problem_set(struct cloister_problem *problem, enum err code, const char *fmt, ...)
{
    if (problem) {
        va_list args;
        va_start(args, fmt);
        vsnprintf(problem->text, sizeof problem->text, fmt, args);
        va_end(args);
        problem->code = (enum cloister_error)code;
        problem->retryable = err_retryable(code);
        problem->retry_after_ms = 0;
    }
    return code;
}

enum err problem_from(struct cloister_problem *problem, enum err code, const struct errbuf *eb)
{
    return problem_set(problem, code, "%s", eb->text[0] ? eb->text : err_name(code));
}

/* ---- one exchange ---- */

struct exchange {
    struct cloister *connection;
    struct buf *reply;
    enum err err;
    bool done;
};

static void exchange_on_reply(void *arg, enum err err, const void *reply, size_t reply_size)
{
    struct exchange *x = arg;
    struct cloister *c = x->connection;
    if (err == ERR_OK)
        buf_append(x->reply, reply, reply_size);
    pthread_mutex_lock(&c->mutex);
    x->err = err == ERR_OK && x->reply->failed ? ERR_NO_MEMORY : err;
    x->done = true;
    pthread_cond_broadcast(&c->changed);
    pthread_mutex_unlock(&c->mutex);
}

enum err connection_exchange(struct cloister *c, const struct buf *request, uint32_t timeout_ms,
                             struct buf *reply, struct errbuf *eb)
{
    struct exchange x = {.connection = c, .reply = reply};
    struct transport_call *call = NULL;
    enum err err = transport_call_start(c->transport, request->data, request->size, timeout_ms,
                                        exchange_on_reply, &x, &call, eb);
    if (err != ERR_OK)
        return err;
    bool cancelled = false;
    pthread_mutex_lock(&c->mutex);
    while (!x.done) {
        if (c->interrupted && !cancelled) {
            /* Outside the lock: cancelling may run the callback, which takes it. */
            cancelled = true;
            pthread_mutex_unlock(&c->mutex);
            transport_call_cancel(call);
            pthread_mutex_lock(&c->mutex);
            continue;
        }
        pthread_cond_wait(&c->changed, &c->mutex);
    }
    pthread_mutex_unlock(&c->mutex);
    transport_call_free(call);
    if (x.err != ERR_OK)
        return err_set(eb, x.err, "no answer (%s)", err_name(x.err));
    return ERR_OK;
}

/* ---- waiting ---- */

static struct timespec connection_deadline(uint64_t mono_ms)
{
    return (struct timespec){.tv_sec = (time_t)(mono_ms / 1000),
                             .tv_nsec = (long)(mono_ms % 1000) * 1000000};
}

bool connection_sleep(struct cloister *c, uint64_t ms)
{
    uint64_t until = clock_mono_ms() + ms;
    struct timespec deadline = connection_deadline(until);
    pthread_mutex_lock(&c->mutex);
    while (!c->interrupted && clock_mono_ms() < until)
        pthread_cond_timedwait(&c->changed, &c->mutex, &deadline);
    bool interrupted = c->interrupted;
    pthread_mutex_unlock(&c->mutex);
    return !interrupted;
}

/* Half of it fixed, half by chance, so that a thousand clients do not come back at once. */
static uint64_t connection_jitter(uint64_t ms)
{
    uint32_t random;
    crypto_random(&random, sizeof random);
    return ms / 2 + random % (ms / 2 + 1);
}

/* ---- the session ---- */

/* The session's number, saying Hello where there is none; one thread says it, the others wait. */
static enum err connection_session(struct cloister *c, uint32_t timeout_ms, uint64_t *ret_session,
                                   struct cloister_problem *problem)
{
    pthread_mutex_lock(&c->mutex);
    while (c->session == 0 && c->greeting && !c->interrupted)
        pthread_cond_wait(&c->changed, &c->mutex);
    if (c->interrupted) {
        pthread_mutex_unlock(&c->mutex);
        return problem_set(problem, ERR_CANCELLED, "interrupted");
    }
    if (c->session != 0) {
        *ret_session = c->session;
        pthread_mutex_unlock(&c->mutex);
        return ERR_OK;
    }
    c->greeting = true;
    pthread_mutex_unlock(&c->mutex);

    struct cloister_server server;
    uint64_t session = 0;
    enum err err = hello_say(c, timeout_ms, &session, &server, problem);

    pthread_mutex_lock(&c->mutex);
    c->greeting = false;
    if (err == ERR_OK) {
        c->session = session;
        c->server = server;
        *ret_session = session;
    }
    pthread_cond_broadcast(&c->changed);
    pthread_mutex_unlock(&c->mutex);
    return err;
}

static void connection_forget_session(struct cloister *c, uint64_t session)
{
    pthread_mutex_lock(&c->mutex);
    if (c->session == session)
        c->session = 0;
    pthread_mutex_unlock(&c->mutex);
}

/* A session ends with its connection. Where there is none a Hello finds that out sooner than a long
 * poll does, which would wait for one as long as for its answer. */
static void connection_forget_lost_session(struct cloister *c)
{
    pthread_mutex_lock(&c->mutex);
    uint64_t session = c->session;
    pthread_mutex_unlock(&c->mutex);
    if (session != 0 && !transport_client_is_connected(c->transport))
        connection_forget_session(c, session);
}

/* ---- calls ---- */

/* What one attempt came to. */
enum outcome {
    OUTCOME_ANSWERED, /* with a reply of the right kind */
    OUTCOME_FAILED,   /* for good */
    OUTCOME_SILENT,   /* nobody answered */
    OUTCOME_GARBLED,  /* something that cannot be read */
    OUTCOME_STALE,    /* the session is over */
    OUTCOME_LATER,    /* come back later */
};

static enum outcome connection_judge(enum err err)
{
    switch (err) {
    case ERR_OK:
        return OUTCOME_ANSWERED;
    case ERR_TIMEOUT:
    case ERR_UNAVAILABLE:
        return OUTCOME_SILENT;
    case ERR_STALE:
        return OUTCOME_STALE;
    case ERR_BUSY:
        return OUTCOME_LATER;
    default:
        return OUTCOME_FAILED;
    }
}

static enum outcome connection_attempt(struct cloister *c, struct wire_request *request,
                                       uint32_t timeout_ms, uint32_t hello_ms, struct arena *arena,
                                       struct wire_reply *ret_reply,
                                       struct cloister_problem *problem)
{
    struct errbuf eb = {0};
    struct buf packed, reply;
    buf_init(&packed);
    buf_init(&reply);
    enum outcome outcome;
    connection_forget_lost_session(c);
    enum err err = connection_session(c, timeout_ms < hello_ms ? timeout_ms : hello_ms,
                                      &request->session, problem);
    if (err != ERR_OK) {
        outcome = err == ERR_CORRUPT ? OUTCOME_GARBLED : connection_judge(err);
        goto out;
    }
    if (request->kind == WIRE_REQUEST_NONE) { /* the session was all that was asked for */
        outcome = OUTCOME_ANSWERED;
        goto out;
    }
    err = wire_request_encode(request, &packed, &eb);
    if (err != ERR_OK) {
        problem_from(problem, err, &eb);
        outcome = OUTCOME_FAILED;
        goto out;
    }
    err = connection_exchange(c, &packed, timeout_ms, &reply, &eb);
    if (err == ERR_UNAVAILABLE)
        connection_forget_session(c, request->session);
    if (err != ERR_OK) {
        problem_from(problem, err, &eb);
        outcome = connection_judge(err);
        goto out;
    }
    arena_reset(arena);
    err = wire_reply_decode(reply.data, reply.size, arena, ret_reply, &eb);
    if (err != ERR_OK) {
        problem_set(problem, err, "the coordinator's answer cannot be read: %s", eb.text);
        outcome = err == ERR_NO_MEMORY ? OUTCOME_FAILED : OUTCOME_GARBLED;
    } else if (id_compare(&ret_reply->request_id, &request->request_id) != 0 ||
               (ret_reply->kind != WIRE_REPLY_ERROR && ret_reply->kind != (int)request->kind)) {
        problem_set(problem, ERR_CORRUPT, "the coordinator's answer belongs to something else");
        outcome = OUTCOME_GARBLED;
    } else if (ret_reply->kind == WIRE_REPLY_ERROR) {
        err = (enum err)ret_reply->error.code;
        problem_set(problem, err, "%s", ret_reply->error.text);
        if (problem)
            problem->retry_after_ms = ret_reply->error.retry_after_ms;
        outcome = err == ERR_OK ? OUTCOME_GARBLED : connection_judge(err);
        if (outcome == OUTCOME_STALE)
            connection_forget_session(c, request->session);
    } else {
        outcome = OUTCOME_ANSWERED;
    }
out:
    if (outcome == OUTCOME_SILENT && packed.size > LARGE_BYTES)
        connection_forget_session(c, request->session);
    buf_fini(&packed);
    buf_fini(&reply);
    return outcome;
}

static void connection_notice(struct cloister *c, enum cloister_notice notice, const char *text)
{
    if (c->on_notice)
        c->on_notice(c->notice_arg, notice, text);
}

/* "no coordinator at URL: connection refused", from the network itself. */
static enum err connection_explain_silence(struct cloister *c, uint64_t waited_ms,
                                           struct cloister_problem *problem)
{
    char why[PROBE_TEXT_BYTES];
    probe_explain(c->endpoint.url, why);
    return problem_set(problem, ERR_UNAVAILABLE, "no coordinator at %s: %s (tried for %.1f s)",
                       c->endpoint.url, why, (double)waited_ms / 1000);
}

enum err connection_call(struct cloister *c, struct wire_request *request, uint32_t timeout_ms,
                         uint64_t wait_ms, struct arena *arena, struct wire_reply *ret_reply,
                         struct cloister_problem *problem)
{
    struct cloister_problem unread;
    if (!problem)
        problem = &unread;
    request->request_id = id_new();
    uint64_t begun = clock_mono_ms();
    uint64_t pause = RETRY_MS_MIN;
    unsigned garbled = 0, stale = 0;
    uint32_t hello_ms = HELLO_MS_MIN;
    bool noticed = false, told_busy = false;
    for (;;) {
        uint64_t attempt_begun = clock_mono_ms();
        /* The last attempt may not outlive the patience, but each gets a fair chance. */
        uint64_t left = begun + wait_ms > attempt_begun ? begun + wait_ms - attempt_begun : 0;
        uint32_t timeout = timeout_ms;
        if (timeout > left)
            timeout = left > 1000 ? (uint32_t)left : 1000;
        enum outcome outcome =
            connection_attempt(c, request, timeout, hello_ms, arena, ret_reply, problem);
        hello_ms = hello_ms * 2 < HELLO_MS_MAX ? hello_ms * 2 : HELLO_MS_MAX;
        uint64_t now = clock_mono_ms();
        uint64_t wait = connection_jitter(pause);
        switch (outcome) {
        case OUTCOME_ANSWERED:
            if (noticed)
                connection_notice(c, CLOISTER_NOTICE_RECONNECTED, c->endpoint.url);
            return ERR_OK;
        case OUTCOME_FAILED:
            return (enum err)problem->code;
        case OUTCOME_STALE:
            if (++stale <= STALE_AT_ONCE)
                continue;
            break;
        case OUTCOME_GARBLED:
            if (++garbled >= GARBLED_MOST)
                return (enum err)problem->code;
            break;
        case OUTCOME_LATER:
            wait = problem->retry_after_ms > BUSY_RETRY_MS_MIN ? problem->retry_after_ms
                                                               : BUSY_RETRY_MS_MIN;
            wait += connection_jitter(wait / 4 + 1);
            if (now + wait > begun + wait_ms)
                return ERR_BUSY;
            if (!told_busy)
                connection_notice(c, CLOISTER_NOTICE_BUSY, problem->text);
            told_busy = true;
            break;
        case OUTCOME_SILENT:
            if (now - begun >= wait_ms)
                return connection_explain_silence(c, now - begun, problem);
            if (!noticed && now - begun >= NOTICE_AFTER_MS) {
                connection_explain_silence(c, now - begun, problem);
                connection_notice(c, CLOISTER_NOTICE_WAITING, problem->text);
                noticed = true;
            }
            break;
        }
        if (outcome == OUTCOME_STALE && now - begun >= wait_ms)
            return problem_set(problem, ERR_UNAVAILABLE,
                               "the coordinator at %s ends each session at once", c->endpoint.url);
        if (!connection_sleep(c, wait))
            return problem_set(problem, ERR_CANCELLED, "interrupted");
        pause = pause * 2 > RETRY_MS_MAX ? RETRY_MS_MAX : pause * 2;
    }
}

/* ---- opening and closing ---- */

static char *connection_copy(const char *text, bool *failed)
{
    if (!text)
        return NULL;
    char *copy = strdup(text);
    if (!copy)
        *failed = true;
    return copy;
}

static enum err connection_load_key(struct cloister *c, const char *path, struct errbuf *eb)
{
    if (path)
        return crypto_key_open_or_create(&c->key, path, eb);
    return crypto_key_new(&c->key, eb);
}

/* What a caller may have got wrong, before anything is opened. */
static enum err connection_check(const struct cloister_options *o, struct cloister_problem *problem)
{
    struct errbuf eb = {0};
    enum err err;
    if (o->size < offsetof(struct cloister_options, notice_arg) + sizeof o->notice_arg)
        return problem_set(problem, ERR_INVALID,
                           "the options' size is not set; begin with CLOISTER_OPTIONS_INIT");
    if (!o->url)
        return problem_set(problem, ERR_INVALID, "no coordinator address was given");
    if ((err = config_check_url(&o->url, &eb)) != ERR_OK ||
        (err = config_check_name(&o->node, &eb)) != ERR_OK ||
        (err = config_check_name(&o->tenant, &eb)) != ERR_OK)
        return problem_from(problem, err, &eb);
    struct transport_endpoint endpoint = {
        .url = o->url,
        .tls = {.ca_file = o->ca_file, .cert_file = o->cert_file, .key_file = o->key_file}};
    err = transport_endpoint_check(&endpoint, &eb);
    return err == ERR_OK ? ERR_OK : problem_from(problem, err, &eb);
}

enum cloister_error cloister_connect(struct cloister **ret_connection,
                                     const struct cloister_options *options,
                                     struct cloister_problem *problem)
{
    struct errbuf eb = {0};
    enum err err = connection_check(options, problem);
    if (err != ERR_OK)
        return (enum cloister_error)err;
    struct cloister *c = calloc(1, sizeof *c);
    if (!c)
        return (enum cloister_error)problem_set(problem, ERR_NO_MEMORY, "no memory");
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&c->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pthread_mutex_init(&c->mutex, NULL);

    char host[LIMIT_NAME_BYTES] = "client";
    const char *host_name = host;
    struct errbuf unused = {0};
    gethostname(host, sizeof host - 1);
    if (config_check_name(&host_name, &unused) != ERR_OK)
        host_name = "client";
    bool failed = false;
    c->endpoint.url = connection_copy(options->url, &failed);
    c->endpoint.tls.ca_file = connection_copy(options->ca_file, &failed);
    c->endpoint.tls.cert_file = connection_copy(options->cert_file, &failed);
    c->endpoint.tls.key_file = connection_copy(options->key_file, &failed);
    c->node = connection_copy(options->node ? options->node : host_name, &failed);
    c->tenant = connection_copy(options->tenant ? options->tenant : "default", &failed);
    c->wait_ms = options->wait_ms;
    c->stream_wait_ms = options->stream_wait_ms;
    c->on_notice = options->on_notice;
    c->notice_arg = options->notice_arg;
    c->pinned = options->coordinator_key != NULL;
    if (c->pinned)
        memcpy(c->coordinator_key, options->coordinator_key, sizeof c->coordinator_key);
    err = failed ? err_set(&eb, ERR_NO_MEMORY, "no memory")
                 : connection_load_key(c, options->identity_file, &eb);
    if (err == ERR_OK)
        err = transport_client_open(&c->transport, &c->endpoint, &eb);
    if (err != ERR_OK) {
        problem_from(problem, err, &eb);
        goto out;
    }
    /* The first Hello, with the patience of any call. */
    struct wire_request request = {.kind = WIRE_REQUEST_NONE};
    err = connection_call(c, &request, CONNECTION_CALL_TIMEOUT_MS, c->wait_ms, NULL, NULL, problem);
    if (err != ERR_OK)
        goto out;
    *ret_connection = c;
    c = NULL;
out:
    cloister_close(c);
    return (enum cloister_error)err;
}

void cloister_close(struct cloister *c)
{
    if (!c)
        return;
    if (c->transport)
        transport_client_close(c->transport);
    crypto_key_free(c->key);
    free((char *)c->endpoint.url);
    free((char *)c->endpoint.tls.ca_file);
    free((char *)c->endpoint.tls.cert_file);
    free((char *)c->endpoint.tls.key_file);
    free(c->node);
    free(c->tenant);
    pthread_cond_destroy(&c->changed);
    pthread_mutex_destroy(&c->mutex);
    free(c);
}

void cloister_interrupt(struct cloister *c)
{
    pthread_mutex_lock(&c->mutex);
    c->interrupted = true;
    pthread_cond_broadcast(&c->changed);
    pthread_mutex_unlock(&c->mutex);
}

void cloister_get_server(struct cloister *c, struct cloister_server *ret_server)
{
    pthread_mutex_lock(&c->mutex);
    *ret_server = c->server;
    pthread_mutex_unlock(&c->mutex);
}

void cloister_get_public_key(struct cloister *c, uint8_t ret_key[32])
{
    crypto_key_public(c->key, ret_key);
}
