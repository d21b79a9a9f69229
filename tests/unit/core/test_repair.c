/*
 * What a start refuses is mended from the ledger, and nothing else is touched. Each row damages a
 * cluster with a job that is over, one that has some tokens, and one that waits.
 */
#include "coordinator/ledger/export.h"
#include "coordinator/loop_apply.h"
#include "coordinator/loop_restore.h"
#include "coordinator/repair.h"
#include "coordinator/store/store_backend.h"
#include "tests/unit/core/stored_test.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { JOB_DONE = 1, JOB_HALF = 2, JOB_WAITS = 3 };

static const char tenant[] = "default";

static void cluster_fill(struct stored_test *k)
{
    stored_test_open(k);
    uint64_t worker = stored_test_worker(k, "w");
    uint64_t client = core_test_client(&k->t, "c", "", 2);
    stored_test_submit(k, client, JOB_DONE, 100);
    stored_test_report(k, worker, JOB_DONE, 1, 0, 100, WIRE_FINISH_LENGTH);
    stored_test_submit(k, client, JOB_HALF, 100);
    stored_test_report(k, worker, JOB_HALF, 1, 0, 40, WIRE_FINISH_UNSPECIFIED);
    stored_test_submit(k, client, JOB_WAITS, 100);
}

static void cluster_make(struct stored_test *k)
{
    struct errbuf eb = {{0}};
    cluster_fill(k);
    assert_err(ledger_checkpoint_sign(k->ledger, &eb), ERR_OK, &eb);
}

/* ---- damage ---- */

enum what {
    WHAT_NOTHING,
    WHAT_JOB,
    WHAT_USAGE,
    WHAT_BALANCE,
    WHAT_LEARNED,
    WHAT_BOOT,
    WHAT_LEDGER
};
enum how { HOW_GARBAGE, HOW_GONE, HOW_LESS, HOW_OTHER_SIZE, HOW_OTHER_MODEL };

static size_t row_key(enum what what, uint8_t job, uint8_t *ret_key, enum store_table *ret_table)
{
    struct id id = core_test_id(job);
    switch (what) {
    case WHAT_JOB:
        *ret_table = STORE_TABLE_JOB;
        memcpy(ret_key, id.bytes, ID_BYTES);
        return ID_BYTES;
    case WHAT_USAGE:
        *ret_table = STORE_TABLE_USAGE;
        apply_usage_key(tenant, "m", 20270115, ret_key);
        return APPLY_USAGE_KEY_BYTES;
    case WHAT_BALANCE:
        *ret_table = STORE_TABLE_BALANCE;
        memcpy(ret_key, tenant, sizeof tenant - 1);
        return sizeof tenant - 1;
    case WHAT_LEARNED:
        *ret_table = STORE_TABLE_LEARNED;
        ret_key[0] = 'm';
        return 1;
    case WHAT_BOOT:
        *ret_table = STORE_TABLE_META;
        memcpy(ret_key, restore_meta_boot_epoch, strlen(restore_meta_boot_epoch));
        return strlen(restore_meta_boot_epoch);
    case WHAT_LEDGER:
        *ret_table = STORE_TABLE_LEDGER;
        store_key_u64(ret_key, 2);
        return 8;
    case WHAT_NOTHING:
        break;
    }
    return 0;
}

/* Another balance, whole: one that does not follow from the ledger. */
static void balance_less(struct store_txn *txn)
{
    struct record_balance less = {.tenant = tenant, .settled_tokens = 1};
    struct errbuf eb = {{0}};
    struct buf packed;
    buf_init(&packed);
    assert_err(record_balance_encode(&less, &packed, &eb), ERR_OK, &eb);
    assert_err(store_put(txn, STORE_TABLE_BALANCE, tenant, sizeof tenant - 1, packed.data,
                         packed.size, &eb),
               ERR_OK, &eb);
    buf_fini(&packed);
}

