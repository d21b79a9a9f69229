/*
 * ucx_library.h - libucx, opened when a gang first asks for it, so that one binary runs where it is
 * installed and where it is not. Internal to worker/coll. Thread: any.
 */
#ifndef CLOISTER_WORKER_COLL_UCX_LIBRARY_H
#define CLOISTER_WORKER_COLL_UCX_LIBRARY_H

#ifdef CLOISTER_HAVE_UCX

#include "common/err.h"

#include <ucm/api/ucm.h>
#include <ucp/api/ucp.h>
#include <ucs/config/global_opts.h>
#include <ucs/debug/debug.h>

#define UCX_FUNCTIONS(X)                                                                           \
    X(ucp_get_version)                                                                             \
    X(ucp_config_read)                                                                             \
    X(ucp_config_modify)                                                                           \
    X(ucp_config_release)                                                                          \
    X(ucp_init_version)                                                                            \
    X(ucp_cleanup)                                                                                 \
    X(ucp_worker_create)                                                                           \
    X(ucp_worker_destroy)                                                                          \
    X(ucp_worker_get_address)                                                                      \
    X(ucp_worker_release_address)                                                                  \
    X(ucp_worker_set_am_recv_handler)                                                              \
    X(ucp_worker_get_efd)                                                                          \
    X(ucp_worker_arm)                                                                              \
    X(ucp_worker_progress)                                                                         \
    X(ucp_ep_create)                                                                               \
    X(ucp_ep_close_nbx)                                                                            \
    X(ucp_tag_send_nbx)                                                                            \
    X(ucp_tag_recv_nbx)                                                                            \
    X(ucp_tag_recv_request_test)                                                                   \
    X(ucp_am_send_nbx)                                                                             \
    X(ucp_request_check_status)                                                                    \
    X(ucp_request_cancel)                                                                          \
    X(ucp_request_free)                                                                            \
    X(ucs_status_string)                                                                           \
    X(ucs_global_opts_set_value)                                                                   \
    X(ucs_debug_disable_signal)

struct ucx_library {
#define UCX_MEMBER(name) __typeof__(name) *name;
    UCX_FUNCTIONS(UCX_MEMBER)
#undef UCX_MEMBER
};

/* Stays open until the process ends. ERR_UNSUPPORTED says what is missing. */
enum err ucx_library_open(const struct ucx_library **ret_library, struct errbuf *eb);

#endif
#endif
