#include "coordinator/loop_fill.h"

#include "common/limits.h"
#include "coordinator/loop_apply.h"

#include <stdio.h>
#include <string.h>

/* What a frame may carry beside its smaller parts. */
#define FILL_BYTES_MAX      (8u << 20)
#define LOGPROBS_WIRE_BYTES 4u  /* beside their own bytes */
#define ID_WIRE_BYTES       10u /* a negative int32 as a varint; ids are never longer */

/* ---- tokens ---- */

/* Chunks of one job from `first` on, until `tokens` or a bound is reached. */
struct chunk_reader {
    struct id job_id;
    uint32_t first;
    uint32_t tokens;
    bool with_tail; /* text behind the last token, once the job is over */
    size_t tokens_max;
    size_t bytes_max;
    struct arena *arena;
    struct errbuf *eb;
    /* so far */
    struct buf ids; /* int32_t */
    struct buf text;
    struct buf logprobs; /* struct wire_bytes; what they point to lies in the arena */
    uint32_t start;      /* index of ids[0] */
    uint32_t next;
    size_t logprob_bytes; /* of a frame */
    bool began;
    bool cut; /* a bound was reached */
    enum err err;
};

static uint32_t key_first(const uint8_t *key)
{
    const uint8_t *p = key + ID_BYTES;
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* Bytes of text that the first `n_ids` tokens of a run add; it is not all of them. */
static size_t chunk_text_before(const struct record_chunk *chunk, uint32_t n_ids)
{
    size_t bytes = 0;
    for (size_t i = 0; i < n_ids && i < chunk->n_text_sizes; i++)
        bytes += (size_t)chunk->text_sizes[i];
    return bytes;
}

static bool chunk_visit(void *arg, const uint8_t *key, size_t key_size, struct store_value value)
{
    struct chunk_reader *r = arg;
    struct record_chunk chunk;
    if (key_size != APPLY_CHUNK_KEY_BYTES || memcmp(key, r->job_id.bytes, ID_BYTES) != 0)
        return false;
    uint32_t first = key_first(key);
    if (first > r->tokens || (first == r->tokens && !r->with_tail))
        return false;
    r->err = record_chunk_decode(value.data, value.size, r->arena, &chunk, r->eb);
    if (r->err != ERR_OK)
        return false;
    if (first + chunk.n_ids <= r->first && !(chunk.n_ids == 0 && first == r->first))
        return true; /* before the place that was asked for */
    size_t n_ids = r->ids.size / sizeof(int32_t) + chunk.n_ids;
    size_t bytes = r->text.size + chunk.text_size + n_ids * ID_WIRE_BYTES + r->logprob_bytes;
    for (size_t i = 0; i < chunk.n_logprobs; i++)
        bytes += chunk.logprobs[i].size + LOGPROBS_WIRE_BYTES;
    if (r->began && (n_ids > r->tokens_max || bytes > r->bytes_max)) {
        r->cut = true;
        return false;
    }
    uint32_t skipped = 0;
    if (!r->began) {
        r->began = true;
        r->start = r->first > first ? r->first : first;
        skipped = r->start - first;
    } else if (first != r->next) {
        r->err = err_set(r->eb, ERR_CORRUPT, "stored tokens of a job end at %u and go on at %u",
                         r->next, first);
        return false;
    }
    size_t skipped_bytes = chunk_text_before(&chunk, skipped);
    buf_append(&r->ids, chunk.ids + skipped, (chunk.n_ids - skipped) * sizeof(int32_t));
    buf_append(&r->text, chunk.text + skipped_bytes, chunk.text_size - skipped_bytes);
    for (size_t i = skipped; i < chunk.n_logprobs; i++) {
        buf_append(&r->logprobs, &chunk.logprobs[i], sizeof chunk.logprobs[i]);
        r->logprob_bytes += chunk.logprobs[i].size + LOGPROBS_WIRE_BYTES;
    }
    r->next = first + (uint32_t)chunk.n_ids;
    return true;
}

/* Runs of tokens are stored as they came, and nearly always asked for where one begins. For another
 * place they are looked through from the beginning, and the run that holds it is cut there. */
static enum err chunks_read(struct store_txn *txn, struct chunk_reader *r)
{
    uint8_t key[APPLY_CHUNK_KEY_BYTES];
    buf_init(&r->ids);
    buf_init(&r->text);
    buf_init(&r->logprobs);
    r->start = r->next = r->first;
    apply_chunk_key(&r->job_id, r->first, key);
    enum err err = store_scan(txn, STORE_TABLE_CHUNK, key, sizeof key, chunk_visit, r, r->eb);
    if (err == ERR_OK)
        err = r->err;
    if (err == ERR_OK && r->first < r->tokens && (!r->began || r->start > r->first)) {
        buf_clear(&r->ids);
        buf_clear(&r->text);
        buf_clear(&r->logprobs);
        r->logprob_bytes = 0;
        r->began = r->cut = false;
        apply_chunk_key(&r->job_id, 0, key);
        err = store_scan(txn, STORE_TABLE_CHUNK, key, sizeof key, chunk_visit, r, r->eb);
        if (err == ERR_OK)
            err = r->err;
    }
    if (err == ERR_OK && (r->ids.failed || r->text.failed || r->logprobs.failed))
        err = err_set(r->eb, ERR_NO_MEMORY, "no memory for a job's tokens");
    if (err == ERR_OK && !r->cut && r->next != r->tokens)
        err = err_set(r->eb, ERR_CORRUPT, "a job has %u tokens, but %u are stored", r->tokens,
                      r->next);
    return err;
}

static enum err arena_take(struct arena *arena, const struct buf *b, const uint8_t **ret_bytes,
                           struct errbuf *eb)
{
    *ret_bytes = (const uint8_t *)arena_copy(arena, b->data, b->size);
    return *ret_bytes != NULL ? ERR_OK : err_set(eb, ERR_NO_MEMORY, "no memory for a reply");
}

static enum err tokens_fill(struct store_txn *txn, struct core_effect *e, struct arena *arena,
                            struct errbuf *eb)
{
    struct wire_watch_reply *w = &e->reply.reply.watch;
    struct chunk_reader r = {.job_id = w->job_id,
                             .first = w->first,
                             .tokens = e->reply.tokens,
                             .with_tail = w->end,
                             .tokens_max = LIMIT_TOKENS_PER_FRAME,
                             .bytes_max = FILL_BYTES_MAX,
                             .arena = arena,
                             .eb = eb};
    const uint8_t *ids = NULL, *text = NULL, *logprobs = NULL;
    enum err err = chunks_read(txn, &r);
    if (err == ERR_OK)
        err = arena_take(arena, &r.ids, &ids, eb);
    if (err == ERR_OK)
        err = arena_take(arena, &r.text, &text, eb);
    if (err == ERR_OK)
        err = arena_take(arena, &r.logprobs, &logprobs, eb);
    if (err == ERR_OK) {
        w->first = r.start;
        w->ids = (const int32_t *)(const void *)ids;
        w->n_ids = r.ids.size / sizeof(int32_t);
        w->text = (struct wire_bytes){.data = text, .size = r.text.size};
        /* All or none: a worker that sent them for some of the tokens is not passed on. */
        if (r.logprobs.size / sizeof(struct wire_bytes) == w->n_ids) {
            w->logprobs = (const struct wire_bytes *)(const void *)logprobs;
            w->n_logprobs = w->n_ids;
        }
        if (r.cut) { /* the end is told with the last of it */
            w->end = false;
            w->finish = WIRE_FINISH_UNSPECIFIED;
        }
    }
    buf_fini(&r.ids);
    buf_fini(&r.text);
    buf_fini(&r.logprobs);
    return err;
}

/* ---- commands ---- */

static enum err content_read(struct store_txn *txn, const struct id *job_id, struct arena *arena,
                             struct wire_job *ret_job, size_t *ret_bytes, struct errbuf *eb)
{
    struct store_value value;
    enum err err = store_get(txn, STORE_TABLE_CONTENT, job_id->bytes, ID_BYTES, &value, eb);
    if (err == ERR_NOT_FOUND)
        return err_set(eb, ERR_NOT_FOUND, "the job is not stored any more");
    if (err != ERR_OK)
        return err;
    *ret_bytes = value.size;
    return wire_job_decode(value.data, value.size, arena, ret_job, eb);
}

static enum err run_fill(struct store_txn *txn, struct wire_command_run *run,
                         const struct core_run_fill *fill, struct arena *arena, size_t *ret_bytes,
                         struct errbuf *eb)
{
    const uint8_t *ids = NULL;
    enum err err = content_read(txn, &run->job_id, arena, &run->job, ret_bytes, eb);
    run->job.max_tokens = fill->max_tokens;
    if (err != ERR_OK || fill->tokens == 0)
        return err;
    struct chunk_reader r = {.job_id = run->job_id,
                             .tokens = fill->tokens,
                             .tokens_max = LIMIT_MAX_TOKENS,
                             .bytes_max = SIZE_MAX,
                             .arena = arena,
                             .eb = eb};
    err = chunks_read(txn, &r);
    if (err == ERR_OK && r.cut)
        err = err_set(eb, ERR_TOO_LARGE, "a job with %u tokens cannot be given to a worker again",
                      fill->tokens);
    if (err == ERR_OK)
        err = arena_take(arena, &r.ids, &ids, eb);
    if (err == ERR_OK) {
        run->resume_ids = (const int32_t *)(const void *)ids;
        run->n_resume_ids = r.ids.size / sizeof(int32_t);
        run->resume_text_bytes = (uint32_t)r.text.size;
        *ret_bytes += run->n_resume_ids * ID_WIRE_BYTES;
    }
    buf_fini(&r.ids);
    buf_fini(&r.text);
    return err;
}

/* As many as a frame takes; the others are said with the next Pull, since they are not acked. */
static enum err commands_fill(struct fill_context *context, struct store_txn *txn,
                              struct core_effect *e, struct arena *arena, struct errbuf *eb)
{
    struct wire_pull_reply *pull = &e->reply.reply.pull;
    /* The core made them in this turn's arena, for us to complete. */
    struct wire_command *commands = (struct wire_command *)(uintptr_t)pull->commands;
    size_t bytes = 0;
    for (size_t i = 0; i < pull->n_commands; i++) {
        size_t more = 0;
        if (commands[i].kind != WIRE_COMMAND_RUN)
            continue;
        enum err err = run_fill(txn, &commands[i].run, &e->reply.runs[i], arena, &more, eb);
        if (err != ERR_OK) {
            if (err != ERR_IO && err != ERR_NO_MEMORY)
                context->unreadable = commands[i].run.job_id;
            return err;
        }
        bytes += more;
        if (bytes > FILL_BYTES_MAX && i > 0) {
            pull->n_commands = i;
            break;
        }
    }
    return ERR_OK;
}

/* ---- ledger ---- */

static uint32_t range_limit(const struct wire_ledger_range *want)
{
    return want->limit == 0 || want->limit > LIMIT_LIST_ROWS ? LIMIT_LIST_ROWS : want->limit;
}

bool fill_wants_checkpoint(const struct core_effects *effects, uint64_t size, uint64_t signed_size)
{
    uint64_t furthest = 0; /* record that a page may bring, and one */
    for (const struct core_effect *e = effects->first; e != NULL; e = e->next) {
        if (e->kind == CORE_EFFECT_LEDGER)
            size++;
        if (e->kind != CORE_EFFECT_REPLY || e->reply.fill != CORE_FILL_LEDGER)
            continue;
        uint64_t first = e->reply.range.first, limit = range_limit(&e->reply.range);
        uint64_t end = first < UINT64_MAX - limit ? first + limit : UINT64_MAX;
        furthest = end > furthest ? end : furthest;
    }
    return furthest > 0 && furthest >= size && size != signed_size;
}

static enum err ledger_fill(const struct fill_context *context, struct core_effect *e,
                            struct arena *arena, struct errbuf *eb)
{
    const struct wire_ledger_range *want = &e->reply.range;
    struct wire_ledger_range_reply *reply = &e->reply.reply.ledger_range;
    struct ledger_range *range = arena_alloc(arena, sizeof *range);
    if (range == NULL)
        return err_set(eb, ERR_NO_MEMORY, "no memory for ledger records");
    enum err err = ledger_read_range(context->ledger, want->first, range_limit(want),
                                     FILL_BYTES_MAX, arena, range, eb);
    if (err != ERR_OK)
        return err;
    struct wire_bytes *records =
        arena_alloc_array(arena, range->n_records, sizeof(struct wire_bytes));
    if (records == NULL)
        return err_set(eb, ERR_NO_MEMORY, "no memory for %zu ledger records", range->n_records);
    for (size_t i = 0; i < range->n_records; i++)
        records[i] =
            (struct wire_bytes){.data = range->records[i].data, .size = range->records[i].size};
    *reply = (struct wire_ledger_range_reply){.first = range->first,
                                              .records = records,
                                              .n_records = range->n_records,
                                              .size = range->size,
                                              .checkpoint = range->note,
                                              .origin = context->origin};
    crypto_key_public(context->key, reply->public_key);
    return ERR_OK;
}

/* ---- the rest ---- */

static enum err hello_fill(const struct fill_context *context, struct core_effect *e,
                           struct arena *arena, struct errbuf *eb)
{
    struct wire_hello_reply *r = &e->reply.reply.hello;
    struct buf bytes;
    uint8_t *signature = arena_alloc(arena, ED25519_SIGN_BYTES);
    if (signature == NULL)
        return err_set(eb, ERR_NO_MEMORY, "no memory for a signature");
    buf_init(&bytes);
    wire_hello_reply_signed_bytes(e->reply.nonce, e->reply.reply.session, r, &bytes);
    enum err err = bytes.failed ? err_set(eb, ERR_NO_MEMORY, "no memory for a signature")
                                : crypto_sign(context->key, bytes.data, bytes.size, signature, eb);
    buf_fini(&bytes);
    r->signature = (struct wire_bytes){.data = signature, .size = ED25519_SIGN_BYTES};
    return err;
}

/* A reason more why the cluster is not healthy. */
static enum err reason_add(struct wire_status_reply *r, const char *reason, struct arena *arena,
                           struct errbuf *eb)
{
    const char **reasons = arena_alloc_array(arena, r->n_reasons + 1, sizeof *reasons);
    if (reasons == NULL)
        return err_set(eb, ERR_NO_MEMORY, "no memory for a status");
    for (size_t i = 0; i < r->n_reasons; i++)
        reasons[i] = r->reasons[i];
    reasons[r->n_reasons++] = reason;
    r->reasons = reasons;
    r->healthy = false;
    return ERR_OK;
}

static enum err commit_age_add(struct wire_status_reply *r, uint64_t age_ms, struct arena *arena,
                               struct errbuf *eb)
{
    enum { SIZE = 96 };
    char *text = arena_alloc(arena, SIZE);
    if (text == NULL)
        return err_set(eb, ERR_NO_MEMORY, "no memory for a status");
    (void)snprintf(text, SIZE, "the disk hangs: what is being stored has taken %llu s so far",
                   (unsigned long long)(age_ms / 1000));
    return reason_add(r, text, arena, eb);
}

static enum err status_fill(const struct fill_context *context, struct core_effect *e,
                            struct arena *arena, struct errbuf *eb)
{
    struct wire_status_reply *r = &e->reply.reply.status;
    struct store_stat stat;
    char note[LEDGER_NOTE_BYTES];
    enum err err = store_stat(context->store, &stat, eb);
    if (err != ERR_OK)
        return err;
    r->store_used_bytes = stat.used_bytes;
    r->store_map_bytes = stat.map_bytes;
    r->ledger_size = ledger_size(context->ledger);
    r->checkpoint_size = ledger_checkpoint_read(context->ledger, note);
    r->commits = context->commits;
    r->commit_us_median = context->commit_us_median;
    r->commit_us_max = context->commit_us_max;
    r->requests = context->requests;
    r->refused = context->refused;
    r->dropped = context->dropped;
    if (context->unsigned_why != NULL)
        err = reason_add(r, context->unsigned_why, arena, eb);
    if (err == ERR_OK && context->commit_age_ms > 0)
        err = commit_age_add(r, context->commit_age_ms, arena, eb);
    return err;
}

enum err fill_reply(struct fill_context *context, struct store_txn *txn, struct core_effect *effect,
                    struct arena *arena, struct errbuf *eb)
{
    size_t bytes = 0;
    switch (effect->reply.fill) {
    case CORE_FILL_NONE:
        return ERR_OK;
    case CORE_FILL_HELLO:
        return hello_fill(context, effect, arena, eb);
    case CORE_FILL_COMMANDS:
        return commands_fill(context, txn, effect, arena, eb);
    case CORE_FILL_TOKENS:
        return tokens_fill(txn, effect, arena, eb);
    case CORE_FILL_CONTENT:
        return content_read(txn, &effect->reply.reply.get_job.info.job_id, arena,
                            &effect->reply.reply.get_job.job, &bytes, eb);
    case CORE_FILL_LEDGER:
        return ledger_fill(context, effect, arena, eb);
    case CORE_FILL_STATUS:
        return status_fill(context, effect, arena, eb);
    }
    return err_set(eb, ERR_INTERNAL, "a reply asks for an unknown fill");
}
