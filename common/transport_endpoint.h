/*
 * transport_endpoint.h - an endpoint of transport.h, checked and read: its host, and the PEM texts
 * that TLS needs. Every file is parsed here first, so that an error names the file.
 *
 * Ownership: transport_pem_fini frees, after success only. Thread: any.
 */
#ifndef CLOISTER_COMMON_TRANSPORT_ENDPOINT_H
#define CLOISTER_COMMON_TRANSPORT_ENDPOINT_H

#include "common/buf.h"
#include "common/err.h"
#include "common/transport.h"

#include <stdbool.h>

struct transport_pem {
    bool tls;
    char host[256]; /* without the brackets of an IPv6 address */
    struct buf ca, cert, key;
};

enum err transport_endpoint_load(const struct transport_endpoint *endpoint,
                                 struct transport_pem *ret_pem, struct errbuf *eb);
void transport_pem_fini(struct transport_pem *pem);

#endif
