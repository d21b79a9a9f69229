#include "tests/unit/coll/crew.h"

#include "common/check.h"
#include "common/clock.h"
#include "common/crypto.h"

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

uint64_t crew_soon(uint32_t ms)
{
    return clock_mono_ns() + (uint64_t)ms * 1000000u;
}

uint64_t crew_random(uint64_t *seed)
{
    /* splitmix64, Steele et al. 2014 */
    uint64_t z = (*seed += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* ---- the oracle ---- */

static uint64_t crew_start_of(uint64_t seed, uint64_t op, uint32_t from, uint32_t to)
{
    uint64_t state = seed * 0x100000001b3u + op * 0x10001u + from * 257u + to;
    return crew_random(&state);
}

void crew_fill(uint8_t *to_bytes, size_t size, uint64_t seed, uint64_t op, uint32_t from,
               uint32_t to)
{
    uint64_t state = crew_start_of(seed, op, from, to);
    for (size_t i = 0; i < size; i += 8) {
        const uint64_t word = crew_random(&state);
        memcpy(to_bytes + i, &word, size - i < 8 ? size - i : 8);
    }
}

bool crew_is_filled(const uint8_t *bytes, size_t size, uint64_t seed, uint64_t op, uint32_t from,
                    uint32_t to)
{
    uint64_t state = crew_start_of(seed, op, from, to);
    for (size_t i = 0; i < size; i += 8) {
        const uint64_t word = crew_random(&state);
        if (memcmp(bytes + i, &word, size - i < 8 ? size - i : 8) != 0)
            return false;
    }
    return true;
}

/* ---- a rank ---- */

static enum err crew_exchange(void *ctx, const void *mine, size_t size, uint64_t deadline_ns,
                              const atomic_bool *stop, struct coll_bytes ret[], struct errbuf *eb)
{
    struct crew_rank *g = ctx;
    const uint32_t n = g->gang->n_ranks;
    size_t at = 0;
    CHECK(size <= CREW_CARD_MAX);
    if (send(g->card_fd, mine, size, MSG_NOSIGNAL) != (ssize_t)size)
        return err_set(eb, ERR_UNAVAILABLE, "the coordinator went away");
    for (uint32_t r = 0; r < n; r++) {
        struct pollfd p = {.fd = g->card_fd, .events = POLLIN};
        int came = 0;
        while (came == 0 && clock_mono_ns() < deadline_ns) {
            if (stop != NULL && atomic_load(stop))
                return err_set(eb, ERR_CANCELLED, "told to stop while cards were carried");
            came = poll(&p, 1, 20);
        }
        if (came <= 0)
            return err_set(eb, ERR_TIMEOUT, "the coordinator brought %u cards of %u", r, n);
        const ssize_t got = recv(g->card_fd, g->cards + at, CREW_CARD_MAX, 0);
        if (got <= 0)
            return err_set(eb, ERR_UNAVAILABLE, "the coordinator ended the gang");
        ret[r] = (struct coll_bytes){g->cards + at, (size_t)got};
        at += CREW_CARD_MAX;
    }
    return ERR_OK;
}

enum err crew_open(struct crew_rank *g, struct coll **ret_coll, struct errbuf *eb)
{
    return coll_open(ret_coll, &g->config, crew_soon(60000), eb);
}

static void *crew_rank_main(void *arg)
{
    struct crew_rank *g = arg;
    struct crew_report *report = &g->gang->report[g->rank];
    struct errbuf eb = {{0}};
    report->e = g->gang->body(g, g->gang->arg, &eb);
    report->ended_ns = clock_mono_ns();
    report->eb = eb;
    atomic_store(&report->is_done, true);
    return NULL;
}

/* ---- the gang ---- */

void crew_init(struct crew *gang, enum coll_transport transport, uint32_t n_ranks, crew_body *body,
               void *arg)
{
    memset(gang, 0, sizeof *gang);
    gang->transport = transport;
    gang->n_ranks = n_ranks;
    gang->body = body;
    gang->arg = arg;
    gang->epoch = 7;
    /* Where time is not what is tested, a machine may be as slow as it likes. */
    gang->silence_ms = 60000;
    gang->bytes_max = 1u << 20;
    crypto_random(gang->group, sizeof gang->group);
    const size_t bytes = n_ranks * sizeof *gang->report;
    gang->report = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(gang->report != MAP_FAILED);
}

static void crew_rank_init(struct crew *gang, uint32_t r, int card_fd)
{
    struct crew_rank *g = &gang->rank[r];
    *g = (struct crew_rank){.gang = gang, .rank = r, .card_fd = card_fd};
    g->config = (struct coll_config){
        .transport = gang->transport,
        .epoch = gang->epoch,
        .rank = r,
        .n_ranks = gang->n_ranks,
        .build = "1.0 test",
        .bytes_max = gang->bytes_max,
        .silence_ms = gang->silence_ms,
        .rendezvous = {crew_exchange, g},
        .control = gang->control,
        .control_bytes = gang->bytes_max,
        .device = &g->device.stream,
    };
    host_device_init(&g->device, (uint8_t)r);
    memcpy(g->config.group, gang->group, sizeof gang->group);
    if (gang->host_ranks > 0)
        memset(g->config.host, (int)(1 + r / gang->host_ranks), sizeof g->config.host);
    g->cards = malloc((size_t)COLL_RANKS_MAX * CREW_CARD_MAX);
    CHECK(g->cards != NULL);
}

void crew_start(struct crew *gang)
{
    fflush(NULL);
    for (uint32_t r = 0; r < gang->n_ranks; r++) {
        int pair[2];
        CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0);
        gang->card_fd[r] = pair[0];
        crew_rank_init(gang, r, pair[1]);
        if (gang->is_threads) {
            CHECK(pthread_create(&gang->thread[r], NULL, crew_rank_main, &gang->rank[r]) == 0);
            continue;
        }
        gang->pid[r] = fork();
        CHECK(gang->pid[r] >= 0);
        if (gang->pid[r] == 0) {
            /* Nothing outlives the test program, whatever ends that. */
            (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
            for (uint32_t q = 0; q <= r; q++) {
                close(gang->card_fd[q]);
                if (q < r)
                    free(gang->rank[q].cards);
            }
            crew_rank_main(&gang->rank[r]);
            free(gang->rank[r].cards);
            close(pair[1]);
            exit(0);
        }
        close(pair[1]);
    }
}

bool crew_carry(struct crew *gang)
{
    static uint8_t cards[COLL_RANKS_MAX][CREW_CARD_MAX];
    size_t sizes[COLL_RANKS_MAX];
    bool is_complete = true;
    const enum coll_transport carried =
        gang->transport == COLL_TRANSPORT_NCCL ? gang->control : gang->transport;
    if (carried != COLL_TRANSPORT_UCX || gang->n_ranks == 1)
        return true;
    for (uint32_t r = 0; r < gang->n_ranks && is_complete; r++) {
        struct pollfd p = {.fd = gang->card_fd[r], .events = POLLIN};
        while (poll(&p, 1, 10) == 0 && !atomic_load(&gang->report[r].is_done))
            ;
        const ssize_t got = recv(gang->card_fd[r], cards[r], CREW_CARD_MAX, MSG_DONTWAIT);
        is_complete = got > 0;
        sizes[r] = got > 0 ? (size_t)got : 0;
    }
    for (uint32_t to = 0; to < gang->n_ranks; to++) {
        for (uint32_t r = 0; r < gang->n_ranks && is_complete; r++)
            (void)send(gang->card_fd[to], cards[r], sizes[r], MSG_NOSIGNAL);
        if (!is_complete)
            (void)shutdown(gang->card_fd[to], SHUT_RDWR);
    }
    return is_complete;
}

static bool crew_has_ended(struct crew *gang, uint32_t r)
{
    int status;
    if (gang->is_threads)
        return atomic_load(&gang->report[r].is_done);
    if (gang->pid[r] == 0)
        return true;
    if (waitpid(gang->pid[r], &status, WNOHANG) != gang->pid[r])
        return false;
    gang->pid[r] = 0;
    gang->status[r] = status;
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        fprintf(stderr, "rank %u ended with status %d\n", r, status);
        atomic_store(&gang->report[r].is_done, false);
    }
    return true;
}

bool crew_wait(struct crew *gang, uint32_t ms)
{
    const uint64_t deadline = crew_soon(ms);
    bool is_good = true;
    for (uint32_t r = 0; r < gang->n_ranks; r++) {
        while (!crew_has_ended(gang, r) && clock_mono_ns() < deadline)
            (void)poll(NULL, 0, 2);
        if (gang->is_threads) {
            CHECK(pthread_join(gang->thread[r], NULL) == 0);
            close(gang->rank[r].card_fd);
        } else if (gang->pid[r] != 0) {
            fprintf(stderr, "rank %u hangs\n", r);
            crew_kill(gang, r);
            is_good = false;
        }
    }
    return is_good;
}

void crew_fini(struct crew *gang)
{
    for (uint32_t r = 0; r < gang->n_ranks; r++) {
        if (gang->pid[r] != 0)
            crew_kill(gang, r);
        free(gang->rank[r].cards);
        close(gang->card_fd[r]);
    }
    munmap(gang->report, gang->n_ranks * sizeof *gang->report);
}

void crew_reach(struct crew *gang, uint32_t rank, uint32_t steps)
{
    for (uint32_t r = 0; r < gang->n_ranks; r++) {
        const uint64_t deadline = crew_soon(60000);
        while ((rank == r || rank == COLL_RANKS_MAX) &&
               atomic_load(&gang->report[r].steps) < steps) {
            CHECK(clock_mono_ns() < deadline);
            (void)poll(NULL, 0, 1);
        }
    }
}

void crew_kill(struct crew *gang, uint32_t rank)
{
    CHECK(gang->pid[rank] > 0);
    (void)kill(gang->pid[rank], SIGKILL);
    (void)kill(gang->pid[rank], SIGCONT);
    while (waitpid(gang->pid[rank], NULL, 0) < 0 && errno == EINTR)
        ;
    gang->pid[rank] = 0;
}

void crew_run(struct crew *gang)
{
    bool is_good = true;
    crew_start(gang);
    (void)crew_carry(gang);
    is_good = crew_wait(gang, 240000);
    for (uint32_t r = 0; r < gang->n_ranks; r++) {
        const struct crew_report *report = &gang->report[r];
        if (!atomic_load(&report->is_done) || report->e != ERR_OK) {
            fprintf(stderr, "rank %u of %u: %s: %s\n", r, gang->n_ranks, err_name(report->e),
                    report->eb.text);
            is_good = false;
        }
    }
    CHECK(is_good);
    crew_fini(gang);
}

/* ---- what may be left behind ---- */

static unsigned crew_count_names(const char *folder, const char *a, const char *b)
{
    unsigned n = 0;
    DIR *dir = opendir(folder);
    CHECK(dir != NULL);
    for (const struct dirent *entry; (entry = readdir(dir)) != NULL;)
        n += strstr(entry->d_name, a) != NULL || strstr(entry->d_name, b) != NULL;
    closedir(dir);
    return n;
}

unsigned crew_count_files(void)
{
    return crew_count_names("/proc/self/fd", "", "");
}

unsigned crew_count_shared(void)
{
    return crew_count_names("/dev/shm", "cloister", "ucx");
}

/* Alone a rank needs libucx and nothing else. In a process of its own: what the ranks load is their
 * own business. */
bool crew_has_transport(enum coll_transport transport)
{
    int status;
    fflush(NULL);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        struct host_device device;
        struct coll_config config = {
            .transport = transport, .n_ranks = 1, .build = "", .device = &device.stream};
        host_device_init(&device, 0);
        struct errbuf eb = {{0}};
        struct coll *c = NULL;
        enum err e = coll_open(&c, &config, crew_soon(10000), &eb);
        if (e != ERR_OK)
            fprintf(stderr, "%s: %s\n", err_name(e), eb.text);
        coll_close(c);
        _exit(e == ERR_UNSUPPORTED ? 77 : e != ERR_OK);
    }
    CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status));
    CHECK(WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == 77);
    return WEXITSTATUS(status) == 0;
}

enum coll_transport crew_transport(int argc, char **argv)
{
    enum coll_transport transport;
    if (argc != 2 || !coll_transport_parse(argv[1], &transport)) {
        fprintf(stderr, "usage: %s shm|ucx|nccl\n", argv[0]);
        exit(2);
    }
    if (!crew_has_transport(transport))
        exit(77);
    return transport;
}
