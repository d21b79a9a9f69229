/*
 * bench_store [FOLDER]: durable commits a second with 1, 16 and 256 records in each, side by side
 * in one run on one disk: bare LMDB (one table, the same bytes, default flags), our store (table
 * and seal), and the ledger (record packed, hashed, tree nodes). The ratios say what we add; the
 * absolute numbers say what the disk is. Rounds are interleaved, so that a disk that changes its
 * speed changes it for all three.
 */
#include "common/check.h"
#include "common/clock.h"
#include "common/crypto.h"
#include "coordinator/ledger/ledger.h"
#include "coordinator/store/store.h"

#include <ftw.h>
#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char dir[256];

static struct record_ledger record_make(uint64_t n)
{
    struct record_ledger r = {
        .kind = RECORD_LEDGER_RESERVE,
        .node = "coordinator",
        .boot_epoch = 1,
        .wall_ns = 1767225600000000000u + n,
        .mono_ns = n,
        .tenant = "research",
        .project = "evaluation",
        .cost_center = "4711",
        .principal = "client-7",
        .model = "smollm2-135m-instruct",
        .engine_build = "",
        .quantization = "Q4_1",
        .worker = "",
        .max_tokens = 100,
        .reserved_tokens = 150,
    };
    memcpy(r.job_id.bytes, &n, sizeof n);
    memset(r.key_fingerprint, 1, sizeof r.key_fingerprint);
    memset(r.weights_digest, 2, sizeof r.weights_digest);
    memset(r.prompt_hash, 3, sizeof r.prompt_hash);
    return r;
}

/* ---- the three ---- */

struct bare {
    MDB_env *env;
    MDB_dbi dbi;
    uint64_t next;
    uint8_t bytes[400];
    size_t size;
};

static void bare_open(struct bare *b)
{
    char path[300];
    MDB_txn *txn;
    (void)snprintf(path, sizeof path, "%s/bare", dir);
    CHECK(mkdir(path, 0700) == 0);
    CHECK(mdb_env_create(&b->env) == 0 && mdb_env_set_maxdbs(b->env, 4) == 0);
    CHECK(mdb_env_set_mapsize(b->env, (size_t)4 << 30) == 0);
    CHECK(mdb_env_open(b->env, path, MDB_NOTLS, 0600) == 0);
    CHECK(mdb_txn_begin(b->env, NULL, 0, &txn) == 0);
    CHECK(mdb_dbi_open(txn, "log", MDB_CREATE, &b->dbi) == 0 && mdb_txn_commit(txn) == 0);
}

static void bare_commit(void *arg, unsigned records)
{
    struct bare *b = arg;
    MDB_txn *txn;
    uint8_t key[8];
    CHECK(mdb_txn_begin(b->env, NULL, 0, &txn) == 0);
    for (unsigned i = 0; i < records; i++) {
        store_key_u64(key, b->next++);
        MDB_val k = {sizeof key, key}, v = {b->size, b->bytes};
        CHECK(mdb_put(txn, b->dbi, &k, &v, MDB_APPEND) == 0);
    }
    CHECK(mdb_txn_commit(txn) == 0);
}

struct ours {
    struct store *store;
    struct ledger *ledger; /* NULL: the store alone */
    uint64_t next;
    const struct bare *bare; /* its bytes */
};

static void ours_open(struct ours *o, const char *name)
{
    char path[300];
    struct errbuf eb = {{0}};
    (void)snprintf(path, sizeof path, "%s/%s", dir, name);
    struct store_lmdb_config config = {.path = path, .map_bytes = (uint64_t)4 << 30};
    if (store_open_lmdb(&o->store, &config, &eb) != ERR_OK) {
        fprintf(stderr, "%s\n", eb.text);
        exit(1);
    }
}

static void store_commit_records(void *arg, unsigned records)
{
    struct ours *o = arg;
    struct store_txn *txn;
    uint8_t key[8];
    CHECK(store_begin(o->store, true, &txn, NULL) == ERR_OK);
    for (unsigned i = 0; i < records; i++) {
        store_key_u64(key, o->next++);
        CHECK(store_append(txn, STORE_TABLE_LEDGER, key, sizeof key, o->bare->bytes, o->bare->size,
                           NULL) == ERR_OK);
    }
    CHECK(store_commit(txn, NULL) == ERR_OK);
}

