#include "worker/session.h"

#include "common/buf.h"
#include "common/check.h"
#include "common/limits.h"
#include "common/log.h"
#include "proto/hello.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define HELLO_TIMEOUT_MS   5000u
#define REPORT_TIMEOUT_MS  10000u
#define PULL_WAIT_MS       20000u
#define GOODBYE_TIMEOUT_MS 1000u
#define RETRY_MS_MIN       100u
#define RETRY_MS_MAX       2000u
#define HEARTBEAT_MS_LEAST 100u

enum call_kind { CALL_HELLO, CALL_PULL, CALL_REPORT, CALL_GOODBYE, CALL_COUNT };

static const char *const call_name[] = {"Hello", "Pull", "Report", "Goodbye"};

struct call {
    struct session *session;
    struct transport_call *handle; /* NULL: none under way */
    struct id request_id;
    /* Written on a transport thread under the session's mutex. */
    bool done;
    enum err err;
    struct buf reply;
};

enum session_state { SESSION_STATE_DOWN, SESSION_STATE_GREETING, SESSION_STATE_UP };

struct session {
    struct session_config config;
    struct transport_client *client;
    pthread_mutex_t mutex;
    struct call calls[CALL_COUNT];

    enum session_state state;
    uint64_t number; /* from HelloReply */
    uint8_t nonce[32];
    uint64_t retry_at_ms, retry_ms;
    uint64_t heard_ms, heartbeat_ms, lease_ms;
    uint64_t reported_ms;
    uint64_t report_retry_at_ms, pull_retry_at_ms;
    uint64_t acked_command;
    char last_error[ERRBUF_BYTES]; /* said once, not at each retry */
    bool leaving, left;
};

static void on_reply(void *arg, enum err err, const void *reply, size_t reply_size)
{
    struct call *c = arg;
    struct session *s = c->session;
    uint64_t one = 1;

    pthread_mutex_lock(&s->mutex);
    buf_clear(&c->reply);
    if (err == ERR_OK)
        buf_append(&c->reply, reply, reply_size);
    c->err = c->reply.failed ? ERR_NO_MEMORY : err;
    c->done = true;
    pthread_mutex_unlock(&s->mutex);
    if (write(s->config.wake_fd, &one, sizeof one) < 0)
        return; /* the counter is full: the agent is awake already */
}

/* Packs and sends; a failure counts as a lost call. */
static enum err call_start(struct session *s, enum call_kind kind, struct wire_request *request,
                           uint32_t timeout_ms, struct errbuf *eb)
{
    struct call *c = &s->calls[kind];
    struct buf packed;
    CHECK(c->handle == NULL);

    buf_init(&packed);
    request->session = s->number;
    request->request_id = id_new();
    c->request_id = request->request_id;
    c->done = false;
    enum err e = wire_request_encode(request, &packed, eb);
    if (e == ERR_OK)
        e = transport_call_start(s->client, packed.data, packed.size, timeout_ms, on_reply, c,
                                 &c->handle, eb);
    buf_fini(&packed);
    return e;
}

static bool call_busy(const struct session *s, enum call_kind kind)
{
    return s->calls[kind].handle != NULL;
}

static void session_complain(struct session *s, const char *text)
{
    if (strcmp(s->last_error, text) == 0)
        return;
    (void)snprintf(s->last_error, sizeof s->last_error, "%s", text);
    log_warn("coordinator %s: %s; trying again", s->config.endpoint.url, text);
}

static void session_down(struct session *s, uint64_t now_ms, const char *why)
{
    session_complain(s, why);
    s->state = SESSION_STATE_DOWN;
    s->number = 0;
    s->retry_ms = s->retry_ms == 0 ? RETRY_MS_MIN : s->retry_ms * 2;
    if (s->retry_ms > RETRY_MS_MAX)
        s->retry_ms = RETRY_MS_MAX;
    s->retry_at_ms = now_ms + s->retry_ms;
    for (int k = CALL_PULL; k <= CALL_REPORT; k++) {
        if (call_busy(s, (enum call_kind)k))
            transport_call_cancel(s->calls[k].handle);
    }
}

/* ---- Hello ---- */

static enum err hello_send(struct session *s, const uint8_t *challenge, struct errbuf *eb)
{
    struct wire_request request = {.kind = WIRE_REQUEST_HELLO};
    struct wire_hello *hello = &request.hello;
    struct arena arena;
    uint8_t signature[ED25519_SIGN_BYTES];
    char build[HELLO_BUILD_BYTES];
    enum err e = ERR_OK;

    arena_init(&arena, LIMIT_DECODE_BYTES);
    hello_init(hello, WIRE_ROLE_WORKER, s->config.node, s->config.key, build);
    memcpy(s->nonce, hello->nonce, sizeof s->nonce);
    if (challenge != NULL) {
        e = hello_sign(hello, s->config.key, challenge, s->number, signature, eb);
        if (e == ERR_OK)
            e = s->config.ops->hello(s->config.ops_arg, &arena, &hello->worker);
    }
    if (e == ERR_OK)
        e = call_start(s, CALL_HELLO, &request, HELLO_TIMEOUT_MS, eb);
    arena_fini(&arena);
    return e;
}

