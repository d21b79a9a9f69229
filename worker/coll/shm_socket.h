/*
 * shm_socket.h - packets between the ranks of one host, with files attached. Internal to
 * worker/coll. Thread: any, one at a time for each socket.
 */
#ifndef CLOISTER_WORKER_COLL_SHM_SOCKET_H
#define CLOISTER_WORKER_COLL_SHM_SOCKET_H

#include "worker/coll/hello.h"

#include <sys/socket.h>
#include <sys/un.h>

#define SHM_PACKET_BYTES 512u
#define SHM_FILES_MAX    (COLL_RANKS_MAX + 1u)

/* What rank 0 says. A rank that calls says its hello, which begins otherwise. */
enum shm_packet_kind {
    SHM_PACKET_WELCOME = 1, /* rank 0's own hello follows: the caller is expected, and waits */
    SHM_PACKET_GO = 2,      /* the memory and the pidfds are attached */
    SHM_PACKET_REFUSED = 3, /* code and reason follow */
    SHM_PACKET_LATER = 4,   /* who listens here has an older epoch, and ends: call again */
};

struct shm_packet {
    size_t size; /* 0: the other side closed */
    uint8_t bytes[SHM_PACKET_BYTES];
    uint32_t n_files;
    int file[SHM_FILES_MAX];
};

/* The name that a group's ranks meet at; it does not tell the group id. */
socklen_t shm_socket_name(const uint8_t group[COLL_GROUP_BYTES], struct sockaddr_un *ret_name);

/* True where the other end belongs to this process's user. */
bool shm_socket_is_ours(int fd);

/* False: it could not be sent whole, and never will. */
bool shm_socket_send(int fd, const void *bytes, size_t size, const int files[], uint32_t n_files);

/* One packet, without waiting: false where there is none yet. Packets that are too long or carry
 * too many files come as 1 byte without files, which is no packet of ours. Ownership: the caller
 * closes the files. */
bool shm_socket_receive(int fd, struct shm_packet *ret_packet);
void shm_packet_fini(struct shm_packet *packet);

/* poll(2) for one file, until `deadline_ns` or 20 ms later, whichever is first. */
void shm_socket_wait(int fd, short events, uint64_t deadline_ns);

#endif