/* A job's record, whole, that says something else than its RESERVE. */
static void job_other(struct store_txn *txn, const struct id *id, enum how how)
{
    struct record_job job;
    struct store_value old;
    struct errbuf eb = {{0}};
    struct buf packed;
    struct arena arena;
    arena_init(&arena, LIMIT_DECODE_BYTES);
    buf_init(&packed);
    assert_err(store_get(txn, STORE_TABLE_JOB, id->bytes, ID_BYTES, &old, &eb), ERR_OK, &eb);
    assert_err(record_job_decode(old.data, old.size, &arena, &job, &eb), ERR_OK, &eb);
    if (how == HOW_OTHER_MODEL) {
        job.model = "n";
    } else {
        job.reserved_tokens++;
        job.max_tokens++;
    }
    assert_err(record_job_encode(&job, &packed, &eb), ERR_OK, &eb);
    assert_err(store_put(txn, STORE_TABLE_JOB, id->bytes, ID_BYTES, packed.data, packed.size, &eb),
               ERR_OK, &eb);
    buf_fini(&packed);
    arena_fini(&arena);
}

static void row_damage(struct stored_test *k, enum what what, uint8_t job, enum how how)
{
    uint8_t key[LIMIT_STORE_KEY_BYTES];
    enum store_table table;
    struct errbuf eb = {{0}};
    struct store_value old;
    struct id id = core_test_id(job);
    size_t size = row_key(what, job, key, &table);
    if (size == 0)
        return;
    struct store_txn *txn = store_test_begin(k->store.store, true);
    assert_err(store_get(txn, table, key, size, &old, &eb), ERR_OK, &eb);
    if (how == HOW_GARBAGE)
        assert_err(store_put(txn, table, key, size, "\377\377garbage", 9, &eb), ERR_OK, &eb);
    else if (how == HOW_GONE)
        assert_err(store_delete(txn, table, key, size, &eb), ERR_OK, &eb);
    else if (how == HOW_LESS)
        balance_less(txn);
    else
        job_other(txn, &id, how);
    store_test_commit(txn);
}

/* ---- mending ---- */

static enum err repair(struct stored_test *k, bool change, struct repair_result *ret_result,
                       char **ret_report, struct errbuf *eb)
{
    size_t size;
    struct loop_config config = {.core = k->t.config,
                                 .key = k->key,
                                 .store_path = k->store.path,
                                 .map_bytes = 256u << 20,
                                 .origin = "test/ledger",
                                 .checkpoint_path = k->checkpoint};
    FILE *report = open_memstream(ret_report, &size);
    assert_non_null(report);
    config.core.node = "test";
    memset(ret_result, 0, sizeof *ret_result);
    enum err err = repair_run(&config, change, report, ret_result, eb);
    (void)fclose(report);
    return err;
}

static enum err start(struct stored_test *k, struct errbuf *eb)
{
    struct store_lmdb_config files = {.path = k->store.path, .map_bytes = 256u << 20};
    struct ledger_config log = {
        .origin = "test/ledger", .key = k->key, .checkpoint_path = k->checkpoint};
    struct store *store = NULL;
    struct ledger *ledger = NULL;
    struct core *core = NULL;
    uint64_t jobs, boot_epoch;
    assert_err(store_open_lmdb(&store, &files, eb), ERR_OK, eb);
    enum err err = ledger_open(&ledger, store, &log, eb);
    if (err == ERR_OK)
        err = restore_boot(store, ledger, "test", k->key, 0, 0, &boot_epoch, eb);
    if (err == ERR_OK)
        err = restore_core(store, ledger, &k->t.config, boot_epoch, k->t.now_ms * 1000000,
                           1800000000000000000u, &core, &jobs, eb);
    if (err == ERR_OK)
        core_free(core);
    ledger_close(ledger);
    store_close(store);
    return err;
}

static void closed(struct stored_test *k)
{
    core_free(k->t.core);
    k->t.core = NULL;
    stored_test_close(k);
}

