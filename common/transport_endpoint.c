#include "common/transport_endpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#define PEM_CAP_BYTES   (1u << 20)
#define PORT_DIGITS_MAX 5

/* ---- the URL ---- */

/* "[::1]:7420", "name:7420"; false where it is neither. */
static bool host_port_split(const char *text, char *host, size_t host_size, unsigned *ret_port)
{
    const char *colon = strrchr(text, ':');
    char *end;

    if (colon == NULL || colon == text || colon[1] < '0' || colon[1] > '9')
        return false;
    const char *from = text;
    size_t size = (size_t)(colon - text);
    if (text[0] == '[') {
        if (size < 3 || colon[-1] != ']')
            return false;
        from++;
        size -= 2;
    } else if (memchr(text, ':', size) != NULL) {
        return false;
    }
    if (size >= host_size || strcspn(from, "/?#@;[] \t") < size)
        return false;
    /* At most five digits: zeros in front would make a URL of any length. */
    unsigned long port = strtoul(colon + 1, &end, 10);
    if (*end != '\0' || end - colon > 1 + PORT_DIGITS_MAX || port > 65535)
        return false;
    memcpy(host, from, size);
    host[size] = '\0';
    *ret_port = (unsigned)port;
    return true;
}

static enum err url_check(const char *url, bool *ret_tls, char *host, size_t host_size,
                          struct errbuf *eb)
{
    static const char tcp[] = "tcp://";
    static const char tls[] = "tls+tcp://";
    const char *rest = NULL;
    unsigned port;

    if (url != NULL && strncmp(url, tcp, sizeof tcp - 1) == 0) {
        rest = url + sizeof tcp - 1;
        *ret_tls = false;
    } else if (url != NULL && strncmp(url, tls, sizeof tls - 1) == 0) {
        rest = url + sizeof tls - 1;
        *ret_tls = true;
    }
    if (rest == NULL || !host_port_split(rest, host, host_size, &port))
        return err_set(eb, ERR_INVALID,
                       "%.300s: not of the form tcp://HOST:PORT or tls+tcp://HOST:PORT",
                       url != NULL ? url : "(no URL)");
    return ERR_OK;
}

/* ---- the files ---- */

static enum err file_read(const char *what, const char *path, struct buf *ret_text,
                          struct errbuf *eb)
{
    enum err err = ERR_OK;
    char chunk[4096];
    struct stat st;
    size_t n;

    /* O_NONBLOCK: to open a FIFO without it waits for a writer. */
    FILE *f = NULL;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0 || fstat(fd, &st) != 0) {
        err = err_set_errno(eb, errno, "%s %s", what, path);
        goto out;
    }
    if (!S_ISREG(st.st_mode)) {
        err = err_set(eb, ERR_INVALID, "%s %s: not a file", what, path);
        goto out;
    }
    f = fdopen(fd, "r");
    if (f == NULL) {
        err = err_set_errno(eb, errno, "%s %s", what, path);
        goto out;
    }
    while (ret_text->size <= PEM_CAP_BYTES && (n = fread(chunk, 1, sizeof chunk, f)) > 0)
        buf_append(ret_text, chunk, n);
    if (ferror(f))
        err = err_set_errno(eb, errno, "%s %s", what, path);
    else if (ret_text->failed)
        err = err_set(eb, ERR_NO_MEMORY, "%s %s: no memory", what, path);
    else if (ret_text->size > PEM_CAP_BYTES)
        err = err_set(eb, ERR_TOO_LARGE, "%s %s: over %u bytes", what, path, PEM_CAP_BYTES);
    else if (ret_text->size == 0)
        err = err_set(eb, ERR_INVALID, "%s %s: empty", what, path);
out:
    if (f != NULL)
        (void)fclose(f);
    else if (fd >= 0)
        (void)close(fd);
    return err;
}

/* The first certificate, or NULL. */
static X509 *certificate_parse(const struct buf *pem)
{
    BIO *bio = BIO_new_mem_buf(pem->data, (int)pem->size);
    X509 *certificate = bio != NULL ? PEM_read_bio_X509(bio, NULL, NULL, NULL) : NULL;
    BIO_free(bio);
    ERR_clear_error();
    return certificate;
}

static int passphrase_refuse(char *text, int size, int writing, void *arg)
{
    (void)text;
    (void)size;
    (void)writing;
    (void)arg;
    return -1; /* a daemon has nobody to ask */
}

