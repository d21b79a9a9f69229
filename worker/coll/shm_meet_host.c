#include "worker/coll/shm_meet_host.h"

#include "common/clock.h"
#include "worker/coll/coll_ops.h"
#include "worker/coll/shm_segment.h"
#include "worker/coll/shm_socket.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define SHM_CALLERS_MAX  48u
#define SHM_SILENT_NS    1000000000u /* a caller's time for its hello */
#define SHM_REASON_BYTES (SHM_PACKET_BYTES - 8u)
/* How long a meeting that came to nothing tells so to ranks that call late. */
#define SHM_AWAY_NS 400000000u

_Static_assert(4 + COLL_HELLO_BYTES <= SHM_PACKET_BYTES, "a welcome is a packet");

struct shm_caller {
    int fd;
    int pidfd; /* of a rank that was let in; -1: none yet */
    uint32_t rank;
    uint64_t since_ns;
};

struct shm_host {
    const struct coll_hello *mine;
    const struct coll_watch *watch;
    int listener;
    uint32_t n_callers;
    uint32_t n_in; /* of them */
    enum err away; /* ERR_OK, or: the meeting came to nothing, and whoever calls is told */
    const char *away_why;
    uint32_t told; /* ranks that know, or are gone: a bit each */
    bool is_over;  /* a newer epoch has come: this one makes way */
    struct shm_caller caller[SHM_CALLERS_MAX];
};

static void shm_refuse(int fd, enum err code, const char *reason)
{
    uint8_t bytes[SHM_PACKET_BYTES];
    const size_t length = strnlen(reason, SHM_REASON_BYTES - 1);
    coll_put_u32(bytes, SHM_PACKET_REFUSED);
    coll_put_u32(bytes + 4, code);
    memcpy(bytes + 8, reason, length);
    (void)shm_socket_send(fd, bytes, 8 + length, NULL, 0);
}

static void shm_caller_drop(struct shm_host *host, uint32_t i)
{
    struct shm_caller *caller = &host->caller[i];
    close(caller->fd);
    if (caller->pidfd >= 0) {
        close(caller->pidfd);
        host->n_in--;
    }
    *caller = host->caller[--host->n_callers];
}

/* ---- who calls ---- */

static enum err shm_host_listen(struct shm_host *host, uint64_t deadline_ns, struct errbuf *eb)
{
    struct sockaddr_un name;
    const socklen_t name_bytes = shm_socket_name(host->mine->group, &name);
    host->listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (host->listener < 0)
        return err_set_errno(eb, errno, "a socket for the gang's ranks");
    while (bind(host->listener, (const struct sockaddr *)&name, name_bytes) != 0) {
        if (errno != EADDRINUSE)
            return err_set_errno(eb, errno, "a name for the gang's ranks");
        enum err e = coll_forsaken(host->watch, 0, eb);
        if (e != ERR_OK)
            return e;
        /* The rank 0 of an older epoch may be about to end. */
        if (clock_mono_ns() >= deadline_ns)
            return err_set(eb, ERR_TIMEOUT, "another rank 0 of this gang listens already");
        (void)poll(NULL, 0, 5);
    }
    if (listen(host->listener, SHM_CALLERS_MAX) != 0)
        return err_set_errno(eb, errno, "listening for the gang's ranks");
    return ERR_OK;
}

static void shm_host_accept(struct shm_host *host)
{
    for (;;) {
        int fd = accept4(host->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd < 0)
            return;
        if (!shm_socket_is_ours(fd)) {
            close(fd);
            continue;
        }
        /* There is room for every rank: the one that has been silent longest is none. */
        if (host->n_callers == SHM_CALLERS_MAX) {
            uint32_t oldest = SHM_CALLERS_MAX;
            for (uint32_t i = 0; i < host->n_callers; i++) {
                if (host->caller[i].pidfd < 0 &&
                    (oldest == SHM_CALLERS_MAX ||
                     host->caller[i].since_ns < host->caller[oldest].since_ns))
                    oldest = i;
            }
            shm_caller_drop(host, oldest);
        }
        host->caller[host->n_callers++] = (struct shm_caller){fd, -1, 0, clock_mono_ns()};
    }
}

/* ---- what they say ---- */

static bool shm_host_has(const struct shm_host *host, uint32_t rank)
{
    for (uint32_t i = 0; i < host->n_callers; i++) {
        if (host->caller[i].pidfd >= 0 && host->caller[i].rank == rank)
            return true;
    }
    return false;
}

/* ERR_OK: let in, *ret_rank being who it is. Else a refusal; *ret_is_fatal where the gang can come
 * to nothing. */
