/*
 * sha256.h - SHA-256 (FIPS 180-4) over libcrypto: the same bytes give the same digest, and nothing
 * else happens, so that pure code may use it too.
 *
 * Thread: any; a stream has one user at a time.
 */
#ifndef CLOISTER_COMMON_SHA256_H
#define CLOISTER_COMMON_SHA256_H

#include <stddef.h>
#include <stdint.h>

#define SHA256_BYTES     32
#define SHA256_HEX_BYTES 65 /* with NUL */

void sha256(const void *bytes, size_t size, uint8_t ret_digest[SHA256_BYTES]);

struct sha256_stream;
struct sha256_stream *sha256_new(void);
void sha256_update(struct sha256_stream *s, const void *bytes, size_t size);
/* Ends and frees the stream. */
void sha256_finish(struct sha256_stream *s, uint8_t ret_digest[SHA256_BYTES]);
/* Frees without a result. */
void sha256_free(struct sha256_stream *s);

#endif
