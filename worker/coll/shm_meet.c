#include "worker/coll/shm_meet.h"

#include "common/clock.h"
#include "worker/coll/coll_ops.h"
#include "worker/coll/shm_meet_host.h"
#include "worker/coll/shm_segment.h"
#include "worker/coll/shm_socket.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

void shm_meeting_fini(struct shm_meeting *meeting, uint32_t n_ranks)
{
    for (uint32_t r = 0; r < n_ranks; r++) {
        if (meeting->pidfd[r] >= 0)
            close(meeting->pidfd[r]);
        meeting->pidfd[r] = -1;
    }
    if (meeting->memory >= 0)
        close(meeting->memory);
    meeting->memory = -1;
}

/* ---- ranks 1 and up: call ---- */

enum shm_answer { SHM_ANSWER_GO, SHM_ANSWER_AGAIN, SHM_ANSWER_FAILED };

static enum err shm_refusal(const struct shm_packet *packet, uint32_t host, struct errbuf *eb)
{
    char text[SHM_PACKET_BYTES] = {0};
    const uint32_t code = packet->size >= 8 ? coll_get_u32(packet->bytes + 4) : 0;
    if (code == ERR_OK || coll_code(code) != code)
        return err_set(eb, ERR_CORRUPT, "rank %u refuses this rank with an unknown code %u", host,
                       code);
    memcpy(text, packet->bytes + 8, packet->size - 8);
    text[sizeof text - 1] = '\0';
    for (size_t i = 0; text[i] != '\0'; i++) {
        if (text[i] < ' ' || text[i] > '~')
            text[i] = '?';
    }
    return err_set(eb, (enum err)code, "refused by rank %u: %s", host, text);
}

static enum err shm_welcome(const struct coll_hello *mine, const struct shm_packet *packet,
                            struct errbuf *eb)
{
    struct coll_hello host;
    enum err e = coll_hello_decode(packet->bytes + 4, packet->size - 4, &host, eb);
    if (e == ERR_OK)
        e = coll_hello_check(mine, &host, eb);
    if (e == ERR_OK && host.rank != 0)
        e = err_set(eb, ERR_CONFLICT, "rank %u answers in the place of rank 0", host.rank);
    return e;
}

static enum err shm_go(const struct coll_hello *mine, struct shm_packet *packet,
                       struct shm_meeting *ret_meeting, struct errbuf *eb)
{
    if (packet->n_files != mine->n_ranks + 1)
        return err_set(eb, ERR_CORRUPT, "rank 0 sent %u files for a gang of %u", packet->n_files,
                       mine->n_ranks);
    ret_meeting->memory = packet->file[0];
    for (uint32_t r = 0; r < mine->n_ranks; r++)
        ret_meeting->pidfd[r] = packet->file[1 + r];
    packet->n_files = 0;
    return ERR_OK;
}

