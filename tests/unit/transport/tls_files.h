/*
 * tls_files.h - certificates for the tests of transport.h, made with libcrypto in a new folder.
 */
#ifndef CLOISTER_TESTS_UNIT_TRANSPORT_TLS_FILES_H
#define CLOISTER_TESTS_UNIT_TRANSPORT_TLS_FILES_H

#include "common/transport.h"

#define TLS_PATH_BYTES 128

/* An authority, and a certificate for host "localhost" and "127.0.0.1" signed by it. */
struct tls_files {
    char folder[64];
    char ca[TLS_PATH_BYTES];
    char cert[TLS_PATH_BYTES];
    char key[TLS_PATH_BYTES];
};

void tls_files_make(struct tls_files *files);
void tls_files_remove(struct tls_files *files);
struct transport_tls tls_files_endpoint(const struct tls_files *files);

#endif
