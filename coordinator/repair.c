#include "coordinator/repair.h"

#include "common/check.h"
#include "common/clock.h"
#include "common/crypto.h"
#include "common/limits.h"
#include "coordinator/ledger/ledger.h"
#include "coordinator/loop_apply.h"
#include "coordinator/loop_restore.h"
#include "coordinator/repair_fold.h"
#include "coordinator/repair_texts.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define KEPT_BYTES_MAX ((size_t)1 << 32)

/* A row that goes. */
struct bad_row {
    struct bad_row *next;
    enum store_table table;
    uint8_t key[LIMIT_STORE_KEY_BYTES];
    size_t key_size;
    struct store_value raw;
    const char *why;
};

struct repair {
    const struct loop_config *config;
    struct store *store;
    struct ledger *ledger;
    struct store_txn *txn; /* a reader of what is there */
    FILE *report;
    bool boot_is_bad;    /* the number of the last boot cannot be read */
    uint64_t boot_epoch; /* of this repair: it counts as one */
    struct core *core;   /* what a start would make of it */
    struct fold fold;
    struct arena kept;  /* bad rows and effects, to the end */
    struct arena arena; /* of one record */
    struct bad_row *bad;
    struct core_effects effects;
    uint64_t next_seq;
    struct repair_result result;
    enum store_table table;
    enum err err;
    struct errbuf *eb;
};

static void *keep(struct repair *r, size_t size)
{
    void *p = arena_alloc(&r->kept, size);
    CHECK(p != NULL);
    return memset(p, 0, size);
}

static const char *keep_text(struct repair *r, const char *text)
{
    const char *copy = arena_copy(&r->kept, text, strlen(text) + 1);
    CHECK(copy != NULL);
    return copy;
}

static void bad_row_add(struct repair *r, const struct store_row *row, const char *why)
{
    struct bad_row *b = keep(r, sizeof *b);
    char hex[2 * LIMIT_STORE_KEY_BYTES + 1];
    b->table = r->table;
    b->key_size = row->key_size;
    memcpy(b->key, row->key, b->key_size);
    b->raw = (struct store_value){
        (const uint8_t *)arena_copy(&r->kept, row->raw.data, row->raw.size), row->raw.size};
    b->why = keep_text(r, why);
    b->next = r->bad;
    r->bad = b;
    r->result.damaged++;
    hex_encode(b->key, b->key_size, hex);
    fprintf(r->report, "damaged: table %s, key %s: %s\n", store_table_name(r->table), hex, why);
}

/* ---- what is stored ---- */

static enum err job_look(struct repair *r, const struct store_row *row, struct errbuf *why)
{
    struct record_job job;
    struct id id;
    if (row->key_size != ID_BYTES)
        return err_set(why, ERR_CORRUPT, "its key is no job's");
    memcpy(id.bytes, row->key, ID_BYTES);
    enum err err = row->err;
    if (err == ERR_OK)
        err = record_job_decode(row->value.data, row->value.size, &r->arena, &job, why);
    if (err == ERR_OK && id_compare(&job.job_id, &id) != 0)
        err = err_set(why, ERR_CORRUPT, "it is another job's");
    if (err == ERR_OK)
        err = core_restore_job(r->core, &job, why); /* as a start would */
    if (err != ERR_OK || job.state < WIRE_JOB_STATE_DONE) {
        struct fold_job *j = fold_want(&r->fold, &id);
        j->waiting = err == ERR_OK;
        j->stored_seq = err == ERR_OK ? job.reserve_seq : 0;
    }
    return err;
}

static bool is_key(const struct store_row *row, const void *key, size_t key_size)
{
    return row->key_size == key_size && memcmp(row->key, key, key_size) == 0;
}

