/* Pieces on their way between two ranks, some messages at a time. */
#include "common/check.h"
#include "common/clock.h"
#include "worker/coll/ucx.h"

#include <string.h>

/* The bits of a tag that choose a message: whose it is, and of which gang. The others are compared
 * when it is there. */
#define UCX_TAG_CHOOSE 0xffffffffff000000u

/* ---- one message ---- */

static bool request_is_odd(const struct ucx_request *r, bool is_broadcast)
{
    if (r->status != UCS_OK || r->tag == 0)
        return r->status != UCS_OK;
    return r->info.sender_tag != r->tag || (!is_broadcast && r->info.length != r->bytes);
}

/* True where none is under way. */
static bool request_is_over(struct ucx_peer *peer, struct ucx_flow *flow, struct ucx_request *r)
{
    const struct ucx_library *lib = peer->gang->lib;
    if (!r->is_active)
        return true;
    if (r->request != NULL) {
        const ucs_status_t status = r->tag != 0
                                        ? lib->ucp_tag_recv_request_test(r->request, &r->info)
                                        : lib->ucp_request_check_status(r->request);
        if (status == UCS_INPROGRESS)
            return false;
        lib->ucp_request_free(r->request);
        r->request = NULL;
        r->status = status;
    }
    r->is_active = false;
    if (r->tag != 0 && r->status == UCS_OK)
        peer->heard_ns = clock_mono_ns(); /* its bytes may be here before its beats */
    if (!flow->is_odd) {
        flow->is_odd = request_is_odd(r, flow->is_broadcast);
        flow->result = *r;
    }
    return true;
}

/* Messages with one tag are received in the order in which they were sent. */
static void request_start(struct ucx_peer *peer, struct ucx_flow *flow, struct ucx_request *r)
{
    const struct ucx_library *lib = peer->gang->lib;
    const size_t size = flow->n_left > 1 ? UCX_CHUNK_BYTES : flow->left;
    ucs_status_ptr_t result;
    const ucp_tag_t tag = flow->tag | (flow->n_left > 1 ? UCX_TAG_MORE : 0);
    *r = (struct ucx_request){.bytes = size, .is_active = true};
    if (flow->is_receive) {
        const ucp_request_param_t param = {.op_attr_mask = UCP_OP_ATTR_FLAG_NO_IMM_CMPL};
        r->tag = tag;
        result = lib->ucp_tag_recv_nbx(peer->gang->worker, flow->at, size, r->tag, UCX_TAG_CHOOSE,
                                       &param);
    } else {
        const ucp_request_param_t param = {.op_attr_mask = 0};
        result = lib->ucp_tag_send_nbx(peer->ep, flow->at, size, tag, &param);
    }
    r->request = UCS_PTR_IS_PTR(result) ? result : NULL;
    r->status = UCS_PTR_IS_ERR(result) ? UCS_PTR_STATUS(result) : UCS_OK;
    flow->n_left--;
    flow->left -= size;
    if (size > 0)
        flow->at += size;
}

/* ---- all of a piece ---- */

void ucx_flow_begin(struct ucx_peer *peer, struct ucx_flow *flow, const struct ucx_piece *piece)
{
    const size_t n = (piece->size + UCX_CHUNK_BYTES - 1) / UCX_CHUNK_BYTES;
    CHECK(!ucx_flow_is_active(flow) && n < UINT32_MAX);
    *flow = (struct ucx_flow){.at = piece->at,
                              .left = piece->size,
                              .n_left = piece->is_broadcast || n == 0 ? 1 : (uint32_t)n,
                              .tag = piece->tag,
                              .is_receive = piece->is_receive,
                              .is_broadcast = piece->is_broadcast,
                              .is_wanted = piece->is_wanted};
    (void)ucx_flow_done(peer, flow);
}

bool ucx_flow_done(struct ucx_peer *peer, struct ucx_flow *flow)
{
    bool is_over = true;
    for (uint32_t i = 0; i < UCX_WINDOW; i++) {
        struct ucx_request *r = &flow->window[i];
        while (request_is_over(peer, flow, r) && flow->n_left > 0 && !flow->is_odd)
            request_start(peer, flow, r);
        is_over = is_over && !r->is_active;
    }
    if (is_over || flow->is_odd)
        flow->is_wanted = false;
    return !flow->is_wanted;
}

bool ucx_flow_is_active(const struct ucx_flow *flow)
{
    bool is_active = false;
    for (uint32_t i = 0; i < UCX_WINDOW; i++)
        is_active = is_active || flow->window[i].is_active;
    return is_active;
}

void ucx_flow_want(struct ucx_flow *flow)
{
    flow->is_wanted = ucx_flow_is_active(flow);
}

void ucx_flow_cancel(struct ucx_peer *peer, struct ucx_flow *flow)
{
    struct ucx *u = peer->gang;
    for (uint32_t i = 0; i < UCX_WINDOW; i++) {
        struct ucx_request *r = &flow->window[i];
        if (r->request != NULL) {
            u->lib->ucp_request_cancel(u->worker, r->request);
            u->lib->ucp_request_free(r->request);
        }
        *r = (struct ucx_request){.request = NULL};
    }
}
