/*
 * hello.h - the dialing side of a Hello, the same for clients and workers: what the message says,
 * our signature over the coordinator's challenge, and the check of its signature over our nonce.
 * docs/protocol.md, "Hello, twice".
 *
 * Thread: any.
 */
#ifndef CLOISTER_PROTO_HELLO_H
#define CLOISTER_PROTO_HELLO_H

#include "common/crypto.h"
#include "common/err.h"
#include "proto/wire.h"

#define HELLO_BUILD_BYTES 128u

/* The program's version and revision, by which builds are told apart. */
void hello_build(char ret_build[HELLO_BUILD_BYTES]);

/* Fills all but tenant, signature and what a worker has. Ownership: `node` is borrowed; `build`,
 * for which there must be room, is written and pointed to. */
void hello_init(struct wire_hello *ret_hello, enum wire_role role, const char *node,
                const struct crypto_key *key, char build[HELLO_BUILD_BYTES]);

/* For the second one: signs the challenge that came with `session`. The signature lies in
 * `signature`, to which the hello points. */
enum err hello_sign(struct wire_hello *hello, const struct crypto_key *key,
                    const uint8_t challenge[32], uint64_t session,
                    uint8_t signature[ED25519_SIGN_BYTES], struct errbuf *eb);

/* Of every answer. ERR_REFUSED where `expected` (may be NULL) is not the coordinator's key,
 * ERR_CORRUPT where it did not sign `nonce` with the key that it shows. */
enum err hello_verify(const struct wire_hello_reply *reply, const uint8_t nonce[32],
                      uint64_t session, const uint8_t *expected, struct errbuf *eb);

#endif
