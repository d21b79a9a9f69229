/*
 * A gang of several hosts is made and ended. What a rank puts up at the rendezvous is its hello,
 * the address that libucx gives it, and a digest over both that only who knows the group id can
 * make: an address is libucx's to read, and it trusts what it reads.
 */
#include "common/clock.h"
#include "common/crypto.h"
#include "worker/coll/hello.h"
#include "worker/coll/ucx.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#define UCX_ADDRESS_MAX 8192u
#define UCX_HEAD_BYTES  (SHA256_BYTES + COLL_HELLO_BYTES)
#define UCX_SILENCE_MS  1500u
/* How long an endpoint may take to say goodbye. */
#define UCX_CLOSE_NS 150000000u

/* ---- the card: digest, hello, address ---- */

static void ucx_card_digest(const uint8_t group[COLL_GROUP_BYTES], const uint8_t *bytes,
                            size_t size, uint8_t ret_digest[SHA256_BYTES])
{
    uint8_t both[COLL_GROUP_BYTES + SHA256_BYTES];
    memcpy(both, group, COLL_GROUP_BYTES);
    sha256(bytes, size, both + COLL_GROUP_BYTES);
    sha256(both, sizeof both, ret_digest);
}

static enum err ucx_card_check(const struct coll_hello *mine, uint32_t rank,
                               const struct coll_bytes *card, struct errbuf *eb)
{
    struct coll_hello theirs;
    uint8_t digest[SHA256_BYTES];
    if (card->data == NULL || card->size < UCX_HEAD_BYTES ||
        card->size > UCX_HEAD_BYTES + UCX_ADDRESS_MAX)
        return err_set(eb, ERR_CORRUPT, "what came for rank %u, %zu bytes, is no rank's address",
                       rank, card->size);
    enum err e =
        coll_hello_decode(card->data + SHA256_BYTES, card->size - SHA256_BYTES, &theirs, eb);
    ucx_card_digest(mine->group, card->data + SHA256_BYTES, card->size - SHA256_BYTES, digest);
    if (e == ERR_OK && memcmp(mine->group, theirs.group, COLL_GROUP_BYTES) == 0 &&
        memcmp(digest, card->data, sizeof digest) != 0)
        return err_set(eb, ERR_CORRUPT, "what came for rank %u was changed on the way", rank);
    if (e == ERR_OK)
        e = coll_hello_check(mine, &theirs, eb);
    if (e != ERR_OK)
        return err_prefix(eb, e, "what came for rank %u", rank);
    if (card->size == UCX_HEAD_BYTES)
        return err_set(eb, ERR_CORRUPT, "what came for rank %u has no address", rank);
    if (theirs.rank != rank)
        return err_set(eb, ERR_CONFLICT, "rank %u stands in the place of rank %u", theirs.rank,
                       rank);
    return ERR_OK;
}

/* ---- libucx ---- */

static enum err ucx_said(const struct ucx *u, const char *what, ucs_status_t status,
                         struct errbuf *eb)
{
    return err_set(eb, status == UCS_ERR_NO_MEMORY ? ERR_NO_MEMORY : ERR_UNAVAILABLE,
                   "libucx: %s: %s", what, u->lib->ucs_status_string(status));
}

/* Unless the environment says otherwise. */
static const struct {
    const char *variable, *name, *value;
} ucx_settings[] = {
    /* Ranks of one host that come by this way talk over the network too: what libucx shares between
     * processes may be left behind by one that is killed. */
    {"UCX_TLS", "TLS", "^sm"},
    /* A connect that waits would wait for minutes where a host is gone. It also keeps libucx 1.13
     * away from an assertion that ends the process where a peer goes away while it is connected to
     * (uct_tcp_ep_connect fails twice before it says that the endpoint may send). */
    {"UCX_TCP_CONN_NB", "CONN_NB", "y"},     /* its name in 1.13 */
    {"UCX_TCP_CONN_NB", "TCP_CONN_NB", "y"}, /* its name in the manual */
};