/* The lines that were taken away lie beside the store, with their seals. */
static unsigned lines_kept(const struct stored_test *k)
{
    unsigned lines = 0;
    DIR *dir = opendir(k->store.dir);
    assert_non_null(dir);
    for (struct dirent *d; (d = readdir(dir)) != NULL;) {
        static const char value[] = "\"value\":\"";
        char path[600], *line = NULL;
        size_t size = 0;
        if (strstr(d->d_name, ".repair-") == NULL)
            continue;
        (void)snprintf(path, sizeof path, "%s/%s", k->store.dir, d->d_name);
        FILE *f = fopen(path, "re");
        struct stat st;
        assert_non_null(f);
        assert_int_equal(fstat(fileno(f), &st), 0);
        assert_int_equal(st.st_mode & 0777, 0600);
        for (; getline(&line, &size, f) > 0; lines++) {
            const char *raw = strstr(line, value);
            assert_non_null(raw);
            raw += sizeof value - 1;
            if (*raw != '"') /* what lay there begins with its schema */
                assert_memory_equal(raw, "00000001", 8);
        }
        free(line);
        (void)fclose(f);
    }
    (void)closedir(dir);
    return lines;
}

/* As an auditor would, over what was exported. */
static void ledger_audit(struct stored_test *k)
{
    struct ledger_range range;
    struct ledger_verify_report found;
    struct errbuf eb = {{0}};
    struct arena arena;
    struct buf text;
    uint8_t public_key[ED25519_PUBLIC_BYTES];
    arena_init(&arena, LIMIT_DECODE_BYTES);
    buf_init(&text);
    crypto_key_public(k->key, public_key);
    assert_err(ledger_read_range(k->ledger, 0, 1000, 1 << 20, &arena, &range, &eb), ERR_OK, &eb);
    ledger_export_header(&text, "test/ledger", public_key);
    for (size_t i = 0; i < range.n_records; i++)
        assert_err(ledger_export_record(&text, range.records[i].data, range.records[i].size, &eb),
                   ERR_OK, &eb);
    ledger_export_checkpoint(&text, range.note);
    FILE *in = fmemopen(text.data, text.size, "r");
    assert_non_null(in);
    assert_err(ledger_verify_jsonl(in, NULL, &found, &eb), ERR_OK, &eb);
    assert_int_equal(found.verified.records, range.n_records);
    (void)fclose(in);
    buf_fini(&text);
    arena_fini(&arena);
}

