/*
 * What calls a gang's meeting, or answers in a rank's place, and is no rank of it: strangers,
 * programs that speak nonsense, cards that were changed on the way.
 *
 *   test_coll_strangers shm|ucx
 */
#include "tests/unit/coll/crew.h"

#include "common/check.h"
#include "common/clock.h"
#include "worker/coll/hello.h"
#include "worker/coll/shm_socket.h"

#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static enum coll_transport transport;

/* ---- strangers (shm: at the socket) ---- */

static int call(const uint8_t group[COLL_GROUP_BYTES])
{
    struct sockaddr_un name;
    const socklen_t size = shm_socket_name(group, &name);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    const uint64_t until = crew_soon(20000);
    while (connect(fd, (const struct sockaddr *)&name, size) != 0) {
        assert_true(errno == ECONNREFUSED || errno == EAGAIN);
        assert_true(clock_mono_ns() < until);
        (void)poll(NULL, 0, 1);
    }
    return fd;
}

/* The code with which rank 0 refuses; ERR_OK where it only hangs up. */
static enum err refused_with(int fd)
{
    uint8_t packet[SHM_PACKET_BYTES];
    struct pollfd p = {.fd = fd, .events = POLLIN};
    assert_int_equal(poll(&p, 1, 20000), 1);
    const ssize_t got = recv(fd, packet, sizeof packet, 0);
    if (got <= 0)
        return ERR_OK;
    assert_true(got >= 8);
    assert_int_equal(coll_get_u32(packet), SHM_PACKET_REFUSED);
    return (enum err)coll_get_u32(packet + 4);
}

static void hello_of(struct crew *gang, struct coll_hello *ret_hello, uint32_t rank)
{
    struct coll_config config = {.transport = transport,
                                 .epoch = gang->epoch,
                                 .rank = rank,
                                 .n_ranks = gang->n_ranks,
                                 .build = "1.0 test",
                                 .bytes_max = gang->bytes_max};
    memcpy(config.group, gang->group, sizeof config.group);
    assert_int_equal(coll_hello_of(&config, ret_hello, NULL), ERR_OK);
}

static void strangers_call(struct crew *gang)
{
    uint8_t bytes[2 * SHM_PACKET_BYTES];
    struct coll_hello hello;
    uint64_t seed = 5;
    int silent[60];
    /* More who say nothing than there is room for. */
    for (unsigned i = 0; i < 60; i++)
        silent[i] = call(gang->group);
    /* Garbage of every length. */
    for (size_t size = 1; size < sizeof bytes; size = size * 2 + 1) {
        int fd = call(gang->group);
        crew_fill(bytes, size, seed++, 0, 0, 0);
        assert_int_equal(send(fd, bytes, size, MSG_NOSIGNAL), size);
        assert_int_equal(refused_with(fd), ERR_CORRUPT);
        close(fd);
    }
    /* A right hello but for one byte: of the magic, of the group id, of its texts' ends. */
    for (uint32_t at = 0; at < COLL_HELLO_BYTES; at++) {
        const bool is_group = at >= 36 && at < 36 + COLL_GROUP_BYTES;
        const bool is_end =
            at == COLL_HELLO_BYTES - 1 || at == COLL_HELLO_BYTES - COLL_WHY_BYTES - 4 - 1;
        if (at >= 8 && !is_group && !is_end)
            continue; /* a rank of this gang that differs ends the meeting: another test's */
        hello_of(gang, &hello, 1);
        coll_hello_encode(&hello, bytes);
        bytes[at] ^= 0x40;
        int fd = call(gang->group);
        assert_int_equal(send(fd, bytes, COLL_HELLO_BYTES, MSG_NOSIGNAL), COLL_HELLO_BYTES);
        assert_int_equal(refused_with(fd), is_group ? ERR_REFUSED : ERR_CORRUPT);
        close(fd);
    }
    static const struct {
        uint8_t group_xor;
        int64_t epoch_add;
        bool truncated;
        enum err e;
    } cases[] = {
        {1, 0, false, ERR_REFUSED},
        {0, -1, false, ERR_STALE},
        {0, 0, true, ERR_CORRUPT},
        {0, 0, false, ERR_CORRUPT}, /* no pidfd with it */
    };
    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int fd = call(gang->group);
        hello_of(gang, &hello, 1);
        hello.group[3] ^= cases[i].group_xor;
        hello.epoch += (uint64_t)cases[i].epoch_add;
        coll_hello_encode(&hello, bytes);
        const size_t size = COLL_HELLO_BYTES - cases[i].truncated;
        assert_int_equal(send(fd, bytes, size, MSG_NOSIGNAL), size);
        assert_int_equal(refused_with(fd), cases[i].e);
        close(fd);
    }
    /* Many files at once. */
    int fd = call(gang->group);
    int files[SHM_FILES_MAX];
    for (unsigned i = 0; i < SHM_FILES_MAX; i++)
        files[i] = silent[0];
    hello_of(gang, &hello, 1);
    coll_hello_encode(&hello, bytes);
    assert_true(shm_socket_send(fd, bytes, COLL_HELLO_BYTES, files, SHM_FILES_MAX));
    assert_int_equal(refused_with(fd), ERR_CORRUPT);
    close(fd);
    for (unsigned i = 0; i < 60; i++)
        close(silent[i]);
}

