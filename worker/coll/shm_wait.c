#include "common/clock.h"
#include "worker/coll/shm.h"

#include <linux/futex.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* How long a rank watches for another before it lets others run, and before it sleeps. A step's
 * ranks come within microseconds of each other; to be woken takes some fifty. */
#define SHM_SPINS        2000u /* some 30 us of pause instructions */
#define SHM_YIELD_NS     150000u
#define SHM_CROWD_YIELDS 20u
/* How long it sleeps before it looks whether the others live. */
#define SHM_SLEEP_NS 100000000u
/* How long it waits for the reason of a gang that was broken just now: a few strings' copy. */
#define SHM_REASON_NS 100000000u

static void shm_pause(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* More than a cpu_set_t holds: the machine's are what is known. */
uint32_t shm_processors(void)
{
    cpu_set_t mine;
    CPU_ZERO(&mine);
    const long n = sched_getaffinity(0, sizeof mine, &mine) == 0 ? CPU_COUNT(&mine)
                                                                 : sysconf(_SC_NPROCESSORS_ONLN);
    return n > 0 ? (uint32_t)n : 1;
}

static void shm_futex_wait(_Atomic uint32_t *word, uint32_t seen, uint64_t ns)
{
    struct timespec t = {.tv_sec = (time_t)(ns / 1000000000u), .tv_nsec = (long)(ns % 1000000000u)};
    (void)syscall(SYS_futex, word, FUTEX_WAIT, seen, &t, NULL, 0);
}

void shm_wake(struct shm_rank *line)
{
    (void)syscall(SYS_futex, &line->arrived, FUTEX_WAKE, INT32_MAX, NULL, NULL, 0);
}

/* ---- a gang that broke ---- */

enum err shm_broken(struct shm *s, struct errbuf *eb)
{
    struct shm_header *h = s->segment.header;
    uint32_t state = atomic_load_explicit(&h->broken, memory_order_acquire);
    if (__builtin_expect(state == SHM_BROKEN_NO, 1))
        return ERR_OK;
    /* Who is about to say why may be killed in between, or not run for a moment. */
    const uint64_t until = clock_mono_ns() + SHM_REASON_NS;
    while (state == SHM_BROKEN_WRITING && clock_mono_ns() < until) {
        sched_yield();
        state = atomic_load_explicit(&h->broken, memory_order_acquire);
    }
    if (state != SHM_BROKEN_SET)
        return err_set(eb, ERR_UNAVAILABLE, "a rank broke the gang and could not say why");
    return err_set(eb, coll_code(h->code), "%.*s", (int)strnlen(h->reason, sizeof h->reason),
                   h->reason);
}

enum err shm_break(struct shm *s, enum err code, struct errbuf *eb)
{
    struct shm_header *h = s->segment.header;
    uint32_t state = SHM_BROKEN_NO;
    if (atomic_compare_exchange_strong(&h->broken, &state, SHM_BROKEN_WRITING)) {
        h->code = code;
        memcpy(h->reason, eb->text, sizeof h->reason);
        atomic_store(&h->broken, SHM_BROKEN_SET);
    } else {
        code = shm_broken(s, eb);
    }
    for (uint32_t r = 0; r < s->base.n_ranks; r++)
        shm_wake(&h->rank[r]);
    return code;
}

enum err shm_go_on(struct shm *s, struct errbuf *eb)
{
    enum err e = shm_broken(s, eb);
    if (e != ERR_OK)
        return e;
    e = coll_stopped(&s->base.watch, s->base.rank, eb);
    return e == ERR_OK ? ERR_OK : shm_break(s, e, eb);
}

/* ---- who is still there ---- */

uint32_t shm_dead(const struct shm *s)
{
    struct pollfd p[COLL_RANKS_MAX];
    const uint32_t n = s->base.n_ranks;
    for (uint32_t r = 0; r < n; r++)
        p[r] =
            (struct pollfd){.fd = r == s->base.rank ? -1 : s->meeting.pidfd[r], .events = POLLIN};
    if (poll(p, n, 0) <= 0)
        return n;
    for (uint32_t r = 0; r < n; r++) {
        if (p[r].revents != 0 && atomic_load(&s->segment.header->rank[r].left) == 0)
            return r;
    }
    return n;
}

/* Looked at after the others had time: ERR_OK to wait on. */
static enum err shm_look_around(struct shm *s, uint32_t peer, uint32_t seq, uint64_t deadline_ns,
                                struct errbuf *eb)
{
    const struct shm_rank *line = &s->segment.header->rank[peer];
    char subject[COLL_SUBJECT_BYTES], wanted[COLL_SUBJECT_BYTES];
    const uint32_t self = coll_name(&s->base, s->base.rank);
    enum err e = shm_go_on(s, eb);
    if (e != ERR_OK)
        return e;
    const bool has_left = atomic_load(&line->left) != 0;
    const uint32_t dead = shm_dead(s);
    const bool is_late = clock_mono_ns() >= deadline_ns;
    /* It may have come just before it left or ended. */
    if (shm_has_come(line, seq))
        return ERR_OK;
    coll_wanted(&s->base, peer, seq, wanted);
    if (dead < s->base.n_ranks) {
        coll_subject(&s->base, dead, subject);
        if (dead == peer)
            e = err_set(eb, ERR_UNAVAILABLE, "%s ended while rank %u waited for %s", subject, self,
                        wanted);
        else
            e = err_set(eb, ERR_UNAVAILABLE, "%s ended while rank %u waited for %s of rank %u",
                        subject, self, wanted, coll_name(&s->base, peer));
    } else if (has_left) {
        e = err_set(eb, ERR_UNAVAILABLE, "%s left the gang while rank %u waited for %s",
                    coll_subject(&s->base, peer, subject), self, wanted);
    } else if (is_late) {
        e = err_set(eb, ERR_TIMEOUT, "%s kept rank %u waiting for %s past the deadline",
                    coll_subject(&s->base, peer, subject), self, wanted);
    }
    return e == ERR_OK ? ERR_OK : shm_break(s, e, eb);
}

/* ---- waiting ---- */

static bool shm_watch(struct shm *s, const struct shm_rank *line, uint32_t seq)
{
    if (s->is_crowded) {
        for (uint32_t i = 0; i < SHM_CROWD_YIELDS; i++) {
            sched_yield();
            if (shm_has_come(line, seq))
                return true;
        }
        return false;
    }
    for (uint32_t i = 0; i < SHM_SPINS; i++) {
        shm_pause();
        if (shm_has_come(line, seq))
            return true;
    }
    const uint64_t until = clock_mono_ns() + SHM_YIELD_NS;
    while (clock_mono_ns() < until) {
        sched_yield();
        if (shm_has_come(line, seq))
            return true;
    }
    return false;
}

static void shm_sleep(struct shm_rank *line, uint32_t seq, uint64_t deadline_ns)
{
    const uint64_t now = clock_mono_ns();
    const uint64_t left = deadline_ns > now ? deadline_ns - now : 0;
    /* The other raises `arrived`, then looks at sleepers; we raise sleepers, then look at `arrived`
     * (here and in the kernel). One of the two sees the other. */
    atomic_fetch_add(&line->sleepers, 1);
    const uint32_t seen = atomic_load(&line->arrived);
    if ((int32_t)(seen - seq) < 0 && left > 0)
        shm_futex_wait(&line->arrived, seen, left < SHM_SLEEP_NS ? left : SHM_SLEEP_NS);
    atomic_fetch_sub(&line->sleepers, 1);
}

enum err shm_wait(struct shm *s, uint32_t peer, uint32_t seq, uint64_t deadline_ns,
                  struct errbuf *eb)
{
    struct shm_rank *line = &s->segment.header->rank[peer];
    if (shm_has_come(line, seq) || shm_watch(s, line, seq))
        return ERR_OK;
    for (;;) {
        enum err e = shm_look_around(s, peer, seq, deadline_ns, eb);
        if (e != ERR_OK || shm_has_come(line, seq))
            return e;
        shm_sleep(line, seq, deadline_ns);
        if (shm_has_come(line, seq))
            return ERR_OK;
    }
}

void shm_arrive(struct shm *s, uint32_t seq)
{
    struct shm_rank *line = &s->segment.header->rank[s->base.rank];
    atomic_store(&line->arrived, seq);
    if (atomic_load(&line->sleepers) != 0)
        shm_wake(line);
}