static void what_a_start_refuses_is_mended_from_the_ledger(void **state)
{
    static const struct {
        enum what what;
        uint8_t job;
        enum how how;
        bool refused; /* by a start */
        uint64_t damaged, restored, ended;
        enum wire_job_state states[3]; /* then; the first job's is never lost */
        const char *said;
    } table[] = {
        {WHAT_NOTHING,
         0,
         HOW_GARBAGE,
         false,
         0,
         0,
         0,
         {WIRE_JOB_STATE_DONE, WIRE_JOB_STATE_RUNNING, WIRE_JOB_STATE_LEASED},
         ""},
        {WHAT_LEARNED,
         0,
         HOW_GARBAGE,
         true,
         1,
         0,
         0,
         {WIRE_JOB_STATE_DONE, WIRE_JOB_STATE_RUNNING, WIRE_JOB_STATE_LEASED},
         "table learned"},
        {WHAT_USAGE,
         0,
         HOW_GARBAGE,
         true,
         1,
         1,
         0,
         {WIRE_JOB_STATE_DONE, WIRE_JOB_STATE_RUNNING, WIRE_JOB_STATE_LEASED},
         "usage of tenant default, model m, day 20270115"},
        {WHAT_USAGE,
         0,
         HOW_GONE,
         false,
         0,
         1,
         0,
         {WIRE_JOB_STATE_DONE, WIRE_JOB_STATE_RUNNING, WIRE_JOB_STATE_LEASED},
         "usage of tenant"},
        {WHAT_BOOT,
         0,
         HOW_GARBAGE,
         true,
         1,
         1,
         0,
         {WIRE_JOB_STATE_DONE, WIRE_JOB_STATE_RUNNING, WIRE_JOB_STATE_LEASED},
         "boot epoch: goes on from the ledger's, 1"},
        {WHAT_BALANCE,
         0,
         HOW_GARBAGE,
         true,
         1,
         1,
         0,
         {WIRE_JOB_STATE_DONE, WIRE_JOB_STATE_RUNNING, WIRE_JOB_STATE_LEASED},
         "balance of tenant default: summed"},
        {WHAT_BALANCE,
         0,
         HOW_GONE,
         true,
         0,
         1,
         0,
         {WIRE_JOB_STATE_DONE, WIRE_JOB_STATE_RUNNING, WIRE_JOB_STATE_LEASED},
         "balance of tenant"},
        {WHAT_BALANCE,
         0,
         HOW_LESS,
         true,
         1,
         1,
         0,
         {WIRE_JOB_STATE_DONE, WIRE_JOB_STATE_RUNNING, WIRE_JOB_STATE_LEASED},
         "0 tokens reserved and 1 owed, the ledger says"},
        {WHAT_JOB,
         JOB_DONE,
         HOW_GARBAGE,
         true,
         1,
         1,
         0,
         {WIRE_JOB_STATE_DONE, WIRE_JOB_STATE_RUNNING, WIRE_JOB_STATE_LEASED},
         "was over"},
        /* An end changes its tenant's balance, and it is used today. */
        {WHAT_JOB,
         JOB_HALF,
         HOW_GARBAGE,
         true,
         2,
         3,
         1,
         {WIRE_JOB_STATE_DONE, WIRE_JOB_STATE_FAILED, WIRE_JOB_STATE_LEASED},
         "ends as failed"},
        {WHAT_JOB,
         JOB_WAITS,
         HOW_GARBAGE,
         true,
         2,
         3,
         1,
         {WIRE_JOB_STATE_DONE, WIRE_JOB_STATE_RUNNING, WIRE_JOB_STATE_FAILED},
         "ends as failed"},
        {WHAT_JOB,
         JOB_WAITS,
         HOW_GONE,
         true,
         2,
         3,
         1,
         {WIRE_JOB_STATE_DONE, WIRE_JOB_STATE_RUNNING, WIRE_JOB_STATE_FAILED},
         "it is not there"},
        {WHAT_JOB,
         JOB_WAITS,
         HOW_OTHER_SIZE,
         true,
         2,
         3,
         1,
         {WIRE_JOB_STATE_DONE, WIRE_JOB_STATE_RUNNING, WIRE_JOB_STATE_FAILED},
         "the ledger does not say of it what it says"},
        /* A start cannot know; the ledger would not verify when it ends. */
        {WHAT_JOB,
         JOB_WAITS,
         HOW_OTHER_MODEL,
         false,
         2,
         3,
         1,
         {WIRE_JOB_STATE_DONE, WIRE_JOB_STATE_RUNNING, WIRE_JOB_STATE_FAILED},
         "the ledger does not say of it what it says"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        struct stored_test k;
        struct repair_result result;
        struct errbuf eb = {{0}};
        char *report = NULL;
        cluster_make(&k);
        row_damage(&k, table[i].what, table[i].job, table[i].how);
        stored_test_stop(&k);
        enum err err = start(&k, &eb);
        if ((err == ERR_CORRUPT) != table[i].refused)
            fail_msg("row %zu: %s", i, eb.text);
        if (table[i].refused)
            assert_non_null(strstr(eb.text, "--check-store"));

        /* To look changes nothing. */
        for (int looks = 0; looks < 2; looks++) {
            assert_err(repair(&k, false, &result, &report, &eb), ERR_OK, &eb);
            if (result.damaged != table[i].damaged || result.restored != table[i].restored ||
                result.ended != table[i].ended || strstr(report, table[i].said) == NULL)
                fail_msg("row %zu: %s", i, report);
            free(report);
        }
        assert_int_equal(lines_kept(&k), 0);
        assert_err(repair(&k, true, &result, &report, &eb), ERR_OK, &eb);
        free(report);
        assert_int_equal(lines_kept(&k), table[i].damaged);
        assert_err(repair(&k, true, &result, &report, &eb), ERR_OK, &eb);
        if (result.damaged != 0 || result.restored != 0)
            fail_msg("row %zu, the second time: %s", i, report);
        free(report);

        stored_test_start(&k);
        ledger_audit(&k);
        uint64_t client = core_test_client(&k.t, "c", "", 2);
        for (uint8_t job = 1; job <= 3; job++) {
            struct wire_job_info info = core_test_job(&k.t, client, job);
            if (info.state != table[i].states[job - 1])
                fail_msg("row %zu: job %u is %d", i, job, info.state);
            assert_int_equal(info.reserved_tokens, 110);
            if (info.state == WIRE_JOB_STATE_FAILED)
                assert_non_null(strstr(info.error.text, "made again from the ledger"));
        }
        /* An answer that was there can be read still. */
        struct wire_request watch = {.kind = WIRE_REQUEST_WATCH,
                                     .session = client,
                                     .watch = {.job_id = core_test_id(JOB_DONE)}};
        struct wire_watch_reply w = stored_test_ask(&k, &watch).watch;
        assert_true(w.end);
        assert_int_equal(w.n_ids, 100);
        stored_test_close(&k);
    }
}

/* Not from anything: it is what everything else follows from. */
static void a_damaged_ledger_is_never_mended(void **state)
{
    struct stored_test k;
    struct repair_result result;
    struct errbuf eb = {{0}};
    char *report = NULL, elsewhere[400];
    (void)state;
    cluster_make(&k);
    (void)snprintf(elsewhere, sizeof elsewhere, "%s.elsewhere", k.checkpoint);
    row_damage(&k, WHAT_LEDGER, 0, HOW_GARBAGE);
    row_damage(&k, WHAT_USAGE, 0, HOW_GARBAGE);
    stored_test_stop(&k);
    assert_err(repair(&k, true, &result, &report, &eb), ERR_CORRUPT, &eb);
    assert_non_null(strstr(eb.text, "nothing is repaired, which takes a whole ledger"));
    assert_string_equal(report, "");
    free(report);
    /* Nor where nobody can tell: then the store may be well. */
    assert_int_equal(rename(k.checkpoint, elsewhere), 0);
    assert_err(repair(&k, true, &result, &report, &eb), ERR_CORRUPT, &eb);
    assert_non_null(strstr(eb.text, "is gone"));
    assert_null(strstr(eb.text, "restore"));
    free(report);
    assert_int_equal(rename(elsewhere, k.checkpoint), 0);
    struct store_lmdb_config files = {.path = k.store.path, .map_bytes = 256u << 20};
    assert_err(store_open_lmdb(&k.store.store, &files, &eb), ERR_OK, &eb);
    uint8_t key[APPLY_USAGE_KEY_BYTES];
    apply_usage_key(tenant, "m", 20270115, key);
    struct store_value value;
    struct store_txn *txn = store_test_begin(k.store.store, false);
    assert_err(store_get(txn, STORE_TABLE_USAGE, key, sizeof key, &value, &eb), ERR_OK, &eb);
    assert_int_equal(value.size, 9);
    store_abort(txn);
    closed(&k);
}

/* A bit of a job's record on the disk, which the checksum finds. */
static void a_flipped_bit_is_kept_as_it_lay_there(void **state)
{
    struct stored_test k;
    struct repair_result result;
    struct errbuf eb = {{0}};
    char *report = NULL, file[400];
    struct id id = core_test_id(JOB_WAITS);
    struct stat st;
    unsigned found = 0;
    (void)state;
    cluster_make(&k);
    stored_test_stop(&k);
    (void)snprintf(file, sizeof file, "%s/data.mdb", k.store.path);
    int fd = open(file, O_RDWR);
    assert_true(fd >= 0);
    assert_int_equal(fstat(fd, &st), 0);
    uint8_t *bytes = malloc((size_t)st.st_size);
    assert_non_null(bytes);
    assert_int_equal(pread(fd, bytes, (size_t)st.st_size, 0), st.st_size);
    for (uint8_t *at = bytes; at + 80 < bytes + st.st_size; at++) {
        /* The key, the seal's 12 bytes, and the record, which begins with the id. */
        if (memcmp(at, id.bytes, ID_BYTES) != 0 || at[28] != 0x0a || at[29] != ID_BYTES ||
            memcmp(at + 30, id.bytes, ID_BYTES) != 0)
            continue;
        at[50] ^= 1;
        found++;
    }
    assert_true(found > 0);
    assert_int_equal(pwrite(fd, bytes, (size_t)st.st_size, 0), st.st_size);
    free(bytes);
    (void)close(fd);
    assert_err(start(&k, &eb), ERR_CORRUPT, &eb);
    assert_err(repair(&k, true, &result, &report, &eb), ERR_OK, &eb);
    assert_non_null(strstr(report, ": checksum is "));
    free(report);
    assert_int_equal(result.ended, 1);
    assert_int_equal(lines_kept(&k), 2);
    assert_err(start(&k, &eb), ERR_OK, &eb);
    stored_test_start(&k);
    stored_test_close(&k);
}

/* ---- a repair that ends early ---- */

enum err __real_store_commit(struct store_txn *txn, struct errbuf *eb);
enum err __wrap_store_commit(struct store_txn *txn, struct errbuf *eb);

static unsigned dies_at, commits; /* dies_at 0: never */

enum err __wrap_store_commit(struct store_txn *txn, struct errbuf *eb)
{
    if (dies_at != 0 && ++commits == dies_at)
        _exit(9);
    return __real_store_commit(txn, eb);
}

/* True where it came to its end. */
static bool repair_in_child(struct stored_test *k, unsigned commit)
{
    int status;
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct repair_result result;
        struct errbuf eb = {{0}};
        char *report = NULL;
        dies_at = commit;
        _exit(repair(k, true, &result, &report, &eb) == ERR_OK ? 0 : 1);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) != 1);
    return WEXITSTATUS(status) == 0;
}