static enum err ucx_context_open(struct ucx *u, struct errbuf *eb)
{
    ucp_config_t *config;
    ucs_status_t status = u->lib->ucp_config_read(NULL, NULL, &config);
    if (status != UCS_OK)
        return ucx_said(u, "configuration (UCX_* in the environment)", status, eb);
    for (unsigned i = 0; i < sizeof ucx_settings / sizeof ucx_settings[0]; i++) {
        if (status == UCS_OK && getenv(ucx_settings[i].variable) == NULL)
            status = u->lib->ucp_config_modify(config, ucx_settings[i].name, ucx_settings[i].value);
    }
    const ucp_params_t params = {
        .field_mask = UCP_PARAM_FIELD_FEATURES | UCP_PARAM_FIELD_ESTIMATED_NUM_EPS,
        .features = UCP_FEATURE_TAG | UCP_FEATURE_AM | UCP_FEATURE_WAKEUP,
        .estimated_num_eps = u->base.n_ranks,
    };
    if (status == UCS_OK)
        status =
            u->lib->ucp_init_version(UCP_API_MAJOR, UCP_API_MINOR, &params, config, &u->context);
    u->lib->ucp_config_release(config);
    return status == UCS_OK ? ERR_OK : ucx_said(u, "start", status, eb);
}

static enum err ucx_worker_open(struct ucx *u, size_t *ret_address_bytes, struct errbuf *eb)
{
    const ucp_worker_params_t params = {.field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE,
                                        .thread_mode = UCS_THREAD_MODE_SERIALIZED};
    const ucp_am_handler_param_t notes = {
        .field_mask = UCP_AM_HANDLER_PARAM_FIELD_ID | UCP_AM_HANDLER_PARAM_FIELD_CB |
                      UCP_AM_HANDLER_PARAM_FIELD_ARG,
        .id = 0,
        .cb = ucx_note_come,
        .arg = u,
    };
    ucs_status_t status = u->lib->ucp_worker_create(u->context, &params, &u->worker);
    if (status == UCS_OK)
        status = u->lib->ucp_worker_set_am_recv_handler(u->worker, &notes);
    if (status == UCS_OK)
        status = u->lib->ucp_worker_get_efd(u->worker, &u->worker_fd);
    if (status == UCS_OK)
        status = u->lib->ucp_worker_get_address(u->worker, &u->address, ret_address_bytes);
    return status == UCS_OK ? ERR_OK : ucx_said(u, "a worker", status, eb);
}

static enum err ucx_peer_open(struct ucx *u, uint32_t rank, const struct coll_bytes *card,
                              struct errbuf *eb)
{
    struct ucx_peer *peer = &u->peer[rank];
    _Alignas(16) uint8_t address[UCX_ADDRESS_MAX];
    memcpy(address, card->data + UCX_HEAD_BYTES, card->size - UCX_HEAD_BYTES);
    const ucp_ep_params_t params = {
        .field_mask = UCP_EP_PARAM_FIELD_REMOTE_ADDRESS | UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE |
                      UCP_EP_PARAM_FIELD_ERR_HANDLER,
        .address = (const ucp_address_t *)(const void *)address,
        .err_mode = UCP_ERR_HANDLING_MODE_PEER,
        .err_handler = {.cb = ucx_peer_failed, .arg = peer},
    };
    ucs_status_t status = u->lib->ucp_ep_create(u->worker, &params, &peer->ep);
    return status == UCS_OK ? ERR_OK : ucx_said(u, "an endpoint", status, eb);
}

/* ---- opening ---- */

static void ucx_card_head(const struct coll_hello *mine, size_t address_bytes, uint8_t *card)
{
    coll_hello_encode(mine, card + SHA256_BYTES);
    ucx_card_digest(mine->group, card + SHA256_BYTES, COLL_HELLO_BYTES + address_bytes, card);
}

/* A card without an address: the others find the reason on it. Needs no libucx. */
void coll_ucx_decline(const struct coll_config *config, const struct coll_hello *hello,
                      uint64_t deadline_ns)
{
    struct coll_bytes cards[COLL_RANKS_MAX] = {{0}};
    uint8_t card[UCX_HEAD_BYTES];
    struct errbuf eb;
    ucx_card_head(hello, 0, card);
    (void)config->rendezvous.exchange(config->rendezvous.ctx, card, sizeof card, deadline_ns,
                                      config->stop, cards, &eb);
}

