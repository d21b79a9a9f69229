/*
 * transport_conn.h - one connection of transport.h: whole frames in and out over an nng stream.
 *
 * The bytes are those of nng's REQ/REP over TCP, so that any nng can talk to it: each side sends
 * eight bytes that name its protocol (0 'S' 'P' 0, 16 bits, 0 0), then frames: a length (64 bits,
 * big endian), and in it a request id (32 bits, the highest one set) and the payload.
 *
 * It does not dial, listen, retry, or know what a request is.
 *
 * Ownership: counted. transport_conn_new returns one reference, for the caller; the connection
 * keeps another one until on_down returned. Thread: any function from any thread; callbacks run on
 * nng's threads (on_down also on that of who closes) with no lock held, never two frames at once.
 */
#ifndef CLOISTER_COMMON_TRANSPORT_CONN_H
#define CLOISTER_COMMON_TRANSPORT_CONN_H

#include <nng/nng.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum transport_protocol { TRANSPORT_PROTOCOL_REQ = 0x30, TRANSPORT_PROTOCOL_REP = 0x31 };

struct transport_conn;

/* The highest bit of a frame's id, set in every one. */
#define TRANSPORT_ID_FLAG 0x80000000u

/* A frame to be sent. `next` is free for whoever owns it; the rest is the connection's. */
struct transport_frame {
    struct transport_frame *next, *previous;
    bool sending; /* nng has it */
    uint32_t id;
    size_t size;
    uint8_t bytes[];
};

/* NULL when memory is refused. Ownership: transport_conn_send takes it, or free(). */
struct transport_frame *transport_frame_new(uint32_t id, const void *payload, size_t size);
void transport_frame_set_id(struct transport_frame *frame, uint32_t id);

/* What was received: `payload` lies in `block`, which whoever gets it frees. */
struct transport_received {
    uint32_t id;
    uint8_t *block;
    const uint8_t *payload;
    size_t size;
};

struct transport_conn_ops {
    enum transport_protocol ours, theirs;
    void (*on_up)(void *arg, struct transport_conn *conn); /* the peer speaks `theirs` */
    void (*on_frame)(void *arg, struct transport_conn *conn, struct transport_received *frame);
    /* (optional) The frame that is coming in takes `bytes` of memory now, over
     * TRANSPORT_SMALL_BYTES, or none any more (0, not after on_down). False closes. */
    bool (*on_buffer)(void *arg, struct transport_conn *conn, size_t bytes);
    /* (optional) The system has taken these whole, in their order; takes them. */
    void (*on_sent)(void *arg, struct transport_conn *conn, struct transport_frame *list);
    /* Exactly once, the last callback. */
    void (*on_down)(void *arg, struct transport_conn *conn);
};
#define TRANSPORT_SMALL_BYTES (64u << 10)

/* Each 30 s a peer must take, and send of a frame it has begun, this much, or all there is. */
#define TRANSPORT_PACE_BYTES (512u << 10)
#define TRANSPORT_PACE_MS    30000u
/* For the peer to say what it is. */
#define TRANSPORT_HELLO_MS 10000u

/* Takes the stream, also when it returns NULL for want of memory. No callback before
 * transport_conn_start, which must follow. */
struct transport_conn *transport_conn_new(nng_stream *stream, const struct transport_conn_ops *ops,
                                          void *arg);
void transport_conn_start(struct transport_conn *conn);
void transport_conn_hold(struct transport_conn *conn);
void transport_conn_release(struct transport_conn *conn);

/* Not 0, and never again given to another connection of this process. */
uint64_t transport_conn_number(const struct transport_conn *conn);

/* What is passed to on_frame counts until transport_conn_frame_done; no more is received while
 * there are `frames` of them, or while they and what is queued to be sent come to over `bytes`.
 * Without it (frames 0) nothing is counted. */
void transport_conn_bound(struct transport_conn *conn, unsigned frames, size_t bytes);
void transport_conn_frame_done(struct transport_conn *conn, size_t size);

/* Queues it. False, and the frame stays the caller's, when the connection is going down. Frames
 * that are queued then are lost. */
bool transport_conn_send(struct transport_conn *conn, struct transport_frame *frame);
/* Takes a queued frame back: true, and it is the caller's, unless nng has it or the connection is
 * going down. With on_sent only, which tells until when `frame` is there. */
bool transport_conn_unsend(struct transport_conn *conn, struct transport_frame *frame);
bool transport_conn_is_sending(struct transport_conn *conn, const struct transport_frame *frame);

/* Begins the end; on_down says when it is over. */
void transport_conn_close(struct transport_conn *conn);
/* Closes it where the peer has said nothing of itself, is too slow, or is gone without a word. To
 * be called every second or so. */
void transport_conn_check(struct transport_conn *conn, uint64_t now_ms);

struct transport_conn_state {
    bool closed;
    uint64_t heard_ns;   /* when the last bytes came, or it was made */
    uint64_t taken_ms;   /* when the peer's system last took bytes, or there were none to take */
    uint64_t frame_ms;   /* when the frame that is coming in began; 0: none */
    size_t queued_bytes; /* to be sent */
};
struct transport_conn_state transport_conn_look(struct transport_conn *conn);

#endif
