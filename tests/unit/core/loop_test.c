#include "tests/unit/core/loop_test.h"

#include "common/limits.h"
#include "coordinator/loop.h"
#include "proto/hello.h"

#include <arpa/inet.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

/* One that nobody uses now. */
static void url_find(struct loop_test *k)
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
static _Noreturn void loop_child(const struct loop_test *k)
{
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    (void)execl("/proc/self/exe", "loop", k->dir, k->checkpoint_dir, k->url, (char *)NULL);
    _exit(127);
}

int loop_test_main(const char *dir, const char *checkpoint_dir, const char *url)
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
    config.core.open_clients = config.core.open_workers = true;
    config.core.expected_models = expected;
    config.core.n_expected_models = 1;
    enum err err = crypto_key_open_or_create(&key, key_file, &eb);
    if (err == ERR_OK) {
        config.key = key;
        crypto_key_public(key, config.core.public_key);
        err = loop_open(&loop, &config, &eb);
    }
    bool stuck = false;
    if (err == ERR_OK) {
        err = loop_run(loop, &eb);
        stuck = loop_is_stuck(loop);
    }
    loop_close(loop);
    crypto_key_free(key);
    if (err != ERR_OK)
        (void)fprintf(stderr, "the loop: %s\n", eb.text);
    return err == ERR_OK ? LOOP_TEST_STOPPED : stuck ? LOOP_TEST_STUCK : LOOP_TEST_FAILED;
}

enum err loop_test_try(struct loop_test *k, struct wire_request *request, struct arena *arena,
                       struct wire_reply *ret_reply)
{
    struct errbuf eb = {{0}};
    struct buf out, in;
    buf_init(&out);
    buf_init(&in);
    request->session = k->session;
    request->request_id = id_new();
    assert_err(wire_request_encode(request, &out, &eb), ERR_OK, &eb);
    enum err err = transport_call(k->transport, out.data, out.size, LOOP_TEST_MS, &in, &eb);
    if (err == ERR_OK)
        assert_err(wire_reply_decode(in.data, in.size, arena, ret_reply, &eb), ERR_OK, &eb);
    buf_fini(&out);
    buf_fini(&in);
    if (err == ERR_OK && ret_reply->kind == WIRE_REPLY_ERROR)
        err = (enum err)ret_reply->error.code;
    return err;
}

void loop_test_ask(struct loop_test *k, struct wire_request *request, struct arena *arena,
                   struct wire_reply *ret_reply)
{
    struct errbuf none = {{0}};
    enum err err = loop_test_try(k, request, arena, ret_reply);
    if (err != ERR_OK && ret_reply->kind == WIRE_REPLY_ERROR)
        fail_msg("%s", ret_reply->error.text);
    assert_err(err, ERR_OK, &none);
}

/* `worker`: what one says of itself in its second Hello; NULL: a client's. */
static enum err hello_try(struct loop_test *k, const struct wire_worker_hello *worker)
{
    struct errbuf eb = {{0}};
    char build[HELLO_BUILD_BYTES];
    uint8_t signature[ED25519_SIGN_BYTES];
    struct wire_request request = {.kind = WIRE_REQUEST_HELLO};
    struct wire_reply reply = {0};
    struct arena arena;
    arena_init(&arena, LIMIT_DECODE_BYTES);
    k->session = 0;
    hello_init(&request.hello, worker != NULL ? WIRE_ROLE_WORKER : WIRE_ROLE_CLIENT, "c", k->key,
               build);
    request.hello.tenant = "";
    enum err err = loop_test_try(k, &request, &arena, &reply);
    if (err == ERR_OK) {
        k->session = reply.session;
        assert_err(
            hello_sign(&request.hello, k->key, reply.hello.challenge, k->session, signature, &eb),
            ERR_OK, &eb);
        if (worker != NULL)
            request.hello.worker = *worker;
        err = loop_test_try(k, &request, &arena, &reply);
    }
    if (err == ERR_OK)
        assert_true(reply.hello.established);
    arena_fini(&arena);
    return err;
}

enum err loop_test_hello_try(struct loop_test *k)
{
    return hello_try(k, NULL);
}

enum err loop_test_hello_worker(struct loop_test *k, const struct wire_worker_hello *worker)
{
    return hello_try(k, worker);
}

void loop_test_hello(struct loop_test *k)
{
    struct errbuf none = {{0}};
    assert_err(loop_test_hello_try(k), ERR_OK, &none);
}

void loop_test_connect(struct loop_test *k)
{
    struct errbuf eb = {{0}};
    const struct transport_endpoint endpoint = {.url = k->url};
    assert_err(crypto_key_new(&k->key, &eb), ERR_OK, &eb);
    assert_err(transport_client_open(&k->transport, &endpoint, &eb), ERR_OK, &eb);
    loop_test_hello(k);
}

void loop_test_disconnect(struct loop_test *k)
{
    transport_client_close(k->transport);
    crypto_key_free(k->key);
    k->transport = NULL;
    k->key = NULL;
}

void loop_test_start(struct loop_test *k)
{
    k->pid = fork();
    assert_true(k->pid >= 0);
    if (k->pid == 0)
        loop_child(k);
    loop_test_connect(k);
}

void loop_test_open(struct loop_test *k, const struct loop_test *first)
{
    *k = (struct loop_test){.pid = -1};
    store_test_dir_new(k->dir, sizeof k->dir);
    k->checkpoint_dir = first != NULL ? first->dir : k->dir;
    url_find(k);
    loop_test_start(k);
}

int loop_test_ended(struct loop_test *k)
{
    int status;
    loop_test_disconnect(k);
    assert_int_equal(waitpid(k->pid, &status, 0), k->pid);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

void loop_test_stop(struct loop_test *k)
{
    assert_int_equal(kill(k->pid, SIGTERM), 0);
    assert_int_equal(loop_test_ended(k), LOOP_TEST_STOPPED);
}

void loop_test_close(struct loop_test *k)
{
    loop_test_stop(k);
    store_test_dir_remove(k->dir);
}

struct wire_request loop_test_submit(const uint8_t *text, size_t size)
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
