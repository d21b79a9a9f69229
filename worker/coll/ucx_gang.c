#include "common/clock.h"
#include "worker/coll/hello.h"
#include "worker/coll/ucx.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* How long a farewell may take to be handed to the network. */
#define UCX_FAREWELL_NS 200000000u
#define UCX_HEAR_NS     250000000u /* others may be saying why a rank that is gone ended */

static struct ucx_peer *ucx_peer_at(struct ucx *u, uint32_t rank)
{
    return &u->peer[rank];
}

/* ---- sending notes ---- */

static void ucx_note_sent(void *request, ucs_status_t status, void *arg)
{
    struct ucx_peer *peer = arg;
    (void)status;
    peer->gang->notes_under_way--;
    peer->gang->lib->ucp_request_free(request);
}

static void ucx_beat_sent(void *request, ucs_status_t status, void *arg)
{
    struct ucx_peer *peer = arg;
    peer->is_beating = false;
    ucx_note_sent(request, status, arg);
}

/* True where it is under way still: then `sent` is called. */
static bool ucx_note_send(struct ucx_peer *peer, const struct ucx_note *note,
                          ucp_send_nbx_callback_t sent)
{
    struct ucx *u = peer->gang;
    const ucp_request_param_t param = {
        .op_attr_mask =
            UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA | UCP_OP_ATTR_FIELD_FLAGS,
        .cb.send = sent,
        .user_data = peer,
        .flags = UCP_AM_SEND_FLAG_EAGER,
    };
    const size_t size = UCX_NOTE_HEAD_BYTES + strnlen(note->text, sizeof note->text - 1) + 1;
    void *request = u->lib->ucp_am_send_nbx(peer->ep, 0, note, size, NULL, 0, &param);
    if (!UCS_PTR_IS_PTR(request))
        return false;
    u->notes_under_way++;
    return true;
}

static bool ucx_is_there(const struct ucx_peer *peer)
{
    return peer->ep != NULL && !peer->is_gone && !peer->has_left;
}

static void ucx_note_all(struct ucx *u, enum ucx_note_kind kind, enum err code, const char *text)
{
    memcpy(u->farewell.token, u->token, sizeof u->token);
    coll_put_u32(u->farewell.kind, kind);
    coll_put_u32(u->farewell.rank, u->base.rank);
    coll_put_u32(u->farewell.code, code);
    (void)snprintf(u->farewell.text, sizeof u->farewell.text, "%s", text);
    for (uint32_t r = 0; r < u->base.n_ranks; r++) {
        if (ucx_is_there(ucx_peer_at(u, r)))
            (void)ucx_note_send(ucx_peer_at(u, r), &u->farewell, ucx_note_sent);
    }
    const uint64_t until = clock_mono_ns() + UCX_FAREWELL_NS;
    do
        (void)u->lib->ucp_worker_progress(u->worker);
    while (u->notes_under_way > 0 && clock_mono_ns() < until);
}

/* ---- a gang that breaks ---- */

enum err ucx_break(struct ucx *u, enum err code, struct errbuf *eb)
{
    if (u->broken == ERR_OK) {
        u->broken = code;
        u->reason = *eb;
        ucx_note_all(u, UCX_NOTE_ABORT, code, eb->text);
    }
    return err_set(eb, u->broken, "%s", u->reason.text);
}

/* Who ends a gang tells all ranks and may then be gone before the last has heard why; so may the
 * first to hear it. */
enum err ucx_lost(struct ucx *u, struct errbuf *eb)
{
    const uint64_t until = clock_mono_ns() + UCX_HEAR_NS;
    const struct timespec pause = {.tv_nsec = 1000000};
    while (u->broken == ERR_OK && clock_mono_ns() < until) {
        if (u->lib->ucp_worker_progress(u->worker) == 0)
            (void)nanosleep(&pause, NULL);
    }
    return ucx_break(u, ERR_UNAVAILABLE, eb);
}

