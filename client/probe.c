/* Why does nobody answer? nng dials in the background and does not say, so ask the system once. */
#include "client/connection.h"

#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define PROBE_TIMEOUT_MS 1000

/* "tcp://HOST:PORT" or "tls+tcp://[V6]:PORT" into its two parts. */
static bool probe_split(const char *url, char *ret_host, size_t host_bytes, char *ret_port,
                        size_t port_bytes)
{
    const char *host = strstr(url, "://");
    const char *colon = host ? strrchr(host + 3, ':') : NULL;
    if (!colon)
        return false;
    host += 3;
    size_t size = (size_t)(colon - host);
    if (size >= 2 && host[0] == '[' && host[size - 1] == ']') {
        host++;
        size -= 2;
    }
    if (size == 0 || size >= host_bytes || strlen(colon + 1) >= port_bytes)
        return false;
    memcpy(ret_host, host, size);
    ret_host[size] = 0;
    strcpy(ret_port, colon + 1);
    return true;
}

/* 0: connected; else errno's value. */
static int probe_connect(const struct addrinfo *address)
{
    int fd = socket(address->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return errno;
    int result = 0;
    if (connect(fd, address->ai_addr, address->ai_addrlen) < 0)
        result = errno;
    if (result == EINPROGRESS) {
        struct pollfd p = {.fd = fd, .events = POLLOUT};
        socklen_t size = sizeof result;
        int n = poll(&p, 1, PROBE_TIMEOUT_MS);
        if (n == 0)
            result = ETIMEDOUT;
        else if (n < 0 || getsockopt(fd, SOL_SOCKET, SO_ERROR, &result, &size) < 0)
            result = errno;
    }
    close(fd);
    return result;
}

void probe_explain(const char *url, char ret_text[PROBE_TEXT_BYTES])
{
    char host[256], port[8];
    if (!probe_split(url, host, sizeof host, port, sizeof port)) {
        snprintf(ret_text, PROBE_TEXT_BYTES, "the address cannot be read");
        return;
    }
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    struct addrinfo *list = NULL;
    int failed = getaddrinfo(host, port, &hints, &list);
    if (failed) {
        snprintf(ret_text, PROBE_TEXT_BYTES, "host \"%.80s\": %s", host, gai_strerror(failed));
        return;
    }
    int result = ENOENT;
    for (const struct addrinfo *a = list; a && result != 0; a = a->ai_next)
        result = probe_connect(a);
    freeaddrinfo(list);
    if (result == 0)
        snprintf(
            ret_text, PROBE_TEXT_BYTES, "%s",
            strncmp(url, "tls", 3) == 0
                ? "the port is open, but nobody there speaks our protocol with a certificate "
                  "that fits ours"
                : "the port is open, but no coordinator answers there (or it wants tls+tcp://)");
    else
        snprintf(ret_text, PROBE_TEXT_BYTES, "%s", strerror(result));
    if (ret_text[0] >= 'A' && ret_text[0] <= 'Z')
        ret_text[0] = (char)(ret_text[0] - 'A' + 'a');
}
