/*
 * bench_restart JOBS [FOLDER]: how long a coordinator takes to start over JOBS stored jobs, half of
 * them waiting and half of them over, each with a prompt of 600 bytes and its ledger records. The
 * store is made by the real core and the real apply, a thousand jobs a turn, with a checkpoint at
 * the end; then it is opened as the program does, three times, step by step. The file is in memory
 * by then: what a cold disk adds is its size over the disk's speed, which is printed too.
 */
#include "common/clock.h"
#include "coordinator/loop_apply.h"
#include "coordinator/loop_restore.h"
#include "coordinator/store/store_pages.h"
#include "tests/unit/core/core_test.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define JOBS_PER_TURN 1000u
#define PROMPT_BYTES  600u
#define MAP_BYTES     (32ull << 30)
#define ROUNDS        3u

static char dir[256], store_path[300], checkpoint_path[300];

static void check(enum err err, const struct errbuf *eb)
{
    if (err == ERR_OK)
        return;
    (void)fprintf(stderr, "bench_restart: %s\n", eb->text);
    exit(1);
}

static struct id job_id(uint32_t n)
{
    struct id id = {{1}};
    for (unsigned i = 0; i < 4; i++)
        id.bytes[4 + i] = id.bytes[12 + i] = (uint8_t)(n >> (24 - 8 * i));
    return id;
}

static void submit_step(struct core_test *t, uint64_t client, uint32_t n)
{
    struct wire_request submit = core_test_submit(client, 1, "m", 100);
    submit.submit.job_id = job_id(n);
    (void)core_test_step(t, &submit);
}

static void cancel_step(struct core_test *t, uint64_t client, uint32_t n)
{
    struct wire_request cancel = {.kind = WIRE_REQUEST_CANCEL,
                                  .session = client,
                                  .cancel = {.job_id = job_id(n), .reason = ""}};
    (void)core_test_step(t, &cancel);
}

/* What a Submit brings, packed: the same of every job. */
static struct wire_bytes content_pack(struct buf *packed)
{
    static uint8_t prompt[PROMPT_BYTES];
    struct errbuf eb = {{0}};
    struct wire_job job = {.model = "m",
                           .prompt_kind = WIRE_PROMPT_KIND_TEXT,
                           .text = {memset(prompt, 'a', sizeof prompt), sizeof prompt},
                           .sampling = {.top_p = 1, .repetition_penalty = 1},
                           .max_tokens = 100,
                           .job_class = WIRE_JOB_CLASS_STANDARD,
                           .project = "",
                           .cost_center = ""};
    check(wire_job_encode(&job, packed, &eb), &eb);
    return (struct wire_bytes){packed->data, packed->size};
}

static void turn_store(struct core_test *t, struct store *store, struct ledger *ledger,
                       struct wire_bytes content)
{
    struct errbuf eb = {{0}};
    core_test_end(t);
    for (struct core_effect *e = t->effects.first; e != NULL; e = e->next) {
        if (e->kind == CORE_EFFECT_PUT_CONTENT)
            e->content = content;
    }
    check(apply_effects(store, ledger, &t->effects, NULL, &eb), &eb);
}

static void store_fill(struct core_test *t, struct store *store, struct ledger *ledger,
                       uint32_t jobs)
{
    uint64_t client = core_test_client(t, "c", "", 2);
    struct buf packed;
    buf_init(&packed);
    struct wire_bytes content = content_pack(&packed);
    for (uint32_t n = 0; n < jobs;) {
        uint32_t first = n;
        core_test_begin(t);
        for (; n < jobs && n - first < JOBS_PER_TURN; n++)
            submit_step(t, client, n);
        turn_store(t, store, ledger, content);
        core_test_begin(t);
        for (uint32_t i = first; i < n; i += 2)
            cancel_step(t, client, i);
        turn_store(t, store, ledger, content);
    }
    buf_fini(&packed);
}

static double ms_since(uint64_t began_ns)
{
    return (double)(clock_mono_ns() - began_ns) / 1e6;
}

