#include "coordinator/loop_apply.h"

#include "common/check.h"
#include "common/limits.h"
#include "common/log.h"

#include <stdlib.h>
#include <string.h>

struct apply {
    struct store_txn *txn;
    struct ledger *ledger;
    struct buf packed;
    struct arena scratch;
};

void apply_chunk_key(const struct id *job_id, uint32_t first,
                     uint8_t ret_key[APPLY_CHUNK_KEY_BYTES])
{
    memcpy(ret_key, job_id->bytes, ID_BYTES);
    store_key_u32(ret_key + ID_BYTES, first);
}

void apply_usage_key(const char *tenant, const char *model, uint32_t day,
                     uint8_t ret_key[APPLY_USAGE_KEY_BYTES])
{
    uint8_t digest[SHA256_BYTES];
    struct sha256_stream *s = sha256_new();
    sha256_update(s, tenant, strlen(tenant) + 1);
    sha256_update(s, model, strlen(model));
    sha256_finish(s, digest);
    memcpy(ret_key, digest, 16);
    store_key_u32(ret_key + 16, day);
}

static enum err put_packed(struct apply *a, enum store_table table, const void *key,
                           size_t key_size, enum err packed, struct errbuf *eb)
{
    if (packed != ERR_OK)
        return packed;
    if (a->packed.failed)
        return err_set(eb, ERR_NO_MEMORY, "no memory to pack a record");
    return store_put(a->txn, table, key, key_size, a->packed.data, a->packed.size, eb);
}

/* ---- jobs that are removed ---- */

#define KEYS_PER_SCAN 256u

struct chunk_keys {
    struct id job_id;
    uint8_t keys[KEYS_PER_SCAN][APPLY_CHUNK_KEY_BYTES];
    size_t n;
};

static bool chunk_key_visit(void *arg, const uint8_t *key, size_t key_size)
{
    struct chunk_keys *k = arg;
    if (key_size != APPLY_CHUNK_KEY_BYTES || memcmp(key, k->job_id.bytes, ID_BYTES) != 0)
        return false;
    memcpy(k->keys[k->n++], key, key_size);
    return k->n < KEYS_PER_SCAN;
}

static enum err deleted_or_gone(enum err err)
{
    return err == ERR_NOT_FOUND ? ERR_OK : err;
}

static enum err job_delete(struct apply *a, const struct id *job_id, struct errbuf *eb)
{
    struct chunk_keys *k = calloc(1, sizeof *k);
    uint8_t from[APPLY_CHUNK_KEY_BYTES];
    enum err err = ERR_OK;
    if (k == NULL)
        return err_set(eb, ERR_NO_MEMORY, "no memory to remove a job");
    k->job_id = *job_id;
    apply_chunk_key(job_id, 0, from);
    do {
        k->n = 0;
        err = store_scan_keys(a->txn, STORE_TABLE_CHUNK, from, sizeof from, chunk_key_visit, k, eb);
        for (size_t i = 0; i < k->n && err == ERR_OK; i++)
            err = store_delete(a->txn, STORE_TABLE_CHUNK, k->keys[i], APPLY_CHUNK_KEY_BYTES, eb);
    } while (err == ERR_OK && k->n == KEYS_PER_SCAN);
    /* What is not there is removed: refusing would refuse everybody's work with it, for ever. */
    if (err == ERR_OK)
        err =
            deleted_or_gone(store_delete(a->txn, STORE_TABLE_CONTENT, job_id->bytes, ID_BYTES, eb));
    if (err == ERR_OK)
        err = deleted_or_gone(store_delete(a->txn, STORE_TABLE_JOB, job_id->bytes, ID_BYTES, eb));
    free(k);
    return err;
}

/* ---- ledger ---- */

struct output_ids {
    struct id job_id;
    struct buf *bytes;
    struct arena *scratch;
    enum err err;
    struct errbuf *eb;
};

static bool output_visit(void *arg, const uint8_t *key, size_t key_size, struct store_value value)
{
    struct output_ids *o = arg;
    struct record_chunk chunk;
    if (key_size != APPLY_CHUNK_KEY_BYTES || memcmp(key, o->job_id.bytes, ID_BYTES) != 0)
        return false;
    arena_reset(o->scratch);
    o->err = record_chunk_decode(value.data, value.size, o->scratch, &chunk, o->eb);
    for (size_t i = 0; i < chunk.n_ids && o->err == ERR_OK; i++) {
        uint32_t id = (uint32_t)chunk.ids[i];
        const uint8_t bytes[4] = {(uint8_t)id, (uint8_t)(id >> 8), (uint8_t)(id >> 16),
                                  (uint8_t)(id >> 24)};
        buf_append(o->bytes, bytes, sizeof bytes);
    }
    return o->err == ERR_OK;
}

