/*
 * bench_submit - durable submissions a second, beside what bare nng and bare LMDB do in the same
 * run on the same disk.
 *
 *   bench_submit PATH_TO_COORDINATOR [DIRECTORY [JOBS [CLIENTS [WINDOW]]]]
 *
 * Each of CLIENTS connections keeps WINDOW submissions under way; a submission counts when its
 * reply is here, which the coordinator sends only after the job is on disk. Then the coordinator
 * is killed with -9 and started again: the restart with all these jobs is timed, and every one of
 * them must be there.
 */
#include "common/arena.h"
#include "common/buf.h"
#include "common/check.h"
#include "common/clock.h"
#include "common/crypto.h"
#include "common/limits.h"
#include "common/transport.h"
#include "coordinator/store/store.h"
#include "proto/wire.h"
#include "tests/bench/bare_nng.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define CLIENTS_MAX 64u
#define WINDOW_MAX  256u
#define TIMEOUT_MS  30000u

struct client;

struct submission {
    struct client *client;
    struct transport_call *call;
};

struct client {
    struct transport_client *transport;
    struct crypto_key *key;
    char name[16];
    uint64_t session;
    uint32_t window;
    struct submission calls[WINDOW_MAX];
    /* under the mutex */
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    uint32_t free_calls[WINDOW_MAX];
    uint32_t n_free;
    uint32_t n_failed;
    char failure[256];
    uint32_t jobs;
};

static _Noreturn void die(const char *what, const char *why)
{
    fprintf(stderr, "bench_submit: %s: %s\n", what, why);
    exit(1);
}

static void must(enum err err, const struct errbuf *eb, const char *what)
{
    if (err != ERR_OK)
        die(what, eb->text);
}

/* ---- one session ---- */

static void call_decoded(struct client *c, struct wire_request *request, struct arena *arena,
                         struct wire_reply *ret_reply)
{
    struct errbuf eb = {{0}};
    struct buf out, in;
    buf_init(&out);
    buf_init(&in);
    request->session = c->session;
    request->request_id = id_new();
    must(wire_request_encode(request, &out, &eb), &eb, "pack");
    uint64_t until_ms = clock_mono_ms() + TIMEOUT_MS;
    enum err err;
    do { /* a connection to the coordinator that was killed may not have noticed yet */
        err = transport_call(c->transport, out.data, out.size, TIMEOUT_MS, &in, &eb);
    } while (err == ERR_UNAVAILABLE && clock_mono_ms() < until_ms);
    must(err, &eb, "call");
    must(wire_reply_decode(in.data, in.size, arena, ret_reply, &eb), &eb, "reply");
    if (ret_reply->kind == WIRE_REPLY_ERROR)
        die("reply", ret_reply->error.text);
    buf_fini(&out);
    buf_fini(&in);
}

static void client_hello(struct client *c)
{
    struct arena arena;
    struct wire_reply reply;
    uint8_t signature[ED25519_SIGN_BYTES];
    struct wire_request request = {.kind = WIRE_REQUEST_HELLO};
    struct wire_hello *hello = &request.hello;
    struct buf bytes;

    arena_init(&arena, LIMIT_DECODE_BYTES);
    buf_init(&bytes);
    c->session = 0;
    *hello = (struct wire_hello){
        .role = WIRE_ROLE_CLIENT, .node = c->name, .build = "bench", .tenant = "bench"};
    hello->worker.device = hello->worker.isa = "";
    crypto_key_public(c->key, hello->public_key);
    crypto_random(hello->nonce, sizeof hello->nonce);
    call_decoded(c, &request, &arena, &reply);
    c->session = reply.session;
    wire_hello_signed_bytes(reply.hello.challenge, c->session, hello, &bytes);
    must(crypto_sign(c->key, bytes.data, bytes.size, signature, NULL), NULL, "sign");
    hello->signature = (struct wire_bytes){.data = signature, .size = sizeof signature};
    call_decoded(c, &request, &arena, &reply);
    if (!reply.hello.established)
        die("hello", "no session");
    buf_fini(&bytes);
    arena_fini(&arena);
}

/* ---- many calls at once ---- */

static void on_reply(void *arg, enum err err, const void *reply, size_t size)
{
    struct submission *s = arg;
    struct client *c = s->client;
    struct arena arena;
    struct wire_reply decoded;
    struct errbuf eb = {{0}};

    arena_init(&arena, LIMIT_DECODE_BYTES);
    if (err != ERR_OK)
        (void)err_set(&eb, err, "no answer: %s", err_name(err));
    else
        err = wire_reply_decode(reply, size, &arena, &decoded, &eb);
    if (err == ERR_OK && decoded.kind != WIRE_REQUEST_SUBMIT)
        err = err_set(&eb, ERR_INVALID, "%s",
                      decoded.kind == WIRE_REPLY_ERROR ? decoded.error.text : "another reply");
    pthread_mutex_lock(&c->mutex);
    if (err != ERR_OK && c->n_failed++ == 0)
        (void)snprintf(c->failure, sizeof c->failure, "%s", eb.text);
    c->free_calls[c->n_free++] = (uint32_t)(s - c->calls);
    pthread_cond_signal(&c->changed);
    pthread_mutex_unlock(&c->mutex);
    arena_fini(&arena);
}