/* Rank 0 first; the others when the strangers were there. */
static enum err rank_0_first(struct crew_rank *g, void *arg, struct errbuf *eb)
{
    struct coll *c = NULL;
    const unsigned files = crew_count_files();
    (void)arg;
    while (g->rank > 0 && atomic_load(&g->gang->report[0].steps) == 0)
        (void)poll(NULL, 0, 5);
    enum err e = crew_open(g, &c, eb);
    if (e == ERR_OK)
        e = coll_barrier(c, crew_soon(60000), eb);
    coll_close(c);
    CHECK(crew_count_files() == files);
    return e;
}

static void test_strangers_change_nothing(void **state)
{
    (void)state;
    if (transport != COLL_TRANSPORT_SHM)
        skip();
    struct crew gang;
    crew_init(&gang, transport, 3, rank_0_first, NULL);
    crew_start(&gang);
    strangers_call(&gang);
    atomic_store(&gang.report[0].steps, 1);
    assert_true(crew_wait(&gang, 60000));
    for (uint32_t r = 0; r < 3; r++) {
        if (gang.report[r].e != ERR_OK)
            fail_msg("rank %u: %s", r, gang.report[r].eb.text);
    }
    crew_fini(&gang);
}

/* ---- who answers in rank 0's place (shm) ---- */

static enum err rank_1_calls(struct crew_rank *g, void *arg, struct errbuf *eb)
{
    struct coll *c = NULL;
    (void)arg;
    if (g->rank == 0)
        return ERR_OK;
    enum err e = coll_open(&c, &g->config, crew_soon(20000), eb);
    CHECK((e == ERR_OK) == (c != NULL));
    coll_close(c);
    return e;
}

/* Rank 1 calls a rank 0 that is played here. */
static void false_host(const void *const packets[], const size_t sizes[], unsigned n,
                       bool with_files, enum err e, const char *says)
{
    struct crew gang;
    struct sockaddr_un name;
    crew_init(&gang, transport, 2, rank_1_calls, NULL);
    const socklen_t size = shm_socket_name(gang.group, &name);
    int listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(listener, (const struct sockaddr *)&name, size), 0);
    assert_int_equal(listen(listener, 4), 0);
    crew_start(&gang);
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    assert_true(fd >= 0);
    for (unsigned i = 0; i < n; i++) {
        uint8_t bytes[4 + COLL_HELLO_BYTES];
        int files[3] = {listener, listener, listener};
        if (packets[i] == NULL) {
            struct coll_hello hello;
            hello_of(&gang, &hello, 0);
            coll_put_u32(bytes, SHM_PACKET_WELCOME);
            coll_hello_encode(&hello, bytes + 4);
            assert_true(shm_socket_send(fd, bytes, sizeof bytes, NULL, 0));
        } else {
            const bool is_last = with_files && i == n - 1;
            (void)shm_socket_send(fd, packets[i], sizes[i], files, is_last ? 3 : 0);
        }
    }
    assert_true(crew_wait(&gang, 20000));
    if (gang.report[1].e != e || strstr(gang.report[1].eb.text, says) == NULL)
        fail_msg("%s: %s", err_name(gang.report[1].e), gang.report[1].eb.text);
    close(fd);
    close(listener);
    crew_fini(&gang);
}

