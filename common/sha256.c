#include "common/sha256.h"

#include "common/check.h"

#include <openssl/evp.h>

void sha256(const void *bytes, size_t size, uint8_t ret_digest[SHA256_BYTES])
{
    CHECK(EVP_Digest(bytes, size, ret_digest, NULL, EVP_sha256(), NULL) == 1);
}

/* The opaque stream is libcrypto's own context under our name. */
struct sha256_stream *sha256_new(void)
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    CHECK(ctx != NULL && EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) == 1);
    return (struct sha256_stream *)(void *)ctx;
}

void sha256_update(struct sha256_stream *s, const void *bytes, size_t size)
{
    CHECK(EVP_DigestUpdate((EVP_MD_CTX *)(void *)s, bytes, size) == 1);
}

void sha256_finish(struct sha256_stream *s, uint8_t ret_digest[SHA256_BYTES])
{
    CHECK(EVP_DigestFinal_ex((EVP_MD_CTX *)(void *)s, ret_digest, NULL) == 1);
    sha256_free(s);
}

void sha256_free(struct sha256_stream *s)
{
    EVP_MD_CTX_free((EVP_MD_CTX *)(void *)s);
}
