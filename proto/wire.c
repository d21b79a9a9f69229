#include "proto/wire.h"

#include "common/limits.h"
#include "proto/wire_tables.h"

#include <string.h>

/* ---- the envelope, read by hand ---- */

/* Version, session and request id stand at the same place in every version of the protocol, so
 * that a message of another version, or one whose body is refused, can still be answered. */
struct wire_envelope {
    uint64_t version;
    uint64_t session;
    struct id request_id;
};

struct wire_cursor {
    const uint8_t *next, *end;
};

static bool cursor_varint(struct wire_cursor *c, uint64_t *ret_value)
{
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 64 && c->next < c->end; shift += 7) {
        uint8_t byte = *c->next++;
        value |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80) {
            *ret_value = value;
            return true;
        }
    }
    return false;
}

/* One field of the outermost level. False at a malformed one. */
static bool envelope_field(struct wire_cursor *c, struct wire_envelope *envelope)
{
    enum { TYPE_VARINT = 0, TYPE_64 = 1, TYPE_BYTES = 2, TYPE_32 = 5 };
    uint64_t tag, value = 0;
    size_t size = 0;

    if (!cursor_varint(c, &tag))
        return false;
    switch (tag & 7) {
    case TYPE_VARINT:
        if (!cursor_varint(c, &value))
            return false;
        break;
    case TYPE_64:
        size = 8;
        break;
    case TYPE_BYTES:
        if (!cursor_varint(c, &value) || value > (size_t)(c->end - c->next))
            return false;
        size = (size_t)value;
        break;
    case TYPE_32:
        size = 4;
        break;
    default:
        return false;
    }
    if (size > (size_t)(c->end - c->next))
        return false;
    if (tag == (1 << 3 | TYPE_VARINT))
        envelope->version = value;
    if (tag == (2 << 3 | TYPE_64)) {
        envelope->session = 0;
        for (int i = 7; i >= 0; i--)
            envelope->session = envelope->session << 8 | c->next[i];
    }
    if (tag == (3 << 3 | TYPE_BYTES) && size == ID_BYTES)
        memcpy(envelope->request_id.bytes, c->next, size);
    c->next += size;
    return true;
}

/* Checks size and version; says in `ret_envelope` what could be read, on error too. */
static enum err envelope_read(const void *bytes, size_t size, struct wire_envelope *ret_envelope,
                              struct errbuf *eb)
{
    struct wire_cursor c = {.next = bytes, .end = (const uint8_t *)bytes + size};
    bool whole = true;

    *ret_envelope = (struct wire_envelope){0};
    while (whole && c.next < c.end)
        whole = envelope_field(&c, ret_envelope);
    if (size > LIMIT_FRAME_BYTES)
        return err_set(eb, ERR_TOO_LARGE, "%zu bytes are over LIMIT_FRAME_BYTES (%u)", size,
                       LIMIT_FRAME_BYTES);
    if (!whole)
        return err_set(eb, ERR_INVALID, "not a well-formed message");
    if (ret_envelope->version != WIRE_VERSION)
        return err_set(eb, ERR_UNSUPPORTED,
                       "version: the peer speaks version %llu of the protocol, this build %u",
                       (unsigned long long)ret_envelope->version, WIRE_VERSION);
    return ERR_OK;
}

/* ---- encoding and decoding ---- */

#define FRAME_CAP LIMIT_FRAME_BYTES, "LIMIT_FRAME_BYTES"

enum err wire_request_encode(const struct wire_request *request, struct buf *out, struct errbuf *eb)
{
    return convert_encode(&wire_request_table, "", request, FRAME_CAP, out, eb);
}

enum err wire_request_decode(const void *bytes, size_t size, struct arena *arena,
                             struct wire_request *ret_request, struct errbuf *eb)
{
    struct wire_envelope envelope;
    enum err err = envelope_read(bytes, size, &envelope, eb);
    if (err == ERR_OK)
        err = convert_decode(&wire_request_table, "", bytes, size, arena, ret_request, eb);
    if (err != ERR_OK) {
        ret_request->session = envelope.session;
        ret_request->request_id = envelope.request_id;
    }
    return err;
}

enum err wire_reply_encode(const struct wire_reply *reply, struct buf *out, struct errbuf *eb)
{
    return convert_encode(&wire_reply_table, "", reply, FRAME_CAP, out, eb);
}

enum err wire_reply_decode(const void *bytes, size_t size, struct arena *arena,
                           struct wire_reply *ret_reply, struct errbuf *eb)
{
    struct wire_envelope envelope;
    enum err err = envelope_read(bytes, size, &envelope, eb);
    if (err == ERR_OK)
        err = convert_decode(&wire_reply_table, "", bytes, size, arena, ret_reply, eb);
    if (err != ERR_OK) {
        ret_reply->session = envelope.session;
        ret_reply->request_id = envelope.request_id;
    }
    return err;
}

enum err wire_job_encode(const struct wire_job *job, struct buf *out, struct errbuf *eb)
{
    return convert_encode(&wire_job_table, "job", job, FRAME_CAP, out, eb);
}

enum err wire_job_decode(const void *bytes, size_t size, struct arena *arena,
                         struct wire_job *ret_job, struct errbuf *eb)
{
    if (size > LIMIT_FRAME_BYTES)
        return err_set(eb, ERR_TOO_LARGE, "job: %zu bytes are over LIMIT_FRAME_BYTES (%u)", size,
                       LIMIT_FRAME_BYTES);
    return convert_decode(&wire_job_table, "job", bytes, size, arena, ret_job, eb);
}

