/*
 * transport.h - requests and replies as bytes, in the form of nng's REQ/REP over its streams
 * (transport_conn.c says why not over its sockets).
 *
 * The server side answers in any order and holds any number of requests unanswered (parked long
 * polls). The client side runs any number of calls at once over one connection. Frames are capped
 * at LIMIT_FRAME_BYTES on both sides, by sender and receiver. Nothing is sent again by itself:
 * trying again is the caller's decision, with the same request id.
 *
 * A reply that was "sent" may be lost with its connection: it is not proof that anybody has it.
 *
 * URLs: tcp://HOST:PORT, and tls+tcp://HOST:PORT with mutual authentication (TLS 1.2, certificates
 * from PEM files, both sides must show one signed by `ca_file`).
 *
 * Thread: each function says. Callbacks run on threads of nng and of the transport: they must not
 * block, nor call back into open/close; hand the message on and return.
 */
#ifndef CLOISTER_COMMON_TRANSPORT_H
#define CLOISTER_COMMON_TRANSPORT_H

#include "common/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct transport_tls {
    const char *ca_file;   /* PEM, authorities for the other side's certificate */
    const char *cert_file; /* PEM, our certificate */
    const char *key_file;  /* PEM, its key */
};

struct transport_endpoint {
    const char *url;
    struct transport_tls tls; /* all three for tls+tcp://, none for tcp:// */
};

/* Checks the URL's form and that the files can be read; opens nothing. */
enum err transport_endpoint_check(const struct transport_endpoint *endpoint, struct errbuf *eb);

/* ---- server ---- */

struct transport_server;
struct transport_request; /* one request and the way back to who sent it */

/* Takes ownership of `request`. Thread: the transport's. */
typedef void transport_request_fn(void *arg, struct transport_request *request);

/* Requests may come before it returns; *ret_server is set by then. */
enum err transport_server_open(struct transport_server **ret_server,
                               const struct transport_endpoint *endpoint,
                               transport_request_fn *on_request, void *arg, struct errbuf *eb);
/* No callback runs once it returned. Requests still held then may be freed afterwards, and replies
 * to them are refused; the memory behind them lives until the last one is freed. Takes
 * milliseconds, and seconds at most, whatever the peers do at the time. */
void transport_server_close(struct transport_server *s);
/* From now on a peer is a stranger until transport_request_admit says who it is. A stranger's
 * connection is closed after stranger_ms, or when there are too many, the oldest first; its bounds
 * are small (docs/protocol.md). One that was admitted is closed idle_ms after the last time.
 * Without it there are no strangers. Thread: any. */
void transport_server_expect(struct transport_server *s, uint32_t stranger_ms, uint64_t idle_ms);
/* The port in use, for endpoints opened with port 0; 0 where unknown. */
uint16_t transport_server_port(const struct transport_server *s);

const void *transport_request_bytes(const struct transport_request *r, size_t *ret_size);
/* The connection it came on: a number of this process, not 0, never used for another one. */
uint64_t transport_request_connection(const struct transport_request *r);
/* Who sent it is known: see transport_server_expect. Each time. */
void transport_request_admit(struct transport_request *r);
/* The way back. Closed: no answer will arrive any more. Queued: replies to this peer, of all its
 * requests, that it has not taken. Thread: any. */
struct transport_way {
    bool closed;
    size_t queued_bytes;
};
struct transport_way transport_request_way(const struct transport_request *r);
/* Sends and frees `r`; over the cap it sends nothing and says ERR_TOO_LARGE. Thread: any. */
enum err transport_request_reply(struct transport_server *s, struct transport_request *r,
                                 const void *bytes, size_t size, struct errbuf *eb);
void transport_request_free(struct transport_request *r); /* never answers */

/* ---- client ---- */

struct transport_client;

/* Dials in the background, again and again while there are calls, which wait for it within their
 * time. */
enum err transport_client_open(struct transport_client **ret_client,
                               const struct transport_endpoint *endpoint, struct errbuf *eb);
/* Calls under way end with ERR_CANCELLED first. Takes milliseconds, and seconds at most, whatever
 * the server does at the time. */
void transport_client_close(struct transport_client *c);
/* False where a call that is started now would have to wait for a connection first. It may be
 * otherwise a moment later. Thread: any. */
bool transport_client_is_connected(struct transport_client *c);

/* `reply` is valid during the callback; NULL unless err is ERR_OK. Thread: the transport's. */
typedef void transport_reply_fn(void *arg, enum err err, const void *reply, size_t reply_size);

struct transport_call;
/* Starts a call; `on_reply` runs exactly once, and may do so before this returns (*ret_call is set
 * by then). ERR_TIMEOUT after timeout_ms without an answer, counted from when the request was sent;
 * while it waits to be sent, or is being sent, as often as the connection takes nothing for so
 * long. ERR_UNAVAILABLE at once when the connection drops (in both cases the request may or may not
 * have been carried out) and after timeout_ms without a connection (then it was not). Returns
 * ERR_BUSY where 64 MiB wait to be sent already. Thread: any. */
enum err transport_call_start(struct transport_client *c, const void *bytes, size_t size,
                              uint32_t timeout_ms, transport_reply_fn *on_reply, void *arg,
                              struct transport_call **ret_call, struct errbuf *eb);
/* Ends it early with ERR_CANCELLED (through on_reply), unless it ended by itself. */
void transport_call_cancel(struct transport_call *call);
/* After on_reply was called; from within it, too, and after transport_client_close. */
void transport_call_free(struct transport_call *call);

struct buf;
/* The same, waiting. Thread: any, several at once. */
enum err transport_call(struct transport_client *c, const void *bytes, size_t size,
                        uint32_t timeout_ms, struct buf *reply, struct errbuf *eb);

#endif