static enum err prompt_evidence(struct apply *a, struct record_ledger *r, struct errbuf *eb)
{
    struct store_value content;
    struct wire_job job;
    struct buf bytes;
    enum err err = store_get(a->txn, STORE_TABLE_CONTENT, r->job_id.bytes, ID_BYTES, &content, eb);
    if (err != ERR_OK)
        return err == ERR_NOT_FOUND ? err_set(eb, ERR_CORRUPT, "a job's content is missing") : err;
    buf_init(&bytes);
    arena_reset(&a->scratch);
    err = wire_job_decode(content.data, content.size, &a->scratch, &job, eb);
    if (err == ERR_OK)
        err = wire_sampling_encode(&job.sampling, &bytes, eb);
    if (err == ERR_OK && bytes.failed)
        err = err_set(eb, ERR_NO_MEMORY, "no memory for a ledger record");
    if (err == ERR_OK) {
        ledger_evidence_hash(a->ledger, content.data, content.size, r->prompt_hash);
        r->seed = job.sampling.seed;
        sha256(bytes.data, bytes.size, r->sampling_digest);
    }
    buf_fini(&bytes);
    return err;
}

static enum err output_evidence(struct apply *a, struct record_ledger *r, struct errbuf *eb)
{
    struct buf bytes;
    uint8_t from[APPLY_CHUNK_KEY_BYTES];
    struct output_ids o = {.job_id = r->job_id, .bytes = &bytes, .scratch = &a->scratch, .eb = eb};
    if (r->completion_delivered == 0)
        return ERR_OK;
    buf_init(&bytes);
    apply_chunk_key(&r->job_id, 0, from);
    enum err err = store_scan(a->txn, STORE_TABLE_CHUNK, from, sizeof from, output_visit, &o, eb);
    if (err == ERR_OK)
        err = o.err;
    if (err == ERR_OK && bytes.failed)
        err = err_set(eb, ERR_NO_MEMORY, "no memory for a ledger record");
    if (err == ERR_OK && bytes.size != r->completion_delivered * 4)
        err = err_set(eb, ERR_CORRUPT, "a job's stored tokens are not as many as it says");
    if (err == ERR_OK)
        ledger_evidence_hash(a->ledger, bytes.data, bytes.size, r->output_hash);
    buf_fini(&bytes);
    return err;
}

/* What is damaged on disk gives no evidence any more, and the record says so by having none. The
 * job can end nevertheless: refusing to store that would refuse everybody's work with it, for ever.
 */
static enum err evidence_or_none(enum err err, const struct record_ledger *r, const char *what,
                                 struct errbuf *eb)
{
    char id[ID_TEXT_BYTES];
    if (err == ERR_OK || err == ERR_IO || err == ERR_NO_MEMORY || err == ERR_NO_SPACE)
        return err;
    id_format(&r->job_id, id);
    log_error("job %s: its ledger record has no evidence of the %s: %s", id, what, eb->text);
    return ERR_OK;
}

/* What the record says about content and tokens comes from what is stored, in this transaction:
 * the same bytes that a recount would read. */
static enum err evidence_fill(struct apply *a, struct record_ledger *r, struct errbuf *eb)
{
    enum err err = evidence_or_none(prompt_evidence(a, r, eb), r, "prompt", eb);
    if (err == ERR_OK)
        err = evidence_or_none(output_evidence(a, r, eb), r, "answer", eb);
    return err;
}

static enum err ledger_apply(struct apply *a, const struct record_ledger *want, struct errbuf *eb)
{
    struct record_ledger r = *want;
    /* A METER is about a device, and no job's content. */
    enum err err = r.kind == RECORD_LEDGER_METER ? ERR_OK : evidence_fill(a, &r, eb);
    if (err == ERR_OK)
        err = ledger_append(a->ledger, a->txn, &r, eb);
    /* The core wrote this number into the job's record already. */
    CHECK(err != ERR_OK || r.seq == want->seq);
    return err;
}

/* ---- all of them, in the order in which they were made ---- */

