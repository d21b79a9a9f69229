/*
 * fake_coordinator.h - the coordinator's side of the conversation over real transport on loopback,
 * with the faults that a test asks for: it drops connections, restarts under the same port, ends
 * sessions, answers for another place, is busy. What a job answers is fixed by its prompt, so that
 * a test can say what the client must have at the end.
 *
 * Thread: the setters before the client dials, or between its calls; counters at any time.
 */
#ifndef CLOISTER_TESTS_FAKE_COORDINATOR_H
#define CLOISTER_TESTS_FAKE_COORDINATOR_H

#include "common/buf.h"
#include "common/crypto.h"
#include "common/id.h"
#include "proto/wire.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#define FAKE_JOBS_MOST 256u
#define FAKE_PAGES     3u /* of workers and of usage */

struct fake_job {
    struct id id;
    struct buf packed; /* as submitted: the same id must come with the same bytes */
    char prompt[64];   /* the beginning of it */
    uint32_t n_tokens;
    unsigned submits;
    bool cancelled;
};

struct fake_faults {
    unsigned stale_every;   /* each n-th request: the session is over */
    unsigned stray_every;   /* each n-th Watch: the answer is for another place */
    unsigned garbage_every; /* each n-th request: bytes that are no reply */
    unsigned busy_submits;  /* so many Submits are told to come back later */
    uint64_t busy_retry_ms;
    unsigned lost_submits;         /* so many Submits meet one that just lost its sessions */
    unsigned refuse_submits_with;  /* enum err for every Submit; 0: none */
    bool bad_signature;            /* cannot prove its key */
    bool never_hello;              /* refuses every Hello */
    bool first_page_for_ever;      /* of workers and usage, and there may be more */
    uint32_t tokens_a_watch;       /* at most; 0: all there are */
    bool late_cancel;              /* Cancel is answered, and the job goes on */
    uint32_t stop_at;              /* answers no token past this one: the job does not end */
    enum wire_job_state end_state; /* how jobs end; 0: DONE */
};

struct fake_counts {
    unsigned requests, watches, hellos, submits, restarts, stales, strays;
    size_t jobs;
};

struct fake_coordinator {
    pthread_mutex_t mutex;
    struct transport_server *server;
    char url[64];
    uint16_t port;
    struct crypto_key *key;
    uint64_t session; /* the one that is valid; 0: none */
    uint64_t sessions;
    uint8_t challenge[32];
    struct fake_faults faults;
    struct fake_job jobs[FAKE_JOBS_MOST];
    size_t n_jobs;
    struct fake_counts counts;
};

void fake_open(struct fake_coordinator *f);
void fake_close(struct fake_coordinator *f);
/* kill -9 and a new start: connections drop, the session is gone, the jobs are still there. */
void fake_restart(struct fake_coordinator *f);
void fake_stop_listening(struct fake_coordinator *f);
void fake_listen(struct fake_coordinator *f);
void fake_set_faults(struct fake_coordinator *f, const struct fake_faults *faults);

struct fake_counts fake_counts(struct fake_coordinator *f);
/* The job that came as number `index`, from 0; its id as text. */
bool fake_is_cancelled(struct fake_coordinator *f, size_t index);
void fake_job_id(struct fake_coordinator *f, size_t index, char ret_id[ID_TEXT_BYTES]);

/* A job as if some client had submitted it. */
void fake_add_job(struct fake_coordinator *f, const char *id, const char *prompt);

/* The answer to a prompt: the text of tokens first .. first + n; how many there are in all is
 * fake_answer_tokens. Pieces cut characters of several bytes in two. */
uint32_t fake_answer_tokens(const char *prompt);
void fake_answer(const char *prompt, uint32_t first, uint32_t n, struct buf *out);

void fake_sleep_ms(unsigned ms);

#endif