/* What this rank was told from outside: to break the gang, or to stop. */
static enum err ucx_told(struct ucx *u, struct errbuf *eb)
{
    enum err e = ERR_OK;
    if (atomic_load(&u->is_abort_asked)) {
        pthread_mutex_lock(&u->abort_lock);
        e = err_set(eb, ERR_CANCELLED, "rank %u ended the gang: %s",
                    coll_name(&u->base, u->base.rank), u->abort_why);
        pthread_mutex_unlock(&u->abort_lock);
    } else {
        e = coll_stopped(&u->base.watch, u->base.rank, eb);
    }
    return e == ERR_OK ? ERR_OK : ucx_break(u, e, eb);
}

void ucx_leave(struct ucx *u)
{
    struct errbuf eb;
    if (u->broken == ERR_OK)
        (void)ucx_told(u, &eb); /* perhaps nobody looked since */
    if (u->broken == ERR_OK && u->worker != NULL)
        ucx_note_all(u, UCX_NOTE_LEAVE, ERR_OK, "");
}

void ucx_peer_failed(void *arg, ucp_ep_h ep, ucs_status_t status)
{
    struct ucx_peer *peer = arg;
    (void)ep;
    if (!peer->is_gone)
        peer->gone_ns = clock_mono_ns();
    peer->is_gone = true;
    peer->why = status;
}

ucs_status_t ucx_note_come(void *arg, const void *header, size_t header_size, void *data,
                           size_t size, const ucp_am_recv_param_t *param)
{
    struct ucx *u = arg;
    struct ucx_note note;
    (void)data;
    (void)size;
    (void)param;
    if (header_size <= UCX_NOTE_HEAD_BYTES || header_size > sizeof note)
        return UCS_OK;
    memset(&note, 0, sizeof note);
    memcpy(&note, header, header_size);
    const uint32_t rank = coll_get_u32(note.rank);
    const uint32_t code = coll_get_u32(note.code);
    if (memcmp(note.token, u->token, sizeof u->token) != 0 || rank >= u->base.n_ranks ||
        rank == u->base.rank)
        return UCS_OK; /* a stranger's */
    note.text[sizeof note.text - 1] = '\0';
    struct ucx_peer *peer = ucx_peer_at(u, rank);
    peer->heard_ns = clock_mono_ns();
    switch ((enum ucx_note_kind)coll_get_u32(note.kind)) {
    case UCX_NOTE_BEAT:
        break;
    case UCX_NOTE_LEAVE:
        peer->has_left = true;
        break;
    case UCX_NOTE_ABORT:
        if (u->broken == ERR_OK)
            u->broken = err_set(&u->reason, coll_code(code), "%s", note.text);
        break;
    }
    return UCS_OK;
}

/* ---- who is still there ---- */

/* True where the operation in progress waits for something of this rank. */
static bool ucx_is_awaited(struct ucx_peer *peer)
{
    const bool has_sent = ucx_flow_done(peer, &peer->send);
    const bool has_received = ucx_flow_done(peer, &peer->receive);
    const bool has_receipt = ucx_flow_done(peer, &peer->receipt);
    return !has_sent || !has_received || !has_receipt;
}

/* ret_text: what became of a rank; false where nothing did. */
static bool ucx_is_lost(const struct ucx *u, const struct ucx_peer *peer, bool is_awaited,
                        uint64_t now_ns, char ret_text[COLL_SUBJECT_BYTES])
{
    if (peer->has_left) {
        (void)snprintf(ret_text, COLL_SUBJECT_BYTES, "left the gang");
        return is_awaited;
    }
    if (peer->is_gone) {
        /* As in ucx_lost, but nobody waits here: the next look may find it. */
        if (now_ns < peer->gone_ns + UCX_HEAR_NS)
            return false;
        (void)snprintf(ret_text, COLL_SUBJECT_BYTES, "ended (%s)",
                       u->lib->ucs_status_string(peer->why));
        return true;
    }
    if (peer->heard_ns == 0 || now_ns < peer->heard_ns ||
        now_ns - peer->heard_ns <= u->silence_ns + u->patience_ns)
        return false;
    (void)snprintf(ret_text, COLL_SUBJECT_BYTES, "was not heard for %llu ms",
                   (unsigned long long)((now_ns - peer->heard_ns) / 1000000u));
    return true;
}

