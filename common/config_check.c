/* Checks that many keys share. They stand apart from the reader, since others ask them too. */
#include "common/config.h"

#include "common/crypto.h"
#include "common/limits.h"
#include "common/units.h"

#include <string.h>

enum err config_check_absolute_path(const void *value, struct errbuf *eb)
{
    const char *path = *(const char *const *)value;
    if (path && path[0] != '/')
        return err_set(eb, ERR_INVALID, "\"%.200s\" must be an absolute path, beginning with /",
                       path);
    return ERR_OK;
}

static enum err config_check_url_ports(const char *url, uint64_t port_min, struct errbuf *eb)
{
    static const char *const schemes[] = {"tcp://", "tls+tcp://"};
    const char *rest = NULL;
    for (size_t i = 0; i < sizeof schemes / sizeof *schemes; i++)
        if (strncmp(url, schemes[i], strlen(schemes[i])) == 0)
            rest = url + strlen(schemes[i]);
    const char *colon = rest ? strrchr(rest, ':') : NULL;
    uint64_t port;
    if (!colon || colon == rest || strlen(colon + 1) > 5 || !units_uint_parse(colon + 1, &port) ||
        port < port_min || port > 65535)
        return err_set(eb, ERR_INVALID,
                       "\"%.200s\" is not an address; write tcp://HOST:PORT or "
                       "tls+tcp://HOST:PORT, such as tcp://127.0.0.1:7420",
                       url);
    return ERR_OK;
}

enum err config_check_url(const void *value, struct errbuf *eb)
{
    const char *url = *(const char *const *)value;
    return url ? config_check_url_ports(url, 1, eb) : ERR_OK;
}

enum err config_check_listen_url(const void *value, struct errbuf *eb)
{
    const char *url = *(const char *const *)value;
    return url ? config_check_url_ports(url, 0, eb) : ERR_OK;
}

enum err config_check_name(const void *value, struct errbuf *eb)
{
    const char *name = *(const char *const *)value;
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                  "-_.:@/+";
    if (!name)
        return ERR_OK;
    if (name[0] == 0 || strlen(name) > LIMIT_NAME_BYTES || name[strspn(name, allowed)])
        return err_set(eb, ERR_INVALID,
                       "\"%.128s\" is not a name; use 1 to %u letters, digits and -_.:@/+", name,
                       LIMIT_NAME_BYTES);
    return ERR_OK;
}

enum err config_check_key_hex(const void *value, struct errbuf *eb)
{
    const char *text = *(const char *const *)value;
    uint8_t key[ED25519_PUBLIC_BYTES];
    if (text && !hex_decode(text, key, sizeof key))
        return err_set(eb, ERR_INVALID, "\"%.80s\" is not a public key; write its 64 hex digits",
                       text);
    return ERR_OK;
}
