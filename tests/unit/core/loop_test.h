/*
 * loop_test.h - a loop in a process of its own, and a client of it.
 *
 * The process is the test's own program once more, called "loop": main gives it to loop_test_main.
 * What the test's linker takes before the product's functions it takes there too.
 */
#ifndef CLOISTER_TESTS_UNIT_CORE_LOOP_TEST_H
#define CLOISTER_TESTS_UNIT_CORE_LOOP_TEST_H

#include "common/arena.h"
#include "common/crypto.h"
#include "common/transport.h"
#include "proto/wire.h"
#include "tests/unit/store/store_test.h"

#include <sys/types.h>

/* A sanitizer on a busy machine takes a minute for replies of a gibibyte. */
#define LOOP_TEST_MS 180000u

/* How the process ends. */
enum { LOOP_TEST_STOPPED = 0, LOOP_TEST_FAILED = 1, LOOP_TEST_STUCK = 4 };

struct loop_test {
    char dir[256], url[64];
    const char *checkpoint_dir; /* of the second place */
    pid_t pid;
    struct transport_client *transport;
    struct crypto_key *key;
    uint64_t session;
};

int loop_test_main(const char *dir, const char *checkpoint_dir, const char *url);

/* `first`: of whose key and second place it is another copy; NULL for one of its own. */
void loop_test_open(struct loop_test *k, const struct loop_test *first);
void loop_test_close(struct loop_test *k);
/* By SIGTERM, and again over what it stored. */
void loop_test_stop(struct loop_test *k);
void loop_test_start(struct loop_test *k);
/* It ends by itself: with what. */
int loop_test_ended(struct loop_test *k);

/* A key and a session of one's own: of k->url. */
void loop_test_connect(struct loop_test *k);
void loop_test_disconnect(struct loop_test *k);
void loop_test_hello(struct loop_test *k);
enum err loop_test_hello_try(struct loop_test *k);
/* The session becomes a worker's. */
enum err loop_test_hello_worker(struct loop_test *k, const struct wire_worker_hello *worker);

/* One request and its reply, which lies in `arena`. An error is a failed test; or with `try`, what
 * comes back, with an error's text in the reply where there is one. */
void loop_test_ask(struct loop_test *k, struct wire_request *request, struct arena *arena,
                   struct wire_reply *ret_reply);
enum err loop_test_try(struct loop_test *k, struct wire_request *request, struct arena *arena,
                       struct wire_reply *ret_reply);

struct wire_request loop_test_submit(const uint8_t *text, size_t size);

#endif
