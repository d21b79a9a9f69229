/*
 * ucx.h - one rank's place in a gang of several hosts. Internal to worker/coll: ucx_open.c makes
 * and ends it, ucx.c has the operations, ucx_flow.c pieces on their way, ucx_gang.c what ranks say
 * to each other beside them (beats, aborts, goodbyes) and what breaks a gang.
 *
 * Bytes of operations go as tagged messages, some for each piece, between each two ranks that take
 * part in an operation together: where bytes go one way only, an empty one goes the other way, so
 * that a sender is never more than one operation ahead of a receiver. What a message is (operation,
 * root, sequence) is in its tag and compared.
 *
 * Thread: `lock` guards everything but the words of an abort. The owner holds it for a whole
 * operation and beats by itself then; a thread of the gang's does between operations, so that a
 * rank that computes for long is heard all the same.
 */
#ifndef CLOISTER_WORKER_COLL_UCX_H
#define CLOISTER_WORKER_COLL_UCX_H

#ifdef CLOISTER_HAVE_UCX

#include "worker/coll/coll_ops.h"
#include "worker/coll/ucx_library.h"

#include <pthread.h>
#include <stdatomic.h>

#define UCX_TOKEN_BYTES 16u

/* What goes beside the operations, one active message each. */
enum ucx_note_kind { UCX_NOTE_BEAT = 1, UCX_NOTE_ABORT = 2, UCX_NOTE_LEAVE = 3 };

#define UCX_NOTE_TEXT_BYTES 400u
struct ucx_note { /* in the byte order of hello.h */
    uint8_t token[UCX_TOKEN_BYTES];
    uint8_t kind[4];
    uint8_t rank[4];
    uint8_t code[4]; /* of an abort, and its reason */
    char text[UCX_NOTE_TEXT_BYTES];
};
#define UCX_NOTE_HEAD_BYTES offsetof(struct ucx_note, text)

/* A message of libucx, from its start to its result. */
struct ucx_request {
    void *request;  /* NULL: none is under way */
    bool is_active; /* it was started, and its result was not looked at yet */
    ucs_status_t status;
    ucp_tag_recv_info_t info; /* of what was received */
    ucp_tag_t tag;            /* of what is to be received; 0: a send */
    size_t bytes;             /* that are to come, or can at most */
};

/* A piece on its way to or from a rank, in messages of UCX_CHUNK_BYTES of which UCX_WINDOW are
 * under way together. Each that has come says that the rank is alive, and beats queue behind no
 * more than a window of them, however large the piece is. */
#define UCX_CHUNK_BYTES ((size_t)256 << 10)
/* In the tag of each message but the last of a piece: who has pieces of other sizes has another
 * number of messages, or one of another size. */
#define UCX_TAG_MORE 0x8000u
#define UCX_WINDOW   2u
struct ucx_flow {
    struct ucx_request window[UCX_WINDOW];
    uint8_t *at; /* what was not started yet */
    size_t left;
    uint32_t n_left; /* messages of it; an empty piece is one */
    ucp_tag_t tag;
    bool is_receive;
    bool is_broadcast; /* one message, of which the receiver knows only the most that it can be */
    bool is_wanted;    /* the operation cannot end, or the next not begin, before all is there */
    bool is_odd;       /* `result` failed, or is not what was to come: no more is started */
    struct ucx_request result; /* of the message that was last, or is odd */
};

struct ucx_peer {
    struct ucx *gang;
    ucp_ep_h ep;
    uint64_t heard_ns; /* 0: not yet */
    bool is_gone;      /* its endpoint failed, for `why` */
    uint64_t gone_ns;  /* since when */
    ucs_status_t why;
    bool has_left;
    bool is_beating;         /* a beat for it is under way */
    struct ucx_flow send;    /* bytes, or the receipt for bytes */
    struct ucx_flow receive; /* bytes */
    struct ucx_flow receipt; /* for bytes that went one way; waited for by the next operation */
};

struct ucx {
    struct coll base;
    const struct ucx_library *lib;
    ucp_context_h context;
    ucp_worker_h worker;
    ucp_address_t *address;
    int worker_fd;
    uint8_t *memory; /* the halves */
    uint8_t token[UCX_TOKEN_BYTES];
    uint64_t silence_ns;
    uint64_t patience_ns; /* on top: for the bytes that beats queue behind */
    struct ucx_peer peer[COLL_RANKS_MAX];
    struct ucx_note beat, farewell; /* read by libucx until they are sent */
    uint64_t beat_at_ns;
    uint64_t n_ended; /* operations */
    uint32_t notes_under_way;
    enum err broken;
    struct errbuf reason;

    pthread_mutex_t lock;
    pthread_t beater;
    bool has_lock, has_beater;
    int wake_owner, wake_beater; /* eventfds */
    _Atomic bool is_ending;

    _Atomic bool is_abort_asked;
    pthread_mutex_t abort_lock;
    char abort_why[UCX_NOTE_TEXT_BYTES];
};

/* ---- ucx.c ---- */

extern const struct coll_ops ucx_ops;

/* ---- ucx_flow.c; all under the lock ---- */

/* Begins with a piece, of which nothing is under way. Sender and receiver say the same of it, but
 * for the size of a broadcast. What is not wanted is waited for by nobody until ucx_flow_want. */
struct ucx_piece {
    ucp_tag_t tag;
    uint8_t *at;
    size_t size;
    bool is_receive, is_broadcast, is_wanted;
};
void ucx_flow_begin(struct ucx_peer *peer, struct ucx_flow *flow, const struct ucx_piece *piece);
/* Goes on with it. True where all of it is there or gone, it is odd, or nobody waits for it. */
bool ucx_flow_done(struct ucx_peer *peer, struct ucx_flow *flow);
bool ucx_flow_is_active(const struct ucx_flow *flow);
/* From now on it is waited for, if it is under way. */
void ucx_flow_want(struct ucx_flow *flow);
void ucx_flow_cancel(struct ucx_peer *peer, struct ucx_flow *flow);

/* ---- ucx_open.c ---- */

void ucx_close(struct coll *c);

/* ---- ucx_gang.c; all under the lock ---- */

ucs_status_t ucx_note_come(void *arg, const void *header, size_t header_size, void *data,
                           size_t size, const ucp_am_recv_param_t *param);
void ucx_peer_failed(void *arg, ucp_ep_h ep, ucs_status_t status);

/* Beats when it is time, and sees what has happened to the others. `is_owner`: called in an
 * operation, which only the owner may look at. Not ERR_OK: the gang is broken. */
enum err ucx_turn(struct ucx *u, bool is_owner, uint64_t now_ns, struct errbuf *eb);

/* Between operations: takes in what has come, and a turn. */
enum err ucx_look(struct ucx *u, struct errbuf *eb);

/* Breaks the gang and tells the others; the reason of whoever was first stands. */
enum err ucx_break(struct ucx *u, enum err code, struct errbuf *eb);

/* The same where a rank is gone, with ERR_UNAVAILABLE, unless it is heard in a tenth of a second
 * why the gang had ended before. */
enum err ucx_lost(struct ucx *u, struct errbuf *eb);

/* Sends a goodbye to those who are there, and gives it a moment. */
void ucx_leave(struct ucx *u);

/* Until a file wakes us, or for `ms`. */
void ucx_sleep(struct ucx *u, int ms);

void *ucx_beater_main(void *arg);

#define UCX_BEAT_NS 200000000u
/* A host whose link moves less than 20 MB/s is none for a gang. */
#define UCX_PATIENCE_NS_PER_BYTE 50u

#endif
#endif
