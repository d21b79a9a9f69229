/* LOAD and UNLOAD in any order end as the last one said; what is loaded is what was offered. */
#include "common/check.h"
#include "tests/unit/engine/tiny_model.h"
#include "tests/unit/worker/resident.h"
#include "worker/residency.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static void the_last_word_counts(void **state)
{
    static const struct {
        const char *words; /* l: LOAD, u: UNLOAD, e: events are taken until nothing is under way */
        enum wire_model_state want;
    } rows[] = {
        {"l", WIRE_MODEL_STATE_READY},         {"u", WIRE_MODEL_STATE_AVAILABLE},
        {"lu", WIRE_MODEL_STATE_AVAILABLE},    {"llu", WIRE_MODEL_STATE_AVAILABLE},
        {"lul", WIRE_MODEL_STATE_READY},       {"lulu", WIRE_MODEL_STATE_AVAILABLE},
        {"luul", WIRE_MODEL_STATE_READY},      {"lel", WIRE_MODEL_STATE_READY},
        {"leu", WIRE_MODEL_STATE_AVAILABLE},   {"leul", WIRE_MODEL_STATE_READY},
        {"leulu", WIRE_MODEL_STATE_AVAILABLE}, {"leueul", WIRE_MODEL_STATE_READY},
    };
    struct resident r;
    (void)state;

    resident_open(&r);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        bool asked = false;
        for (const char *w = rows[i].words; *w != '\0'; w++) {
            if (*w == 'l')
                residency_load(&r.residency, r.m, &resident_whole);
            else if (*w == 'u')
                residency_unload(&r.residency, r.m);
            else
                resident_until(&r, asked ? WIRE_MODEL_STATE_READY : WIRE_MODEL_STATE_AVAILABLE);
            asked = *w == 'e' ? asked : *w == 'l';
        }
        resident_until(&r, rows[i].want);
        assert_int_equal(engine_unload(r.engine, 0, NULL),
                         rows[i].want == WIRE_MODEL_STATE_READY ? ERR_OK : ERR_NOT_FOUND);
        r.m->unloading = rows[i].want == WIRE_MODEL_STATE_READY;
        resident_until(&r, WIRE_MODEL_STATE_AVAILABLE);
    }
    resident_close(&r);
}

/* A file system may know the time to a few milliseconds only. */
static void patch(const char *path, long at, uint8_t change)
{
    CHECK(usleep(20000) == 0);
    FILE *f = fopen(path, "r+b");
    assert_non_null(f);
    assert_int_equal(fseek(f, at, SEEK_END), 0);
    int byte = fgetc(f);
    assert_int_equal(fseek(f, at, SEEK_END), 0);
    assert_true(fputc(byte ^ change, f) != EOF);
    assert_int_equal(fclose(f), 0);
}

static void copy(const char *from, const char *to)
{
    char command[256];
    (void)snprintf(command, sizeof command, "cp %s %s", from, to);
    assert_int_equal(system(command), 0);
}

/* The digest under which a worker offers a model is that of what it then loads. */
static void a_file_that_changed_since_it_was_offered_is_refused(void **state)
{
    struct resident r;
    char other[80];
    (void)state;

    resident_open(&r);
    (void)snprintf(other, sizeof other, "%s/other.gguf", r.folder);
    copy(r.path, other);
    patch(r.path, -5, 1);
    for (uint32_t n = 1; n <= 3; n++) {
        residency_load(&r.residency, r.m, &resident_whole);
        resident_until(&r, WIRE_MODEL_STATE_FAILED);
        assert_int_equal(r.m->failures, n);
        assert_non_null(strstr(r.m->error, r.path));
        assert_non_null(strstr(r.m->error, "restart"));
    }
    /* The same bytes in another file are the same model. */
    assert_int_equal(rename(other, r.path), 0);
    residency_load(&r.residency, r.m, &resident_whole);
    resident_until(&r, WIRE_MODEL_STATE_READY);
    assert_int_equal(r.m->failures, 0);
    residency_unload(&r.residency, r.m);
    resident_until(&r, WIRE_MODEL_STATE_AVAILABLE);
    /* Another model in its place is not. */
    copy(r.path, other);
    patch(other, -5, 2);
    assert_int_equal(rename(other, r.path), 0);
    residency_load(&r.residency, r.m, &resident_whole);
    resident_until(&r, WIRE_MODEL_STATE_FAILED);
    assert_int_equal(unlink(r.path), 0);
    residency_load(&r.residency, r.m, &resident_whole);
    resident_until(&r, WIRE_MODEL_STATE_LOADING);
    resident_until(&r, WIRE_MODEL_STATE_FAILED);
    assert_int_equal(r.m->failures, 2);
    struct tiny_model tiny = tiny_model_default();
    tiny_model_write(&tiny, r.path);
    resident_close(&r);
}

/* What is remembered of a file goes with what the file was then. */
static void a_digest_is_remembered_until_the_file_changes(void **state)
{
    struct resident r;
    uint8_t first[32], second[32];
    (void)state;

    resident_open(&r);
    memcpy(first, r.m->offer.weights_digest, sizeof first);
    for (int changed = 0; changed < 2; changed++) {
        if (changed)
            patch(r.path, -5, 1);
        catalogue_close(&r.catalogue);
        resident_read(&r, false);
        memcpy(second, r.m->offer.weights_digest, sizeof second);
        assert_int_equal(memcmp(first, second, sizeof first) != 0, changed);
        uint8_t want[32];
        assert_int_equal(model_file_digest(r.path, want, NULL), ERR_OK);
        assert_memory_equal(second, want, sizeof want);
    }
    resident_close(&r);
}

static void remembered(const struct resident *r, char ret_text[256])
{
    char command[128];
    (void)snprintf(command, sizeof command, "cat %s/*", r->folder);
    FILE *from = popen(command, "re");
    CHECK(from != NULL);
    ret_text[fread(ret_text, 1, 255, from)] = '\0';
    CHECK(pclose(from) == 0);
}

static void a_check_remembers_nothing(void **state)
{
    struct resident r;
    char before[256], after[256];
    (void)state;

    resident_open(&r);
    remembered(&r, before);
    patch(r.path, -5, 1);
    for (int check = 1; check >= 0; check--) {
        catalogue_close(&r.catalogue);
        resident_read(&r, check);
        remembered(&r, after);
        assert_int_equal(strcmp(before, after) == 0, check);
    }
    resident_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_last_word_counts),
        cmocka_unit_test(a_file_that_changed_since_it_was_offered_is_refused),
        cmocka_unit_test(a_digest_is_remembered_until_the_file_changes),
        cmocka_unit_test(a_check_remembers_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