enum err wire_sampling_encode(const struct wire_sampling *sampling, struct buf *out,
                              struct errbuf *eb)
{
    return convert_encode(&wire_sampling_table, "sampling", sampling, FRAME_CAP, out, eb);
}

enum err wire_token_logprobs_encode(const struct wire_token_logprobs *logprobs, struct buf *out,
                                    struct errbuf *eb)
{
    return convert_encode(&wire_token_logprobs_table, "logprobs", logprobs, LIMIT_LOGPROBS_BYTES,
                          "LIMIT_LOGPROBS_BYTES", out, eb);
}

enum err wire_token_logprobs_decode(const struct wire_bytes *packed, struct arena *arena,
                                    struct wire_token_logprobs *ret_logprobs, struct errbuf *eb)
{
    if (packed->size > LIMIT_LOGPROBS_BYTES)
        return err_set(eb, ERR_TOO_LARGE, "logprobs: %zu bytes are over LIMIT_LOGPROBS_BYTES (%u)",
                       packed->size, LIMIT_LOGPROBS_BYTES);
    return convert_decode(&wire_token_logprobs_table, "logprobs", packed->data, packed->size, arena,
                          ret_logprobs, eb);
}

/* ---- names ---- */

struct wire_names {
    const char *const *names; /* [0] stands for _UNSPECIFIED */
    unsigned count;
};

#define NAMES(...)                                                                                 \
    {                                                                                              \
        (const char *const[]){__VA_ARGS__},                                                        \
            sizeof((const char *const[]){__VA_ARGS__}) / sizeof(const char *)                      \
    }

static const struct wire_names job_state_names =
    NAMES("unspecified", "queued", "leased", "running", "done", "failed", "cancelled", "rejected",
          "expired");
static const struct wire_names job_class_names =
    NAMES("unspecified", "interactive", "standard", "batch");
static const struct wire_names finish_names =
    NAMES("unfinished", "stop", "length", "cancelled", "error");
static const struct wire_names model_state_names =
    NAMES("unspecified", "available", "loading", "ready", "failed");
static const struct wire_names worker_state_names =
    NAMES("unspecified", "alive", "suspect", "gone");

static const char *name_of(const struct wire_names *names, unsigned value)
{
    return value < names->count ? names->names[value] : "unknown";
}

static bool name_parse(const struct wire_names *names, const char *text, unsigned *ret_value)
{
    for (unsigned i = 1; i < names->count; i++) {
        if (strcmp(names->names[i], text) == 0) {
            *ret_value = i;
            return true;
        }
    }
    return false;
}

const char *wire_job_state_name(enum wire_job_state state)
{
    return name_of(&job_state_names, (unsigned)state);
}

const char *wire_job_class_name(enum wire_job_class job_class)
{
    return name_of(&job_class_names, (unsigned)job_class);
}

const char *wire_finish_name(enum wire_finish finish)
{
    return name_of(&finish_names, (unsigned)finish);
}

const char *wire_model_state_name(enum wire_model_state state)
{
    return name_of(&model_state_names, (unsigned)state);
}

const char *wire_worker_state_name(enum wire_worker_state state)
{
    return name_of(&worker_state_names, (unsigned)state);
}

bool wire_job_state_parse(const char *text, enum wire_job_state *ret_state)
{
    unsigned value;
    if (!name_parse(&job_state_names, text, &value))
        return false;
    *ret_state = (enum wire_job_state)value;
    return true;
}

bool wire_job_class_parse(const char *text, enum wire_job_class *ret_class)
{
    unsigned value;
    if (!name_parse(&job_class_names, text, &value))
        return false;
    *ret_class = (enum wire_job_class)value;
    return true;
}

bool wire_job_state_is_end(enum wire_job_state state)
{
    return state >= WIRE_JOB_STATE_DONE && state <= WIRE_JOB_STATE_EXPIRED;
}

/* ---- what is signed ---- */

static void signed_append(struct buf *out, const void *bytes, size_t size)
{
    for (int shift = 24; shift >= 0; shift -= 8)
        buf_append_byte(out, (uint8_t)(size >> shift));
    buf_append(out, bytes, size);
}

static void signed_append_text(struct buf *out, const char *text)
{
    signed_append(out, text != NULL ? text : "", text != NULL ? strlen(text) : 0);
}

static void signed_append_u64(struct buf *out, uint64_t value)
{
    uint8_t bytes[8];
    for (int i = 0; i < 8; i++)
        bytes[i] = (uint8_t)(value >> (56 - 8 * i));
    signed_append(out, bytes, sizeof bytes);
}

void wire_hello_signed_bytes(const uint8_t challenge[32], uint64_t session,
                             const struct wire_hello *hello, struct buf *out)
{
    signed_append_text(out, "cloister hello v1");
    signed_append(out, challenge, 32);
    signed_append_u64(out, session);
    signed_append(out, hello->public_key, sizeof hello->public_key);
    signed_append_u64(out, hello->role);
    signed_append_text(out, hello->node);
    signed_append_text(out, hello->tenant);
}

void wire_hello_reply_signed_bytes(const uint8_t nonce[32], uint64_t session,
                                   const struct wire_hello_reply *reply, struct buf *out)
{
    signed_append_text(out, "cloister hello reply v1");
    signed_append(out, nonce, 32);
    signed_append_u64(out, session);
    signed_append(out, reply->public_key, sizeof reply->public_key);
    signed_append_text(out, "coordinator");
    signed_append_text(out, reply->coordinator);
}
