#include "coordinator/loop_inbox.h"

#include "common/check.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define INBOX_REQUESTS_MAX 65536u
#define INBOX_BYTES_MAX    (256u << 20)

struct inbox {
    pthread_mutex_t mutex;
    struct transport_request *ring[INBOX_REQUESTS_MAX];
    size_t first, count;
    size_t bytes;
    uint64_t dropped;
    int wake_fd;
};

enum err inbox_open(struct inbox **ret_inbox, struct errbuf *eb)
{
    struct inbox *in = calloc(1, sizeof *in);
    if (in == NULL)
        return err_set(eb, ERR_NO_MEMORY, "no memory for the inbox");
    in->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (in->wake_fd < 0) {
        free(in);
        return err_set_errno(eb, errno, "eventfd");
    }
    CHECK(pthread_mutex_init(&in->mutex, NULL) == 0);
    *ret_inbox = in;
    return ERR_OK;
}

void inbox_close(struct inbox *in)
{
    struct transport_request *r;
    if (in == NULL)
        return;
    while ((r = inbox_pop(in)) != NULL)
        transport_request_free(r);
    close(in->wake_fd);
    pthread_mutex_destroy(&in->mutex);
    free(in);
}

int inbox_fd(const struct inbox *in)
{
    return in->wake_fd;
}

void inbox_push(void *inbox, struct transport_request *request)
{
    struct inbox *in = inbox;
    uint64_t one = 1;
    size_t size;
    bool full, was_empty;

    (void)transport_request_bytes(request, &size);
    pthread_mutex_lock(&in->mutex);
    was_empty = in->count == 0;
    full = in->count == INBOX_REQUESTS_MAX || (!was_empty && in->bytes + size > INBOX_BYTES_MAX);
    if (full) {
        in->dropped++;
    } else {
        in->ring[(in->first + in->count) % INBOX_REQUESTS_MAX] = request;
        in->count++;
        in->bytes += size;
    }
    pthread_mutex_unlock(&in->mutex);
    if (full)
        transport_request_free(request);
    else if (was_empty && write(in->wake_fd, &one, sizeof one) < 0)
        return; /* the counter is full, so the loop is awake already */
}

struct transport_request *inbox_pop(struct inbox *in)
{
    struct transport_request *r = NULL;
    size_t size;

    pthread_mutex_lock(&in->mutex);
    if (in->count > 0) {
        r = in->ring[in->first];
        in->first = (in->first + 1) % INBOX_REQUESTS_MAX;
        in->count--;
        (void)transport_request_bytes(r, &size);
        in->bytes -= size;
    }
    pthread_mutex_unlock(&in->mutex);
    return r;
}

void inbox_clear_wake(struct inbox *in)
{
    uint64_t n;
    if (read(in->wake_fd, &n, sizeof n) < 0)
        return; /* it was not set */
}

uint64_t inbox_dropped(struct inbox *in)
{
    pthread_mutex_lock(&in->mutex);
    uint64_t n = in->dropped;
    pthread_mutex_unlock(&in->mutex);
    return n;
}