/* Whether they say what follows from the ledger, which has been read. */
static enum err sums_look(struct repair *r, const struct store_row *row, struct errbuf *why)
{
    struct record_usage usage;
    struct record_balance balance;
    if (r->table == STORE_TABLE_USAGE) {
        enum err err =
            record_usage_decode(row->value.data, row->value.size, &r->arena, &usage, why);
        if (err != ERR_OK)
            return err;
        uint8_t key[APPLY_USAGE_KEY_BYTES];
        apply_usage_key(usage.tenant, usage.model, usage.day, key);
        if (!is_key(row, key, sizeof key))
            return err_set(why, ERR_CORRUPT, "it is another row's");
        struct fold_usage *u = fold_usage_find(&r->fold, &usage);
        if (u == NULL || u->row.jobs != usage.jobs || u->row.prompt_tokens != usage.prompt_tokens ||
            u->row.prompt_cached != usage.prompt_cached ||
            u->row.completion_tokens != usage.completion_tokens ||
            u->row.computed_tokens != usage.computed_tokens)
            return err_set(why, ERR_CORRUPT,
                           "it does not follow from the ledger (tenant %s, model %s, day %" PRIu32
                           ")",
                           usage.tenant, usage.model, usage.day);
        u->stored = true;
        return ERR_OK;
    }
    enum err err =
        record_balance_decode(row->value.data, row->value.size, &r->arena, &balance, why);
    if (err != ERR_OK)
        return err;
    if (!is_key(row, balance.tenant, strlen(balance.tenant)))
        return err_set(why, ERR_CORRUPT, "it is another tenant's");
    struct fold_balance *b = fold_balance_find(&r->fold, balance.tenant);
    uint64_t reserved = b != NULL ? b->row.reserved_tokens : 0;
    uint64_t settled = b != NULL ? b->row.settled_tokens : 0;
    if (balance.reserved_tokens != reserved || balance.settled_tokens != settled)
        return err_set(why, ERR_CORRUPT,
                       "tenant %s: %" PRIu64 " tokens reserved and %" PRIu64
                       " owed, the ledger says %" PRIu64 " and %" PRIu64,
                       balance.tenant, balance.reserved_tokens, balance.settled_tokens, reserved,
                       settled);
    if (b != NULL)
        b->stored = true;
    return ERR_OK;
}

static enum err boot_look(struct repair *r, struct errbuf *why)
{
    uint64_t epoch = 0;
    enum err err = restore_boot_read(r->txn, &epoch, why);
    r->boot_is_bad = err != ERR_OK;
    r->boot_epoch = epoch + 1;
    return err;
}

static bool row_visit(void *arg, const struct store_row *row)
{
    struct repair *r = arg;
    struct errbuf why = {{0}};
    struct record_learned learned;
    enum err err = row->err;
    /* The others of them were read when store and ledger were opened. */
    if (r->table == STORE_TABLE_META &&
        !is_key(row, restore_meta_boot_epoch, strlen(restore_meta_boot_epoch)))
        return true;
    if (row->key_size > LIMIT_STORE_KEY_BYTES) {
        r->err = err_set(r->eb, ERR_CORRUPT, "table %s: a key of %zu bytes cannot be taken away",
                         store_table_name(r->table), row->key_size);
        return false;
    }
    arena_reset(&r->arena);
    (void)err_set(&why, err, "%s", row->why);
    if (r->table == STORE_TABLE_META)
        err = boot_look(r, &why);
    else if (r->table == STORE_TABLE_JOB)
        err = job_look(r, row, &why);
    else if (err == ERR_OK && r->table == STORE_TABLE_LEARNED)
        err = record_learned_decode(row->value.data, row->value.size, &r->arena, &learned, &why);
    else if (err == ERR_OK)
        err = sums_look(r, row, &why);
    /* Of another version is not damaged, and what memory could not hold is not known to be. */
    if (err == ERR_UNSUPPORTED || err == ERR_NO_MEMORY) {
        r->err = err_set(r->eb, err, "%s", why.text);
        return false;
    }
    if (err != ERR_OK)
        bad_row_add(r, row, why.text);
    return true;
}

