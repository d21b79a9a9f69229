#include "common/buf.h"
#include "common/check.h"
#include "common/clock.h"
#include "common/transport.h"
#include "tests/unit/transport/fixture.h"
#include "tests/unit/transport/tls_files.h"

#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

static struct tls_files ours, theirs;

static int files_setup(void **state)
{
    (void)state;
    tls_files_make(&ours);
    tls_files_make(&theirs);
    return 0;
}

static int files_teardown(void **state)
{
    (void)state;
    tls_files_remove(&ours);
    tls_files_remove(&theirs);
    return 0;
}

static enum err echo(struct transport_client *client, uint32_t timeout_ms)
{
    struct buf reply;
    buf_init(&reply);
    enum err err = transport_call(client, "hello", 5, timeout_ms, &reply, NULL);
    if (err == ERR_OK)
        assert_string_equal(buf_str(&reply), "hello");
    buf_fini(&reply);
    return err;
}

static void both_sides_show_a_certificate(void **state)
{
    struct transport_tls tls = tls_files_endpoint(&ours);
    struct test_server server;
    struct buf reply;
    (void)state;

    test_server_open(&server, 0, &tls, false);
    struct transport_client *client = test_client_open(server.url, &tls);
    assert_int_equal(echo(client, 20000), ERR_OK);
    uint8_t *bytes = malloc(4 << 20);
    assert_non_null(bytes);
    memset(bytes, 'x', 4 << 20);
    buf_init(&reply);
    assert_int_equal(transport_call(client, bytes, 4 << 20, 60000, &reply, NULL), ERR_OK);
    assert_int_equal(reply.size, 4 << 20);
    buf_fini(&reply);
    free(bytes);
    transport_client_close(client);
    test_server_close(&server);
}

/* Whether `openssl s_client` with these options comes to the end of the handshake. */
static bool openssl_connects(const char *options, uint16_t port)
{
    char command[512];
    char text[65536];
    (void)snprintf(command, sizeof command,
                   "(sleep 0.2) | openssl s_client -brief -connect 127.0.0.1:%u "
                   "-cipher ALL:@SECLEVEL=0 %s 2>&1",
                   port, options);
    FILE *f = popen(command, "r");
    assert_non_null(f);
    size_t n = fread(text, 1, sizeof text - 1, f);
    text[n] = '\0';
    (void)pclose(f);
    return strstr(text, "CONNECTION ESTABLISHED") != NULL;
}

/* Nobody comes in without a certificate of ours and TLS 1.2; who tries keeps nobody out. */
static void only_our_certificates_and_tls_1_2_come_in(void **state)
{
    struct transport_tls tls = tls_files_endpoint(&ours);
    struct test_server server;
    const struct {
        const char *options;
        const struct tls_files *files;
        bool comes_in;
    } rows[] = {
        {"-tls1_2", &ours, true},  {"-tls1_2", NULL, false}, {"-tls1_2", &theirs, false},
        {"-tls1_1", &ours, false}, {"-tls1", &ours, false},  {"-tls1_1", NULL, false},
        {"-tls1_2", &ours, true},
    };
    (void)state;

    test_server_open(&server, 0, &tls, false);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char options[3 * TLS_PATH_BYTES] = "";
        const struct tls_files *files = rows[i].files;
        if (files != NULL)
            (void)snprintf(options, sizeof options, "%s -cert %s -key %s", rows[i].options,
                           files->cert, files->key);
        else
            (void)snprintf(options, sizeof options, "%s", rows[i].options);
        assert_int_equal(openssl_connects(options, test_server_port(&server)), rows[i].comes_in);
    }
    struct transport_client *client = test_client_open(server.url, &tls);
    assert_int_equal(echo(client, 20000), ERR_OK);
    assert_int_equal(server.n_seen, 1);
    transport_client_close(client);
    test_server_close(&server);
}

static void an_unknown_authority_is_refused_by_the_server(void **state)
{
    struct transport_tls server_tls = tls_files_endpoint(&ours);
    struct transport_tls client_tls = tls_files_endpoint(&theirs);
    struct test_server server;
    (void)state;

    client_tls.ca_file = ours.ca; /* it trusts the server, but its own certificate is foreign */
    test_server_open(&server, 0, &server_tls, false);
    struct transport_client *stranger = test_client_open(server.url, &client_tls);
    assert_int_equal(echo(stranger, 700), ERR_UNAVAILABLE);
    assert_int_equal(server.n_seen, 0);
    struct transport_client *client = test_client_open(server.url, &server_tls);
    assert_int_equal(echo(client, 20000), ERR_OK);
    transport_client_close(client);
    transport_client_close(stranger);
    test_server_close(&server);
}