static void submit_pack(const struct client *c, struct buf *out)
{
    static const uint8_t text[] = "Why is the sky blue? Answer in two sentences, please.";
    struct wire_request request = {
        .kind = WIRE_REQUEST_SUBMIT,
        .session = c->session,
        .request_id = id_new(),
        .submit = {.job_id = id_new(),
                   .job = {.model = "bench",
                           .prompt_kind = WIRE_PROMPT_KIND_TEXT,
                           .text = {.data = text, .size = sizeof text - 1},
                           .sampling = {.top_p = 1, .repetition_penalty = 1, .seed = 1},
                           .max_tokens = 100,
                           .job_class = WIRE_JOB_CLASS_STANDARD,
                           .project = "",
                           .cost_center = ""}}};
    struct errbuf eb = {{0}};
    buf_clear(out);
    must(wire_request_encode(&request, out, &eb), &eb, "pack");
}

static void *client_run(void *arg)
{
    struct client *c = arg;
    struct errbuf eb = {{0}};
    struct buf out;
    buf_init(&out);
    for (uint32_t i = 0; i < c->jobs + c->window; i++) {
        pthread_mutex_lock(&c->mutex);
        while (c->n_free == 0)
            pthread_cond_wait(&c->changed, &c->mutex);
        struct submission *s = &c->calls[c->free_calls[--c->n_free]];
        pthread_mutex_unlock(&c->mutex);
        transport_call_free(s->call);
        s->call = NULL;
        if (i >= c->jobs)
            continue; /* only waits for the last ones */
        submit_pack(c, &out);
        must(transport_call_start(c->transport, out.data, out.size, TIMEOUT_MS, on_reply, s,
                                  &s->call, &eb),
             &eb, "call");
    }
    buf_fini(&out);
    return NULL;
}

static double clients_run(struct client *clients, uint32_t n_clients, uint32_t n_jobs,
                          uint32_t window)
{
    pthread_t threads[CLIENTS_MAX];
    uint64_t began_ns = clock_mono_ns();
    for (uint32_t i = 0; i < n_clients; i++) {
        struct client *c = &clients[i];
        c->jobs = n_jobs / n_clients + (i < n_jobs % n_clients);
        c->window = window;
        c->n_free = 0;
        for (uint32_t k = 0; k < window; k++) {
            c->calls[k] = (struct submission){.client = c};
            c->free_calls[c->n_free++] = k;
        }
        CHECK(pthread_create(&threads[i], NULL, client_run, c) == 0);
    }
    for (uint32_t i = 0; i < n_clients; i++) {
        pthread_join(threads[i], NULL);
        if (clients[i].n_failed > 0)
            die("submission", clients[i].failure);
    }
    return (double)(clock_mono_ns() - began_ns) / 1e9;
}

static void clients_open(struct client *clients, uint32_t n_clients, const char *url)
{
    struct transport_endpoint endpoint = {.url = url};
    struct errbuf eb = {{0}};
    for (uint32_t i = 0; i < n_clients; i++) {
        struct client *c = &clients[i];
        must(transport_client_open(&c->transport, &endpoint, &eb), &eb, "client");
        (void)snprintf(c->name, sizeof c->name, "bench-%u", i);
        CHECK(pthread_mutex_init(&c->mutex, NULL) == 0);
        CHECK(pthread_cond_init(&c->changed, NULL) == 0);
        if (c->key == NULL)
            must(crypto_key_new(&c->key, &eb), &eb, "key");
    }
}

static void clients_close(struct client *clients, uint32_t n_clients)
{
    for (uint32_t i = 0; i < n_clients; i++) {
        transport_client_close(clients[i].transport);
        pthread_mutex_destroy(&clients[i].mutex);
        pthread_cond_destroy(&clients[i].changed);
    }
}

/* ---- bare LMDB ---- */

static double commit_rate(const char *directory, double *ret_ms)
{
    enum { COMMITS = 100 };
    char path[1024];
    uint8_t key[16] = {0}, value[200] = {0};
    struct store *store;
    struct store_txn *txn;
    struct errbuf eb = {{0}};
    (void)snprintf(path, sizeof path, "%s/bare", directory);
    struct store_lmdb_config config = {.path = path};
    must(store_open_lmdb(&store, &config, &eb), &eb, "store");
    uint64_t began_ns = clock_mono_ns();
    for (uint64_t i = 0; i < COMMITS; i++) {
        must(store_begin(store, true, &txn, &eb), &eb, "begin");
        store_key_u64(key, i);
        must(store_put(txn, STORE_TABLE_JOB, key, sizeof key, value, sizeof value, &eb), &eb,
             "put");
        must(store_commit(txn, &eb), &eb, "commit");
    }
    double seconds = (double)(clock_mono_ns() - began_ns) / 1e9;
    store_close(store);
    *ret_ms = seconds * 1000 / COMMITS;
    return COMMITS / seconds;
}