static enum err effect_apply(struct apply *a, const struct core_effect *e, struct errbuf *eb)
{
    uint8_t key[LIMIT_STORE_KEY_BYTES];
    buf_clear(&a->packed);
    switch (e->kind) {
    case CORE_EFFECT_PUT_JOB:
        return put_packed(a, STORE_TABLE_JOB, e->job.job_id.bytes, ID_BYTES,
                          record_job_encode(&e->job, &a->packed, eb), eb);
    case CORE_EFFECT_PUT_CONTENT:
        return store_put(a->txn, STORE_TABLE_CONTENT, e->job_id.bytes, ID_BYTES, e->content.data,
                         e->content.size, eb);
    case CORE_EFFECT_PUT_CHUNK:
        apply_chunk_key(&e->job_id, e->chunk.first, key);
        return put_packed(a, STORE_TABLE_CHUNK, key, APPLY_CHUNK_KEY_BYTES,
                          record_chunk_encode(&e->chunk.record, &a->packed, eb), eb);
    case CORE_EFFECT_DELETE_JOB:
        return job_delete(a, &e->job_id, eb);
    case CORE_EFFECT_PUT_USAGE:
        apply_usage_key(e->usage.tenant, e->usage.model, e->usage.day, key);
        return put_packed(a, STORE_TABLE_USAGE, key, APPLY_USAGE_KEY_BYTES,
                          record_usage_encode(&e->usage, &a->packed, eb), eb);
    case CORE_EFFECT_PUT_BALANCE:
        return put_packed(a, STORE_TABLE_BALANCE, e->balance.tenant, strlen(e->balance.tenant),
                          record_balance_encode(&e->balance, &a->packed, eb), eb);
    case CORE_EFFECT_PUT_LEARNED:
        return put_packed(a, STORE_TABLE_LEARNED, e->learned.model, strlen(e->learned.model),
                          record_learned_encode(&e->learned, &a->packed, eb), eb);
    case CORE_EFFECT_DELETE_LEARNED:
        return deleted_or_gone(store_delete(a->txn, STORE_TABLE_LEARNED, e->learned.model,
                                            strlen(e->learned.model), eb));
    case CORE_EFFECT_LEDGER:
        return ledger_apply(a, &e->ledger, eb);
    case CORE_EFFECT_REPLY:
        break;
    }
    return ERR_OK;
}

static struct id effect_job(const struct core_effect *e)
{
    switch (e->kind) {
    case CORE_EFFECT_PUT_JOB:
        return e->job.job_id;
    case CORE_EFFECT_LEDGER:
        return e->ledger.job_id;
    case CORE_EFFECT_PUT_CONTENT:
    case CORE_EFFECT_PUT_CHUNK:
    case CORE_EFFECT_DELETE_JOB:
        return e->job_id;
    case CORE_EFFECT_PUT_USAGE:
    case CORE_EFFECT_PUT_BALANCE:
    case CORE_EFFECT_PUT_LEARNED:
    case CORE_EFFECT_DELETE_LEARNED:
    case CORE_EFFECT_REPLY:
        break;
    }
    return (struct id){{0}};
}

enum err apply_effects_put(struct store_txn *txn, struct ledger *ledger,
                           const struct core_effects *effects, struct id *ret_refused,
                           struct errbuf *eb)
{
    struct apply a = {.txn = txn, .ledger = ledger};
    enum err err = ERR_OK;
    buf_init(&a.packed);
    arena_init(&a.scratch, LIMIT_DECODE_BYTES);
    for (const struct core_effect *e = effects->first; e != NULL && err == ERR_OK; e = e->next) {
        err = effect_apply(&a, e, eb);
        if (err != ERR_OK)
            *ret_refused = effect_job(e);
    }
    buf_fini(&a.packed);
    arena_fini(&a.scratch);
    return err;
}

enum err apply_effects(struct store *store, struct ledger *ledger,
                       const struct core_effects *effects, struct id *ret_refused,
                       struct errbuf *eb)
{
    struct store_txn *txn;
    struct id refused = {{0}};
    enum err err = store_begin(store, true, &txn, eb);
    if (err != ERR_OK)
        goto out;
    err = apply_effects_put(txn, ledger, effects, &refused, eb);
    if (err == ERR_OK)
        err = store_commit(txn, eb);
    else
        store_abort(txn);
    if (err == ERR_OK)
        ledger_committed(ledger);
    else
        ledger_rolled_back(ledger);
out:
    if (ret_refused != NULL)
        *ret_refused = refused;
    return err;
}
