#include "tests/unit/worker/resident.h"

#include "common/check.h"
#include "tests/unit/engine/tiny_model.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

const struct gang_place resident_whole;
const struct gang_offer resident_offer = {
    .host = {1}, .transports = 1u << WIRE_GANG_TRANSPORT_SHM | 1u << WIRE_GANG_TRANSPORT_UCX};
const struct engine_config resident_config = {.threads = 1, .step_tokens = 32};

static void notify(void *arg)
{
    struct resident *r = arg;
    CHECK(sem_post(&r->news) == 0);
}

void resident_read(struct resident *r, bool check)
{
    const struct catalogue_source source = {.name = "tiny", .path = r->path};
    const struct catalogue_digests digests = {.folder = r->folder, .read_only = check};
    struct errbuf eb = {{0}};
    if (catalogue_open(&r->catalogue, &source, 1, &resident_config, &digests, &eb) != ERR_OK)
        fail_msg("%s", eb.text);
    r->m = &r->catalogue.models[0];
}

void resident_open(struct resident *r)
{
    struct engine_config config = resident_config;
    struct tiny_model tiny = tiny_model_default();
    struct errbuf eb = {{0}};

    memset(r, 0, sizeof *r);
    config.notify = notify;
    config.notify_arg = r;
    CHECK(sem_init(&r->news, 0, 0) == 0);
    tiny_model_write(&tiny, r->path);
    strcpy(r->folder, "/tmp/cloister-test-resident-XXXXXX");
    assert_non_null(mkdtemp(r->folder));
    resident_read(r, false);
    assert_int_equal(engine_open(&r->engine, &config, &eb), ERR_OK);
    r->residency = (struct residency){.engine = r->engine,
                                      .catalogue = &r->catalogue,
                                      .build = "test",
                                      .gangs = &resident_offer,
                                      .notify = notify,
                                      .notify_arg = r};
}

void resident_close(struct resident *r)
{
    char command[128];
    engine_close(r->engine);
    residency_fini(&r->residency);
    catalogue_close(&r->catalogue);
    assert_int_equal(unlink(r->path), 0);
    (void)snprintf(command, sizeof command, "rm -r %s", r->folder);
    assert_int_equal(system(command), 0);
    CHECK(sem_destroy(&r->news) == 0);
}

void resident_poll(struct resident *r)
{
    struct engine_event ev;
    while (engine_poll(r->engine, &ev))
        residency_event(&r->residency, &ev);
}

void resident_until(struct resident *r, enum wire_model_state state)
{
    struct timespec limit;
    CHECK(clock_gettime(CLOCK_REALTIME, &limit) == 0);
    limit.tv_sec += 60;
    while (r->m->state != state || r->m->unloading) {
        resident_poll(r);
        if ((r->m->state != state || r->m->unloading) && sem_timedwait(&r->news, &limit) != 0)
            fail_msg("the model is %d after a minute (%s), not %d", r->m->state, r->m->error,
                     state);
    }
}