static enum err shm_host_judge(struct shm_host *host, const struct shm_packet *packet,
                               uint32_t *ret_rank, bool *ret_is_fatal, struct errbuf *eb)
{
    const struct coll_hello *mine = host->mine;
    struct coll_hello theirs;
    *ret_is_fatal = false;
    enum err e = coll_hello_decode(packet->bytes, packet->size, &theirs, eb);
    if (e != ERR_OK)
        return e;
    const bool is_peer = coll_hello_is_peer(mine, &theirs);
    e = coll_hello_check(mine, &theirs, eb);
    host->is_over = e == ERR_STALE && !is_peer && theirs.epoch > mine->epoch;
    *ret_is_fatal = host->is_over || (is_peer && e != ERR_OK);
    if (is_peer && theirs.rank < mine->n_ranks && (e != ERR_OK || host->away != ERR_OK))
        host->told |= 1u << theirs.rank;
    if (is_peer && e == ERR_OK && host->away != ERR_OK)
        e = err_set(eb, host->away, "%s", host->away_why);
    if (e != ERR_OK)
        return e;
    if (shm_host_has(host, theirs.rank))
        return err_set(eb, ERR_CONFLICT, "rank %u is there already", theirs.rank);
    if (packet->n_files != 1)
        return err_set(eb, ERR_CORRUPT, "rank %u sent %u files with its hello", theirs.rank,
                       packet->n_files);
    *ret_rank = theirs.rank;
    return ERR_OK;
}

/* A caller's packet. Not ERR_OK: the gang comes to nothing. */
static enum err shm_host_hear(struct shm_host *host, uint32_t i, struct errbuf *eb)
{
    struct shm_caller *caller = &host->caller[i];
    struct shm_packet packet;
    struct errbuf why = {{0}};
    bool is_fatal = false;
    uint8_t welcome[4 + COLL_HELLO_BYTES];
    if (!shm_socket_receive(caller->fd, &packet))
        return ERR_OK;
    if (caller->pidfd >= 0) {
        const uint32_t rank = caller->rank;
        shm_packet_fini(&packet);
        if (packet.size == 0) {
            host->told |= 1u << rank;
            shm_caller_drop(host, i);
            return err_set(eb, ERR_UNAVAILABLE, "rank %u went away before the gang was complete",
                           host->watch->name[rank]);
        }
        return err_set(eb, ERR_CORRUPT, "rank %u sent %zu bytes that make no sense",
                       host->watch->name[rank], packet.size);
    }
    enum err e = packet.size == 0 ? err_set(&why, ERR_UNAVAILABLE, "gone")
                                  : shm_host_judge(host, &packet, &caller->rank, &is_fatal, &why);
    if (e == ERR_OK) {
        coll_put_u32(welcome, SHM_PACKET_WELCOME);
        coll_hello_encode(host->mine, welcome + 4);
        if (shm_socket_send(caller->fd, welcome, sizeof welcome, NULL, 0)) {
            caller->pidfd = packet.file[0];
            host->n_in++;
            return ERR_OK;
        }
    }
    shm_packet_fini(&packet);
    if (is_fatal && host->is_over) {
        /* It is this rank whose epoch is over; the caller waits for its own rank 0. */
        coll_put_u32(welcome, SHM_PACKET_LATER);
        (void)shm_socket_send(caller->fd, welcome, 4, NULL, 0);
    } else if (e != ERR_OK && packet.size > 0) {
        shm_refuse(caller->fd, e, why.text);
    }
    shm_caller_drop(host, i);
    return is_fatal ? err_set(eb, e, "%s", why.text) : ERR_OK;
}

/* ---- until all are there ---- */

static enum err shm_host_missing(const struct shm_host *host, struct errbuf *eb)
{
    char missing[4 * COLL_RANKS_MAX + 1] = "";
    size_t length = 0;
    for (uint32_t r = 1; r < host->mine->n_ranks; r++) {
        if (!shm_host_has(host, r))
            length += (size_t)snprintf(missing + length, sizeof missing - length, "%s%u",
                                       length > 0 ? ", " : "", host->watch->name[r]);
    }
    return err_set(eb, ERR_TIMEOUT, "rank %s did not come until the deadline", missing);
}

