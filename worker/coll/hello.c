#include "worker/coll/hello.h"

#include <stdio.h>
#include <string.h>

static const uint8_t hello_magic[8] = {'c', 'l', 's', 't', 'c', 'o', 'l', '2'};

void coll_put_u32(uint8_t *to, uint32_t value)
{
    for (unsigned i = 0; i < 4; i++)
        to[i] = (uint8_t)(value >> (8 * i));
}

void coll_put_u64(uint8_t *to, uint64_t value)
{
    coll_put_u32(to, (uint32_t)value);
    coll_put_u32(to + 4, (uint32_t)(value >> 32));
}

uint32_t coll_get_u32(const uint8_t *from)
{
    uint32_t value = 0;
    for (unsigned i = 0; i < 4; i++)
        value |= (uint32_t)from[i] << (8 * i);
    return value;
}

uint64_t coll_get_u64(const uint8_t *from)
{
    return coll_get_u32(from) | (uint64_t)coll_get_u32(from + 4) << 32;
}

enum err coll_code(uint32_t code)
{
    return code > ERR_OK && code <= ERR_LOST ? (enum err)code : ERR_CORRUPT;
}

enum err coll_hello_of(const struct coll_config *config, struct coll_hello *ret_hello,
                       struct errbuf *eb)
{
    const size_t build = strlen(config->build);
    if (build >= COLL_BUILD_BYTES)
        return err_set(eb, ERR_INVALID, "the name of the build has %zu characters; at most %u",
                       build, COLL_BUILD_BYTES - 1);
    *ret_hello = (struct coll_hello){
        .transport = config->transport,
        .rank = config->rank,
        .n_ranks = config->n_ranks,
        .epoch = config->epoch,
        .bytes_max = config->bytes_max,
    };
    memcpy(ret_hello->group, config->group, COLL_GROUP_BYTES);
    memcpy(ret_hello->plan, config->plan, COLL_PLAN_BYTES);
    memcpy(ret_hello->build, config->build, build);
    return ERR_OK;
}

void coll_hello_encode(const struct coll_hello *hello, uint8_t ret_bytes[COLL_HELLO_BYTES])
{
    uint8_t *to = ret_bytes;
    memcpy(to, hello_magic, sizeof hello_magic);
    to += sizeof hello_magic;
    coll_put_u32(to, hello->transport);
    coll_put_u32(to + 4, hello->rank);
    coll_put_u32(to + 8, hello->n_ranks);
    coll_put_u64(to + 12, hello->epoch);
    coll_put_u64(to + 20, hello->bytes_max);
    to += 28;
    memcpy(to, hello->group, COLL_GROUP_BYTES);
    to += COLL_GROUP_BYTES;
    memcpy(to, hello->plan, COLL_PLAN_BYTES);
    to += COLL_PLAN_BYTES;
    memcpy(to, hello->build, COLL_BUILD_BYTES);
    to += COLL_BUILD_BYTES;
    coll_put_u32(to, hello->declined);
    memcpy(to + 4, hello->why, COLL_WHY_BYTES);
}

/* It is told to people: nothing in it moves their cursor. */
static void hello_clean(char *text)
{
    for (; *text != '\0'; text++) {
        if (*text < ' ' || *text > '~')
            *text = '?';
    }
}

enum err coll_hello_decode(const uint8_t *bytes, size_t size, struct coll_hello *ret_hello,
                           struct errbuf *eb)
{
    if (size < COLL_HELLO_BYTES || memcmp(bytes, hello_magic, sizeof hello_magic) != 0)
        return err_set(eb, ERR_CORRUPT, "%zu bytes that are no hello of a gang's rank", size);
    const uint8_t *from = bytes + sizeof hello_magic;
    struct coll_hello hello = {
        .transport = coll_get_u32(from),
        .rank = coll_get_u32(from + 4),
        .n_ranks = coll_get_u32(from + 8),
        .epoch = coll_get_u64(from + 12),
        .bytes_max = coll_get_u64(from + 20),
    };
    from += 28;
    memcpy(hello.group, from, COLL_GROUP_BYTES);
    from += COLL_GROUP_BYTES;
    memcpy(hello.plan, from, COLL_PLAN_BYTES);
    from += COLL_PLAN_BYTES;
    memcpy(hello.build, from, COLL_BUILD_BYTES);
    from += COLL_BUILD_BYTES;
    const uint32_t declined = coll_get_u32(from);
    memcpy(hello.why, from + 4, COLL_WHY_BYTES);
    if (hello.build[COLL_BUILD_BYTES - 1] != '\0' || hello.why[COLL_WHY_BYTES - 1] != '\0')
        return err_set(eb, ERR_CORRUPT, "a hello whose text has no end");
    hello.declined = declined == ERR_OK ? ERR_OK : coll_code(declined);
    hello_clean(hello.build);
    hello_clean(hello.why);
    *ret_hello = hello;
    return ERR_OK;
}

bool coll_hello_is_peer(const struct coll_hello *mine, const struct coll_hello *theirs)
{
    return memcmp(mine->group, theirs->group, COLL_GROUP_BYTES) == 0 &&
           mine->epoch == theirs->epoch;
}

enum err coll_hello_check(const struct coll_hello *mine, const struct coll_hello *theirs,
                          struct errbuf *eb)
{
    if (memcmp(mine->group, theirs->group, COLL_GROUP_BYTES) != 0)
        return err_set(eb, ERR_REFUSED, "rank %u belongs to another gang", theirs->rank);
    if (mine->epoch != theirs->epoch)
        return err_set(eb, ERR_STALE, "rank %u is of epoch %llu, rank %u of epoch %llu",
                       theirs->rank, (unsigned long long)theirs->epoch, mine->rank,
                       (unsigned long long)mine->epoch);
    if (mine->transport != theirs->transport)
        return err_set(eb, ERR_CONFLICT, "rank %u has another transport than rank %u", theirs->rank,
                       mine->rank);
    if (mine->n_ranks != theirs->n_ranks)
        return err_set(eb, ERR_CONFLICT, "rank %u is of a gang of %u, rank %u of one of %u",
                       theirs->rank, theirs->n_ranks, mine->rank, mine->n_ranks);
    if (theirs->rank >= mine->n_ranks)
        return err_set(eb, ERR_CONFLICT, "rank %u in a gang of %u", theirs->rank, mine->n_ranks);
    if (theirs->rank == mine->rank)
        return err_set(eb, ERR_CONFLICT, "rank %u is there twice", mine->rank);
    if (theirs->declined != ERR_OK || mine->declined != ERR_OK) {
        const struct coll_hello *who = theirs->declined != ERR_OK ? theirs : mine;
        return err_set(eb, who->declined, "rank %u does not come: %s", who->rank, who->why);
    }
    if (memcmp(mine->plan, theirs->plan, COLL_PLAN_BYTES) != 0)
        return err_set(eb, ERR_CONFLICT, "rank %u has another plan than rank %u", theirs->rank,
                       mine->rank);
    if (strcmp(mine->build, theirs->build) != 0)
        return err_set(eb, ERR_CONFLICT, "rank %u runs %s, rank %u runs %s", theirs->rank,
                       theirs->build, mine->rank, mine->build);
    if (mine->bytes_max != theirs->bytes_max)
        return err_set(eb, ERR_CONFLICT,
                       "rank %u makes room for operations of %llu bytes, rank %u of %llu",
                       theirs->rank, (unsigned long long)theirs->bytes_max, mine->rank,
                       (unsigned long long)mine->bytes_max);
    return ERR_OK;
}
