#include "worker/coll/shm_socket.h"

#include "common/clock.h"
#include "common/crypto.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

socklen_t shm_socket_name(const uint8_t group[COLL_GROUP_BYTES], struct sockaddr_un *ret_name)
{
    uint8_t digest[SHA256_BYTES];
    char hex[SHA256_HEX_BYTES];
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    sha256(group, COLL_GROUP_BYTES, digest);
    hex_encode(digest, sizeof digest, hex);
    /* sun_path[0] stays 0: an abstract name, gone with its socket. */
    int n = snprintf(name.sun_path + 1, sizeof name.sun_path - 1, "cloister-coll/%.32s", hex);
    *ret_name = name;
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n);
}

bool shm_socket_is_ours(int fd)
{
    struct ucred peer;
    socklen_t size = sizeof peer;
    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 && peer.uid == geteuid();
}

bool shm_socket_send(int fd, const void *bytes, size_t size, const int files[], uint32_t n_files)
{
    union {
        struct cmsghdr align;
        uint8_t bytes[CMSG_SPACE(sizeof(int) * SHM_FILES_MAX)];
    } control = {0};
    struct iovec data = {(void *)(uintptr_t)bytes, size};
    struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1};
    if (n_files > 0) {
        message.msg_control = control.bytes;
        message.msg_controllen = CMSG_SPACE(sizeof(int) * n_files);
        struct cmsghdr *head = CMSG_FIRSTHDR(&message);
        head->cmsg_level = SOL_SOCKET;
        head->cmsg_type = SCM_RIGHTS;
        head->cmsg_len = CMSG_LEN(sizeof(int) * n_files);
        memcpy(CMSG_DATA(head), files, sizeof(int) * n_files);
    }
    ssize_t sent;
    do
        sent = sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    while (sent < 0 && errno == EINTR);
    return sent == (ssize_t)size;
}

/* Takes what files there are, so that none stays open unseen. */
static void shm_socket_files(struct msghdr *message, struct shm_packet *packet)
{
    for (struct cmsghdr *head = CMSG_FIRSTHDR(message); head != NULL;
         head = CMSG_NXTHDR(message, head)) {
        if (head->cmsg_level != SOL_SOCKET || head->cmsg_type != SCM_RIGHTS)
            continue;
        const size_t n = (head->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < n; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(head) + i * sizeof fd, sizeof fd);
            if (packet->n_files < SHM_FILES_MAX)
                packet->file[packet->n_files++] = fd;
            else
                close(fd);
        }
    }
}

bool shm_socket_receive(int fd, struct shm_packet *ret_packet)
{
    union {
        struct cmsghdr align;
        uint8_t bytes[CMSG_SPACE(sizeof(int) * SHM_FILES_MAX)];
    } control = {0};
    struct shm_packet *packet = ret_packet;
    struct iovec data = {packet->bytes, sizeof packet->bytes};
    struct msghdr message = {.msg_iov = &data,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof control.bytes};
    packet->size = 0;
    packet->n_files = 0;
    ssize_t got;
    do
        got = recvmsg(fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    while (got < 0 && errno == EINTR);
    if (got < 0)
        return errno != EAGAIN && errno != EWOULDBLOCK; /* a lost connection: size 0 */
    shm_socket_files(&message, packet);
    packet->size = (size_t)got;
    if ((message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0) {
        shm_packet_fini(packet);
        packet->bytes[0] = 0;
        packet->size = 1;
    }
    return true;
}

void shm_packet_fini(struct shm_packet *packet)
{
    for (uint32_t i = 0; i < packet->n_files; i++)
        close(packet->file[i]);
    packet->n_files = 0;
}

void shm_socket_wait(int fd, short events, uint64_t deadline_ns)
{
    struct pollfd p = {.fd = fd, .events = events};
    const uint64_t now = clock_mono_ns();
    const uint64_t left_ms = deadline_ns > now ? (deadline_ns - now) / 1000000u + 1 : 0;
    (void)poll(&p, 1, left_ms < 20 ? (int)left_ms : 20);
}
