/* The session: Hello, the coordinator's challenge, our signature over it; its signature over our
 * nonce is checked in both rounds. */
#include "client/connection.h"

#include "common/limits.h"
#include "proto/hello.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* One round: `hello` as it is, under `session`. */
static enum err hello_round(struct cloister *c, const struct wire_hello *hello, uint64_t session,
                            uint32_t timeout_ms, struct arena *arena, struct wire_reply *ret_reply,
                            struct cloister_problem *problem)
{
    struct errbuf eb = {0};
    struct buf packed, reply;
    buf_init(&packed);
    buf_init(&reply);
    struct wire_request request = {
        .session = session, .request_id = id_new(), .kind = WIRE_REQUEST_HELLO, .hello = *hello};
    enum err err = wire_request_encode(&request, &packed, &eb);
    if (err == ERR_OK)
        err = connection_exchange(c, &packed, timeout_ms, &reply, &eb);
    if (err != ERR_OK) {
        problem_from(problem, err, &eb);
        goto out;
    }
    err = wire_reply_decode(reply.data, reply.size, arena, ret_reply, &eb);
    if (err != ERR_OK) {
        err =
            problem_set(problem, err == ERR_NO_MEMORY || err == ERR_UNSUPPORTED ? err : ERR_CORRUPT,
                        "the answer to Hello cannot be read: %s", eb.text);
        goto out;
    }
    if (ret_reply->kind == WIRE_REPLY_ERROR) {
        err = (enum err)ret_reply->error.code;
        problem_set(problem, err, "%s", ret_reply->error.text);
        if (problem)
            problem->retry_after_ms = ret_reply->error.retry_after_ms;
    } else if (ret_reply->kind != WIRE_REQUEST_HELLO ||
               id_compare(&ret_reply->request_id, &request.request_id) != 0) {
        err = problem_set(problem, ERR_CORRUPT, "the answer to Hello belongs to something else");
    }
out:
    buf_fini(&packed);
    buf_fini(&reply);
    return err;
}

static enum err reply_verify(const struct cloister *c, const struct wire_hello *hello,
                             const struct wire_reply *reply, struct cloister_problem *problem)
{
    struct errbuf eb = {{0}};
    enum err err = hello_verify(&reply->hello, hello->nonce, reply->session,
                                c->pinned ? c->coordinator_key : NULL, &eb);
    return err == ERR_OK
               ? ERR_OK
               : problem_set(problem, err, "the coordinator at %s: %s", c->endpoint.url, eb.text);
}

enum err hello_say(struct cloister *c, uint32_t timeout_ms, uint64_t *ret_session,
                   struct cloister_server *ret_server, struct cloister_problem *problem)
{
    enum err err;
    struct errbuf eb = {0};
    struct arena arena;
    struct wire_hello hello;
    struct wire_reply reply;
    char build[HELLO_BUILD_BYTES];
    uint8_t signature[ED25519_SIGN_BYTES];
    arena_init(&arena, LIMIT_DECODE_BYTES);
    hello_init(&hello, WIRE_ROLE_CLIENT, c->node, c->key, build);
    hello.tenant = c->tenant;

    err = hello_round(c, &hello, 0, timeout_ms, &arena, &reply, problem);
    if (err == ERR_OK)
        err = reply_verify(c, &hello, &reply, problem);
    if (err != ERR_OK)
        goto out;
    uint64_t session = reply.session;
    err = hello_sign(&hello, c->key, reply.hello.challenge, session, signature, &eb);
    if (err != ERR_OK) {
        problem_from(problem, err, &eb);
        goto out;
    }
    err = hello_round(c, &hello, session, timeout_ms, &arena, &reply, problem);
    if (err == ERR_OK)
        err = reply_verify(c, &hello, &reply, problem);
    if (err != ERR_OK)
        goto out;
    if (!reply.hello.established || reply.session == 0) {
        err = problem_set(problem, ERR_REFUSED, "the coordinator at %s did not accept our proof",
                          c->endpoint.url);
        goto out;
    }
    *ret_session = reply.session;
    snprintf(ret_server->name, sizeof ret_server->name, "%s", reply.hello.coordinator);
    snprintf(ret_server->build, sizeof ret_server->build, "%s", reply.hello.build);
    memcpy(ret_server->public_key, reply.hello.public_key, sizeof ret_server->public_key);
out:
    arena_fini(&arena);
    return err;
}