/* ---- the coordinator ---- */

static pid_t coordinator_start(const char *program, const char *directory, const char *url)
{
    char data[1024], config[1024];
    (void)snprintf(data, sizeof data, "%s/data", directory);
    (void)snprintf(config, sizeof config, "%s/bench.cfg", directory);
    FILE *f = fopen(config, "w");
    if (f == NULL)
        die(config, "cannot be written");
    fprintf(f, "expected_models = [\"bench\"];\n");
    (void)fclose(f);
    pid_t pid = fork();
    if (pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL); /* however this bench ends */
        execl(program, program, "--config", config, "--data", data, "--listen", url, "--log-level",
              "warn", (char *)NULL);
        _exit(127);
    }
    if (pid < 0)
        die("fork", "failed");
    return pid;
}

static struct wire_status_reply status_ask(struct client *c, struct arena *arena)
{
    struct wire_request request = {.kind = WIRE_REQUEST_STATUS};
    struct wire_reply reply;
    call_decoded(c, &request, arena, &reply);
    return reply.status;
}

static void coordinator_end(pid_t pid, int signal)
{
    int status;
    (void)kill(pid, signal);
    (void)waitpid(pid, &status, 0);
    if (signal == SIGTERM && (!WIFEXITED(status) || WEXITSTATUS(status) != 0))
        die("coordinator", "did not end well");
}

static uint32_t argument(int argc, char **argv, int at, uint32_t otherwise, uint32_t highest)
{
    unsigned long v = argc > at ? strtoul(argv[at], NULL, 10) : otherwise;
    if (v == 0 || v > highest)
        die("argument out of range", argv[at]);
    return (uint32_t)v;
}

int main(int argc, char **argv)
{
    static struct client clients[CLIENTS_MAX];
    char made[] = "/tmp/cloister-bench-XXXXXX";
    struct arena arena;
    double ms;

    if (argc < 2)
        die("usage", "bench_submit PATH_TO_COORDINATOR [DIRECTORY [JOBS [CLIENTS [WINDOW]]]]");
    const char *directory = argc > 2 ? argv[2] : mkdtemp(made);
    uint32_t n_jobs = argument(argc, argv, 3, 10000, 10000000);
    uint32_t n_clients = argument(argc, argv, 4, 16, CLIENTS_MAX);
    uint32_t window = argument(argc, argv, 5, 64, WINDOW_MAX);
    char url[64];
    (void)snprintf(url, sizeof url, "tcp://127.0.0.1:%d", 20000 + (int)getpid() % 20000);
    arena_init(&arena, LIMIT_DECODE_BYTES);

    /* Forked before nng starts its threads. */
    pid_t pid = coordinator_start(argv[1], directory, url);
    double commits = commit_rate(directory, &ms);
    printf("bare LMDB: %.0f commits/s, %.1f ms each\n", commits, ms);
    struct buf packed;
    buf_init(&packed);
    submit_pack(&clients[0], &packed);
    double echoes = bare_nng_echo_rate(n_clients, window, n_jobs, packed.size);
    buf_fini(&packed);
    printf("bare nng: %.0f echoes/s, %u clients, %u under way each\n", echoes, n_clients, window);

    clients_open(clients, n_clients, url);
    for (uint32_t i = 0; i < n_clients; i++)
        client_hello(&clients[i]);
    double seconds = clients_run(clients, n_clients, n_jobs, window);
    struct wire_status_reply status = status_ask(&clients[0], &arena);
    printf("coordinator: %.0f durable submissions/s (%u in %.2f s), %llu commits, median %.1f ms, "
           "longest %.1f ms\n",
           n_jobs / seconds, n_jobs, seconds, (unsigned long long)status.commits,
           (double)status.commit_us_median / 1000, (double)status.commit_us_max / 1000);

    coordinator_end(pid, SIGKILL);
    uint64_t began_ns = clock_mono_ns();
    pid = coordinator_start(argv[1], directory, url);
    client_hello(&clients[0]);
    status = status_ask(&clients[0], &arena);
    printf("restart after kill -9 with %llu jobs: %.2f s until a client is served\n",
           (unsigned long long)status.queued, (double)(clock_mono_ns() - began_ns) / 1e9);
    if (status.queued < n_jobs)
        die("restart", "acknowledged jobs are missing");
    clients_close(clients, n_clients);
    coordinator_end(pid, SIGTERM);
    for (uint32_t i = 0; i < n_clients; i++)
        crypto_key_free(clients[i].key);
    arena_fini(&arena);
    return 0;
}