static enum err table_look(struct repair *r, enum store_table table)
{
    r->table = table;
    r->err = ERR_OK;
    enum err err = store_scan_rows(r->txn, table, NULL, 0, row_visit, r, r->eb);
    return err == ERR_OK ? r->err : err;
}

/* Of two boots that left no record in the ledger nobody can tell. */
static void boot_mend(struct repair *r)
{
    if (!r->boot_is_bad)
        return;
    r->boot_epoch = r->fold.boot_epoch + 1;
    r->result.restored++;
    fprintf(r->report, "boot epoch: goes on from the ledger's, %" PRIu64 "\n", r->fold.boot_epoch);
}

/* ---- what is to be written ---- */

static struct core_effect *effect_new(struct repair *r, enum core_effect_kind kind)
{
    struct core_effect *e = keep(r, sizeof *e);
    e->kind = kind;
    if (r->effects.first == NULL)
        r->effects.first = e;
    else
        r->effects.last->next = e;
    r->effects.last = e;
    r->effects.n_persist++;
    return e;
}

struct counting {
    struct repair *repair;
    struct id id;
    uint32_t tokens;
    uint64_t text_bytes;
};

/* As far as they can be read one behind the other. */
static bool chunk_visit(void *arg, const uint8_t *key, size_t key_size, struct store_value value)
{
    struct counting *n = arg;
    struct record_chunk chunk;
    uint8_t expected[APPLY_CHUNK_KEY_BYTES];
    apply_chunk_key(&n->id, n->tokens, expected);
    arena_reset(&n->repair->arena);
    if (key_size != sizeof expected || memcmp(key, expected, sizeof expected) != 0 ||
        record_chunk_decode(value.data, value.size, &n->repair->arena, &chunk, NULL) != ERR_OK)
        return false;
    n->tokens += (uint32_t)chunk.n_ids;
    n->text_bytes += chunk.text_size;
    return true;
}

static void tokens_count(struct repair *r, const struct id *id, struct counting *ret_count)
{
    uint8_t from[APPLY_CHUNK_KEY_BYTES];
    *ret_count = (struct counting){.repair = r, .id = *id};
    apply_chunk_key(id, 0, from);
    (void)store_scan(r->txn, STORE_TABLE_CHUNK, from, sizeof from, chunk_visit, ret_count, NULL);
}

/* A record of the ledger. `seq` is one more than its number. */
static enum err record_read(struct repair *r, uint64_t seq, struct arena *arena,
                            struct record_ledger *ret_record)
{
    uint8_t key[8];
    struct store_value value;
    store_key_u64(key, seq - 1);
    enum err err = store_get(r->txn, STORE_TABLE_LEDGER, key, sizeof key, &value, r->eb);
    if (err != ERR_OK)
        return err;
    return record_ledger_decode(value.data, value.size, arena, ret_record, r->eb);
}

/* The end of a job that was not over: FAILED owes nothing, and the record says what was done. */
static struct record_ledger *end_append(struct repair *r, const struct record_ledger *reserve,
                                        const struct counting *count)
{
    struct record_ledger *end = &effect_new(r, CORE_EFFECT_LEDGER)->ledger;
    *end = *reserve;
    end->kind = count->tokens > 0 ? RECORD_LEDGER_SETTLE : RECORD_LEDGER_VOID;
    end->seq = r->next_seq++;
    end->node = r->config->core.node;
    end->boot_epoch = r->boot_epoch;
    end->wall_ns = clock_wall_ns();
    end->mono_ns = clock_mono_ns();
    end->reserve_seq = reserve->seq + 1;
    end->count_source = RECORD_COUNT_SOURCE_ENGINE;
    end->completion_computed = end->completion_delivered = count->tokens;
    end->policy_id = LEDGER_POLICY_ID;
    end->finish = WIRE_FINISH_ERROR;
    end->outcome = WIRE_JOB_STATE_FAILED;
    return end;
}

