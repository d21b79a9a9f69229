#include "proto/hello.h"

#include "common/buf.h"
#include "common/version.h"

#include <stdio.h>
#include <string.h>

void hello_build(char ret_build[HELLO_BUILD_BYTES])
{
    (void)snprintf(ret_build, HELLO_BUILD_BYTES, "%s+%s", cloister_version, cloister_revision);
}

void hello_init(struct wire_hello *ret_hello, enum wire_role role, const char *node,
                const struct crypto_key *key, char build[HELLO_BUILD_BYTES])
{
    hello_build(build);
    *ret_hello = (struct wire_hello){
        .role = role, .node = node, .features = WIRE_FEATURES, .build = build, .tenant = ""};
    ret_hello->worker.device = ret_hello->worker.isa = "";
    crypto_key_public(key, ret_hello->public_key);
    crypto_random(ret_hello->nonce, sizeof ret_hello->nonce);
}

enum err hello_sign(struct wire_hello *hello, const struct crypto_key *key,
                    const uint8_t challenge[32], uint64_t session,
                    uint8_t signature[ED25519_SIGN_BYTES], struct errbuf *eb)
{
    struct buf bytes;
    buf_init(&bytes);
    wire_hello_signed_bytes(challenge, session, hello, &bytes);
    enum err e = bytes.failed ? err_set(eb, ERR_NO_MEMORY, "no memory to say Hello")
                              : crypto_sign(key, bytes.data, bytes.size, signature, eb);
    buf_fini(&bytes);
    if (e == ERR_OK)
        hello->signature = (struct wire_bytes){.data = signature, .size = ED25519_SIGN_BYTES};
    return e;
}

enum err hello_verify(const struct wire_hello_reply *reply, const uint8_t nonce[32],
                      uint64_t session, const uint8_t *expected, struct errbuf *eb)
{
    if (expected != NULL && memcmp(reply->public_key, expected, ED25519_PUBLIC_BYTES) != 0) {
        char text[2 * ED25519_PUBLIC_BYTES + 1];
        hex_encode(reply->public_key, ED25519_PUBLIC_BYTES, text);
        return err_set(eb, ERR_REFUSED, "it shows the key %s, which is not the one configured",
                       text);
    }
    struct buf bytes;
    buf_init(&bytes);
    wire_hello_reply_signed_bytes(nonce, session, reply, &bytes);
    enum err e = ERR_OK;
    if (bytes.failed)
        e = err_set(eb, ERR_NO_MEMORY, "no memory to check its signature");
    else if (reply->signature.size != ED25519_SIGN_BYTES ||
             !crypto_verify(reply->public_key, bytes.data, bytes.size, reply->signature.data))
        e = err_set(eb, ERR_CORRUPT, "it could not prove that it owns its key");
    buf_fini(&bytes);
    return e;
}