static enum err shm_host_turn(struct shm_host *host, uint64_t deadline_ns, struct errbuf *eb)
{
    struct pollfd p[1 + SHM_CALLERS_MAX];
    const uint32_t n = host->n_callers;
    const uint64_t now = clock_mono_ns();
    enum err stopped = coll_forsaken(host->watch, 0, eb);
    if (stopped != ERR_OK)
        return stopped;
    if (now >= deadline_ns)
        return shm_host_missing(host, eb);
    for (uint32_t i = 0; i < n; i++)
        p[1 + i] = (struct pollfd){.fd = host->caller[i].fd, .events = POLLIN};
    p[0] = (struct pollfd){.fd = host->listener, .events = POLLIN};
    const uint64_t left_ms = (deadline_ns - now) / 1000000u + 1;
    if (poll(p, 1 + n, left_ms < 100 ? (int)left_ms : 100) < 0 && errno != EINTR)
        return err_set_errno(eb, errno, "waiting for the gang's ranks");
    /* Downwards: who is dropped is replaced by the last, which was heard already. */
    for (uint32_t i = n; i-- > 0;) {
        enum err e = p[1 + i].revents != 0 ? shm_host_hear(host, i, eb) : ERR_OK;
        if (e != ERR_OK)
            return e;
    }
    for (uint32_t i = host->n_callers; i-- > 0;) {
        if (host->caller[i].pidfd < 0 && now - host->caller[i].since_ns > SHM_SILENT_NS &&
            now > host->caller[i].since_ns)
            shm_caller_drop(host, i);
    }
    if (p[0].revents != 0)
        shm_host_accept(host);
    return ERR_OK;
}

/* The files of the meeting to all. One that they do not reach is found missing at the first
 * barrier, by its pidfd or by the deadline. */
static enum err shm_host_go(struct shm_host *host, int self, struct shm_meeting *ret_meeting,
                            struct errbuf *eb)
{
    int files[SHM_FILES_MAX];
    uint8_t go[4];
    const uint32_t n_ranks = host->mine->n_ranks;
    enum err e = shm_segment_make(host->mine->bytes_max, &ret_meeting->memory, eb);
    if (e != ERR_OK)
        return e;
    ret_meeting->pidfd[0] = fcntl(self, F_DUPFD_CLOEXEC, 0);
    if (ret_meeting->pidfd[0] < 0)
        return err_set_errno(eb, errno, "another file of this process");
    for (uint32_t i = host->n_callers; i-- > 0;) {
        struct shm_caller *caller = &host->caller[i];
        if (caller->pidfd < 0)
            continue;
        ret_meeting->pidfd[caller->rank] = caller->pidfd;
    }
    files[0] = ret_meeting->memory;
    memcpy(files + 1, ret_meeting->pidfd, n_ranks * sizeof files[0]);
    coll_put_u32(go, SHM_PACKET_GO);
    for (uint32_t i = 0; i < host->n_callers; i++) {
        if (host->caller[i].pidfd >= 0)
            (void)shm_socket_send(host->caller[i].fd, go, sizeof go, files, 1 + n_ranks);
        host->caller[i].pidfd = -1; /* the meeting's now */
    }
    host->n_in = 0;
    return ERR_OK;
}

/* The meeting came to nothing, for `e` and `why`: every rank is told, those that call late too,
 * until the deadline or until a newer epoch comes. */
static void shm_host_turn_away(struct shm_host *host, enum err e, const char *why,
                               uint64_t deadline_ns)
{
    const uint32_t all = (1u << host->mine->n_ranks) - 1;
    struct errbuf eb = {{0}};
    host->away = e;
    host->away_why = why;
    for (uint32_t i = host->n_callers; i-- > 0;) {
        if (host->caller[i].pidfd < 0)
            continue;
        host->told |= 1u << host->caller[i].rank;
        shm_refuse(host->caller[i].fd, e, why);
        shm_caller_drop(host, i);
    }
    host->told |= 1u;
    /* What else goes wrong with a rank is no news any more. */
    while (host->told != all && !host->is_over && clock_mono_ns() < deadline_ns &&
           coll_forsaken(host->watch, 0, &eb) == ERR_OK)
        (void)shm_host_turn(host, deadline_ns, &eb);
}

enum err shm_meet_host(const struct coll_hello *mine, int self, const struct coll_watch *watch,
                       uint64_t deadline_ns, struct shm_meeting *ret_meeting, struct errbuf *eb)
{
    struct shm_host host = {.mine = mine, .watch = watch, .listener = -1};
    struct errbuf why = {{0}};
    enum err e = mine->n_ranks > 1 ? shm_host_listen(&host, deadline_ns, &why) : ERR_OK;
    const bool is_listening = host.listener >= 0 && e == ERR_OK;
    if (e == ERR_OK && mine->declined != ERR_OK)
        e = err_set(&why, mine->declined, "rank 0 does not come: %s", mine->why);
    while (e == ERR_OK && host.n_in + 1 < mine->n_ranks)
        e = shm_host_turn(&host, deadline_ns, &why);
    if (e == ERR_OK)
        e = shm_host_go(&host, self, ret_meeting, &why);
    if (e != ERR_OK && is_listening) {
        const uint64_t until = clock_mono_ns() + SHM_AWAY_NS;
        shm_host_turn_away(&host, e, why.text, until < deadline_ns ? until : deadline_ns);
    }
    while (host.n_callers > 0)
        shm_caller_drop(&host, 0);
    if (host.listener >= 0)
        close(host.listener);
    return e == ERR_OK ? ERR_OK : err_set(eb, e, "%s", why.text);
}