static void an_unknown_authority_is_refused_by_the_client(void **state)
{
    struct transport_tls server_tls = tls_files_endpoint(&ours);
    struct transport_tls client_tls = tls_files_endpoint(&ours);
    struct test_server server;
    (void)state;

    client_tls.ca_file = theirs.ca;
    test_server_open(&server, 0, &server_tls, false);
    struct transport_client *client = test_client_open(server.url, &client_tls);
    assert_int_equal(echo(client, 700), ERR_UNAVAILABLE);
    assert_int_equal(server.n_seen, 0);
    transport_client_close(client);
    test_server_close(&server);
}

/* A certificate for another host: one node must not pass for the coordinator. */
static void another_name_is_refused_by_the_client(void **state)
{
    struct transport_tls tls = tls_files_endpoint(&ours);
    struct transport_server *server;
    struct errbuf eb = {{0}};
    char url[64];
    (void)state;

    (void)snprintf(url, sizeof url, "tls+tcp://127.0.0.2:%u", test_port_free());
    struct transport_endpoint endpoint = {.url = url, .tls = tls};
    assert_int_equal(transport_server_open(&server, &endpoint, NULL, NULL, &eb), ERR_OK);
    struct transport_client *client = test_client_open(url, &tls);
    assert_int_equal(echo(client, 700), ERR_UNAVAILABLE);
    transport_client_close(client);
    transport_server_close(server);
}

/* Connections that end in the middle of the handshake, or never begin one, must not keep the
 * server from taking others. */
static void broken_handshakes_harm_nobody(void **state)
{
    static const char *const starts[] = {"", "GET / HTTP/1.1\r\n\r\n", "\x16\x03\x01\x02",
                                         "\x15\x03\x03\x00\x02\x01\x00"};
    struct transport_tls tls = tls_files_endpoint(&ours);
    struct test_server server;
    char options[3 * TLS_PATH_BYTES];
    (void)state;

    test_server_open(&server, 0, &tls, false);
    for (int round = 0; round < 3; round++) {
        for (size_t i = 0; i < sizeof starts / sizeof starts[0]; i++) {
            int fd = test_tcp_connect(test_server_port(&server));
            size_t size = i == 3 ? 7 : strlen(starts[i]);
            (void)send(fd, starts[i], size, MSG_NOSIGNAL);
            if (round == 1)
                test_sleep_ms(20);
            struct linger abort = {.l_onoff = 1, .l_linger = 0};
            if (round == 2)
                (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &abort, sizeof abort);
            assert_int_equal(close(fd), 0);
        }
    }
    /* A whole handshake with the right certificate, and then the end of the session. */
    (void)snprintf(options, sizeof options, "-tls1_2 -cert %s -key %s", ours.cert, ours.key);
    for (int i = 0; i < 3; i++)
        assert_true(openssl_connects(options, test_server_port(&server)));
    struct transport_client *client = test_client_open(server.url, &tls);
    assert_int_equal(echo(client, 20000), ERR_OK);
    transport_client_close(client);
    test_server_close(&server);
}

/* Somebody at the coordinator's port who hangs up at once, then the coordinator itself. */
static void a_client_survives_a_peer_that_hangs_up(void **state)
{
    const bool secure = *state != NULL;
    struct transport_tls tls = tls_files_endpoint(&ours);
    struct test_server server;
    uint16_t port = test_port_free();
    char url[64];

    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int one = 1;
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons(port),
                                  .sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)}};
    assert_int_equal(setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one), 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(listener, 10), 0);
    (void)snprintf(url, sizeof url, "%s://127.0.0.1:%u", secure ? "tls+tcp" : "tcp", port);
    struct transport_client *client = test_client_open(url, secure ? &tls : NULL);
    struct test_call call; /* a client without calls does not dial again */
    test_call_start(&call, client, "x", 1, 20000);
    for (int i = 0; i < 12; i++) {
        static const char alert[] = "\x15\x03\x03\x00\x02\x01\x00"; /* close_notify */
        char bytes[512];
        int fd = accept(listener, NULL, NULL);
        assert_true(fd >= 0);
        if (i % 4 == 1)
            (void)recv(fd, bytes, sizeof bytes, 0);
        if (i % 4 == 2)
            (void)send(fd, alert, sizeof alert - 1, MSG_NOSIGNAL);
        struct linger abort = {.l_onoff = 1, .l_linger = 0};
        if (i % 4 == 3)
            (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &abort, sizeof abort);
        assert_int_equal(close(fd), 0);
    }
    assert_int_equal(close(listener), 0);
    test_server_open(&server, port, secure ? &tls : NULL, false);
    assert_int_equal(test_call_wait(&call), ERR_OK);
    test_call_end(&call);
    assert_int_equal(echo(client, 20000), ERR_OK);
    transport_client_close(client);
    test_server_close(&server);
}

