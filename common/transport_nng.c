#include "common/transport_nng.h"

#include "common/buf.h"
#include "common/transport_endpoint.h"

#include <nng/supplemental/tls/tls.h>
#include <stdbool.h>

static enum err nng_fail(struct errbuf *eb, int rv, const char *what, const char *url)
{
    enum err code = ERR_IO;

    switch (rv) {
    case NNG_ENOMEM:
        code = ERR_NO_MEMORY;
        break;
    case NNG_EADDRINVAL:
    case NNG_EINVAL:
        code = ERR_INVALID;
        break;
    case NNG_ENOTSUP:
        code = ERR_UNSUPPORTED;
        break;
    default:
        break;
    }
    return err_set(eb, code, "%s: %s: %s", url, what, nng_strerror(rv));
}

/* ---- TLS ---- */

static enum err tls_config_new(nng_tls_config **ret_config, nng_tls_mode mode,
                               const struct transport_endpoint *endpoint,
                               const struct transport_pem *pem, struct errbuf *eb)
{
    nng_tls_config *config = NULL;
    const char *what = "TLS";
    int rv = nng_tls_config_alloc(&config, mode);

    if (rv == 0)
        rv = nng_tls_config_version(config, NNG_TLS_1_2, NNG_TLS_1_2);
    if (rv == 0)
        rv = nng_tls_config_auth_mode(config, NNG_TLS_AUTH_MODE_REQUIRED);
    if (rv == 0) {
        what = endpoint->tls.ca_file;
        rv = nng_tls_config_ca_chain(config, buf_str(&pem->ca), NULL);
    }
    if (rv == 0) {
        what = endpoint->tls.cert_file;
        rv = nng_tls_config_own_cert(config, buf_str(&pem->cert), buf_str(&pem->key), NULL);
    }
    if (rv == 0 && mode == NNG_TLS_MODE_CLIENT) {
        what = "TLS server name";
        rv = nng_tls_config_server_name(config, pem->host);
    }
    if (rv != 0) {
        if (config != NULL)
            nng_tls_config_free(config);
        return err_set(eb, rv == NNG_ENOMEM ? ERR_NO_MEMORY : ERR_INVALID,
                       "%s: not accepted by the TLS library: %s", what, nng_strerror(rv));
    }
    *ret_config = config;
    return ERR_OK;
}

/* *ret_config is NULL for an endpoint without TLS. */
static enum err tls_config_load(nng_tls_config **ret_config, nng_tls_mode mode,
                                const struct transport_endpoint *endpoint, struct errbuf *eb)
{
    struct transport_pem pem;

    *ret_config = NULL;
    enum err err = transport_endpoint_load(endpoint, &pem, eb);
    if (err != ERR_OK)
        return err;
    if (pem.tls)
        err = tls_config_new(ret_config, mode, endpoint, &pem, eb);
    transport_pem_fini(&pem);
    return err;
}

/* ---- both ends ---- */

enum err transport_dialer_new(nng_stream_dialer **ret_dialer,
                              const struct transport_endpoint *endpoint, struct errbuf *eb)
{
    nng_stream_dialer *dialer = NULL;
    nng_tls_config *tls;

    enum err err = tls_config_load(&tls, NNG_TLS_MODE_CLIENT, endpoint, eb);
    if (err != ERR_OK)
        return err;
    int rv = nng_stream_dialer_alloc(&dialer, endpoint->url);
    if (rv == 0)
        rv = nng_stream_dialer_set_bool(dialer, NNG_OPT_TCP_NODELAY, true);
    if (rv == 0)
        rv = nng_stream_dialer_set_bool(dialer, NNG_OPT_TCP_KEEPALIVE, true);
    if (rv == 0 && tls != NULL)
        rv = nng_stream_dialer_set_ptr(dialer, NNG_OPT_TLS_CONFIG, tls);
    if (rv == 0) {
        *ret_dialer = dialer;
    } else {
        err = nng_fail(eb, rv, "dialing", endpoint->url);
        if (dialer != NULL)
            nng_stream_dialer_free(dialer);
    }
    if (tls != NULL)
        nng_tls_config_free(tls);
    return err;
}

enum err transport_listener_new(nng_stream_listener **ret_listener, uint16_t *ret_port,
                                const struct transport_endpoint *endpoint, struct errbuf *eb)
{
    nng_stream_listener *listener = NULL;
    nng_tls_config *tls;
    int port = 0;

    enum err err = tls_config_load(&tls, NNG_TLS_MODE_SERVER, endpoint, eb);
    if (err != ERR_OK)
        return err;
    int rv = nng_stream_listener_alloc(&listener, endpoint->url);
    if (rv == 0)
        rv = nng_stream_listener_set_bool(listener, NNG_OPT_TCP_NODELAY, true);
    if (rv == 0)
        rv = nng_stream_listener_set_bool(listener, NNG_OPT_TCP_KEEPALIVE, true);
    if (rv == 0 && tls != NULL)
        rv = nng_stream_listener_set_ptr(listener, NNG_OPT_TLS_CONFIG, tls);
    if (rv == 0)
        rv = nng_stream_listener_listen(listener);
    if (rv == 0) {
        *ret_listener = listener;
        (void)nng_stream_listener_get_int(listener, NNG_OPT_TCP_BOUND_PORT, &port);
        *ret_port = (uint16_t)port;
    } else {
        err = nng_fail(eb, rv, "listening", endpoint->url);
        if (listener != NULL)
            nng_stream_listener_free(listener);
    }
    if (tls != NULL)
        nng_tls_config_free(tls);
    return err;
}