/* Ended before each of its commits, and run again: the same as without. */
static void a_repair_that_is_killed_is_done_by_the_next(void **state)
{
    static const enum wire_job_state states[] = {WIRE_JOB_STATE_DONE, WIRE_JOB_STATE_FAILED,
                                                 WIRE_JOB_STATE_LEASED};
    bool done = false;
    (void)state;
    for (unsigned commit = 1; !done; commit++) {
        struct stored_test k;
        struct repair_result result;
        struct errbuf eb = {{0}};
        char *report = NULL;
        cluster_make(&k);
        row_damage(&k, WHAT_JOB, JOB_DONE, HOW_GARBAGE);
        row_damage(&k, WHAT_JOB, JOB_HALF, HOW_GARBAGE);
        row_damage(&k, WHAT_USAGE, 0, HOW_GARBAGE);
        row_damage(&k, WHAT_BOOT, 0, HOW_GARBAGE);
        stored_test_stop(&k);
        done = repair_in_child(&k, commit);
        assert_true(commit > 1 || !done);
        assert_err(repair(&k, true, &result, &report, &eb), ERR_OK, &eb);
        free(report);
        stored_test_start(&k);
        assert_err(ledger_verify(k.ledger, &eb), ERR_OK, &eb);
        uint64_t client = core_test_client(&k.t, "c", "", 2);
        for (uint8_t job = 1; job <= 3; job++) {
            struct wire_job_info info = core_test_job(&k.t, client, job);
            if (info.state != states[job - 1])
                fail_msg("killed before commit %u: job %u is %d", commit, job, info.state);
        }
        stored_test_close(&k);
    }
}

