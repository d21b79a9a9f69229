#include "common/crypto.h"

#include "common/check.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct crypto_key {
    EVP_PKEY *pkey;
};

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

/* A daemon has nobody to ask. */
static int passphrase_refuse(char *text, int size, int writing, void *arg)
{
    (void)text;
    (void)size;
    (void)writing;
    *(bool *)arg = true;
    return -1;
}

/* O_NONBLOCK: to open a FIFO without it waits for a writer. */
static enum err key_file_open(const char *path, FILE **ret_file, struct errbuf *eb)
{
    struct stat st;
    enum err err = ERR_OK;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);

    if (fd < 0)
        return err_set_errno(eb, errno, "key file %s", path);
    if (fstat(fd, &st) != 0)
        err = err_set_errno(eb, errno, "key file %s", path);
    else if (!S_ISREG(st.st_mode))
        err = err_set(eb, ERR_INVALID, "key file %s: not a file", path);
    else if ((st.st_mode & 077) != 0)
        err =
            err_set(eb, ERR_REFUSED, "key file %s can be read by others (mode %03o): chmod 600 it",
                    path, (unsigned)(st.st_mode & 0777));
    else if ((*ret_file = fdopen(fd, "r")) == NULL)
        err = err_set_errno(eb, errno, "key file %s", path);
    if (err != ERR_OK)
        (void)close(fd);
    return err;
}

enum err crypto_key_open(struct crypto_key **ret_key, const char *path, struct errbuf *eb)
{
    FILE *f = NULL;
    bool encrypted = false;

    enum err err = key_file_open(path, &f, eb);
    if (err != ERR_OK)
        return err;
    EVP_PKEY *pkey = PEM_read_PrivateKey(f, NULL, passphrase_refuse, &encrypted);
    fclose(f);
    ERR_clear_error();
    if (pkey == NULL && encrypted)
        return err_set(eb, ERR_UNSUPPORTED,
                       "key file %s is protected by a passphrase, and there is nobody to ask: "
                       "write it without one",
                       path);
    if (pkey == NULL)
        return err_set(eb, ERR_INVALID, "key file %s holds no PEM private key", path);
    if (EVP_PKEY_id(pkey) != EVP_PKEY_ED25519) {
        EVP_PKEY_free(pkey);
        return err_set(eb, ERR_UNSUPPORTED, "key file %s: not an Ed25519 key", path);
    }
    return key_wrap(pkey, ret_key, eb);
}

/* Of the folder of `path`, so that a new name in it outlives a power cut. */
static enum err folder_sync(const char *path, struct errbuf *eb)
{
    enum err err = ERR_OK;
    char *copy = strdup(path);

    if (copy == NULL)
        return err_set(eb, ERR_NO_MEMORY, "key file %s: no memory", path);
    int fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || fsync(fd) != 0)
        err = err_set_errno(eb, errno, "the folder of key file %s", path);
    if (fd >= 0)
        (void)close(fd);
    free(copy);
    return err;
}

static enum err key_write(const struct crypto_key *key, int fd, const char *path, struct errbuf *eb)
{
    enum err err = ERR_OK;
    FILE *f = fdopen(fd, "w");

    if (f == NULL) {
        err = err_set_errno(eb, errno, "cannot write key file %s", path);
        (void)close(fd);
        return err;
    }
    if (PEM_write_PKCS8PrivateKey(f, key->pkey, NULL, NULL, 0, NULL, NULL) != 1 || fflush(f) != 0 ||
        fsync(fd) != 0)
        err = err_set_errno(eb, errno, "cannot write key file %s", path);
    if (fclose(f) != 0 && err == ERR_OK)
        err = err_set_errno(eb, errno, "cannot write key file %s", path);
    return err;
}

/* Gives the finished file its name, unless something has that name. */
static enum err key_name(const char *from, const char *path, struct errbuf *eb)
{
    if (renameat2(AT_FDCWD, from, AT_FDCWD, path, RENAME_NOREPLACE) == 0)
        return ERR_OK;
    /* Not every file system can; those have hard links. */
    if (errno == EINVAL || errno == ENOSYS) {
        if (link(from, path) == 0) {
            (void)unlink(from);
            return ERR_OK;
        }
    }
    if (errno == EEXIST)
        return err_set(eb, ERR_CONFLICT, "key file %s exists already", path);
    return err_set_errno(eb, errno, "key file %s", path);
}

enum err crypto_key_save(const struct crypto_key *key, const char *path, struct errbuf *eb)
{
    char *temporary;

    if (asprintf(&temporary, "%s.XXXXXX", path) < 0)
        return err_set(eb, ERR_NO_MEMORY, "key file %s: no memory", path);
    int fd = mkostemp(temporary, O_CLOEXEC); /* mode 0600 */
    if (fd < 0) {
        enum err err = err_set_errno(eb, errno, "key file %s", path);
        free(temporary);
        return err;
    }
    enum err err = key_write(key, fd, path, eb);
    if (err == ERR_OK)
        err = key_name(temporary, path, eb);
    if (err != ERR_OK)
        (void)unlink(temporary);
    free(temporary);
    return err == ERR_OK ? folder_sync(path, eb) : err;
}

enum err crypto_key_open_or_create(struct crypto_key **ret_key, const char *path, struct errbuf *eb)
{
    struct crypto_key *key = NULL;
    enum err err = crypto_key_open(ret_key, path, eb);

    if (err != ERR_NOT_FOUND)
        return err;
    err = crypto_key_new(&key, eb);
    if (err == ERR_OK)
        err = crypto_key_save(key, path, eb);
    if (err == ERR_OK) {
        *ret_key = key;
        return ERR_OK;
    }
    crypto_key_free(key);
    /* Another process may have made it between the look and the save. */
    return err == ERR_CONFLICT ? crypto_key_open(ret_key, path, eb) : err;
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
