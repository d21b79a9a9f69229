/*
 * crypto.h - Ed25519 and random bytes, over libcrypto (OpenSSL 3); SHA-256 comes with it.
 *
 * Ed25519 is RFC 8032; keys are files in PKCS#8 PEM, so that `openssl pkey` reads them.
 * Thread: any; a `struct crypto_key` may be used by several threads at once.
 */
#ifndef CLOISTER_COMMON_CRYPTO_H
#define CLOISTER_COMMON_CRYPTO_H

#include "common/err.h"
#include "common/sha256.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ED25519_PUBLIC_BYTES 32
#define ED25519_SIGN_BYTES   64

/* From the system's generator; a failure ends the process, since nothing safe can follow. */
void crypto_random(void *ret_bytes, size_t size);

struct crypto_key; /* an Ed25519 key pair */

enum err crypto_key_new(struct crypto_key **ret_key, struct errbuf *eb);
/* Reads PEM; refuses a key file that others can read (mode & 077), one behind a passphrase, and
 * what is not a file. ERR_NOT_FOUND where there is none. */
enum err crypto_key_open(struct crypto_key **ret_key, const char *path, struct errbuf *eb);
/* Writes PEM with mode 0600; never overwrites (ERR_CONFLICT). The name appears when the whole key
 * is on the disk: whoever sees it sees a whole key, and a crash leaves none or a whole one. */
enum err crypto_key_save(const struct crypto_key *key, const char *path, struct errbuf *eb);
/* crypto_key_open, or new + save where the file does not exist yet. Processes that do it at once
 * get the same key. */
enum err crypto_key_open_or_create(struct crypto_key **ret_key, const char *path,
                                   struct errbuf *eb);
void crypto_key_free(struct crypto_key *key);

void crypto_key_public(const struct crypto_key *key, uint8_t ret_public[ED25519_PUBLIC_BYTES]);
enum err crypto_sign(const struct crypto_key *key, const void *bytes, size_t size,
                     uint8_t ret_signature[ED25519_SIGN_BYTES], struct errbuf *eb);
bool crypto_verify(const uint8_t public_key[ED25519_PUBLIC_BYTES], const void *bytes, size_t size,
                   const uint8_t signature[ED25519_SIGN_BYTES]);

/* Lower-case hex with NUL: ret_text needs 2 * size + 1 bytes. */
void hex_encode(const void *bytes, size_t size, char *ret_text);
/* Exactly 2 * size hex digits and then NUL; false otherwise. */
bool hex_decode(const char *text, void *ret_bytes, size_t size);

#endif