static EVP_PKEY *key_parse(const struct buf *pem)
{
    BIO *bio = BIO_new_mem_buf(pem->data, (int)pem->size);
    EVP_PKEY *key =
        bio != NULL ? PEM_read_bio_PrivateKey(bio, NULL, passphrase_refuse, NULL) : NULL;
    BIO_free(bio);
    ERR_clear_error();
    return key;
}

static enum err key_mode_check(const char *path, struct errbuf *eb)
{
    struct stat st;
    if (stat(path, &st) != 0)
        return err_set_errno(eb, errno, "key_file %s", path);
    if ((st.st_mode & S_IRWXO) != 0)
        return err_set(eb, ERR_REFUSED, "key_file %s: everybody may read it: chmod o= %s", path,
                       path);
    return ERR_OK;
}

static enum err tls_files_load(const struct transport_tls *tls, struct transport_pem *pem,
                               struct errbuf *eb)
{
    X509 *authority = NULL;
    X509 *own = NULL;
    EVP_PKEY *key = NULL;
    enum err err;

    if ((err = file_read("ca_file", tls->ca_file, &pem->ca, eb)) != ERR_OK ||
        (err = file_read("cert_file", tls->cert_file, &pem->cert, eb)) != ERR_OK ||
        (err = file_read("key_file", tls->key_file, &pem->key, eb)) != ERR_OK ||
        (err = key_mode_check(tls->key_file, eb)) != ERR_OK)
        goto out;
    authority = certificate_parse(&pem->ca);
    own = certificate_parse(&pem->cert);
    key = key_parse(&pem->key);
    if (authority == NULL)
        err = err_set(eb, ERR_INVALID, "ca_file %s: no PEM certificate in it", tls->ca_file);
    else if (own == NULL)
        err = err_set(eb, ERR_INVALID, "cert_file %s: no PEM certificate in it", tls->cert_file);
    else if (key == NULL)
        err = err_set(eb, ERR_INVALID, "key_file %s: no PEM private key without passphrase in it",
                      tls->key_file);
    else if (X509_check_private_key(own, key) != 1)
        err = err_set(eb, ERR_INVALID, "key_file %s: not the key of the certificate in %s",
                      tls->key_file, tls->cert_file);
    else if (X509_cmp_current_time(X509_get0_notAfter(own)) < 0)
        err = err_set(eb, ERR_INVALID, "cert_file %s: the certificate is no longer valid",
                      tls->cert_file);
    else if (X509_cmp_current_time(X509_get0_notBefore(own)) > 0)
        err = err_set(eb, ERR_INVALID, "cert_file %s: the certificate is not valid yet",
                      tls->cert_file);
out:
    EVP_PKEY_free(key);
    X509_free(own);
    X509_free(authority);
    ERR_clear_error();
    return err;
}

/* ---- public ---- */

enum err transport_endpoint_load(const struct transport_endpoint *endpoint,
                                 struct transport_pem *ret_pem, struct errbuf *eb)
{
    const struct transport_tls *tls = &endpoint->tls;
    const bool any = tls->ca_file != NULL || tls->cert_file != NULL || tls->key_file != NULL;

    *ret_pem = (struct transport_pem){0};
    enum err err = url_check(endpoint->url, &ret_pem->tls, ret_pem->host, sizeof ret_pem->host, eb);
    if (err != ERR_OK)
        return err;
    if (!ret_pem->tls && any)
        return err_set(eb, ERR_INVALID, "%s: certificates are given, but only tls+tcp:// uses them",
                       endpoint->url);
    if (!ret_pem->tls)
        return ERR_OK;
    const char *missing = tls->ca_file == NULL     ? "ca_file"
                          : tls->cert_file == NULL ? "cert_file"
                          : tls->key_file == NULL  ? "key_file"
                                                   : NULL;
    if (missing != NULL)
        return err_set(eb, ERR_INVALID, "%s: %s is missing", endpoint->url, missing);
    err = tls_files_load(tls, ret_pem, eb);
    if (err != ERR_OK)
        transport_pem_fini(ret_pem);
    return err;
}

void transport_pem_fini(struct transport_pem *pem)
{
    if (pem->key.data != NULL)
        explicit_bzero(pem->key.data, pem->key.capacity);
    buf_fini(&pem->ca);
    buf_fini(&pem->cert);
    buf_fini(&pem->key);
}

enum err transport_endpoint_check(const struct transport_endpoint *endpoint, struct errbuf *eb)
{
    struct transport_pem pem;
    enum err err = transport_endpoint_load(endpoint, &pem, eb);
    if (err == ERR_OK)
        transport_pem_fini(&pem);
    return err;
}
