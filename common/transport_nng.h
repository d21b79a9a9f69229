/*
 * transport_nng.h - from an endpoint of transport.h to nng's dialer or listener, and from nng's
 * errors to ours.
 *
 * Ownership: the caller's, freed with nng_stream_dialer_free / nng_stream_listener_free. Thread:
 * any.
 */
#ifndef CLOISTER_COMMON_TRANSPORT_NNG_H
#define CLOISTER_COMMON_TRANSPORT_NNG_H

#include "common/err.h"
#include "common/transport.h"

#include <nng/nng.h>
#include <stdint.h>

/* How long a close waits for nng to say that the connections are gone. That takes milliseconds;
 * what is left after it stays in memory to the end of the process, and is logged. */
#define TRANSPORT_CLOSE_TIMEOUT_MS 5000

enum err transport_dialer_new(nng_stream_dialer **ret_dialer,
                              const struct transport_endpoint *endpoint, struct errbuf *eb);
/* Listens already; *ret_port is 0 where it is not known. */
enum err transport_listener_new(nng_stream_listener **ret_listener, uint16_t *ret_port,
                                const struct transport_endpoint *endpoint, struct errbuf *eb);

#endif
