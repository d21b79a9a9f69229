#include "common/crypto.h"

#include "common/check.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct crypto_key {
    EVP_PKEY *pkey;
};

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

void crypto_random(void *ret_bytes, size_t size)
{
    CHECK(size <= INT32_MAX && RAND_bytes(ret_bytes, (int)size) == 1);
}

static enum err key_wrap(EVP_PKEY *pkey, struct crypto_key **ret_key, struct errbuf *eb)
{
    struct crypto_key *key = malloc(sizeof *key);
    if (key == NULL) {
        EVP_PKEY_free(pkey);
        return err_set(eb, ERR_NO_MEMORY, "key: out of memory");
    }
    key->pkey = pkey;
    *ret_key = key;
    return ERR_OK;
}

enum err crypto_key_new(struct crypto_key **ret_key, struct errbuf *eb)
{
    EVP_PKEY *pkey = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
    if (pkey == NULL)
        return err_set(eb, ERR_INTERNAL, "libcrypto could not make an Ed25519 key");
    return key_wrap(pkey, ret_key, eb);
}

enum err crypto_key_open(struct crypto_key **ret_key, const char *path, struct errbuf *eb)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return err_set_errno(eb, errno, "key file %s", path);
    if (fstat(fd, &st) != 0) {
        int e = errno;
        close(fd);
        return err_set_errno(eb, e, "key file %s", path);
    }
    if ((st.st_mode & 077) != 0) {
        close(fd);
        return err_set(eb, ERR_REFUSED,
                       "key file %s can be read by others (mode %03o): chmod 600 it", path,
                       (unsigned)(st.st_mode & 0777));
    }
    FILE *f = fdopen(fd, "r");
    if (f == NULL) {
        close(fd);
        return err_set_errno(eb, errno, "key file %s", path);
    }
    EVP_PKEY *pkey = PEM_read_PrivateKey(f, NULL, NULL, NULL);
    fclose(f);
    if (pkey == NULL)
        return err_set(eb, ERR_INVALID, "key file %s holds no PEM private key", path);
    if (EVP_PKEY_id(pkey) != EVP_PKEY_ED25519) {
        EVP_PKEY_free(pkey);
        return err_set(eb, ERR_UNSUPPORTED, "key file %s: not an Ed25519 key", path);
    }
    return key_wrap(pkey, ret_key, eb);
}

enum err crypto_key_save(const struct crypto_key *key, const char *path, struct errbuf *eb)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) {
        if (errno == EEXIST)
            return err_set(eb, ERR_CONFLICT, "key file %s exists already", path);
        return err_set_errno(eb, errno, "key file %s", path);
    }
    FILE *f = fdopen(fd, "w");
    if (f == NULL) {
        int e = errno;
        close(fd);
        return err_set_errno(eb, e, "key file %s", path);
    }
    bool ok = PEM_write_PKCS8PrivateKey(f, key->pkey, NULL, NULL, 0, NULL, NULL) == 1;
    ok = fflush(f) == 0 && ok;
    ok = fsync(fd) == 0 && ok;
    int e = errno;
    ok = fclose(f) == 0 && ok;
    if (!ok) {
        unlink(path);
        return err_set_errno(eb, e, "cannot write key file %s", path);
    }
    return ERR_OK;
}

enum err crypto_key_open_or_create(struct crypto_key **ret_key, const char *path, struct errbuf *eb)
{
    if (access(path, F_OK) == 0)
        return crypto_key_open(ret_key, path, eb);
    struct crypto_key *key = NULL;
    enum err e = crypto_key_new(&key, eb);
    if (e == ERR_OK)
        e = crypto_key_save(key, path, eb);
    if (e != ERR_OK) {
        crypto_key_free(key);
        /* Another process may have made it between the look and the save. */
        return e == ERR_CONFLICT ? crypto_key_open(ret_key, path, eb) : e;
    }
    *ret_key = key;
    return ERR_OK;
}

void crypto_key_free(struct crypto_key *key)
{
    if (key == NULL)
        return;
    EVP_PKEY_free(key->pkey);
    free(key);
}

void crypto_key_public(const struct crypto_key *key, uint8_t ret_public[ED25519_PUBLIC_BYTES])
{
    size_t size = ED25519_PUBLIC_BYTES;
    CHECK(EVP_PKEY_get_raw_public_key(key->pkey, ret_public, &size) == 1);
    CHECK(size == ED25519_PUBLIC_BYTES);
}

enum err crypto_sign(const struct crypto_key *key, const void *bytes, size_t size,
                     uint8_t ret_signature[ED25519_SIGN_BYTES], struct errbuf *eb)
{
    size_t n = ED25519_SIGN_BYTES;
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool ok = ctx != NULL && EVP_DigestSignInit(ctx, NULL, NULL, NULL, key->pkey) == 1 &&
              EVP_DigestSign(ctx, ret_signature, &n, bytes, size) == 1;
    EVP_MD_CTX_free(ctx);
    return ok ? ERR_OK : err_set(eb, ERR_INTERNAL, "libcrypto could not sign");
}

bool crypto_verify(const uint8_t public_key[ED25519_PUBLIC_BYTES], const void *bytes, size_t size,
                   const uint8_t signature[ED25519_SIGN_BYTES])
{
    EVP_PKEY *pkey =
        EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, public_key, ED25519_PUBLIC_BYTES);
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool ok = pkey != NULL && ctx != NULL &&
              EVP_DigestVerifyInit(ctx, NULL, NULL, NULL, pkey) == 1 &&
              EVP_DigestVerify(ctx, signature, ED25519_SIGN_BYTES, bytes, size) == 1;
    EVP_MD_CTX_free(ctx);
    EVP_PKEY_free(pkey);
    return ok;
}

void hex_encode(const void *bytes, size_t size, char *ret_text)
{
    static const char digit[] = "0123456789abcdef";
    const uint8_t *b = bytes;
    for (size_t i = 0; i < size; i++) {
        ret_text[2 * i] = digit[b[i] >> 4];
        ret_text[2 * i + 1] = digit[b[i] & 15];
    }
    ret_text[2 * size] = '\0';
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

bool hex_decode(const char *text, void *ret_bytes, size_t size)
{
    uint8_t *b = ret_bytes;
    if (strnlen(text, 2 * size + 1) != 2 * size)
        return false;
    for (size_t i = 0; i < size; i++) {
        int high = hex_value(text[2 * i]), low = hex_value(text[2 * i + 1]);
        if (high < 0 || low < 0)
            return false;
        b[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}