static void test_a_false_rank_0_crashes_nobody(void **state)
{
    (void)state;
    if (transport != COLL_TRANSPORT_SHM)
        skip();
    static const uint8_t nonsense[] = "this is no packet", go[] = {SHM_PACKET_GO, 0, 0, 0};
    static const uint8_t welcome[200] = {SHM_PACKET_WELCOME, 0, 0, 0, 9, 9};
    static const uint8_t refused[] = {SHM_PACKET_REFUSED, 0, 0, 0, 5, 0, 0, 0, 'n', 'o', 27, '!'};
    static const uint8_t code_99[] = {SHM_PACKET_REFUSED, 0, 0, 0, 99, 0, 0, 0};
    const struct {
        const void *packet[2]; /* NULL: the right welcome */
        size_t size[2];
        unsigned n;
        bool with_files;
        enum err e;
        const char *says;
    } cases[] = {
        {{nonsense}, {sizeof nonsense}, 1, false, ERR_CORRUPT, "make no sense"},
        {{welcome}, {sizeof welcome}, 1, false, ERR_CORRUPT, "no hello"},
        {{refused}, {sizeof refused}, 1, false, ERR_TOO_LARGE, "refused by rank 0: no?!"},
        {{code_99}, {sizeof code_99}, 1, false, ERR_CORRUPT, "unknown code 99"},
        {{NULL, go}, {0, sizeof go}, 2, true, ERR_CORRUPT, "no sealed memory"},
        {{NULL, go}, {0, sizeof go}, 2, false, ERR_CORRUPT, "files"},
        {{NULL, nonsense}, {0, sizeof nonsense}, 2, true, ERR_CORRUPT, "make no sense"},
    };
    for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++)
        false_host(cases[i].packet, cases[i].size, cases[i].n, cases[i].with_files, cases[i].e,
                   cases[i].says);
}

/* ---- cards that were changed on the way (ucx) ---- */

struct carrier {
    void (*change)(uint8_t *card, size_t *size);
    enum err e;
    const char *says;
};

static void change_address(uint8_t *card, size_t *size)
{
    card[*size - 7] ^= 0xff;
}
static void change_length(uint8_t *card, size_t *size)
{
    (void)card;
    *size -= 20;
}
static void change_all(uint8_t *card, size_t *size)
{
    crew_fill(card, *size, 99, 0, 0, 0);
}
static void change_to_nothing(uint8_t *card, size_t *size)
{
    (void)card;
    *size = 1;
}
static void change_group(uint8_t *card, size_t *size)
{
    (void)size;
    card[32 + 8 + 12 + 16 + 4] ^= 1;
}

static const struct carrier carriers[] = {
    {change_address, ERR_CORRUPT, "changed on the way"},
    {change_length, ERR_CORRUPT, "changed on the way"},
    {change_all, ERR_CORRUPT, "rank 1"},
    {change_to_nothing, ERR_CORRUPT, "no rank's address"},
    {change_group, ERR_REFUSED, "another gang"},
};

static enum err (*carry_right)(void *ctx, const void *mine, size_t size, uint64_t deadline_ns,
                               const atomic_bool *stop, struct coll_bytes ret[], struct errbuf *eb);
static const struct carrier *carrier_now;

static enum err carry_wrong(void *ctx, const void *mine, size_t size, uint64_t deadline_ns,
                            const atomic_bool *stop, struct coll_bytes ret[], struct errbuf *eb)
{
    static _Thread_local uint8_t card[CREW_CARD_MAX];
    enum err e = carry_right(ctx, mine, size, deadline_ns, stop, ret, eb);
    if (e == ERR_OK) {
        memcpy(card, ret[1].data, ret[1].size);
        carrier_now->change(card, &ret[1].size);
        ret[1].data = card;
    }
    return e;
}

static enum err with_changed_card(struct crew_rank *g, void *arg, struct errbuf *eb)
{
    struct coll *c = NULL;
    carrier_now = arg;
    carry_right = g->config.rendezvous.exchange;
    if (g->rank == 0)
        g->config.rendezvous.exchange = carry_wrong;
    enum err e = coll_open(&c, &g->config, crew_soon(1500), eb);
    coll_close(c);
    return e;
}

static void test_cards_that_were_changed_are_refused(void **state)
{
    (void)state;
    if (transport != COLL_TRANSPORT_UCX)
        skip();
    for (unsigned i = 0; i < sizeof carriers / sizeof carriers[0]; i++) {
        struct crew gang;
        crew_init(&gang, transport, 2, with_changed_card, (void *)(uintptr_t)&carriers[i]);
        crew_start(&gang);
        assert_true(crew_carry(&gang));
        assert_true(crew_wait(&gang, 20000));
        if (gang.report[0].e != carriers[i].e ||
            strstr(gang.report[0].eb.text, carriers[i].says) == NULL)
            fail_msg("case %u: %s: %s", i, err_name(gang.report[0].e), gang.report[0].eb.text);
        assert_true(gang.report[1].e != ERR_OK);
        crew_fini(&gang);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_strangers_change_nothing),
        cmocka_unit_test(test_a_false_rank_0_crashes_nobody),
        cmocka_unit_test(test_cards_that_were_changed_are_refused),
    };
    transport = crew_transport(argc, argv);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