static void ledger_commit_records(void *arg, unsigned records)
{
    struct ours *o = arg;
    struct store_txn *txn;
    CHECK(store_begin(o->store, true, &txn, NULL) == ERR_OK);
    for (unsigned i = 0; i < records; i++) {
        struct record_ledger r = record_make(o->next++);
        CHECK(ledger_append(o->ledger, txn, &r, NULL) == ERR_OK);
    }
    CHECK(store_commit(txn, NULL) == ERR_OK);
    ledger_committed(o->ledger);
}

/* ---- rounds ---- */

typedef void commit_fn(void *arg, unsigned records);

static uint64_t timed(commit_fn *commit, void *arg, unsigned records)
{
    uint64_t start = clock_mono_ns();
    commit(arg, records);
    return clock_mono_ns() - start;
}

static void bench(unsigned records, struct bare *bare, struct ours *store, struct ours *ledger)
{
    uint64_t ns[3] = {0};
    unsigned commits = 0;
    for (; commits < 1000 && ns[0] + ns[1] + ns[2] < 3000000000u; commits++) {
        ns[0] += timed(bare_commit, bare, records);
        ns[1] += timed(store_commit_records, store, records);
        ns[2] += timed(ledger_commit_records, ledger, records);
    }
    printf("%4u a commit (%4u commits)", records, commits);
    for (int i = 0; i < 3; i++) {
        double seconds = (double)ns[i] / 1e9;
        printf("   %7.0f commits/s %8.0f records/s", commits / seconds,
               (double)commits * records / seconds);
    }
    printf("   store/bare %.2f   ledger/bare %.2f\n", (double)ns[0] / (double)ns[1],
           (double)ns[0] / (double)ns[2]);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

int main(int argc, char **argv)
{
    static const unsigned sizes[] = {1, 16, 256};
    struct bare bare = {0};
    struct ours store = {.bare = &bare}, ledger = {.bare = &bare};
    struct crypto_key *key = NULL;
    struct errbuf eb = {{0}};
    struct buf packed;
    char checkpoint[300];

    (void)snprintf(dir, sizeof dir, "%s/bench-store-XXXXXX", argc > 1 ? argv[1] : "/tmp");
    CHECK(mkdtemp(dir) != NULL);
    buf_init(&packed);
    struct record_ledger r = record_make(1);
    CHECK(record_ledger_encode(&r, &packed, &eb) == ERR_OK && packed.size < sizeof bare.bytes);
    memcpy(bare.bytes, packed.data, packed.size);
    bare.size = packed.size;
    buf_fini(&packed);

    bare_open(&bare);
    ours_open(&store, "store");
    ours_open(&ledger, "ledger");
    CHECK(crypto_key_new(&key, &eb) == ERR_OK);
    (void)snprintf(checkpoint, sizeof checkpoint, "%s/checkpoint", dir);
    struct ledger_config config = {.origin = "bench", .key = key, .checkpoint_path = checkpoint};
    CHECK(ledger_open(&ledger.ledger, ledger.store, &config, &eb) == ERR_OK);

    printf("records of %zu bytes; columns: bare LMDB, store, ledger\n", bare.size);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
        bench(sizes[i], &bare, &store, &ledger);

    ledger_close(ledger.ledger);
    uint64_t start = clock_mono_ns();
    CHECK(ledger_open(&ledger.ledger, ledger.store, &config, &eb) == ERR_OK);
    printf("opening %llu unsigned records: %.0f ms", (unsigned long long)ledger_size(ledger.ledger),
           (double)(clock_mono_ns() - start) / 1e6);
    CHECK(ledger_checkpoint_sign(ledger.ledger, &eb) == ERR_OK);
    ledger_close(ledger.ledger);
    start = clock_mono_ns();
    CHECK(ledger_open(&ledger.ledger, ledger.store, &config, &eb) == ERR_OK);
    printf(", signed: %.2f ms\n", (double)(clock_mono_ns() - start) / 1e6);

    ledger_close(ledger.ledger);
    store_close(ledger.store);
    store_close(store.store);
    mdb_env_close(bare.env);
    crypto_key_free(key);
    (void)nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    return 0;
}