static enum err ucx_exchange(struct ucx *u, const struct coll_config *config,
                             const struct coll_hello *mine, size_t address_bytes,
                             uint64_t deadline_ns, struct errbuf *eb)
{
    struct coll_bytes cards[COLL_RANKS_MAX] = {{0}};
    uint8_t card[UCX_HEAD_BYTES + UCX_ADDRESS_MAX];
    if (u->base.n_ranks == 1)
        return ERR_OK;
    if (address_bytes > UCX_ADDRESS_MAX)
        return err_set(eb, ERR_TOO_LARGE,
                       "libucx's address has %zu bytes, at most %u are carried: name fewer devices "
                       "in UCX_NET_DEVICES",
                       address_bytes, UCX_ADDRESS_MAX);
    memcpy(card + UCX_HEAD_BYTES, u->address, address_bytes);
    ucx_card_head(mine, address_bytes, card);
    enum err e =
        config->rendezvous.exchange(config->rendezvous.ctx, card, UCX_HEAD_BYTES + address_bytes,
                                    deadline_ns, config->stop, cards, eb);
    for (uint32_t r = 0; r < u->base.n_ranks && e == ERR_OK; r++) {
        if (r != u->base.rank)
            e = ucx_card_check(mine, r, &cards[r], eb);
    }
    for (uint32_t r = 0; r < u->base.n_ranks && e == ERR_OK; r++) {
        if (r != u->base.rank)
            e = ucx_peer_open(u, r, &cards[r], eb);
    }
    return e;
}

/* What marks this gang's messages: from the group id, so that no stranger knows it, and the epoch,
 * so that what an older one sent means nothing. */
static void ucx_token(struct ucx *u, const struct coll_hello *mine)
{
    uint8_t bytes[COLL_HELLO_BYTES], digest[SHA256_BYTES];
    struct coll_hello of_all = *mine;
    of_all.rank = 0;
    coll_hello_encode(&of_all, bytes);
    ucx_card_digest(mine->group, bytes, sizeof bytes, digest);
    memcpy(u->token, digest, sizeof u->token);
    memcpy(u->beat.token, u->token, sizeof u->token);
    coll_put_u32(u->beat.kind, UCX_NOTE_BEAT);
    coll_put_u32(u->beat.rank, mine->rank);
}

static enum err ucx_resources(struct ucx *u, struct errbuf *eb)
{
    const size_t bytes = (size_t)coll_memory(COLL_TRANSPORT_UCX, u->base.bytes_max);
    u->memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (u->memory == MAP_FAILED) {
        u->memory = NULL;
        return err_set(eb, ERR_NO_MEMORY, "no memory for a gang's %zu bytes", bytes);
    }
    u->base.half[0] = u->memory;
    u->base.half[1] = u->memory + bytes / 2;
    u->wake_owner = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    u->wake_beater = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (u->wake_owner < 0 || u->wake_beater < 0)
        return err_set(eb, ERR_IO, "no files to wake a gang's threads by");
    u->has_lock =
        pthread_mutex_init(&u->lock, NULL) == 0 && pthread_mutex_init(&u->abort_lock, NULL) == 0;
    return u->has_lock ? ERR_OK : err_set(eb, ERR_NO_MEMORY, "no locks for a gang");
}

enum err coll_ucx_available(struct errbuf *eb)
{
    const struct ucx_library *lib;
    return ucx_library_open(&lib, eb);
}