static void server_restart_is_found_again(void **state)
{
    struct transport_tls tls = tls_files_endpoint(&ours);
    struct test_server server;
    (void)state;

    test_server_open(&server, 0, &tls, false);
    uint16_t port = test_server_port(&server);
    struct transport_client *client = test_client_open(server.url, &tls);
    for (int round = 0; round < 10; round++) {
        /* A call may still go out on the connection that is about to drop, and end with it. */
        enum err err = ERR_UNAVAILABLE;
        for (int try = 0; try < 5 && err == ERR_UNAVAILABLE; try++)
            err = echo(client, 20000);
        assert_int_equal(err, ERR_OK);
        test_server_close(&server);
        test_server_open(&server, port, &tls, false);
    }
    transport_client_close(client);
    test_server_close(&server);
}

static void open_and_close_leave_nothing(void **state)
{
    struct transport_tls tls = tls_files_endpoint(&ours);
    (void)state;
    for (int i = 0; i < 20; i++) {
        struct test_server server;
        test_server_open(&server, 0, &tls, false);
        struct transport_client *client = test_client_open(server.url, &tls);
        if (i % 2 != 0)
            assert_int_equal(echo(client, 20000), ERR_OK);
        transport_client_close(client);
        test_server_close(&server);
    }
}

/* ---- endpoints ---- */