/* ---- stores that are not for mending ---- */

/* Before anything was signed another key is nobody's fault; its record comes before all that the
 * repair appends. */
static void a_repair_may_be_the_first_of_a_new_key(void **state)
{
    struct stored_test k;
    struct repair_result result;
    struct errbuf eb = {{0}};
    char *report = NULL;
    (void)state;
    cluster_fill(&k);
    row_damage(&k, WHAT_JOB, JOB_HALF, HOW_GARBAGE);
    row_damage(&k, WHAT_JOB, JOB_WAITS, HOW_GARBAGE);
    stored_test_stop(&k);
    crypto_key_free(k.key);
    assert_int_equal(crypto_key_new(&k.key, NULL), ERR_OK);
    assert_err(repair(&k, true, &result, &report, &eb), ERR_OK, &eb);
    assert_int_equal(result.ended, 2);
    free(report);
    assert_err(repair(&k, true, &result, &report, &eb), ERR_OK, &eb);
    assert_string_equal(report, "");
    free(report);
    stored_test_start(&k);
    ledger_audit(&k);
    stored_test_close(&k);
}

static void a_store_in_use_or_missing_is_left_alone(void **state)
{
    struct stored_test k;
    struct repair_result result;
    struct errbuf eb = {{0}};
    char *report = NULL;
    (void)state;
    cluster_make(&k);
    assert_err(repair(&k, true, &result, &report, &eb), ERR_CONFLICT, &eb);
    assert_null(strstr(eb.text, "restore")); /* nothing is wrong with it */
    free(report);
    stored_test_stop(&k);
    char path[sizeof k.store.path];
    memcpy(path, k.store.path, sizeof path);
    (void)snprintf(k.store.path, sizeof k.store.path, "%s/none", k.store.dir);
    for (int change = 0; change < 2; change++) {
        assert_err(repair(&k, change != 0, &result, &report, &eb), ERR_NOT_FOUND, &eb);
        free(report);
        assert_int_equal(access(k.store.path, F_OK), -1);
    }
    memcpy(k.store.path, path, sizeof path);
    closed(&k);
}

