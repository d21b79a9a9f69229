/* Where the headers of libucx were not there when this was built. */
#include "worker/coll/coll_ops.h"

enum err coll_ucx_open(const struct coll_config *config, uint64_t deadline_ns,
                       struct coll **ret_coll, struct errbuf *eb)
{
    (void)config;
    (void)deadline_ns;
    (void)ret_coll;
    return coll_ucx_available(eb);
}

enum err coll_ucx_available(struct errbuf *eb)
{
    return err_set(eb, ERR_UNSUPPORTED,
                   "this program was built without libucx (libucx-dev): gangs are of one host");
}

/* Nobody else of this gang could come either. */
void coll_ucx_decline(const struct coll_config *config, const struct coll_hello *hello,
                      uint64_t deadline_ns)
{
    (void)config;
    (void)hello;
    (void)deadline_ns;
}