static void job_put(struct repair *r, const struct record_ledger *reserve,
                    const struct record_ledger *end, const struct counting *count)
{
    struct store_value content;
    struct record_job *job = &effect_new(r, CORE_EFFECT_PUT_JOB)->job;
    *job = (struct record_job){
        .job_id = reserve->job_id,
        .tenant = reserve->tenant,
        .model = reserve->model,
        .state = end->outcome,
        .job_class = WIRE_JOB_CLASS_STANDARD,
        .max_tokens = reserve->max_tokens,
        .submitted_wall_ns = reserve->wall_ns,
        .ended_wall_ns = end->wall_ns,
        .attempts = end->attempt,
        .worker = end->worker,
        .prompt_tokens = (uint32_t)end->prompt_tokens,
        .prompt_cached = (uint32_t)end->prompt_cached,
        .prompt_computed = end->prompt_computed,
        .tokens = (uint32_t)end->completion_delivered,
        .text_bytes = count->text_bytes,
        .computed_tokens = end->completion_computed,
        .queue_us = end->queue_us,
        .prefill_us = end->prefill_us,
        .decode_us = end->decode_us,
        .finish = end->finish,
        .error_code = end->outcome == WIRE_JOB_STATE_DONE ? 0 : ERR_CORRUPT,
        .error_text = end->outcome == WIRE_JOB_STATE_DONE
                          ? ""
                          : "the job's record was damaged; it was made again from the ledger",
        .reserved_tokens = reserve->reserved_tokens,
        .reserve_seq = reserve->seq + 1,
        .settle_seq = end->seq + 1,
        .project = reserve->project,
        .cost_center = reserve->cost_center,
        .principal = reserve->principal,
        .prompt_tokens_bound = reserve->reserved_tokens - reserve->max_tokens,
    };
    memcpy(job->key_fingerprint, reserve->key_fingerprint, sizeof job->key_fingerprint);
    if (store_get(r->txn, STORE_TABLE_CONTENT, job->job_id.bytes, ID_BYTES, &content, NULL) ==
        ERR_OK)
        sha256(content.data, content.size, job->content_digest);
    r->result.restored++;
}

static enum err job_mend(struct repair *r, const struct fold_job *j)
{
    struct record_ledger *reserve = keep(r, sizeof *reserve), *end = keep(r, sizeof *end);
    struct counting count;
    char id[ID_TEXT_BYTES];
    id_format(&j->id, id);
    if (j->reserve_seq == 0) {
        fprintf(r->report, "job %s: the ledger does not know it: taken away\n", id);
        return ERR_OK;
    }
    enum err err = record_read(r, j->reserve_seq, &r->kept, reserve);
    if (err == ERR_OK && j->end_seq != 0)
        err = record_read(r, j->end_seq, &r->kept, end);
    if (err != ERR_OK)
        return err;
    tokens_count(r, &j->id, &count);
    if (j->end_seq == 0) {
        end = end_append(r, reserve, &count);
        err = fold_record(&r->fold, end, r->eb);
        r->result.ended++;
        fprintf(r->report,
                "job %s: ends as failed: ledger record %" PRIu64 " is appended, its reservation of "
                "%" PRIu64 " tokens is free, nothing is owed\n",
                id, end->seq, end->reserved_tokens);
    } else {
        fprintf(r->report,
                "job %s: was over: made again from ledger records %" PRIu64 " and %" PRIu64 "\n",
                id, reserve->seq, end->seq);
    }
    if (err == ERR_OK)
        job_put(r, reserve, end, &count);
    return err;
}

struct contradicted {
    struct repair *repair;
    const struct id *id;
    bool is_there;
};

static bool contradicted_visit(void *arg, const struct store_row *row)
{
    struct contradicted *c = arg;
    c->is_there = is_key(row, c->id->bytes, ID_BYTES);
    if (c->is_there)
        bad_row_add(c->repair, row, "the ledger does not say of it what it says");
    return false;
}

