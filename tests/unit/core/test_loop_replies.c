/*
 * Loops in processes of their own. What replies cost: large ones that are asked for all at once are
 * all given, and never lie in memory all at once. What is accepted where two ledgers are in use
 * under one name.
 */
#include "common/clock.h"
#include "common/limits.h"
#include "coordinator/loop.h"
#include "proto/hello.h"
#include "tests/unit/store/store_test.h"

#include <arpa/inet.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define TIMEOUT_MS 60000u
#define ASKED      160u

struct cluster {
    char dir[256], url[64];
    const char *checkpoint_dir; /* of the second place */
    pid_t pid;
    struct transport_client *transport;
    struct crypto_key *key;
    uint64_t session;
};

/* One that nobody uses now. */
static void url_find(struct cluster *k)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)}};
    socklen_t size = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0 && bind(fd, (struct sockaddr *)&address, size) == 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &size), 0);
    (void)close(fd);
    (void)snprintf(k->url, sizeof k->url, "tcp://127.0.0.1:%u", ntohs(address.sin_port));
}

/* nng does not survive a fork: the loop's process is this program anew. */
static _Noreturn void loop_child(const struct cluster *k)
{
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    (void)execl("/proc/self/exe", "loop", k->dir, k->checkpoint_dir, k->url, (char *)NULL);
    _exit(127);
}

static int loop_main(const char *dir, const char *checkpoint_dir, const char *url)
{
    static const char *const expected[] = {"m"};
    char store[300], checkpoint[300], key_file[300];
    struct errbuf eb = {{0}};
    struct loop *loop = NULL;
    struct crypto_key *key = NULL;
    sigset_t all;
    sigfillset(&all);
    (void)sigprocmask(SIG_BLOCK, &all, NULL);
    (void)snprintf(store, sizeof store, "%s/store", dir);
    (void)snprintf(checkpoint, sizeof checkpoint, "%s/checkpoint", checkpoint_dir);
    (void)snprintf(key_file, sizeof key_file, "%s/key", checkpoint_dir);
    struct loop_config config = {.endpoint = {.url = url},
                                 .store_path = store,
                                 .map_bytes = 64u << 20,
                                 .origin = "test/ledger",
                                 .checkpoint_path = checkpoint,
                                 .checkpoint_records = 1000,
                                 .checkpoint_ms = 60000};
    core_config_defaults(&config.core);
    config.core.node = config.core.build = "test";
    config.core.open_clients = true;
    config.core.expected_models = expected;
    config.core.n_expected_models = 1;
    enum err err = crypto_key_open_or_create(&key, key_file, &eb);
    if (err == ERR_OK) {
        config.key = key;
        crypto_key_public(key, config.core.public_key);
        err = loop_open(&loop, &config, &eb);
    }
    if (err == ERR_OK)
        err = loop_run(loop, &eb);
    loop_close(loop);
    crypto_key_free(key);
    if (err != ERR_OK)
        (void)fprintf(stderr, "the loop: %s\n", eb.text);
    return err == ERR_OK ? 0 : 1;
}

/* One request and its reply, which lies in `arena`, and may be an error. */
static void ask_any(struct cluster *k, struct wire_request *request, struct arena *arena,
                    struct wire_reply *ret_reply)
{
    struct errbuf eb = {{0}};
    struct buf out, in;
    buf_init(&out);
    buf_init(&in);
    request->session = k->session;
    request->request_id = id_new();
    assert_err(wire_request_encode(request, &out, &eb), ERR_OK, &eb);
    assert_err(transport_call(k->transport, out.data, out.size, TIMEOUT_MS, &in, &eb), ERR_OK, &eb);
    assert_err(wire_reply_decode(in.data, in.size, arena, ret_reply, &eb), ERR_OK, &eb);
    buf_fini(&out);
    buf_fini(&in);
}

static void ask(struct cluster *k, struct wire_request *request, struct arena *arena,
                struct wire_reply *ret_reply)
{
    ask_any(k, request, arena, ret_reply);
    if (ret_reply->kind == WIRE_REPLY_ERROR)
        fail_msg("%s", ret_reply->error.text);
}