/* The same value, as a later build would seal it. */
static void row_of_a_later_build(struct stored_test *k, enum store_table table, uint8_t job)
{
    uint8_t key[APPLY_CHUNK_KEY_BYTES], seal[STORE_SEAL_BYTES];
    struct errbuf eb = {{0}};
    struct store_value old;
    const struct id id = core_test_id(job);
    apply_chunk_key(&id, 0, key);
    const struct store_value place = {key, table == STORE_TABLE_CHUNK ? sizeof key : ID_BYTES};
    struct store_txn *txn = store_test_begin(k->store.store, true);
    assert_err(store_get(txn, table, place.data, place.size, &old, &eb), ERR_OK, &eb);
    void *copy = malloc(old.size);
    assert_non_null(copy);
    memcpy(copy, old.data, old.size);
    const struct store_value value = {copy, old.size};
    store_seal(seal, STORE_TABLE_SCHEMA + 1, table, place, value);
    assert_err(txn->store->ops->put(txn, table, place, seal, value, false, &eb), ERR_OK, &eb);
    store_test_commit(txn);
    free(copy);
}

/* It is whole, and who calls it lost would have it thrown away. */
static void what_a_later_build_wrote_is_not_called_damage(void **state)
{
    static const enum store_table tables[] = {STORE_TABLE_JOB, STORE_TABLE_CONTENT,
                                              STORE_TABLE_CHUNK};
    (void)state;
    for (size_t i = 0; i < sizeof tables / sizeof tables[0]; i++) {
        struct stored_test k;
        struct repair_result result;
        struct errbuf eb = {{0}};
        char *report = NULL;
        cluster_make(&k);
        row_of_a_later_build(&k, tables[i], JOB_DONE);
        row_damage(&k, WHAT_USAGE, 0, HOW_GARBAGE);
        stored_test_stop(&k);
        for (int change = 0; change < 2; change++) {
            assert_err(repair(&k, change != 0, &result, &report, &eb), ERR_UNSUPPORTED, &eb);
            assert_non_null(strstr(eb.text, "written by schema 2, this build reads 1"));
            assert_null(strstr(report, "unreadable"));
            free(report);
        }
        assert_int_equal(lines_kept(&k), 0);
        closed(&k);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_a_start_refuses_is_mended_from_the_ledger),
        cmocka_unit_test(a_damaged_ledger_is_never_mended),
        cmocka_unit_test(a_flipped_bit_is_kept_as_it_lay_there),
        cmocka_unit_test(a_repair_that_is_killed_is_done_by_the_next),
        cmocka_unit_test(a_repair_may_be_the_first_of_a_new_key),
        cmocka_unit_test(a_store_in_use_or_missing_is_left_alone),
        cmocka_unit_test(what_a_later_build_wrote_is_not_called_damage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