static enum err ucx_look_around(struct ucx *u, bool is_owner, uint64_t now_ns, struct errbuf *eb)
{
    struct coll *c = &u->base;
    char subject[COLL_SUBJECT_BYTES], wanted[COLL_SUBJECT_BYTES], fate[COLL_SUBJECT_BYTES];
    for (uint32_t r = 0; r < c->n_ranks; r++) {
        struct ucx_peer *peer = ucx_peer_at(u, r);
        const bool is_awaited = ucx_is_awaited(peer);
        if (!ucx_is_lost(u, peer, is_awaited, now_ns, fate))
            continue;
        if (!is_owner) {
            (void)coll_lost(c, r, fate, u->n_ended, eb);
            return ucx_break(u, ERR_UNAVAILABLE, eb);
        }
        const uint32_t seq = c->op.seq - (peer->receipt.is_wanted ? 1 : 0);
        if (is_awaited || coll_awaits(&c->op, c->rank, r))
            coll_wanted(c, r, seq, wanted);
        else
            (void)snprintf(wanted, sizeof wanted, "others");
        err_set(eb, ERR_UNAVAILABLE, "%s %s while rank %u waited for %s",
                coll_subject(c, r, subject), fate, coll_name(c, c->rank), wanted);
        return ucx_break(u, ERR_UNAVAILABLE, eb);
    }
    return ERR_OK;
}

static void ucx_beat(struct ucx *u, uint64_t now_ns)
{
    u->beat_at_ns = now_ns + UCX_BEAT_NS;
    for (uint32_t r = 0; r < u->base.n_ranks; r++) {
        struct ucx_peer *peer = ucx_peer_at(u, r);
        if (ucx_is_there(peer) && !peer->is_beating)
            peer->is_beating = ucx_note_send(peer, &u->beat, ucx_beat_sent);
    }
}

enum err ucx_turn(struct ucx *u, bool is_owner, uint64_t now_ns, struct errbuf *eb)
{
    if (u->broken != ERR_OK)
        return err_set(eb, u->broken, "%s", u->reason.text);
    enum err e = ucx_told(u, eb);
    if (e != ERR_OK)
        return e;
    if (now_ns >= u->beat_at_ns)
        ucx_beat(u, now_ns);
    return ucx_look_around(u, is_owner, now_ns, eb);
}

/* ---- between operations ---- */

void ucx_sleep(struct ucx *u, int ms)
{
    struct pollfd p[2] = {{.fd = u->worker_fd, .events = POLLIN},
                          {.fd = u->wake_owner, .events = POLLIN}};
    uint64_t count;
    if (u->lib->ucp_worker_arm(u->worker) != UCS_OK)
        return; /* something came in between */
    if (poll(p, 2, ms) > 0 && p[1].revents != 0)
        (void)!read(u->wake_owner, &count, sizeof count);
}

enum err ucx_look(struct ucx *u, struct errbuf *eb)
{
    for (unsigned i = 0; i < 1000 && u->lib->ucp_worker_progress(u->worker) != 0; i++)
        ;
    return ucx_turn(u, false, clock_mono_ns(), eb);
}

void *ucx_beater_main(void *arg)
{
    struct ucx *u = arg;
    struct pollfd p = {.fd = u->wake_beater, .events = POLLIN};
    uint64_t count;
    sigset_t all;
    /* Signals are the program's, not this thread's. */
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, NULL);
    while (!atomic_load(&u->is_ending)) {
        struct errbuf eb;
        if (poll(&p, 1, UCX_BEAT_NS / 2000000u) > 0)
            (void)!read(u->wake_beater, &count, sizeof count);
        if (pthread_mutex_trylock(&u->lock) != 0)
            continue; /* the owner is at it */
        (void)ucx_look(u, &eb);
        pthread_mutex_unlock(&u->lock);
    }
    return NULL;
}