static void restart(const struct core_test *t, const struct store_lmdb_config *files,
                    const struct ledger_config *log)
{
    char data[400];
    struct stat st;
    struct errbuf eb = {{0}};
    struct store *store;
    struct ledger *ledger;
    struct core *core;
    uint64_t jobs = 0, epoch = 0;
    (void)snprintf(data, sizeof data, "%s/data.mdb", store_path);
    if (stat(data, &st) != 0)
        st.st_size = 0;
    uint64_t began_ns = clock_mono_ns();
    check(store_pages_check(store_path, data, &eb), &eb);
    double pages_ms = ms_since(began_ns);
    began_ns = clock_mono_ns();
    check(store_open_lmdb(&store, files, &eb), &eb);
    double store_ms = ms_since(began_ns);
    began_ns = clock_mono_ns();
    check(ledger_open(&ledger, store, log, &eb), &eb);
    check(restore_boot(store, ledger, "test", log->key, 0, 0, &epoch, &eb), &eb);
    double ledger_ms = ms_since(began_ns);
    began_ns = clock_mono_ns();
    check(restore_core(store, ledger, &t->config, epoch, t->now_ms * 1000000, 1800000000000000000u,
                       &core, &jobs, &eb),
          &eb);
    double core_ms = ms_since(began_ns);
    printf("%llu jobs, %lld MiB: %.0f ms = store %.0f (pages %.0f of it), ledger %.0f, core %.0f\n",
           (unsigned long long)jobs, (long long)(st.st_size >> 20), store_ms + ledger_ms + core_ms,
           store_ms, pages_ms, ledger_ms, core_ms);
    core_free(core);
    ledger_close(ledger);
    store_close(store);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)st;
    (void)type;
    (void)at;
    return remove(path);
}

int main(int argc, char **argv)
{
    struct errbuf eb = {{0}};
    struct store *store;
    struct ledger *ledger;
    struct crypto_key *key;
    struct core_test t;
    uint64_t jobs = argc > 1 ? strtoull(argv[1], NULL, 10) : 0;
    if (jobs == 0 || jobs > 10000000) {
        (void)fprintf(stderr, "usage: bench_restart JOBS [FOLDER]\n");
        return 2;
    }
    (void)snprintf(dir, sizeof dir, "%s/bench-restart-XXXXXX", argc > 2 ? argv[2] : "/tmp");
    if (mkdtemp(dir) == NULL) {
        perror(dir);
        return 1;
    }
    (void)snprintf(store_path, sizeof store_path, "%s/store", dir);
    (void)snprintf(checkpoint_path, sizeof checkpoint_path, "%s/checkpoint", dir);
    check(crypto_key_new(&key, &eb), &eb);
    struct store_lmdb_config files = {.path = store_path, .map_bytes = MAP_BYTES};
    struct ledger_config log = {
        .origin = "test/ledger", .key = key, .checkpoint_path = checkpoint_path};
    uint64_t epoch;
    check(store_open_lmdb(&store, &files, &eb), &eb);
    check(ledger_open(&ledger, store, &log, &eb), &eb);
    check(restore_boot(store, ledger, "test", key, 0, 0, &epoch, &eb), &eb);
    core_test_init(&t);
    static const char *const expected[] = {"m"};
    t.config.expected_models = expected;
    t.config.n_expected_models = 1;
    t.config.queue_jobs_max = t.config.retain_ended_jobs = jobs;
    t.config.queue_tokens_max = UINT64_MAX;
    core_test_open(&t);
    uint64_t began_ns = clock_mono_ns(), restored = 0;
    core_free(t.core);
    check(restore_core(store, ledger, &t.config, epoch, t.now_ms * 1000000, 1800000000000000000u,
                       &t.core, &restored, &eb),
          &eb);
    store_fill(&t, store, ledger, (uint32_t)jobs);
    check(ledger_checkpoint_sign(ledger, &eb), &eb);
    printf("made in %.1f s\n", ms_since(began_ns) / 1000);
    ledger_close(ledger);
    store_close(store);
    for (unsigned i = 0; i < ROUNDS; i++)
        restart(&t, &files, &log);
    core_test_fini(&t);
    crypto_key_free(key);
    (void)nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    return 0;
}
