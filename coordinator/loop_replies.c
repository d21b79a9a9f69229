#include "coordinator/loop_replies.h"

#include "common/check.h"
#include "common/log.h"

#include <stdlib.h>

void replies_init(struct replies *r)
{
    *r = (struct replies){.server = NULL};
    r->pending.prev = r->pending.next = &r->pending;
    buf_init(&r->packed);
}

static void pending_free(struct pending *p)
{
    p->prev->next = p->next;
    p->next->prev = p->prev;
    free(p);
}

void replies_fini(struct replies *r)
{
    while (r->pending.next != &r->pending)
        replies_drop(r->pending.next);
    buf_fini(&r->packed);
}

struct pending *replies_expect(struct replies *r, struct transport_request *request)
{
    struct pending *p = calloc(1, sizeof *p);
    CHECK(p != NULL);
    p->request = request;
    p->prev = r->pending.prev;
    p->next = &r->pending;
    p->prev->next = p->next->prev = p;
    return p;
}

void replies_drop(struct pending *p)
{
    transport_request_free(p->request);
    pending_free(p);
}

void replies_send(struct replies *r, struct pending *p, const struct wire_reply *reply)
{
    struct errbuf eb = {{0}};
    buf_clear(&r->packed);
    enum err err = wire_reply_encode(reply, &r->packed, &eb);
    if (err != ERR_OK) {
        struct wire_reply instead = {.session = p->session,
                                     .request_id = p->request_id,
                                     .kind = WIRE_REPLY_ERROR,
                                     .error = {.code = (uint32_t)err, .text = eb.text}};
        log_warn("a reply of kind %d could not be packed: %s", reply->kind, eb.text);
        buf_clear(&r->packed);
        CHECK(wire_reply_encode(&instead, &r->packed, NULL) == ERR_OK);
    }
    err = transport_request_reply(r->server, p->request, r->packed.data, r->packed.size, &eb);
    if (err != ERR_OK)
        log_debug("a reply was not sent: %s", eb.text);
    pending_free(p);
}

void replies_later(struct replies *r, struct pending *p, enum err code, const char *text,
                   uint64_t retry_after_ms)
{
    struct wire_reply reply = {.session = p->session,
                               .request_id = p->request_id,
                               .kind = WIRE_REPLY_ERROR,
                               .error = {.code = (uint32_t)code,
                                         .text = text,
                                         .retryable = err_retryable(code),
                                         .retry_after_ms = retry_after_ms}};
    replies_send(r, p, &reply);
}

void replies_error(struct replies *r, struct pending *p, enum err code, const char *text)
{
    replies_later(r, p, code, text, 0);
}

void replies_error_all(struct replies *r, enum err code, const char *text)
{
    while (r->pending.next != &r->pending)
        replies_error(r, r->pending.next, code, text);
}