/* What rank 0 answers to the hello that was sent on `fd`. */
static enum shm_answer shm_listen(int fd, const struct coll_hello *mine,
                                  const struct coll_watch *watch, uint64_t deadline_ns,
                                  struct shm_meeting *ret_meeting, enum err *ret_e,
                                  struct errbuf *eb)
{
    struct shm_packet packet;
    bool is_welcome = false;
    for (;;) {
        if (!shm_socket_receive(fd, &packet)) {
            *ret_e = coll_forsaken(watch, mine->rank, eb);
            if (*ret_e != ERR_OK)
                return SHM_ANSWER_FAILED;
            if (clock_mono_ns() >= deadline_ns) {
                *ret_e = err_set(eb, ERR_TIMEOUT, "rank %u %s until the deadline", watch->name[0],
                                 is_welcome ? "waited for other ranks" : "did not answer");
                return SHM_ANSWER_FAILED;
            }
            shm_socket_wait(fd, POLLIN, deadline_ns);
            continue;
        }
        const uint32_t kind = packet.size >= 4 ? coll_get_u32(packet.bytes) : 0;
        enum err e = ERR_OK;
        /* Until it has welcomed this rank, who goes away may be the rank 0 of an older epoch. */
        if (!is_welcome && (packet.size == 0 || kind == SHM_PACKET_LATER)) {
            shm_packet_fini(&packet);
            return SHM_ANSWER_AGAIN;
        }
        if (packet.size == 0)
            e = err_set(eb, ERR_UNAVAILABLE, "rank %u went away before the gang was complete",
                        watch->name[0]);
        else if (kind == SHM_PACKET_REFUSED)
            e = shm_refusal(&packet, watch->name[0], eb);
        else if (kind == SHM_PACKET_WELCOME && !is_welcome)
            e = shm_welcome(mine, &packet, eb);
        else if (kind == SHM_PACKET_GO && is_welcome)
            e = shm_go(mine, &packet, ret_meeting, eb);
        else
            e = err_set(eb, ERR_CORRUPT, "rank 0 sent %zu bytes that make no sense", packet.size);
        shm_packet_fini(&packet);
        *ret_e = e;
        if (e != ERR_OK)
            return SHM_ANSWER_FAILED;
        if (is_welcome)
            return SHM_ANSWER_GO;
        is_welcome = true;
    }
}

static enum err shm_call(const struct coll_hello *mine, int self, const struct coll_watch *watch,
                         uint64_t deadline_ns, struct shm_meeting *ret_meeting, struct errbuf *eb)
{
    struct sockaddr_un name;
    const socklen_t name_bytes = shm_socket_name(mine->group, &name);
    uint8_t hello[COLL_HELLO_BYTES];
    coll_hello_encode(mine, hello);
    for (;;) {
        enum shm_answer answer = SHM_ANSWER_AGAIN;
        enum err e = coll_forsaken(watch, mine->rank, eb);
        if (e != ERR_OK)
            return e;
        int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0)
            return err_set_errno(eb, errno, "a socket to rank 0");
        if (connect(fd, (const struct sockaddr *)&name, name_bytes) == 0) {
            if (!shm_socket_is_ours(fd)) {
                close(fd);
                return err_set(eb, ERR_REFUSED, "who listens for this gang is of another user");
            }
            if (shm_socket_send(fd, hello, sizeof hello, &self, 1))
                answer = shm_listen(fd, mine, watch, deadline_ns, ret_meeting, &e, eb);
        } else if (errno != ECONNREFUSED && errno != EAGAIN && errno != EINTR) {
            e = err_set_errno(eb, errno, "calling rank 0");
            answer = SHM_ANSWER_FAILED;
        }
        close(fd);
        if (answer != SHM_ANSWER_AGAIN)
            return e;
        if (clock_mono_ns() >= deadline_ns)
            return err_set(eb, ERR_TIMEOUT, "rank %u did not come until the deadline",
                           watch->name[0]);
        (void)poll(NULL, 0, 5);
    }
}

/* ---- both ---- */

enum err shm_meet(const struct coll_hello *mine, const struct coll_watch *watch,
                  uint64_t deadline_ns, struct shm_meeting *ret_meeting, struct errbuf *eb)
{
    int self = (int)syscall(SYS_pidfd_open, getpid(), 0);
    if (self < 0)
        return err_set_errno(eb, errno, "pidfd_open (Linux 5.3 or newer)");
    struct shm_meeting meeting = {.memory = -1};
    memset(meeting.pidfd, -1, sizeof meeting.pidfd);
    enum err e = mine->rank == 0 ? shm_meet_host(mine, self, watch, deadline_ns, &meeting, eb)
                                 : shm_call(mine, self, watch, deadline_ns, &meeting, eb);
    close(self);
    if (e != ERR_OK) {
        shm_meeting_fini(&meeting, COLL_RANKS_MAX);
        return e;
    }
    *ret_meeting = meeting;
    return ERR_OK;
}