/* A record says that the job waits, and the ledger that it does not, or another way round. */
static enum err job_contradicted(struct repair *r, const struct fold_job *j)
{
    struct contradicted c = {.repair = r, .id = &j->id};
    struct store_row none = {.key = j->id.bytes, .key_size = ID_BYTES};
    r->table = STORE_TABLE_JOB;
    enum err err =
        store_scan_rows(r->txn, r->table, j->id.bytes, ID_BYTES, contradicted_visit, &c, r->eb);
    if (err == ERR_OK && !c.is_there)
        bad_row_add(r, &none, "its reservation is open, and it is not there");
    return err;
}

/* Of a job that waits, what its record says must be what was reserved: its end will say it, too. */
static enum err job_follows(struct repair *r, const struct fold_job *j, bool *ret_follows)
{
    struct record_ledger reserve;
    struct record_job job;
    struct store_value value;
    arena_reset(&r->arena);
    enum err err = record_read(r, j->reserve_seq, &r->arena, &reserve);
    if (err == ERR_OK)
        err = store_get(r->txn, STORE_TABLE_JOB, j->id.bytes, ID_BYTES, &value, r->eb);
    if (err == ERR_OK)
        err = record_job_decode(value.data, value.size, &r->arena, &job, r->eb);
    if (err != ERR_OK)
        return err;
    *ret_follows =
        strcmp(job.tenant, reserve.tenant) == 0 && strcmp(job.model, reserve.model) == 0 &&
        strcmp(job.project, reserve.project) == 0 &&
        strcmp(job.cost_center, reserve.cost_center) == 0 &&
        strcmp(job.principal, reserve.principal) == 0 &&
        memcmp(job.key_fingerprint, reserve.key_fingerprint, sizeof job.key_fingerprint) == 0 &&
        job.max_tokens == reserve.max_tokens && job.reserved_tokens == reserve.reserved_tokens;
    return ERR_OK;
}

static enum err jobs_mend(struct repair *r)
{
    enum err err = ERR_OK;
    struct tree_node *next;
    for (struct tree_node *n = tree_first(&r->fold.jobs); n != NULL && err == ERR_OK; n = next) {
        struct fold_job *j = tree_entry(n, struct fold_job, node);
        next = tree_above(&r->fold.jobs, n);
        bool open = j->reserve_seq != 0 && j->end_seq == 0, follows = false;
        if (j->waiting && open && j->stored_seq == j->reserve_seq)
            err = job_follows(r, j, &follows);
        if (err != ERR_OK || follows)
            continue;
        if (j->waiting || !j->kept)
            err = job_contradicted(r, j);
        j->kept = true;
        if (err == ERR_OK)
            err = job_mend(r, j);
    }
    return err;
}

static void sums_put(struct repair *r)
{
    for (struct tree_node *n = tree_first(&r->fold.usages); n != NULL;
         n = tree_above(&r->fold.usages, n)) {
        struct fold_usage *u = tree_entry(n, struct fold_usage, node);
        if (u->stored)
            continue;
        effect_new(r, CORE_EFFECT_PUT_USAGE)->usage = u->row;
        r->result.restored++;
        fprintf(r->report,
                "usage of tenant %s, model %s, day %" PRIu32 ": summed from the ledger\n",
                u->row.tenant, u->row.model, u->row.day);
    }
    for (struct tree_node *n = tree_first(&r->fold.balances); n != NULL;
         n = tree_above(&r->fold.balances, n)) {
        struct fold_balance *b = tree_entry(n, struct fold_balance, node);
        if (b->stored)
            continue;
        effect_new(r, CORE_EFFECT_PUT_BALANCE)->balance = b->row;
        r->result.restored++;
        fprintf(r->report, "balance of tenant %s: summed from the ledger\n", b->row.tenant);
    }
}

/* ---- writing ---- */