static void hello_answered(struct session *s, uint64_t now_ms, const struct wire_reply *reply)
{
    const struct wire_hello_reply *hello = &reply->hello;
    struct errbuf eb = {{0}};

    enum err e = hello_verify(hello, s->nonce, reply->session, s->config.coordinator_key, &eb);
    if (e == ERR_OK && !hello->established) {
        s->number = reply->session;
        e = hello_send(s, hello->challenge, &eb);
    } else if (e == ERR_OK) {
        s->state = SESSION_STATE_UP;
        s->retry_ms = 0;
        s->acked_command = 0;
        s->heartbeat_ms =
            hello->heartbeat_ms < HEARTBEAT_MS_LEAST ? HEARTBEAT_MS_LEAST : hello->heartbeat_ms;
        s->lease_ms = hello->lease_ms;
        s->reported_ms = 0; /* the first heartbeat goes at once */
        s->pull_retry_at_ms = s->report_retry_at_ms = 0;
        s->last_error[0] = '\0';
        log_info("connected to coordinator %s (%s) at %s", hello->coordinator, hello->build,
                 s->config.endpoint.url);
        s->config.ops->up(s->config.ops_arg);
    }
    if (e != ERR_OK)
        session_down(s, now_ms, eb.text);
}

/* ---- replies ---- */

static void pull_answered(struct session *s, const struct wire_pull_reply *pull)
{
    for (size_t i = 0; i < pull->n_commands; i++) {
        /* Said again until acked; what was taken already is passed over. */
        if (pull->commands[i].seq <= s->acked_command)
            continue;
        s->config.ops->command(s->config.ops_arg, &pull->commands[i]);
        s->acked_command = pull->commands[i].seq;
    }
}

static void call_failed(struct session *s, enum call_kind kind, uint64_t now_ms, const char *why)
{
    switch (kind) {
    case CALL_HELLO:
        session_down(s, now_ms, why);
        break;
    case CALL_PULL:
        s->pull_retry_at_ms = now_ms + RETRY_MS_MIN;
        break;
    case CALL_REPORT:
        s->report_retry_at_ms = now_ms + RETRY_MS_MIN;
        s->config.ops->report_lost(s->config.ops_arg);
        break;
    case CALL_GOODBYE:
    case CALL_COUNT:
        s->left = true;
        break;
    }
}

static void call_answered(struct session *s, enum call_kind kind, uint64_t now_ms,
                          const struct wire_reply *reply)
{
    s->heard_ms = now_ms;
    switch (kind) {
    case CALL_HELLO:
        hello_answered(s, now_ms, reply);
        break;
    case CALL_PULL:
        pull_answered(s, &reply->pull);
        break;
    case CALL_REPORT:
        s->config.ops->report_answered(s->config.ops_arg, &reply->report);
        break;
    case CALL_GOODBYE:
    case CALL_COUNT:
        s->left = true;
        break;
    }
}

static const int reply_kind[] = {WIRE_REQUEST_HELLO, WIRE_REQUEST_PULL, WIRE_REQUEST_REPORT,
                                 WIRE_REQUEST_GOODBYE};

static void call_finish(struct session *s, enum call_kind kind, uint64_t now_ms)
{
    struct call *c = &s->calls[kind];
    struct wire_reply reply;
    struct arena arena;
    struct errbuf eb = {{0}};

    /* The callback may still be on its last lines; free waits for it. */
    transport_call_free(c->handle);
    c->handle = NULL;
    c->done = false;
    arena_init(&arena, LIMIT_DECODE_BYTES);
    enum err e = c->err;
    if (e != ERR_OK)
        (void)err_set(&eb, e, "%s got no answer (%s)", call_name[kind], err_name(e));
    else
        e = wire_reply_decode(c->reply.data, c->reply.size, &arena, &reply, &eb);
    if (e == ERR_OK && id_compare(&reply.request_id, &c->request_id) != 0)
        e = err_set(&eb, ERR_INVALID, "answer to another request");
    if (e == ERR_OK && reply.kind == WIRE_REPLY_ERROR) {
        e = (enum err)reply.error.code;
        (void)err_set(&eb, e, "%s: %s", call_name[kind], reply.error.text);
        s->heard_ms = now_ms;
        if (e == ERR_STALE && kind != CALL_HELLO && s->state == SESSION_STATE_UP) {
            call_failed(s, kind, now_ms, eb.text);
            s->retry_ms = 0;
            session_down(s, now_ms, "session is over");
            s->retry_at_ms = now_ms; /* the coordinator is there: greet it at once */
            goto out;
        }
    } else if (e == ERR_OK && reply.kind != reply_kind[kind]) {
        e = err_set(&eb, ERR_INVALID, "%s was answered by something else", call_name[kind]);
    }
    /* What that Hello said of our leases does not hold any more. */
    if (kind == CALL_HELLO && s->state != SESSION_STATE_GREETING)
        goto out;
    if (e != ERR_OK)
        call_failed(s, kind, now_ms, eb.text);
    else
        call_answered(s, kind, now_ms, &reply);
out:
    arena_fini(&arena);
}