static void hello_say(struct cluster *k)
{
    struct errbuf eb = {{0}};
    char build[HELLO_BUILD_BYTES];
    uint8_t signature[ED25519_SIGN_BYTES];
    struct wire_request request = {.kind = WIRE_REQUEST_HELLO};
    struct wire_reply reply;
    struct arena arena;
    arena_init(&arena, LIMIT_DECODE_BYTES);
    k->session = 0;
    hello_init(&request.hello, WIRE_ROLE_CLIENT, "c", k->key, build);
    request.hello.tenant = "";
    ask(k, &request, &arena, &reply);
    k->session = reply.session;
    assert_err(
        hello_sign(&request.hello, k->key, reply.hello.challenge, k->session, signature, &eb),
        ERR_OK, &eb);
    ask(k, &request, &arena, &reply);
    assert_true(reply.hello.established);
    arena_fini(&arena);
}

/* `first`: of whose key and second place it is another copy; NULL for one of its own. */
static void cluster_open(struct cluster *k, const struct cluster *first)
{
    struct errbuf eb = {{0}};
    *k = (struct cluster){.pid = -1};
    store_test_dir_new(k->dir, sizeof k->dir);
    k->checkpoint_dir = first != NULL ? first->dir : k->dir;
    url_find(k);
    k->pid = fork();
    assert_true(k->pid >= 0);
    if (k->pid == 0)
        loop_child(k);
    const struct transport_endpoint endpoint = {.url = k->url};
    assert_err(crypto_key_new(&k->key, &eb), ERR_OK, &eb);
    assert_err(transport_client_open(&k->transport, &endpoint, &eb), ERR_OK, &eb);
    hello_say(k);
}

static void cluster_close(struct cluster *k)
{
    int status;
    transport_client_close(k->transport);
    crypto_key_free(k->key);
    assert_int_equal(kill(k->pid, SIGTERM), 0);
    assert_int_equal(waitpid(k->pid, &status, 0), k->pid);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    store_test_dir_remove(k->dir);
}

/* The most memory that the loop's process ever had. */
static uint64_t peak_bytes(const struct cluster *k)
{
    char path[64], line[256];
    unsigned long long kib = 0;
    (void)snprintf(path, sizeof path, "/proc/%d/status", (int)k->pid);
    FILE *f = fopen(path, "re");
    assert_non_null(f);
    while (kib == 0 && fgets(line, sizeof line, f) != NULL)
        (void)sscanf(line, "VmHWM: %llu", &kib);
    (void)fclose(f);
    assert_true(kib > 0);
    return (uint64_t)kib << 10;
}

static struct {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    unsigned answered, whole;
} replies = {.mutex = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static void on_reply(void *arg, enum err err, const void *bytes, size_t size)
{
    struct wire_reply reply;
    struct arena arena;
    (void)arg;
    arena_init(&arena, LIMIT_DECODE_BYTES);
    bool whole = err == ERR_OK && wire_reply_decode(bytes, size, &arena, &reply, NULL) == ERR_OK &&
                 reply.kind == (int)WIRE_REQUEST_GET_JOB &&
                 reply.get_job.job.text.size == LIMIT_PROMPT_BYTES;
    arena_fini(&arena);
    (void)pthread_mutex_lock(&replies.mutex);
    replies.answered++;
    replies.whole += whole;
    (void)pthread_cond_signal(&replies.changed);
    (void)pthread_mutex_unlock(&replies.mutex);
}

static struct wire_request submit_request(const uint8_t *text, size_t size)
{
    return (struct wire_request){
        .kind = WIRE_REQUEST_SUBMIT,
        .submit = {.job_id = id_new(),
                   .job = {.model = "m",
                           .prompt_kind = WIRE_PROMPT_KIND_TEXT,
                           .text = {.data = text, .size = size},
                           .sampling = {.top_p = 1, .repetition_penalty = 1},
                           .max_tokens = 1,
                           .job_class = WIRE_JOB_CLASS_STANDARD,
                           .project = "",
                           .cost_center = ""}}};
}

static void large_jobs_asked_for_at_once_come_one_after_another(void **state)
{
    (void)state;
    static struct transport_call *calls[ASKED];
    struct cluster k;
    struct errbuf eb = {{0}};
    struct arena arena;
    struct wire_reply reply;
    struct buf out;
    uint8_t *text = malloc(LIMIT_PROMPT_BYTES);
    assert_non_null(text);
    memset(text, 'a', LIMIT_PROMPT_BYTES);
    arena_init(&arena, LIMIT_DECODE_BYTES);
    cluster_open(&k, NULL);
    struct wire_request submit = submit_request(text, LIMIT_PROMPT_BYTES);
    ask(&k, &submit, &arena, &reply);
    uint64_t before = peak_bytes(&k);

    struct wire_request get = {.kind = WIRE_REQUEST_GET_JOB,
                               .session = k.session,
                               .get_job = {.job_id = submit.submit.job_id}};
    for (unsigned i = 0; i < ASKED; i++) {
        buf_init(&out);
        get.request_id = id_new();
        assert_err(wire_request_encode(&get, &out, &eb), ERR_OK, &eb);
        assert_err(transport_call_start(k.transport, out.data, out.size, TIMEOUT_MS, on_reply, NULL,
                                        &calls[i], &eb),
                   ERR_OK, &eb);
        buf_fini(&out);
    }
    (void)pthread_mutex_lock(&replies.mutex);
    while (replies.answered < ASKED)
        (void)pthread_cond_wait(&replies.changed, &replies.mutex);
    (void)pthread_mutex_unlock(&replies.mutex);
    for (unsigned i = 0; i < ASKED; i++)
        transport_call_free(calls[i]);
    assert_int_equal(replies.whole, ASKED);
    uint64_t more = peak_bytes(&k) - before;
    print_message("%u replies of 8 MiB took %llu MiB more\n", ASKED,
                  (unsigned long long)(more >> 20));
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) /* they keep what is freed */
    assert_true(more < 320u << 20);
#endif
    cluster_close(&k);
    arena_fini(&arena);
    free(text);
}