static void endpoint_errors_name_what_is_wrong(void **state)
{
    char empty[TLS_PATH_BYTES + 8];
    char open_key[TLS_PATH_BYTES + 8];
    char command[3 * TLS_PATH_BYTES];
    char fifo[TLS_PATH_BYTES + 8];
    char zeros[1000];
    (void)state;

    (void)snprintf(zeros, sizeof zeros, "tcp://127.0.0.1:%0*u", 900, 7420);
    (void)snprintf(fifo, sizeof fifo, "%s/fifo", ours.folder);
    assert_int_equal(mkfifo(fifo, 0600), 0);
    (void)snprintf(empty, sizeof empty, "%s.empty", ours.ca);
    FILE *f = fopen(empty, "w");
    assert_non_null(f);
    (void)fputs("no certificate\n", f);
    (void)fclose(f);
    (void)snprintf(open_key, sizeof open_key, "%s.open", ours.key);
    (void)snprintf(command, sizeof command, "cp %s %s && chmod 644 %s", ours.key, open_key,
                   open_key);
    assert_int_equal(system(command), 0);

    const struct {
        struct transport_endpoint endpoint;
        enum err err;
        const char *says;
    } rows[] = {
        {{.url = "tcp://127.0.0.1:7420"}, ERR_OK, ""},
        {{.url = "tcp://[::1]:7420"}, ERR_OK, ""},
        {{.url = "tcp://coordinator.lan:0"}, ERR_OK, ""},
        {{.url = NULL}, ERR_INVALID, "no URL"},
        {{.url = ""}, ERR_INVALID, "tcp://HOST:PORT"},
        {{.url = "127.0.0.1:7420"}, ERR_INVALID, "127.0.0.1:7420: not of the form"},
        {{.url = "ipc:///run/x"}, ERR_INVALID, "not of the form"},
        {{.url = "http://127.0.0.1:7420"}, ERR_INVALID, "not of the form"},
        {{.url = "tcp://127.0.0.1"}, ERR_INVALID, "not of the form"},
        {{.url = "tcp://127.0.0.1:"}, ERR_INVALID, "not of the form"},
        {{.url = "tcp://:7420"}, ERR_INVALID, "not of the form"},
        {{.url = "tcp://127.0.0.1:65536"}, ERR_INVALID, "not of the form"},
        {{.url = "tcp://127.0.0.1:-1"}, ERR_INVALID, "not of the form"},
        {{.url = "tcp://127.0.0.1:007420"}, ERR_INVALID, "not of the form"},
        {{.url = zeros}, ERR_INVALID, "not of the form"},
        {{.url = "tcp://127.0.0.1:7420/path"}, ERR_INVALID, "not of the form"},
        {{.url = "tcp://user@host:7420"}, ERR_INVALID, "not of the form"},
        {{.url = "tcp://::1:7420"}, ERR_INVALID, "not of the form"},
        {{.url = "tcp://[::1:7420"}, ERR_INVALID, "not of the form"},
        {{.url = "tcp://h:1", .tls = {ours.ca, NULL, NULL}}, ERR_INVALID, "only tls+tcp"},
        {{.url = "tls+tcp://h:1"}, ERR_INVALID, "ca_file is missing"},
        {{.url = "tls+tcp://h:1", .tls = {ours.ca, NULL, ours.key}},
         ERR_INVALID,
         "cert_file is missing"},
        {{.url = "tls+tcp://h:1", .tls = {ours.ca, ours.cert, NULL}},
         ERR_INVALID,
         "key_file is missing"},
        {{.url = "tls+tcp://h:1", .tls = {ours.ca, ours.cert, ours.key}}, ERR_OK, ""},
        {{.url = "tls+tcp://h:1", .tls = {"/nonexistent", ours.cert, ours.key}},
         ERR_NOT_FOUND,
         "ca_file /nonexistent"},
        {{.url = "tls+tcp://h:1", .tls = {ours.folder, ours.cert, ours.key}},
         ERR_INVALID,
         "not a file"},
        {{.url = "tls+tcp://h:1", .tls = {fifo, ours.cert, ours.key}}, ERR_INVALID, "not a file"},
        {{.url = "tls+tcp://h:1", .tls = {ours.ca, fifo, ours.key}}, ERR_INVALID, "not a file"},
        {{.url = "tls+tcp://h:1", .tls = {ours.ca, ours.cert, fifo}}, ERR_INVALID, "not a file"},
        {{.url = "tls+tcp://h:1", .tls = {empty, ours.cert, ours.key}},
         ERR_INVALID,
         "no PEM certificate"},
        {{.url = "tls+tcp://h:1", .tls = {ours.ca, empty, ours.key}}, ERR_INVALID, "cert_file"},
        {{.url = "tls+tcp://h:1", .tls = {ours.ca, ours.cert, empty}},
         ERR_INVALID,
         "no PEM private key"},
        {{.url = "tls+tcp://h:1", .tls = {ours.ca, ours.cert, open_key}},
         ERR_REFUSED,
         "may read it"},
        {{.url = "tls+tcp://h:1", .tls = {ours.ca, ours.cert, theirs.key}},
         ERR_INVALID,
         "not the key of the certificate"},
    };
    assert_int_equal(chmod(empty, 0600), 0);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct errbuf eb = {{0}};
        enum err err = transport_endpoint_check(&rows[i].endpoint, &eb);
        if (err != rows[i].err || strstr(eb.text, rows[i].says) == NULL)
            print_message("row %zu: %s\n", i, eb.text);
        assert_int_equal(err, rows[i].err);
        assert_non_null(strstr(eb.text, rows[i].says));
    }
    (void)unlink(fifo);
    (void)unlink(empty);
    (void)unlink(open_key);
}

int main(void)
{
    static int secure = 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(endpoint_errors_name_what_is_wrong),
        cmocka_unit_test(both_sides_show_a_certificate),
        cmocka_unit_test(only_our_certificates_and_tls_1_2_come_in),
        cmocka_unit_test(an_unknown_authority_is_refused_by_the_server),
        cmocka_unit_test(an_unknown_authority_is_refused_by_the_client),
        cmocka_unit_test(another_name_is_refused_by_the_client),
        cmocka_unit_test(broken_handshakes_harm_nobody),
        cmocka_unit_test_prestate(a_client_survives_a_peer_that_hangs_up, NULL),
        {"a_tls_client_survives_a_peer_that_hangs_up", a_client_survives_a_peer_that_hangs_up, NULL,
         NULL, &secure},
        cmocka_unit_test(server_restart_is_found_again),
        cmocka_unit_test(open_and_close_leave_nothing),
    };
    return cmocka_run_group_tests(tests, files_setup, files_teardown);
}