/* ---- what is due ---- */

static void pull_start(struct session *s, uint64_t now_ms)
{
    struct wire_request request = {.kind = WIRE_REQUEST_PULL};
    struct errbuf eb = {{0}};
    request.pull.acked_command = s->acked_command;
    request.pull.wait_ms = PULL_WAIT_MS;
    if (call_start(s, CALL_PULL, &request, PULL_WAIT_MS + REPORT_TIMEOUT_MS, &eb) != ERR_OK)
        call_failed(s, CALL_PULL, now_ms, eb.text);
}

static void report_start(struct session *s, uint64_t now_ms)
{
    struct wire_request request = {.kind = WIRE_REQUEST_REPORT};
    struct errbuf eb = {{0}};
    struct arena arena;
    bool heartbeat = now_ms - s->reported_ms >= s->heartbeat_ms;

    arena_init(&arena, 2 * (size_t)LIMIT_FRAME_BYTES);
    if (s->config.ops->report(s->config.ops_arg, heartbeat, &arena, &request.report)) {
        s->reported_ms = now_ms;
        if (call_start(s, CALL_REPORT, &request, REPORT_TIMEOUT_MS, &eb) != ERR_OK) {
            session_complain(s, eb.text);
            call_failed(s, CALL_REPORT, now_ms, eb.text);
        }
    }
    arena_fini(&arena);
}

void session_run(struct session *s, uint64_t now_ms)
{
    struct errbuf eb = {{0}};

    for (int k = 0; k < CALL_COUNT; k++) {
        pthread_mutex_lock(&s->mutex);
        bool done = s->calls[k].done && s->calls[k].handle != NULL;
        pthread_mutex_unlock(&s->mutex);
        if (done)
            call_finish(s, (enum call_kind)k, now_ms);
    }
    if (s->leaving)
        return;
    if (s->state == SESSION_STATE_DOWN && now_ms >= s->retry_at_ms && !call_busy(s, CALL_HELLO) &&
        !call_busy(s, CALL_PULL) && !call_busy(s, CALL_REPORT)) {
        s->state = SESSION_STATE_GREETING;
        if (hello_send(s, NULL, &eb) != ERR_OK)
            session_down(s, now_ms, eb.text);
    }
    if (s->state != SESSION_STATE_UP)
        return;
    if (!call_busy(s, CALL_PULL) && now_ms >= s->pull_retry_at_ms)
        pull_start(s, now_ms);
    if (!call_busy(s, CALL_REPORT) && now_ms >= s->report_retry_at_ms)
        report_start(s, now_ms);
}

void session_goodbye(struct session *s, const char *reason)
{
    struct wire_request request = {.kind = WIRE_REQUEST_GOODBYE};
    struct errbuf eb = {{0}};

    if (s->leaving)
        return;
    s->leaving = true;
    request.goodbye.reason = reason;
    if (s->state != SESSION_STATE_UP ||
        call_start(s, CALL_GOODBYE, &request, GOODBYE_TIMEOUT_MS, &eb) != ERR_OK)
        s->left = true;
}

bool session_said_goodbye(const struct session *s)
{
    return s->left;
}

void session_restart(struct session *s, uint64_t now_ms, const char *why)
{
    if (s->state == SESSION_STATE_DOWN)
        return;
    if (call_busy(s, CALL_HELLO))
        transport_call_cancel(s->calls[CALL_HELLO].handle);
    session_down(s, now_ms, why);
}

uint64_t session_heard_ms(const struct session *s)
{
    return s->heard_ms;
}

uint64_t session_lease_ms(const struct session *s)
{
    return s->lease_ms;
}

enum err session_open(struct session **ret_session, const struct session_config *config,
                      struct errbuf *eb)
{
    struct session *s = calloc(1, sizeof *s);
    if (s == NULL)
        return err_set(eb, ERR_NO_MEMORY, "no memory for the session");
    s->config = *config;
    pthread_mutex_init(&s->mutex, NULL);
    for (int k = 0; k < CALL_COUNT; k++) {
        s->calls[k].session = s;
        buf_init(&s->calls[k].reply);
    }
    enum err e = transport_client_open(&s->client, &s->config.endpoint, eb);
    if (e != ERR_OK) {
        session_close(s);
        return e;
    }
    *ret_session = s;
    return ERR_OK;
}

void session_close(struct session *s)
{
    if (s == NULL)
        return;
    transport_client_close(s->client);
    for (int k = 0; k < CALL_COUNT; k++) {
        if (s->calls[k].handle != NULL)
            transport_call_free(s->calls[k].handle);
        buf_fini(&s->calls[k].reply);
    }
    pthread_mutex_destroy(&s->mutex);
    free(s);
}