/* The newest checkpoint is signed for who reads the ledger to its end. */
static uint64_t signed_size(struct cluster *k, struct arena *arena)
{
    struct wire_request range = {.kind = WIRE_REQUEST_LEDGER_RANGE};
    struct wire_request status = {.kind = WIRE_REQUEST_STATUS};
    struct wire_reply reply;
    ask(k, &range, arena, &reply);
    hello_say(k);
    ask(k, &status, arena, &reply);
    return reply.status.checkpoint_size;
}

/* The second one to sign finds the other's checkpoint, which is not of its log. */
static void two_ledgers_under_one_name_stop_accepting(void **state)
{
    (void)state;
    static const uint8_t text[] = "Why?";
    struct cluster first, second;
    struct arena arena;
    struct wire_reply reply;
    struct wire_request status = {.kind = WIRE_REQUEST_STATUS};
    arena_init(&arena, LIMIT_DECODE_BYTES);
    cluster_open(&first, NULL);
    cluster_open(&second, &first);
    struct wire_request submit = submit_request(text, sizeof text - 1);
    ask(&second, &submit, &arena, &reply);
    ask(&second, &status, &arena, &reply);
    assert_true(reply.status.admission_open);
    assert_int_equal(signed_size(&first, &arena), 1);

    assert_int_equal(signed_size(&second, &arena), 0);
    ask(&second, &status, &arena, &reply);
    assert_false(reply.status.healthy);
    assert_false(reply.status.admission_open);
    assert_true(reply.status.n_reasons >= 1);
    assert_non_null(
        strstr(reply.status.reasons[0], "the ledger and its last checkpoint do not agree"));
    struct wire_request another = submit_request(text, sizeof text - 1);
    ask_any(&second, &another, &arena, &reply);
    assert_int_equal(reply.kind, WIRE_REPLY_ERROR);
    assert_non_null(strstr(reply.error.text, "do not agree"));
    /* What was accepted before can be read, and the first one goes on. */
    struct wire_request get = {.kind = WIRE_REQUEST_GET_JOB,
                               .get_job = {.job_id = submit.submit.job_id}};
    ask(&second, &get, &arena, &reply);
    ask(&first, &another, &arena, &reply);
    ask(&first, &status, &arena, &reply);
    assert_true(reply.status.admission_open);
    cluster_close(&second);
    cluster_close(&first);
    arena_fini(&arena);
}

int main(int argc, char **argv)
{
    if (argc == 4 && strcmp(argv[0], "loop") == 0)
        return loop_main(argv[1], argv[2], argv[3]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(large_jobs_asked_for_at_once_come_one_after_another),
        cmocka_unit_test(two_ledgers_under_one_name_stop_accepting),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
