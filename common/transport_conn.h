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

/* A frame to be sent. */
struct transport_frame {
    struct transport_frame *next;
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
    /* Exactly once, the last callback. */
    void (*on_down)(void *arg, struct transport_conn *conn);
};

/* Takes the stream, also when it returns NULL for want of memory. No callback before
 * transport_conn_start, which must follow. */
struct transport_conn *transport_conn_new(nng_stream *stream, const struct transport_conn_ops *ops,
                                          void *arg);
void transport_conn_start(struct transport_conn *conn);
void transport_conn_hold(struct transport_conn *conn);
void transport_conn_release(struct transport_conn *conn);

/* Not 0, and never again given to another connection of this process. */
uint64_t transport_conn_number(const struct transport_conn *conn);

/* Queues it. False, and the frame stays the caller's, when the connection is going down. Frames
 * that are queued then are lost. */
bool transport_conn_send(struct transport_conn *conn, struct transport_frame *frame);
/* Begins the end; on_down says when it is over. */
void transport_conn_close(struct transport_conn *conn);
/* Closes it where the peer has said nothing of itself, takes nothing, or is gone without a word.
 * To be called every second or so. */
void transport_conn_check(struct transport_conn *conn, uint64_t now_ms);

#endif
