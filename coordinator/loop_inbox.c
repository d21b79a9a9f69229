#include "coordinator/loop_inbox.h"

#include "common/check.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define BUCKETS 4096u /* a power of two */

const struct inbox_limits inbox_limits_default = {.requests = 65536, .bytes = 256u << 20};

struct waiting {
    struct waiting *next;
    struct transport_request *request;
};

/* Of one connection; there is one while something waits in it. */
struct queue {
    uint64_t connection;
    struct waiting *first, **last;
    struct queue *next_in_bucket;
    struct queue *next, *previous; /* in the ring */
};

struct inbox {
    struct inbox_limits limits;
    int wake_fd;
    pthread_mutex_t mutex; /* of all below */
    struct queue *buckets[BUCKETS];
    bool woken;         /* wake_fd is readable */
    struct queue *turn; /* the one in the ring that is next; NULL: all is empty */
    size_t n_queues;
    size_t requests, bytes;
    uint64_t dropped;
};

enum err inbox_open(struct inbox **ret_inbox, const struct inbox_limits *limits, struct errbuf *eb)
{
    struct inbox *in = calloc(1, sizeof *in);
    if (in == NULL)
        return err_set(eb, ERR_NO_MEMORY, "no memory for the inbox");
    in->limits = *limits;
    in->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (in->wake_fd < 0) {
        free(in);
        return err_set_errno(eb, errno, "eventfd");
    }
    CHECK(pthread_mutex_init(&in->mutex, NULL) == 0);
    *ret_inbox = in;
    return ERR_OK;
}

int inbox_fd(const struct inbox *in)
{
    return in->wake_fd;
}

/* ---- queues; the mutex is held ---- */

static struct queue *queue_find(const struct inbox *in, uint64_t connection)
{
    struct queue *q = in->buckets[connection % BUCKETS];
    while (q != NULL && q->connection != connection)
        q = q->next_in_bucket;
    return q;
}

/* Last in the ring: the others are served before. NULL when memory is refused. */
static struct queue *queue_new(struct inbox *in, uint64_t connection)
{
    struct queue *q = malloc(sizeof *q);
    if (q == NULL)
        return NULL;
    *q = (struct queue){.connection = connection,
                        .next_in_bucket = in->buckets[connection % BUCKETS]};
    q->last = &q->first;
    in->buckets[connection % BUCKETS] = q;
    if (in->turn == NULL) {
        q->next = q->previous = q;
        in->turn = q;
    } else {
        q->next = in->turn;
        q->previous = in->turn->previous;
        q->previous->next = q->next->previous = q;
    }
    in->n_queues++;
    return q;
}

static void queue_free(struct inbox *in, struct queue *q)
{
    struct queue **at = &in->buckets[q->connection % BUCKETS];
    while (*at != q)
        at = &(*at)->next_in_bucket;
    *at = q->next_in_bucket;
    q->previous->next = q->next;
    q->next->previous = q->previous;
    if (in->turn == q)
        in->turn = q->next != q ? q->next : NULL;
    in->n_queues--;
    free(q);
}

static struct waiting *queue_take(struct inbox *in, struct queue *q)
{
    struct waiting *w = q->first;
    size_t size;

    (void)transport_request_bytes(w->request, &size);
    q->first = w->next;
    w->next = NULL;
    in->requests--;
    in->bytes -= size;
    if (q->first == NULL)
        queue_free(in, q);
    return w;
}

static bool queue_put(struct inbox *in, struct transport_request *request, size_t size)
{
    uint64_t connection = transport_request_connection(request);
    struct queue *q = queue_find(in, connection);
    bool full = in->requests >= in->limits.requests ||
                (in->requests > 0 && in->bytes + size > in->limits.bytes);
    if (full && (q != NULL || size > INBOX_SMALL_BYTES))
        return false;
    struct waiting *w = malloc(sizeof *w);
    if (w == NULL || (q == NULL && (q = queue_new(in, connection)) == NULL)) {
        free(w);
        return false;
    }
    *w = (struct waiting){.request = request};
    *q->last = w;
    q->last = &w->next;
    in->requests++;
    in->bytes += size;
    return true;
}

/* ---- in and out ---- */

void inbox_push(void *inbox, struct transport_request *request)
{
    struct inbox *in = inbox;
    uint64_t one = 1;
    size_t size;

    (void)transport_request_bytes(request, &size);
    pthread_mutex_lock(&in->mutex);
    bool taken = queue_put(in, request, size);
    if (!taken)
        in->dropped++;
    else if (!in->woken)
        in->woken = write(in->wake_fd, &one, sizeof one) == sizeof one;
    pthread_mutex_unlock(&in->mutex);
    if (!taken)
        transport_request_free(request);
}

/* Frees the requests, without the mutex. */
static void waiting_free(struct waiting *list)
{
    while (list != NULL) {
        struct waiting *w = list;
        list = w->next;
        transport_request_free(w->request);
        free(w);
    }
}

struct transport_request *inbox_pop(struct inbox *in, bool *ret_waits)
{
    struct transport_request *request = NULL;
    struct waiting *dead = NULL;

    pthread_mutex_lock(&in->mutex);
    for (size_t left = in->n_queues; left > 0 && request == NULL; left--) {
        struct queue *q = in->turn;
        struct transport_way way = transport_request_way(q->first->request);
        in->turn = q->next;
        if (way.closed) {
            for (bool more = true; more;) {
                more = q->first->next != NULL;
                struct waiting *w = queue_take(in, q);
                w->next = dead;
                dead = w;
            }
        } else if (way.queued_bytes <= INBOX_UNTAKEN_BYTES) {
            struct waiting *w = queue_take(in, q);
            request = w->request;
            free(w);
        }
    }
    *ret_waits = request == NULL && in->requests > 0;
    pthread_mutex_unlock(&in->mutex);
    waiting_free(dead);
    return request;
}

void inbox_close(struct inbox *in)
{
    if (in == NULL)
        return;
    while (in->turn != NULL)
        waiting_free(queue_take(in, in->turn));
    close(in->wake_fd);
    pthread_mutex_destroy(&in->mutex);
    free(in);
}

void inbox_clear_wake(struct inbox *in)
{
    uint64_t n;
    pthread_mutex_lock(&in->mutex);
    if (in->woken)
        in->woken = read(in->wake_fd, &n, sizeof n) != sizeof n;
    pthread_mutex_unlock(&in->mutex);
}

uint64_t inbox_dropped(struct inbox *in)
{
    pthread_mutex_lock(&in->mutex);
    uint64_t n = in->dropped;
    pthread_mutex_unlock(&in->mutex);
    return n;
}
