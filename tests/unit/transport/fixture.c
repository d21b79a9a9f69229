#include "tests/unit/transport/fixture.h"

#include "common/check.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static void server_request(void *arg, struct transport_request *request)
{
    struct test_server *t = arg;
    size_t size;
    const void *bytes = transport_request_bytes(request, &size);

    (void)pthread_mutex_lock(&t->lock);
    t->n_seen++;
    bool keep = t->keep;
    if (keep) {
        CHECK(t->n_held < sizeof t->held / sizeof t->held[0]);
        t->held[t->n_held++] = request;
    }
    struct transport_server *server = t->server;
    (void)pthread_cond_broadcast(&t->changed);
    (void)pthread_mutex_unlock(&t->lock);
    if (!keep)
        (void)transport_request_reply(server, request, bytes, size, NULL);
}

void test_server_open(struct test_server *t, uint16_t port, const struct transport_tls *tls,
                      bool keep)
{
    struct errbuf eb = {{0}};
    struct transport_endpoint endpoint = {.url = t->url};
    const char *scheme = tls != NULL ? "tls+tcp" : "tcp";

    memset(t, 0, sizeof *t);
    CHECK(pthread_mutex_init(&t->lock, NULL) == 0 && pthread_cond_init(&t->changed, NULL) == 0);
    t->keep = keep;
    (void)snprintf(t->url, sizeof t->url, "%s://127.0.0.1:%u", scheme, port);
    if (tls != NULL)
        endpoint.tls = *tls;
    /* Requests of a client that is dialing already may come before open returns. */
    (void)pthread_mutex_lock(&t->lock);
    enum err err = transport_server_open(&t->server, &endpoint, server_request, t, &eb);
    if (err != ERR_OK)
        (void)fprintf(stderr, "%s\n", eb.text);
    CHECK(err == ERR_OK);
    (void)pthread_mutex_unlock(&t->lock);
    (void)snprintf(t->url, sizeof t->url, "%s://127.0.0.1:%u", scheme,
                   transport_server_port(t->server));
}

void test_server_close(struct test_server *t)
{
    (void)pthread_mutex_lock(&t->lock);
    for (size_t i = 0; i < t->n_held; i++)
        transport_request_free(t->held[i]);
    t->n_held = 0;
    (void)pthread_mutex_unlock(&t->lock);
    transport_server_close(t->server);
    /* What came while it closed. */
    for (size_t i = 0; i < t->n_held; i++)
        transport_request_free(t->held[i]);
    (void)pthread_cond_destroy(&t->changed);
    (void)pthread_mutex_destroy(&t->lock);
}

uint16_t test_server_port(const struct test_server *t)
{
    return transport_server_port(t->server);
}

void test_server_wait_held(struct test_server *t, size_t n)
{
    (void)pthread_mutex_lock(&t->lock);
    while (t->n_held < n)
        (void)pthread_cond_wait(&t->changed, &t->lock);
    (void)pthread_mutex_unlock(&t->lock);
}

void test_server_echo_held(struct test_server *t, size_t index)
{
    size_t size;
    const void *bytes = transport_request_bytes(t->held[index], &size);
    CHECK(transport_request_reply(t->server, t->held[index], bytes, size, NULL) == ERR_OK);
    t->held[index] = NULL;
}

struct transport_client *test_client_open(const char *url, const struct transport_tls *tls)
{
    struct errbuf eb = {{0}};
    struct transport_endpoint endpoint = {.url = url};
    struct transport_client *client;
    if (tls != NULL)
        endpoint.tls = *tls;
    enum err err = transport_client_open(&client, &endpoint, &eb);
    if (err != ERR_OK)
        (void)fprintf(stderr, "%s\n", eb.text);
    CHECK(err == ERR_OK);
    return client;
}

static void call_reply(void *arg, enum err err, const void *reply, size_t reply_size)
{
    struct test_call *t = arg;

    (void)pthread_mutex_lock(&t->lock);
    t->replies++;
    t->err = err;
    t->size = reply_size;
    CHECK((reply != NULL) == (err == ERR_OK));
    if (reply != NULL)
        memcpy(t->bytes, reply, reply_size < sizeof t->bytes ? reply_size : sizeof t->bytes);
    (void)pthread_cond_broadcast(&t->changed);
    (void)pthread_mutex_unlock(&t->lock);
}

void test_call_start(struct test_call *t, struct transport_client *c, const void *bytes,
                     size_t size, uint32_t timeout_ms)
{
    memset(t, 0, sizeof *t);
    CHECK(pthread_mutex_init(&t->lock, NULL) == 0 && pthread_cond_init(&t->changed, NULL) == 0);
    CHECK(transport_call_start(c, bytes, size, timeout_ms, call_reply, t, &t->call, NULL) ==
          ERR_OK);
}

enum err test_call_wait(struct test_call *t)
{
    (void)pthread_mutex_lock(&t->lock);
    while (t->replies == 0)
        (void)pthread_cond_wait(&t->changed, &t->lock);
    enum err err = t->err;
    (void)pthread_mutex_unlock(&t->lock);
    return err;
}

void test_call_end(struct test_call *t)
{
    transport_call_free(t->call);
    CHECK(t->replies == 1);
    (void)pthread_cond_destroy(&t->changed);
    (void)pthread_mutex_destroy(&t->lock);
}

static struct sockaddr_in loopback(uint16_t port)
{
    return (struct sockaddr_in){
        .sin_family = AF_INET,
        .sin_port = htons(port),
        .sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)},
    };
}

int test_tcp_connect(uint16_t port)
{
    struct sockaddr_in address = loopback(port);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address) == 0);
    return fd;
}

uint16_t test_port_free(void)
{
    struct sockaddr_in address = loopback(0);
    socklen_t size = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof address) == 0);
    CHECK(getsockname(fd, (struct sockaddr *)&address, &size) == 0 && close(fd) == 0);
    return ntohs(address.sin_port);
}

void test_sleep_ms(unsigned ms)
{
    struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};
    (void)nanosleep(&t, NULL);
}
