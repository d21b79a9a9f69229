/*
 * What listens for the ranks of other hosts is libucx, on ports of its choosing. Programs that
 * connect there and speak nonsense, or nothing, change nothing in the gang.
 */
#include "tests/unit/coll/crew.h"

#include "common/check.h"
#include "common/clock.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#define PORTS_MAX    16u
#define HELD_MAX     32u
#define CONNECTIONS  400u
#define DEADLINE_MS  120000u
#define NONSENSE_MAX 5000u

/* ---- the gang: all-gathers until the test has done its worst ---- */

static enum err play(struct crew_rank *g, void *arg, struct errbuf *eb)
{
    struct crew_report *report = &g->gang->report[g->rank];
    const size_t bytes[3] = {100, 5000, 70000};
    struct coll *c = NULL;
    bool is_over = false;
    (void)arg;
    enum err e = crew_open(g, &c, eb);
    for (uint64_t op = 0; e == ERR_OK && !is_over; op++) {
        const void *parts[3], *over;
        void *mine;
        size_t size;
        atomic_fetch_or(&report->steps, 1);
        e = coll_all_gather_begin(c, bytes, crew_soon(DEADLINE_MS), &mine, eb);
        if (e != ERR_OK)
            break;
        crew_fill(mine, bytes[g->rank], 1, op, g->rank, 0);
        e = coll_end(c, crew_soon(DEADLINE_MS), parts, eb);
        for (uint32_t from = 0; from < 3 && e == ERR_OK; from++)
            CHECK(crew_is_filled(parts[from], bytes[from], 1, op, from, 0));
        const uint8_t now = atomic_load(&g->gang->report[0].steps) > 1;
        if (e == ERR_OK)
            e = coll_broadcast(c, 0, &now, 1, crew_soon(DEADLINE_MS), &over, &size, eb);
        if (e == ERR_OK)
            is_over = *(const uint8_t *)over != 0;
    }
    coll_close(c);
    return e;
}

/* ---- the ports ---- */

static bool is_socket_of(pid_t pid, unsigned long inode)
{
    char folder[64], path[400], target[64], wanted[64];
    bool is_one = false;
    (void)snprintf(folder, sizeof folder, "/proc/%d/fd", (int)pid);
    (void)snprintf(wanted, sizeof wanted, "socket:[%lu]", inode);
    DIR *dir = opendir(folder);
    CHECK(dir != NULL);
    for (const struct dirent *entry; (entry = readdir(dir)) != NULL && !is_one;) {
        (void)snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        const ssize_t n = readlink(path, target, sizeof target - 1);
        target[n > 0 ? n : 0] = '\0';
        is_one = strcmp(target, wanted) == 0;
    }
    closedir(dir);
    return is_one;
}

/* Where ranks listen. */
static unsigned find_ports(const struct crew *gang, struct sockaddr_in ret_ports[PORTS_MAX])
{
    char line[256];
    unsigned n = 0;
    FILE *f = fopen("/proc/net/tcp", "r");
    assert_non_null(f);
    while (fgets(line, sizeof line, f) != NULL && n < PORTS_MAX) {
        unsigned address, port, state;
        unsigned long inode;
        if (sscanf(line, "%*d: %x:%x %*x:%*x %x %*x:%*x %*x:%*x %*x %*d %*d %lu", &address, &port,
                   &state, &inode) != 4 ||
            state != 0x0a)
            continue;
        for (uint32_t r = 0; r < gang->n_ranks; r++) {
            if (is_socket_of(gang->pid[r], inode)) {
                ret_ports[n] =
                    (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
                ret_ports[n++].sin_addr.s_addr = address;
                break;
            }
        }
    }
    fclose(f);
    return n;
}

static int connect_to(const struct sockaddr_in *to)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(fd, (const struct sockaddr *)to, sizeof *to) == 0)
        return fd;
    close(fd);
    return -1;
}

static void test_nonsense_at_the_port_changes_nothing(void **state)
{
    static const size_t sizes[] = {0, 1, 7, 8, 9, 64, 700, NONSENSE_MAX};
    uint8_t nonsense[NONSENSE_MAX];
    struct sockaddr_in ports[PORTS_MAX];
    int held[HELD_MAX];
    unsigned n_connected = 0;
    struct crew gang;
    (void)state;
    memset(held, -1, sizeof held);
    crew_init(&gang, COLL_TRANSPORT_UCX, 3, play, NULL);
    crew_start(&gang);
    assert_true(crew_carry(&gang));
    crew_reach(&gang, COLL_RANKS_MAX, 1);
    const unsigned n_ports = find_ports(&gang, ports);
    assert_true(n_ports >= 3);
    for (uint32_t i = 0; i < CONNECTIONS; i++) {
        int fd = connect_to(&ports[i % n_ports]);
        if (fd < 0)
            continue;
        n_connected++;
        crew_fill(nonsense, sizeof nonsense, i, 0, 0, 0);
        (void)send(fd, nonsense, sizes[i % 8], MSG_NOSIGNAL);
        /* Some stay for a while. */
        if (held[i % HELD_MAX] >= 0)
            close(held[i % HELD_MAX]);
        held[i % HELD_MAX] = i % 3 == 0 ? fd : -1;
        if (i % 3 != 0)
            close(fd);
        (void)poll(NULL, 0, 1);
    }
    assert_true(n_connected > CONNECTIONS / 2);
    atomic_store(&gang.report[0].steps, 2);
    assert_true(crew_wait(&gang, 120000));
    for (uint32_t r = 0; r < 3; r++) {
        if (!atomic_load(&gang.report[r].is_done) || gang.report[r].e != ERR_OK)
            fail_msg("rank %u: %s: %s", r, err_name(gang.report[r].e), gang.report[r].eb.text);
    }
    for (unsigned i = 0; i < HELD_MAX; i++) {
        if (held[i] >= 0)
            close(held[i]);
    }
    crew_fini(&gang);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nonsense_at_the_port_changes_nothing),
    };
    if (!crew_has_transport(COLL_TRANSPORT_UCX))
        return 77;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