static enum err folder_sync(const char *file, struct errbuf *eb)
{
    char path[PATH_MAX];
    (void)snprintf(path, sizeof path, "%s", file);
    char *slash = strrchr(path, '/');
    const char *folder = slash == path ? "/" : slash != NULL ? path : ".";
    if (slash != NULL && slash != path)
        *slash = '\0';
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return err_set_errno(eb, errno, "%s", folder);
    int rc = fsync(fd), saved = errno;
    (void)close(fd);
    return rc == 0 ? ERR_OK : err_set_errno(eb, saved, "%s", folder);
}

static enum err rows_print(const struct repair *r, FILE *f, const char *path, struct errbuf *eb)
{
    for (const struct bad_row *b = r->bad; b != NULL; b = b->next) {
        char *hex = malloc(2 * b->raw.size + 1);
        char key[2 * LIMIT_STORE_KEY_BYTES + 1];
        CHECK(hex != NULL);
        hex_encode(b->key, b->key_size, key);
        hex_encode(b->raw.data, b->raw.size, hex);
        fprintf(f, "{\"table\":\"%s\",\"key\":\"%s\",\"value\":\"%s\"}\n",
                store_table_name(b->table), key, hex);
        free(hex);
    }
    if (fflush(f) != 0 || ferror(f) || fsync(fileno(f)) != 0)
        return err_set_errno(eb, errno, "%s", path);
    return ERR_OK;
}

/* For the owner alone, as the store is: tenants and principals are in it. */
static enum err rows_save(const struct repair *r, struct errbuf *eb)
{
    char path[PATH_MAX];
    (void)snprintf(path, sizeof path, "%s.repair-%" PRIu64 ".jsonl", r->config->store_path,
                   (uint64_t)(clock_wall_ns() / 1000000u));
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    FILE *f = fd >= 0 ? fdopen(fd, "w") : NULL;
    if (f == NULL)
        return err_set_errno(eb, errno, "%s", path);
    enum err err = rows_print(r, f, path, eb);
    if (fclose(f) != 0 && err == ERR_OK)
        err = err_set_errno(eb, errno, "%s", path);
    if (err == ERR_OK)
        err = folder_sync(path, eb);
    if (err != ERR_OK)
        (void)unlink(path); /* half of it would only mislead: nothing is taken away */
    else
        fprintf(r->report, "what is taken away is kept in %s\n", path);
    return err;
}

static enum err rows_remove(const struct repair *r, struct store_txn *txn, struct errbuf *eb)
{
    enum err err = ERR_OK;
    for (const struct bad_row *b = r->bad; b != NULL && err == ERR_OK; b = b->next) {
        err = store_delete(txn, b->table, b->key, b->key_size, eb);
        if (err == ERR_NOT_FOUND)
            err = ERR_OK;
    }
    return err;
}

/* One transaction: of a job that was over, a record that is missing and not yet made again would be
 * a job that nobody misses. */
static enum err changes_write(struct repair *r, struct errbuf *eb)
{
    struct store_txn *txn;
    struct id refused;
    enum err err = r->bad != NULL ? rows_save(r, eb) : ERR_OK;
    if (err == ERR_OK)
        err = store_begin(r->store, true, &txn, eb);
    if (err != ERR_OK)
        return err;
    err = rows_remove(r, txn, eb);
    if (err == ERR_OK)
        err = restore_boot_put(txn, r->ledger, r->config->core.node, r->config->key,
                               clock_mono_ns(), clock_wall_ns(), r->boot_epoch, eb);
    if (err == ERR_OK)
        err = apply_effects_put(txn, r->ledger, &r->effects, &refused, eb);
    if (err == ERR_OK)
        err = store_commit(txn, eb);
    else
        store_abort(txn);
    if (err != ERR_OK) {
        ledger_rolled_back(r->ledger);
        return err == ERR_IO ? err : err_prefix(eb, err, "nothing was changed");
    }
    ledger_committed(r->ledger);
    err = ledger_checkpoint_sign(r->ledger, eb);
    return err == ERR_OK ? err
                         : err_prefix(eb, err, "it is mended, but its checkpoint is not signed");
}

