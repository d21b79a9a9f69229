/*
 * stored_test.h - the core with the real apply, fill and restore over a real file, without a loop.
 */
#ifndef CLOISTER_TESTS_UNIT_CORE_STORED_TEST_H
#define CLOISTER_TESTS_UNIT_CORE_STORED_TEST_H

#include "tests/unit/core/core_test.h"

#include "coordinator/ledger/ledger.h"
#include "coordinator/loop_fill.h"
#include "tests/unit/store/store_test.h"

struct stored_test {
    struct core_test t;
    struct store_test store;
    struct ledger *ledger;
    struct crypto_key *key;
    char checkpoint[320];
    uint64_t boot_epoch;
};

void stored_test_open(struct stored_test *k);
void stored_test_close(struct stored_test *k);
/* Closes the files; and opens them again, with a core restored from them. */
void stored_test_stop(struct stored_test *k);
void stored_test_start(struct stored_test *k);
/* What the loop does at the end of a turn. */
void stored_test_commit(struct stored_test *k);
/* Steps a request, commits its turn, fills its reply; the reply went through a frame. */
enum err stored_test_try(struct stored_test *k, struct wire_request *request,
                         struct wire_reply *ret_reply, struct fill_context *context,
                         struct errbuf *eb);
/* As try, of what must not fail. */
struct wire_reply stored_test_ask(struct stored_test *k, struct wire_request *request);
/* A worker with model "m" loaded, for answers of up to 200,000 tokens. */
uint64_t stored_test_worker(struct stored_test *k, const char *name);
void stored_test_submit(struct stored_test *k, uint64_t client, uint8_t job, uint32_t max_tokens);
/* Token i of every answer, and what it adds to the text. */
int32_t stored_test_token(uint32_t i);
char stored_test_text(uint32_t i);
/* Tokens [first, first + n) of a job in one report. */
void stored_test_report(struct stored_test *k, uint64_t worker, uint8_t job, uint64_t epoch,
                        uint32_t first, uint32_t n, enum wire_finish finish);
/* Time passes with nobody there; what it led to is stored. */
void stored_test_wait(struct stored_test *k, uint64_t ms);

#endif
