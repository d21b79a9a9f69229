#include "tests/unit/transport/tls_files.h"

#include "common/check.h"

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static EVP_PKEY *key_new(void)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    CHECK(key != NULL);
    return key;
}

static void extension_add(X509 *certificate, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX ctx;
    X509V3_set_ctx(&ctx, issuer, certificate, NULL, NULL, 0);
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
    CHECK(extension != NULL && X509_add_ext(certificate, extension, -1) == 1);
    X509_EXTENSION_free(extension);
}

/* Signed by itself where `issuer` is NULL: an authority. */
static X509 *certificate_new(const char *name, EVP_PKEY *key, X509 *issuer, EVP_PKEY *issuer_key)
{
    static long serial = 1;
    X509 *certificate = X509_new();
    X509_NAME *subject = X509_NAME_new();
    CHECK(certificate != NULL && subject != NULL);
    CHECK(X509_set_version(certificate, 2) == 1);
    CHECK(ASN1_INTEGER_set(X509_get_serialNumber(certificate), serial++) == 1);
    CHECK(X509_gmtime_adj(X509_getm_notBefore(certificate), -3600) != NULL);
    CHECK(X509_gmtime_adj(X509_getm_notAfter(certificate), 3600) != NULL);
    CHECK(X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, (const unsigned char *)name, -1,
                                     -1, 0) == 1);
    CHECK(X509_set_subject_name(certificate, subject) == 1);
    CHECK(X509_set_issuer_name(certificate,
                               issuer != NULL ? X509_get_subject_name(issuer) : subject) == 1);
    CHECK(X509_set_pubkey(certificate, key) == 1);
    if (issuer == NULL) {
        extension_add(certificate, certificate, NID_basic_constraints, "critical,CA:TRUE");
        extension_add(certificate, certificate, NID_key_usage, "critical,keyCertSign,cRLSign");
    } else {
        extension_add(certificate, issuer, NID_subject_alt_name, "DNS:localhost,DNS:127.0.0.1");
    }
    CHECK(X509_sign(certificate, issuer_key, EVP_sha256()) > 0);
    X509_NAME_free(subject);
    return certificate;
}

static void certificate_write(const char *path, X509 *certificate)
{
    FILE *f = fopen(path, "w");
    CHECK(f != NULL && PEM_write_X509(f, certificate) == 1 && fclose(f) == 0);
}

void tls_files_make(struct tls_files *files)
{
    (void)snprintf(files->folder, sizeof files->folder, "/tmp/cloister-tls-XXXXXX");
    CHECK(mkdtemp(files->folder) != NULL);
    (void)snprintf(files->ca, sizeof files->ca, "%s/ca.pem", files->folder);
    (void)snprintf(files->cert, sizeof files->cert, "%s/cert.pem", files->folder);
    (void)snprintf(files->key, sizeof files->key, "%s/key.pem", files->folder);

    EVP_PKEY *ca_key = key_new();
    X509 *ca = certificate_new("cloister test authority", ca_key, NULL, ca_key);
    EVP_PKEY *key = key_new();
    X509 *own = certificate_new("localhost", key, ca, ca_key);

    certificate_write(files->ca, ca);
    certificate_write(files->cert, own);
    FILE *f = fopen(files->key, "w");
    CHECK(f != NULL && PEM_write_PrivateKey(f, key, NULL, NULL, 0, NULL, NULL) == 1);
    CHECK(fclose(f) == 0 && chmod(files->key, 0600) == 0);

    X509_free(own);
    EVP_PKEY_free(key);
    X509_free(ca);
    EVP_PKEY_free(ca_key);
}

void tls_files_remove(struct tls_files *files)
{
    (void)unlink(files->ca);
    (void)unlink(files->cert);
    (void)unlink(files->key);
    (void)rmdir(files->folder);
}

struct transport_tls tls_files_endpoint(const struct tls_files *files)
{
    return (struct transport_tls){
        .ca_file = files->ca,
        .cert_file = files->cert,
        .key_file = files->key,
    };
}