/* To look for damage makes no store: where there is none, somebody means another one. */
static enum err store_exists(const char *store_path, struct errbuf *eb)
{
    char path[PATH_MAX];
    struct stat st;
    (void)snprintf(path, sizeof path, "%s/data.mdb", store_path);
    return stat(path, &st) == 0 ? ERR_OK : err_set_errno(eb, errno, "there is no store: %s", path);
}

static enum err storage_open(struct repair *r, struct errbuf *eb)
{
    const struct loop_config *k = r->config;
    struct store_lmdb_config store = {.path = k->store_path, .map_bytes = k->map_bytes};
    struct ledger_config ledger = {
        .origin = k->origin, .key = k->key, .checkpoint_path = k->checkpoint_path};
    enum err err = store_exists(k->store_path, eb);
    if (err == ERR_OK)
        err = store_open_lmdb(&r->store, &store, eb);
    if (err == ERR_OK)
        err = ledger_open(&r->ledger, r->store, &ledger, eb);
    if (err == ERR_OK)
        err = ledger_verify(r->ledger, eb);
    /* What is to be done is not said here: a checkpoint that is not mounted is no reason to bring
     * an old store back. */
    if (err == ERR_CORRUPT)
        return err_prefix(
            eb, err, "nothing is repaired, which takes a whole ledger, its checkpoint and key");
    return err;
}

static enum err all_look(struct repair *r, struct errbuf *eb)
{
    enum err err = table_look(r, STORE_TABLE_META);
    if (err == ERR_OK)
        err = table_look(r, STORE_TABLE_JOB);
    if (err == ERR_OK)
        err = table_look(r, STORE_TABLE_LEARNED);
    if (err == ERR_OK)
        err = fold_ledger(&r->fold, r->txn, eb);
    if (err != ERR_OK)
        return err;
    boot_mend(r);
    err = jobs_mend(r);
    /* The records that are appended count. */
    if (err == ERR_OK)
        err = table_look(r, STORE_TABLE_USAGE);
    if (err == ERR_OK)
        err = table_look(r, STORE_TABLE_BALANCE);
    if (err == ERR_OK)
        sums_put(r);
    if (err == ERR_OK)
        err = repair_texts_look(r->txn, r->report, &r->result.lost, r->eb);
    return err;
}

enum err repair_run(const struct loop_config *config, bool change, FILE *report,
                    struct repair_result *ret_result, struct errbuf *eb)
{
    struct repair r = {.config = config, .report = report, .eb = eb};
    fold_init(&r.fold);
    arena_init(&r.kept, KEPT_BYTES_MAX);
    arena_init(&r.arena, LIMIT_DECODE_BYTES);
    enum err err = storage_open(&r, eb);
    if (err == ERR_OK)
        err = store_begin(r.store, false, &r.txn, eb);
    if (err != ERR_OK)
        goto out;
    r.core = core_new(&config->core);
    r.boot_epoch = 1;
    /* A KEY record, where one is due, comes before all others. */
    r.next_seq = ledger_size(r.ledger) + (ledger_key_is_recorded(r.ledger) ? 0 : 1);
    err = all_look(&r, eb);
    store_abort(r.txn);
    core_free(r.core);
    /* What no row shows: that all are in order, found, and as many as there should be. */
    if (err == ERR_OK && r.result.damaged == 0 && r.result.lost == 0)
        err = store_verify(r.store, eb);
    if (err == ERR_OK && change && (r.bad != NULL || r.effects.first != NULL))
        err = changes_write(&r, eb);
out:
    ledger_close(r.ledger);
    store_close(r.store);
    fold_fini(&r.fold);
    arena_fini(&r.arena);
    arena_fini(&r.kept);
    if (err == ERR_OK)
        *ret_result = r.result;
    return err;
}
