/* Rules between the keys of coordinator.cfg; what one key alone may be is common/config's test. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "coordinator/settings.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define KEY "a7c1f0e2d4b5968778695a4b3c2d1e0ff0e1d2c3b4a5968778695a4b3c2d1e0f"

static enum err read_text_at(struct settings *s, const char *text, const char *data,
                             struct errbuf *eb)
{
    char path[] = "/tmp/cloister-settings-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
    enum err err = settings_read(s, path, NULL, data, NULL, eb);
    (void)unlink(path);
    return err;
}

static enum err read_text(struct settings *s, const char *text, struct errbuf *eb)
{
    return read_text_at(s, text, "/tmp/data", eb);
}

static void files_that_contradict_themselves_are_refused(void **state)
{
    static const struct {
        const char *text;
        const char *part; /* of the error; NULL: it is fine */
    } table[] = {
        {"", NULL},
        {"listen = \"tcp://127.0.0.1:1\";", NULL},
        {"listen = \"tcp://[::1]:1\";", NULL},
        {"\nlisten = \"tcp://10.0.0.1:1\";",
         ":2: listen: tcp://10.0.0.1:1 is not loopback: use tls+tcp"},
        {"listen = \"tcp://0.0.0.0:1\"; allow_plaintext = true;", "list the keys of workers"},
        {"listen = \"tcp://0.0.0.0:1\"; allow_plaintext = true; allow_any_key = true;", NULL},
        {"listen = \"tcp://10.0.0.1:1\"; allow_plaintext = true;"
         "workers = ({key = \"" KEY "\";}); clients = ({key = \"" KEY "\"; tenant = \"t\";});",
         NULL},
        {"listen = \"tls+tcp://127.0.0.1:1\";",
         "needs the group tls with ca_file, cert_file and key_file"},
        {"tls = {ca_file = \"/a\"; cert_file = \"/b\"; key_file = \"/c\";};", "is not tls+tcp"},
        {"tls = {ca_file = \"/a\";};", "cert_file"},
        {"lease = \"1s\"; heartbeat = \"500ms\";", "less than three heartbeats"},
        {"clients = ({key = \"" KEY "\";});", "tenant"},
        {"queue = {jobs = 0;};", "jobs"},
        {"lesae = \"1s\";", "lease"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        static struct settings s;
        struct errbuf eb = {{0}};
        enum err err = read_text(&s, table[i].text, &eb);
        if (table[i].part == NULL && err != ERR_OK)
            fail_msg("%s: %s", table[i].text, eb.text);
        if (table[i].part != NULL && (err == ERR_OK || strstr(eb.text, table[i].part) == NULL))
            fail_msg("%s: should complain of \"%s\", says: %s", table[i].text, table[i].part,
                     eb.text);
        if (err == ERR_OK)
            settings_fini(&s);
    }
}

static void what_is_left_open_follows(void **state)
{
    static struct settings s;
    struct errbuf eb = {{0}};
    struct loop_config config;
    (void)state;
    assert_int_equal(read_text(&s,
                               "lease = \"4s\"; tenants = ({name = \"t\"; budget_tokens = 7L;});"
                               "clients = ({key = \"" KEY "\"; tenant = \"t\"; operator = true;});",
                               &eb),
                     ERR_OK);
    settings_loop_config(&s, "build", &config);
    assert_string_equal(config.store_path, "/tmp/data/store");
    assert_string_equal(config.checkpoint_path, "/tmp/data/ledger.checkpoint");
    assert_string_equal(s.key_file, "/tmp/data/coordinator.key");
    assert_int_equal(config.core.grace_ms, 8000);
    assert_int_equal(config.core.n_tenants, 1);
    assert_int_equal(config.core.tenants[0].budget_tokens, 7);
    assert_false(config.core.open_clients);
    assert_true(config.core.open_workers);
    assert_int_equal(config.core.clients[0].public_key[0], 0xa7);
    assert_true(config.core.clients[0].is_operator);
    settings_fini(&s);
}

/* Beside the store, elsewhere on its disk, on another file system. */
static void the_place_of_the_checkpoint_is_looked_at(void **state)
{
    static struct settings s;
    struct errbuf eb = {{0}};
    char root[] = "/tmp/cloister-settings-XXXXXX", data[64], other[64];
    (void)state;
    assert_non_null(mkdtemp(root));
    (void)snprintf(data, sizeof data, "%s/data", root);
    (void)snprintf(other, sizeof other, "%s/other", root);
    assert_int_equal(mkdir(data, 0700), 0);
    assert_int_equal(mkdir(other, 0700), 0);
    const struct {
        const char *folder, *found;
    } table[] = {
        {NULL, "in the data directory"},
        {data, "in the data directory"},
        {other, "on the file system of the data directory"},
        {"/proc", NULL},
        {"/none", NULL}, /* is found when it cannot be written */
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        char text[200] = "";
        if (table[i].folder != NULL)
            (void)snprintf(text, sizeof text, "checkpoint_file = \"%s/c\";", table[i].folder);
        assert_int_equal(read_text_at(&s, text, data, &eb), ERR_OK);
        const char *found = settings_checkpoint_place(&s);
        if (table[i].found == NULL)
            assert_null(found);
        else
            assert_string_equal(found, table[i].found);
        settings_fini(&s);
    }
    (void)rmdir(data);
    (void)rmdir(other);
    (void)rmdir(root);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(files_that_contradict_themselves_are_refused),
        cmocka_unit_test(what_is_left_open_follows),
        cmocka_unit_test(the_place_of_the_checkpoint_is_looked_at),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
