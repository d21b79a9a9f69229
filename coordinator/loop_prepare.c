#include "coordinator/loop_prepare.h"

#include "common/crypto.h"
#include "common/limits.h"

#include <string.h>

static void hello_prepare(const struct core *core, const struct wire_request *request,
                          struct core_event *event)
{
    const struct wire_hello *hello = &request->hello;
    uint8_t challenge[32];
    struct buf signed_bytes;

    sha256(hello->public_key, sizeof hello->public_key, event->key_fingerprint);
    if (hello->signature.size != ED25519_SIGN_BYTES ||
        !core_session_challenge(core, request->session, challenge))
        return;
    buf_init(&signed_bytes);
    wire_hello_signed_bytes(challenge, request->session, hello, &signed_bytes);
    event->hello_verified =
        !signed_bytes.failed && crypto_verify(hello->public_key, signed_bytes.data,
                                              signed_bytes.size, hello->signature.data);
    buf_fini(&signed_bytes);
}

static enum err submit_prepare(const struct wire_request *request, struct arena *arena,
                               struct core_event *event, struct errbuf *eb)
{
    struct buf packed;
    buf_init(&packed);
    enum err err = wire_job_encode(&request->submit.job, &packed, eb);
    if (err != ERR_OK)
        goto out;
    uint8_t *copy = (uint8_t *)arena_copy(arena, packed.data, packed.size);
    if (copy == NULL) {
        err = err_set(eb, ERR_NO_MEMORY, "no memory for a job of %zu bytes", packed.size);
        goto out;
    }
    event->packed_job = (struct wire_bytes){.data = copy, .size = packed.size};
    sha256(copy, packed.size, event->content_digest);
out:
    buf_fini(&packed);
    return err;
}

enum err prepare_request(const struct core *core, const void *bytes, size_t size,
                         struct arena *arena, struct wire_request *ret_request,
                         struct core_event *ret_event, struct errbuf *eb)
{
    /* The arena is the whole turn's; one message may take only so much of it. */
    size_t cap_bytes = arena->cap_bytes;
    size_t message_cap = arena->used_bytes + LIMIT_DECODE_BYTES;
    arena->cap_bytes = message_cap < cap_bytes ? message_cap : cap_bytes;
    enum err err = wire_request_decode(bytes, size, arena, ret_request, eb);
    arena->cap_bytes = cap_bytes;
    if (err != ERR_OK)
        return err;
    *ret_event = (struct core_event){.kind = CORE_EVENT_REQUEST, .request = ret_request};
    if (ret_request->kind == WIRE_REQUEST_HELLO)
        hello_prepare(core, ret_request, ret_event);
    else if (ret_request->kind == WIRE_REQUEST_SUBMIT)
        err = submit_prepare(ret_request, arena, ret_event, eb);
    return err;
}