enum err coll_ucx_open(const struct coll_config *config, const struct coll_watch *watch,
                       uint64_t deadline_ns, struct coll **ret_coll, struct errbuf *eb)
{
    struct coll_hello mine;
    const struct ucx_library *lib;
    size_t address_bytes = 0;
    enum err e = coll_hello_of(config, &mine, eb);
    if (e == ERR_OK)
        e = ucx_library_open(&lib, eb);
    if (e != ERR_OK)
        return e;
    struct ucx *u = calloc(1, sizeof *u);
    if (u == NULL)
        return err_set(eb, ERR_NO_MEMORY, "no memory for a gang");
    u->lib = lib;
    u->base = (struct coll){.ops = &ucx_ops,
                            .rank = config->rank,
                            .n_ranks = config->n_ranks,
                            .bytes_max = config->bytes_max,
                            .watch = *watch,
                            .op = {.seq = COLL_SEQ_FIRST}};
    u->wake_owner = u->wake_beater = -1;
    u->silence_ns =
        (uint64_t)(config->silence_ms > 0 ? config->silence_ms : UCX_SILENCE_MS) * 1000000u;
    for (uint32_t r = 0; r < config->n_ranks; r++)
        u->peer[r].gang = u;
    ucx_token(u, &mine);
    e = ucx_resources(u, eb);
    if (e == ERR_OK)
        e = ucx_context_open(u, eb);
    if (e == ERR_OK)
        e = ucx_worker_open(u, &address_bytes, eb);
    if (e == ERR_OK)
        e = ucx_exchange(u, config, &mine, address_bytes, deadline_ns, eb);
    if (e == ERR_OK && config->n_ranks > 1) {
        u->has_beater = pthread_create(&u->beater, NULL, ucx_beater_main, u) == 0;
        if (!u->has_beater)
            e = err_set(eb, ERR_NO_MEMORY, "no thread for a gang");
    }
    if (e != ERR_OK) {
        ucx_close(&u->base);
        return e;
    }
    *ret_coll = &u->base;
    return ERR_OK;
}

/* ---- closing ---- */

/* Endpoints of those who are there say goodbye and send what they still have; the others are
 * dropped. */
static void ucx_peers_close(struct ucx *u)
{
    void *closing[COLL_RANKS_MAX] = {NULL};
    for (uint32_t r = 0; r < u->base.n_ranks; r++) {
        struct ucx_peer *peer = &u->peer[r];
        ucx_flow_cancel(peer, &peer->receive);
        ucx_flow_cancel(peer, &peer->receipt);
        ucx_flow_cancel(peer, &peer->send);
        if (peer->ep == NULL)
            continue;
        const bool is_rude = u->broken != ERR_OK || peer->is_gone;
        const ucp_request_param_t param = {.op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS,
                                           .flags = is_rude ? UCP_EP_CLOSE_FLAG_FORCE : 0};
        closing[r] = u->lib->ucp_ep_close_nbx(peer->ep, &param);
        peer->ep = NULL;
    }
    const uint64_t until = clock_mono_ns() + UCX_CLOSE_NS;
    for (uint32_t r = 0; r < u->base.n_ranks; r++) {
        if (!UCS_PTR_IS_PTR(closing[r]))
            continue;
        while (u->lib->ucp_request_check_status(closing[r]) == UCS_INPROGRESS &&
               clock_mono_ns() < until) {
            if (u->lib->ucp_worker_progress(u->worker) == 0)
                (void)poll(NULL, 0, 1);
        }
        u->lib->ucp_request_free(closing[r]);
    }
}

void ucx_close(struct coll *c)
{
    struct ucx *u = (struct ucx *)c;
    const uint64_t one = 1;
    atomic_store(&u->is_ending, true);
    if (u->has_beater) {
        (void)!write(u->wake_beater, &one, sizeof one);
        pthread_join(u->beater, NULL);
        ucx_leave(u);
    }
    if (u->worker != NULL) {
        ucx_peers_close(u);
        if (u->address != NULL)
            u->lib->ucp_worker_release_address(u->worker, u->address);
        u->lib->ucp_worker_destroy(u->worker);
    }
    if (u->context != NULL)
        u->lib->ucp_cleanup(u->context);
    if (u->wake_owner >= 0)
        close(u->wake_owner);
    if (u->wake_beater >= 0)
        close(u->wake_beater);
    if (u->has_lock) {
        pthread_mutex_destroy(&u->lock);
        pthread_mutex_destroy(&u->abort_lock);
    }
    if (u->memory != NULL)
        (void)munmap(u->memory, (size_t)coll_memory(COLL_TRANSPORT_UCX, u->base.bytes_max));
    free(u);
}
