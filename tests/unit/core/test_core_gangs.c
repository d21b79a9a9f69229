/* Models that no worker has room for alone: who computes them together, and what ends that. */
#include "tests/unit/core/gang_test.h"

#include <stdio.h>
#include <string.h>

#define GB CORE_TEST_GB

static void two_load_what_is_too_large_for_each(void **state)
{
    struct gang_pair p;
    (void)state;
    gang_pair_start(&p, &gang_pair_a, &gang_pair_b);
    const struct wire_gang_place a = gang_command(&p.t, p.a, 0, WIRE_COMMAND_LOAD).load.place;
    assert_int_equal(a.rank, 0);
    assert_int_equal(a.n_members, 2);
    assert_int_equal(a.stages, 1);
    assert_int_equal(a.transport, WIRE_GANG_TRANSPORT_SHM);
    assert_string_equal(a.members[0].worker, "a");
    assert_string_equal(a.members[1].worker, "b");
    assert_int_equal(a.members[0].weight, a.members[1].weight);
    const struct wire_gang_place b = gang_command(&p.t, p.b, 0, WIRE_COMMAND_LOAD).load.place;
    assert_int_equal(b.rank, 1);
    assert_true(b.gang == a.gang);
    assert_memory_equal(b.group, a.group, sizeof b.group);

    const struct wire_explain_reply *e = core_test_explain(&p.t, p.client, 1);
    assert_non_null(strstr(e->summary, "to be loaded on a"));
    assert_non_null(strstr(e->gang, "of a, b over shm: m takes 6442.5 MB, more than any worker"));
    assert_string_equal(e->candidates[1].predicate, "gang");
    assert_non_null(strstr(e->candidates[1].detail, "whose jobs go to a"));

    /* Nothing runs before rank 0 says that all are there. */
    gang_says_ready(&p.t, p.b, (struct gang_share){b.gang, 1, 2});
    assert_int_equal(core_test_pull(&p.t, p.b, 1).n_commands, 0);
    assert_int_equal(core_test_job(&p.t, p.client, 1).state, WIRE_JOB_STATE_QUEUED);
    gang_says_ready(&p.t, p.a, (struct gang_share){a.gang, 0, 2});
    (void)gang_command(&p.t, p.a, 1, WIRE_COMMAND_RUN);
    assert_int_equal(core_test_pull(&p.t, p.b, 1).n_commands, 0);
    core_test_fini(&p.t);
}

static void who_comes_together(void **state)
{
    static const struct {
        const char *what;
        struct gang_member members[5];
        const char *gang; /* names by rank; NULL: none */
        enum wire_gang_transport transport;
    } table[] = {
        {"as few as have room",
         {{"a", 4, 1, GANG_SHM, NULL, false},
          {"b", 4, 1, GANG_SHM, NULL, false},
          {"c", 4, 1, GANG_SHM, NULL, false}},
         "ab",
         WIRE_GANG_TRANSPORT_SHM},
        {"three where two have not",
         {{"a", 2.5, 1, GANG_SHM, NULL, false},
          {"b", 2.5, 1, GANG_SHM, NULL, false},
          {"c", 2.5, 1, GANG_SHM, NULL, false}},
         "abc",
         WIRE_GANG_TRANSPORT_SHM},
        {"unequal shares for unequal workers, the roomiest first",
         {{"a", 2, 1, GANG_SHM, NULL, false}, {"b", 5, 1, GANG_SHM, NULL, false}},
         "ba",
         WIRE_GANG_TRANSPORT_SHM},
        {"one host before several, though it takes more of them",
         {{"a", 4, 1, GANG_SHM | GANG_UCX, NULL, false},
          {"b", 2.5, 2, GANG_SHM | GANG_UCX, NULL, false},
          {"c", 2.5, 2, GANG_SHM | GANG_UCX, NULL, false},
          {"d", 2.5, 2, GANG_SHM | GANG_UCX, NULL, false}},
         "bcd",
         WIRE_GANG_TRANSPORT_SHM},
        {"several hosts where one is not enough",
         {{"a", 4, 1, GANG_SHM | GANG_UCX, NULL, false},
          {"b", 4, 2, GANG_SHM | GANG_UCX, NULL, false}},
         "ab",
         WIRE_GANG_TRANSPORT_UCX},
        {"hosts without a way to each other",
         {{"a", 4, 1, GANG_SHM, NULL, false}, {"b", 4, 2, GANG_SHM, NULL, false}},
         NULL,
         WIRE_GANG_TRANSPORT_UNSPECIFIED},
        {"workers that do not say which host they are on",
         {{"a", 4, 0, GANG_SHM, NULL, false}, {"b", 4, 0, GANG_SHM, NULL, false}},
         NULL,
         WIRE_GANG_TRANSPORT_UNSPECIFIED},
        {"different settings",
         {{"a", 4, 1, GANG_SHM, "f16", false},
          {"b", 4, 1, GANG_SHM, "q8_0", false},
          {"c", 4, 1, GANG_SHM, "q8_0", false}},
         "bc",
         WIRE_GANG_TRANSPORT_SHM},
        {"one that joins nobody",
         {{"a", 4, 1, GANG_SHM, "", false},
          {"b", 4, 1, GANG_SHM, NULL, false},
          {"c", 4, 1, GANG_SHM, NULL, false}},
         "bc",
         WIRE_GANG_TRANSPORT_SHM},
        {"not enough together",
         {{"a", 2.9, 1, GANG_SHM, NULL, false}, {"b", 2.9, 1, GANG_SHM, NULL, false}},
         NULL,
         WIRE_GANG_TRANSPORT_UNSPECIFIED},
    };
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        struct core_test t;
        uint64_t session[5] = {0};
        core_test_start(&t);
        for (size_t k = 0; k < 5 && table[i].members[k].name != NULL; k++)
            session[k] = gang_member(&t, &table[i].members[k]);
        uint64_t client = core_test_client(&t, "c", "", 2);
        enum err err = core_test_submit_ask(&t, client, 1, "m", 20);
        if (err != (table[i].gang != NULL ? ERR_OK : ERR_TOO_LARGE))
            fail_msg("%s: %d", table[i].what, (int)err);
        char got[8] = "";
        for (size_t k = 0; k < 5 && session[k] != 0; k++) {
            struct wire_pull_reply pull = core_test_pull(&t, session[k], 0);
            if (pull.n_commands == 0)
                continue;
            const struct wire_gang_place *p = &pull.commands[0].load.place;
            got[p->rank] = table[i].members[k].name[0];
            if (p->transport != table[i].transport)
                fail_msg("%s: transport %d", table[i].what, (int)p->transport);
            assert_string_equal(p->members[p->rank].worker, table[i].members[k].name);
        }
        if (strcmp(got, table[i].gang != NULL ? table[i].gang : "") != 0)
            fail_msg("%s: %s", table[i].what, got);
        core_test_fini(&t);
    }
}

static void how_it_is_cut(void **state)
{
    static const struct gang_member cpu[] = {{"a", 4, 1, GANG_UCX, NULL, false},
                                             {"b", 4, 2, GANG_UCX, NULL, false}};
    static const struct gang_member gpu[] = {{"a", 4, 1, GANG_UCX, NULL, true},
                                             {"b", 4, 2, GANG_UCX, NULL, true}};
    static const struct gang_member gpus_here[] = {{"a", 4, 1, GANG_SHM, NULL, true},
                                                   {"b", 4, 1, GANG_SHM, NULL, true}};
    static const struct gang_member two_by_two[] = {{"a", 1.7, 1, GANG_UCX, NULL, true},
                                                    {"b", 1.7, 2, GANG_UCX, NULL, true},
                                                    {"c", 1.7, 1, GANG_UCX, NULL, true},
                                                    {"d", 1.7, 2, GANG_UCX, NULL, true}};
    static const struct gang_member cpus_by_two[] = {{"a", 1.7, 1, GANG_UCX, NULL, false},
                                                     {"b", 1.7, 2, GANG_UCX, NULL, false},
                                                     {"c", 1.7, 1, GANG_UCX, NULL, false},
                                                     {"d", 1.7, 2, GANG_UCX, NULL, false}};
    static const struct gang_member three_and_one[] = {{"a", 1.7, 1, GANG_UCX, NULL, true},
                                                       {"b", 1.7, 1, GANG_UCX, NULL, true},
                                                       {"c", 1.7, 1, GANG_UCX, NULL, true},
                                                       {"d", 1.7, 2, GANG_UCX, NULL, true}};
    static const struct {
        const char *what;
        const struct gang_member *members;
        uint32_t n;
        enum core_gang_split split;
        const char *order; /* names by rank */
        uint32_t stages;
        const char *says;
    } table[] = {
        {"CPUs of two hosts", cpu, 2, CORE_GANG_SPLIT_AUTO, "ab", 1, "of a, b over ucx"},
        {"and as it is wanted", cpu, 2, CORE_GANG_SPLIT_STAGES, "ab", 2, "of a, b, 2 stages over"},
        {"GPUs of two hosts", gpu, 2, CORE_GANG_SPLIT_AUTO, "ab", 2, "of a, b, 2 stages over ucx"},
        {"and as it is wanted", gpu, 2, CORE_GANG_SPLIT_SHARDS, "ab", 1, "of a, b over ucx"},
        {"GPUs of one host", gpus_here, 2, CORE_GANG_SPLIT_AUTO, "ab", 1, "of a, b over shm"},
        {"shards within hosts", two_by_two, 4, CORE_GANG_SPLIT_AUTO, "acbd", 2,
         "of a, c, b, d, 2 stages of 2 shards over ucx"},
        {"and CPUs where it is wanted", cpus_by_two, 4, CORE_GANG_SPLIT_HOSTS, "acbd", 2,
         "of a, c, b, d, 2 stages of 2 shards over ucx"},
        {"hosts, of which there is one", gpus_here, 2, CORE_GANG_SPLIT_HOSTS, "ab", 1,
         "of a, b over shm"},
        {"hosts that are not alike", three_and_one, 4, CORE_GANG_SPLIT_AUTO, "abcd", 4,
         "of a, b, c, d, 4 stages over ucx"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        struct core_test t;
        uint64_t session[4] = {0};
        char got[8] = "";
        core_test_init(&t);
        t.config.gang_split = table[i].split;
        core_test_open(&t);
        for (uint32_t k = 0; k < table[i].n; k++)
            session[k] = gang_member(&t, &table[i].members[k]);
        const uint64_t client = core_test_client(&t, "c", "", 2);
        assert_int_equal(core_test_submit_ask(&t, client, 1, "m", 20), ERR_OK);
        for (uint32_t k = 0; k < table[i].n; k++) {
            const struct wire_gang_place place =
                gang_command(&t, session[k], 0, WIRE_COMMAND_LOAD).load.place;
            got[place.rank] = table[i].members[k].name[0];
            if (place.stages != table[i].stages || place.n_members != table[i].n)
                fail_msg("%s: %u stages", table[i].what, place.stages);
        }
        if (strcmp(got, table[i].order) != 0)
            fail_msg("%s: %s", table[i].what, got);
        const char *gang = core_test_explain(&t, client, 1)->gang;
        if (strstr(gang, table[i].says) == NULL)
            fail_msg("%s: %s", table[i].what, gang);
        core_test_fini(&t);
    }
}

static void one_that_has_room_alone_is_preferred(void **state)
{
    static const struct gang_member large = {"z", 8, 1, GANG_SHM, NULL, false};
    struct core_test t;
    (void)state;
    core_test_start(&t);
    uint64_t a = gang_member(&t, &gang_pair_a), b = gang_member(&t, &gang_pair_b),
             z = gang_member(&t, &large);
    uint64_t client = core_test_client(&t, "c", "", 2);
    assert_int_equal(core_test_submit_ask(&t, client, 1, "m", 20), ERR_OK);
    assert_true(gang_command(&t, z, 0, WIRE_COMMAND_LOAD).load.place.gang == 0);
    assert_int_equal(core_test_pull(&t, a, 0).n_commands, 0);
    assert_int_equal(core_test_pull(&t, b, 0).n_commands, 0);
    core_test_fini(&t);
}

static void the_operator_may_want_none(void **state)
{
    struct core_test t;
    (void)state;
    core_test_init(&t);
    t.config.gang_workers_max = 0;
    core_test_open(&t);
    (void)gang_member(&t, &gang_pair_a);
    (void)gang_member(&t, &gang_pair_b);
    uint64_t client = core_test_client(&t, "c", "", 2);
    assert_int_equal(core_test_submit_ask(&t, client, 1, "m", 20), ERR_TOO_LARGE);
    core_test_fini(&t);
}

static const struct gang_member far_a = {"a", 4, 1, GANG_UCX, NULL, false},
                                far_b = {"b", 4, 2, GANG_UCX, NULL, false};

static void says_where(struct gang_pair *p, uint64_t worker, uint32_t rank, const char *address)
{
    struct wire_gang_address where = {p->gang, rank, {(const uint8_t *)address, strlen(address)}};
    struct wire_request report = {.kind = WIRE_REQUEST_REPORT,
                                  .session = worker,
                                  .report = {.addresses = &where, .n_addresses = 1}};
    assert_int_equal(core_test_ask(&p->t, &report)->kind, WIRE_REQUEST_REPORT);
}

static void addresses_are_handed_out_when_all_are_there(void **state)
{
    struct gang_pair p;
    (void)state;
    gang_pair_load(&p, &far_a, &far_b);
    says_where(&p, p.a, 0, "at a");
    says_where(&p, p.a, 1, "not b"); /* which a is not */
    assert_int_equal(core_test_pull(&p.t, p.a, 1).n_commands, 0);
    says_where(&p, p.b, 1, "at b");
    const struct wire_command_meet meet = gang_command(&p.t, p.b, 1, WIRE_COMMAND_MEET).meet;
    assert_true(meet.gang == p.gang);
    assert_int_equal(meet.n_addresses, 2);
    assert_memory_equal(meet.addresses[0].data, "at a", 4);
    assert_memory_equal(meet.addresses[1].data, "at b", 4);
    assert_int_equal(gang_command(&p.t, p.a, 1, WIRE_COMMAND_MEET).meet.n_addresses, 2);
    core_test_fini(&p.t);
}

/* What a worker was told is lost with its session: it says where it is again, and is told again. */
static void addresses_are_handed_out_again_after_a_lost_session(void **state)
{
    struct gang_pair p;
    (void)state;
    gang_pair_load(&p, &far_a, &far_b);
    says_where(&p, p.a, 0, "at a");
    says_where(&p, p.b, 1, "at b");
    const struct wire_model_status has =
        gang_status_of(WIRE_MODEL_STATE_LOADING, (struct gang_share){p.gang, 1, 2}, "");
    p.b = gang_member_says(&p.t, &far_b, &has);
    assert_int_equal(core_test_pull(&p.t, p.b, 0).n_commands, 0);
    says_where(&p, p.b, 1, "at b");
    assert_true(gang_command(&p.t, p.b, 0, WIRE_COMMAND_MEET).meet.gang == p.gang);
    core_test_fini(&p.t);
}

/* ---- its end ---- */

/* Each time rank 0 takes the job, and says that the gang is over. */
static void a_job_whose_gangs_end_again_and_again_fails(void **state)
{
    struct gang_pair p;
    uint64_t acked_a = 0, acked_b = 0;
    unsigned rounds = 0;
    (void)state;
    gang_pair_start(&p, &gang_pair_a, &gang_pair_b);
    for (; core_test_job(&p.t, p.client, 1).state != WIRE_JOB_STATE_FAILED && rounds < 6000;
         rounds++) {
        struct wire_pull_reply pull = core_test_pull(&p.t, p.b, acked_b);
        acked_b = pull.n_commands > 0 ? pull.commands[pull.n_commands - 1].seq : acked_b;
        pull = core_test_pull(&p.t, p.a, acked_a);
        bool loads = false, runs = false;
        uint64_t gang = p.gang;
        for (size_t i = 0; i < pull.n_commands; i++) {
            acked_a = pull.commands[i].seq;
            runs = runs || pull.commands[i].kind == WIRE_COMMAND_RUN;
            loads = pull.commands[i].kind == WIRE_COMMAND_LOAD;
            gang = loads ? pull.commands[i].load.place.gang : gang;
        }
        p.gang = gang;
        if (loads) {
            gang_says_ready(&p.t, p.b, (struct gang_share){gang, 1, 2});
            gang_says_ready(&p.t, p.a, (struct gang_share){gang, 0, 2});
        } else {
            const char *why = runs ? "rank 1 is gone" : "";
            gang_says(
                &p.t, p.a,
                gang_status_of(WIRE_MODEL_STATE_AVAILABLE, (struct gang_share){0, 0, 0}, why));
            gang_says(&p.t, p.b,
                      gang_status_of(WIRE_MODEL_STATE_AVAILABLE, (struct gang_share){0, 0, 0}, ""));
        }
        core_test_wait(&p.t, 1000);
    }
    assert_int_equal(core_test_job(&p.t, p.client, 1).state, WIRE_JOB_STATE_FAILED);
    assert_in_range(core_test_job(&p.t, p.client, 1).attempts, 2, 16);
    core_test_fini(&p.t);
}

/* One that says again and again that it has a share which nobody wants, and takes no commands. */
static void an_outbox_does_not_grow_with_what_a_worker_says(void **state)
{
    struct core_test t;
    (void)state;
    core_test_start(&t);
    uint64_t a = gang_member(&t, &gang_pair_a);
    for (unsigned i = 0; i < 100; i++) {
        gang_says_ready(&t, a, (struct gang_share){7, 1, 2});
        gang_says(&t, a,
                  gang_status_of(WIRE_MODEL_STATE_AVAILABLE, (struct gang_share){0, 0, 0}, ""));
    }
    assert_int_equal(core_test_pull(&t, a, 0).n_commands, 1);
    core_test_fini(&t);
}

static struct wire_worker_info worker_info(struct core_test *t, uint64_t client, const char *name)
{
    struct wire_request request = {
        .kind = WIRE_REQUEST_LIST_WORKERS, .session = client, .list_workers = {.after = ""}};
    const struct wire_list_workers_reply *r = &core_test_ask(t, &request)->list_workers;
    for (size_t i = 0; i < r->n_workers; i++) {
        if (strcmp(r->workers[i].name, name) == 0)
            return r->workers[i];
    }
    fail_msg("no worker %s", name);
    return (struct wire_worker_info){0};
}

static void a_member_that_falls_silent_ends_it(void **state)
{
    struct gang_pair p;
    (void)state;
    gang_pair_run(&p);
    struct wire_lease_ack ack =
        core_test_report(&p.t, p.a, 1, 1, 0, 5, WIRE_FINISH_UNSPECIFIED, ERR_OK);
    assert_false(ack.fenced);
    assert_true(worker_info(&p.t, p.client, "a").claimed_bytes > 3 * GB);
    core_test_wait_alive(&p.t, p.a, p.t.config.lease_ms + 1000); /* b says nothing */
    /* Rank 0 is told to stop the job, and to unload. */
    struct wire_pull_reply pull = core_test_pull(&p.t, p.a, 2);
    assert_int_equal(pull.n_commands, 2);
    assert_int_equal(pull.commands[0].kind, WIRE_COMMAND_CANCEL);
    assert_int_equal(pull.commands[1].kind, WIRE_COMMAND_UNLOAD);
    struct wire_job_info job = core_test_job(&p.t, p.client, 1);
    assert_int_equal(job.state, WIRE_JOB_STATE_QUEUED);
    assert_int_equal(job.usage.completion_tokens, 5);
    assert_non_null(strstr(core_test_explain(&p.t, p.client, 1)->gang, "ended: b was lost"));
    /* It is late: what it still says of the job is fenced, and bills nothing. */
    ack = core_test_report(&p.t, p.a, 1, 1, 5, 3, WIRE_FINISH_UNSPECIFIED, ERR_OK);
    assert_true(ack.fenced);
    assert_int_equal(core_test_job(&p.t, p.client, 1).usage.completion_tokens, 5);
    /* Its memory is claimed until it says that it is free. */
    assert_true(worker_info(&p.t, p.client, "a").claimed_bytes > 3 * GB);
    gang_says(&p.t, p.a,
              gang_status_of(WIRE_MODEL_STATE_AVAILABLE, (struct gang_share){0, 0, 0}, ""));
    assert_int_equal(worker_info(&p.t, p.client, "a").claimed_bytes, 0);
    /* The next one comes with a third worker, and goes on behind what was delivered. */
    uint64_t c = gang_member(&p.t, &(struct gang_member){"c", 4, 1, GANG_SHM, NULL, false});
    uint64_t gang = gang_command(&p.t, c, 0, WIRE_COMMAND_LOAD).load.place.gang;
    assert_true(gang > p.gang);
    gang_says_ready(&p.t, c, (struct gang_share){gang, 1, 2});
    (void)gang_command(&p.t, p.a, 4, WIRE_COMMAND_LOAD);
    gang_says_ready(&p.t, p.a, (struct gang_share){gang, 0, 2});
    assert_int_equal(gang_command(&p.t, p.a, 5, WIRE_COMMAND_RUN).run.epoch, 2);
    core_test_fini(&p.t);
}

/* Where workers say what each rank's buffers follow from, that is what is claimed, and a little
 * more: not the most that a rank of any gang takes. Who says nothing of it is claimed that. */
static void what_is_claimed_is_of_this_cut(void **state)
{
    static const struct {
        uint64_t every_bytes, claimed;
    } rows[] = {
        {0, 3 * GB + GB / 2},
        {GB / 5, 3 * GB + GB / 5 + GB / 20}, /* a 64th more */
        {GB, 3 * GB + GB / 2},               /* no more than the most */
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct core_test t;
        core_test_start(&t);
        for (uint32_t k = 0; k < 2; k++) {
            struct core_test_worker w = gang_member_hello(k == 0 ? &gang_pair_a : &gang_pair_b);
            w.rank_bytes = GB / 2;
            w.room.every_bytes = rows[i].every_bytes;
            (void)core_test_worker(&t, &w);
        }
        const uint64_t client = core_test_client(&t, "c", "", 2);
        assert_int_equal(core_test_submit_ask(&t, client, 1, "m", 20), ERR_OK);
        const uint64_t claimed = worker_info(&t, client, "a").claimed_bytes;
        if (claimed < rows[i].claimed - GB / 100 || claimed > rows[i].claimed + GB / 100)
            fail_msg("row %zu: %llu are claimed", i, (unsigned long long)claimed);
        core_test_fini(&t);
    }
}

static void each_way_out_is_taken_by_all(void **state)
{
    static const struct {
        const char *what;
        bool first; /* rank 0 says it, else rank 1 */
        enum wire_model_state state;
        bool of_gang;
        const char *error;
        const char *part; /* of what explain says */
    } table[] = {
        {"a file that is damaged", false, WIRE_MODEL_STATE_FAILED, true, "damaged",
         "b could not load its share: damaged"},
        {"rank 0 has heard that another is gone", true, WIRE_MODEL_STATE_AVAILABLE, false,
         "rank 1 is gone", "a left it: rank 1 is gone"},
        {"a member has restarted its engine", false, WIRE_MODEL_STATE_AVAILABLE, false, "",
         "b left it"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        struct gang_pair p;
        gang_pair_run(&p);
        uint64_t who = table[i].first ? p.a : p.b;
        uint64_t other = table[i].first ? p.b : p.a;
        struct gang_share s = {p.gang, table[i].first ? 0u : 1u, 2};
        gang_says(&p.t, who,
                  gang_status_of(table[i].state,
                                 table[i].of_gang ? s : (struct gang_share){0, 0, 0},
                                 table[i].error));
        struct wire_pull_reply pull = core_test_pull(&p.t, other, table[i].first ? 1 : 2);
        if (pull.n_commands == 0 || pull.commands[pull.n_commands - 1].kind != WIRE_COMMAND_UNLOAD)
            fail_msg("%s: %zu commands", table[i].what, pull.n_commands);
        const char *gang = core_test_explain(&p.t, p.client, 1)->gang;
        if (strstr(gang, table[i].part) == NULL)
            fail_msg("%s: %s", table[i].what, gang);
        core_test_fini(&p.t);
    }
}

/* Its LOAD was taken and the gang was over again before anything was reported: it says of which. */
static void a_share_may_be_over_before_it_was_reported(void **state)
{
    struct gang_pair p;
    (void)state;
    gang_pair_load(&p, &gang_pair_a, &gang_pair_b);
    /* Not taken yet. */
    gang_says(&p.t, p.b,
              gang_status_of(WIRE_MODEL_STATE_AVAILABLE, (struct gang_share){0, 0, 0}, ""));
    assert_int_equal(core_test_pull(&p.t, p.a, 1).n_commands, 0);
    gang_says(&p.t, p.b,
              gang_status_of(WIRE_MODEL_STATE_AVAILABLE, (struct gang_share){p.gang, 1, 2},
                             "no way to a"));
    (void)gang_command(&p.t, p.a, 1, WIRE_COMMAND_UNLOAD);
    assert_non_null(strstr(core_test_explain(&p.t, p.client, 1)->gang, "b left it: no way to a"));
    assert_true(worker_info(&p.t, p.client, "b").models[0].gang == 0);
    core_test_fini(&p.t);
}

/* Of three one has room for nothing, and of the two that are needed one cannot load its share. */
static void what_can_never_come_together_is_not_waited_for(void **state)
{
    struct gang_pair p;
    uint64_t acked_a = 0, acked_b = 0;
    (void)state;
    gang_pair_start(&p, &gang_pair_a, &gang_pair_b);
    (void)gang_member(&p.t, &(struct gang_member){"d", 1, 1, GANG_SHM, NULL, false});
    struct wire_model_status failed =
        gang_status_of(WIRE_MODEL_STATE_FAILED, (struct gang_share){0, 0, 0},
                       "block 3 of blk.7.ffn_down is damaged");
    for (failed.failures = 0;
         core_test_job(&p.t, p.client, 1).state == WIRE_JOB_STATE_QUEUED && failed.failures < 10;) {
        struct wire_pull_reply pull = core_test_pull(&p.t, p.a, acked_a);
        acked_a = pull.n_commands > 0 ? pull.commands[pull.n_commands - 1].seq : acked_a;
        pull = core_test_pull(&p.t, p.b, acked_b);
        acked_b = pull.n_commands > 0 ? pull.commands[pull.n_commands - 1].seq : acked_b;
        if (pull.n_commands > 0 && pull.commands[0].kind == WIRE_COMMAND_LOAD) {
            failed.gang = pull.commands[0].load.place.gang;
            failed.rank = 1;
            failed.ranks = 2;
            failed.failures++;
        }
        gang_says(&p.t, p.b, failed);
        gang_says(&p.t, p.a,
                  gang_status_of(WIRE_MODEL_STATE_AVAILABLE, (struct gang_share){0, 0, 0}, ""));
        core_test_wait(&p.t, 1000);
    }
    const struct wire_job_info job = core_test_job(&p.t, p.client, 1);
    assert_int_equal(job.state, WIRE_JOB_STATE_FAILED);
    assert_int_equal(failed.failures, 3);
    assert_non_null(strstr(job.error.text, "b: block 3 of blk.7.ffn_down is damaged"));
    core_test_fini(&p.t);
}

static void what_never_comes_together_is_not_tried_without_end(void **state)
{
    struct gang_pair p;
    unsigned formed = 1;
    uint64_t acked_a = 1, acked_b = 1;
    (void)state;
    gang_pair_load(&p, &gang_pair_a, &gang_pair_b);
    for (unsigned i = 0; i < 60; i++) { /* a minute */
        gang_says(&p.t, p.a,
                  gang_status_of(WIRE_MODEL_STATE_LOADING, (struct gang_share){p.gang, 0, 2}, ""));
        gang_says(&p.t, p.a,
                  gang_status_of(WIRE_MODEL_STATE_AVAILABLE, (struct gang_share){0, 0, 0},
                                 "no way to b"));
        gang_says(&p.t, p.b,
                  gang_status_of(WIRE_MODEL_STATE_AVAILABLE, (struct gang_share){0, 0, 0}, ""));
        core_test_wait(&p.t, 1000);
        struct wire_pull_reply pull = core_test_pull(&p.t, p.a, acked_a);
        for (size_t k = 0; k < pull.n_commands; k++) {
            acked_a = pull.commands[k].seq;
            if (pull.commands[k].kind == WIRE_COMMAND_LOAD) {
                p.gang = pull.commands[k].load.place.gang;
                formed++;
            }
        }
        pull = core_test_pull(&p.t, p.b, acked_b);
        acked_b = pull.n_commands > 0 ? pull.commands[pull.n_commands - 1].seq : acked_b;
    }
    assert_in_range(formed, 5, 7);
    core_test_fini(&p.t);
}

static void idle_ones_make_room_for_another_model(void **state)
{
    struct gang_pair p;
    (void)state;
    gang_pair_run(&p);
    (void)core_test_report(&p.t, p.a, 1, 1, 0, 20, WIRE_FINISH_LENGTH, ERR_OK);
    assert_int_equal(core_test_job(&p.t, p.client, 1).state, WIRE_JOB_STATE_DONE);
    /* Another session of b, which now has a second model, and room for one. */
    struct wire_model_status has =
        gang_status_of(WIRE_MODEL_STATE_READY, (struct gang_share){p.gang, 1, 2}, "");
    struct core_test_worker both = gang_member_hello(&gang_pair_b);
    both.free_bytes = GB;
    both.models[1] = "other";
    both.weights_bytes[1] = 2 * GB;
    both.status = &has;
    both.n_status = 1;
    uint64_t b = core_test_worker(&p.t, &both);
    assert_int_equal(core_test_pull(&p.t, p.a, 2).n_commands, 0); /* the gang is still there */
    for (uint64_t ms = 0; ms <= p.t.config.residency_ms; ms += 1000) {
        gang_says_ready(&p.t, b, (struct gang_share){p.gang, 1, 2});
        gang_says_ready(&p.t, p.a, (struct gang_share){p.gang, 0, 2});
        core_test_wait(&p.t, 1000);
    }
    assert_int_equal(core_test_submit_ask(&p.t, p.client, 2, "other", 20), ERR_OK);
    (void)gang_command(&p.t, b, 0, WIRE_COMMAND_UNLOAD);
    (void)gang_command(&p.t, p.a, 2, WIRE_COMMAND_UNLOAD);
    core_test_fini(&p.t);
}

/* ---- lives ---- */

static void a_member_may_lose_its_session(void **state)
{
    struct gang_pair p;
    (void)state;
    gang_pair_run(&p);
    struct wire_model_status has =
        gang_status_of(WIRE_MODEL_STATE_READY, (struct gang_share){p.gang, 1, 2}, "");
    uint64_t b = gang_member_says(&p.t, &gang_pair_b, &has);
    assert_int_equal(core_test_pull(&p.t, p.a, 2).n_commands, 0);
    assert_int_equal(core_test_pull(&p.t, b, 0).n_commands, 0);
    /* But not what it has of it. */
    (void)gang_member(&p.t, &gang_pair_b);
    struct wire_pull_reply pull = core_test_pull(&p.t, p.a, 2);
    assert_int_equal(pull.n_commands, 2);
    assert_int_equal(pull.commands[1].kind, WIRE_COMMAND_UNLOAD);
    assert_non_null(strstr(core_test_explain(&p.t, p.client, 1)->gang, "b came back without"));
    core_test_fini(&p.t);
}

static void a_gang_outlives_the_coordinator(void **state)
{
    static const uint64_t before = 3; /* of a boot before this one */
    struct wire_model_status has[2] = {
        gang_status_of(WIRE_MODEL_STATE_READY, (struct gang_share){before, 0, 2}, ""),
        gang_status_of(WIRE_MODEL_STATE_READY, (struct gang_share){before, 1, 2}, ""),
    };
    struct core_test t;
    (void)state;
    core_test_start(&t);
    uint64_t a = gang_member_says(&t, &gang_pair_a, &has[0]);
    uint64_t client = core_test_client(&t, "c", "", 2);
    assert_int_equal(core_test_submit_ask(&t, client, 1, "m", 20), ERR_OK);
    (void)gang_command(&t, a, 0, WIRE_COMMAND_RUN);
    uint64_t b = gang_member_says(&t, &gang_pair_b, &has[1]);
    assert_int_equal(core_test_pull(&t, b, 0).n_commands, 0);
    assert_non_null(strstr(core_test_explain(&t, client, 1)->gang, "0.3 of a, b"));
    /* One more, of a gang that this coordinator would know. */
    has[0] = gang_status_of(WIRE_MODEL_STATE_READY, (struct gang_share){1ull << 40 | 9, 0, 2}, "");
    uint64_t c =
        gang_member_says(&t, &(struct gang_member){"c", 4, 1, GANG_SHM, NULL, false}, &has[0]);
    (void)gang_command(&t, c, 0, WIRE_COMMAND_UNLOAD);
    core_test_fini(&t);
}

/* One of its members came back without it; what the other still has is of no use. */
static void a_gang_of_before_that_has_ended_does_not_come_back(void **state)
{
    static const uint64_t before = 3;
    struct wire_model_status has[2] = {
        gang_status_of(WIRE_MODEL_STATE_READY, (struct gang_share){before, 0, 2}, ""),
        gang_status_of(WIRE_MODEL_STATE_READY, (struct gang_share){before, 1, 2}, ""),
    };
    struct core_test t;
    (void)state;
    core_test_start(&t);
    uint64_t b = gang_member_says(&t, &gang_pair_b, &has[1]);
    assert_int_equal(core_test_pull(&t, b, 0).n_commands, 0);
    gang_says(
        &t, b,
        gang_status_of(WIRE_MODEL_STATE_AVAILABLE, (struct gang_share){before, 1, 2}, "a is gone"));
    uint64_t a = gang_member_says(&t, &gang_pair_a, &has[0]);
    (void)gang_command(&t, a, 0, WIRE_COMMAND_UNLOAD);
    core_test_fini(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_load_what_is_too_large_for_each),
        cmocka_unit_test(who_comes_together),
        cmocka_unit_test(how_it_is_cut),
        cmocka_unit_test(one_that_has_room_alone_is_preferred),
        cmocka_unit_test(the_operator_may_want_none),
        cmocka_unit_test(addresses_are_handed_out_when_all_are_there),
        cmocka_unit_test(addresses_are_handed_out_again_after_a_lost_session),
        cmocka_unit_test(a_job_whose_gangs_end_again_and_again_fails),
        cmocka_unit_test(an_outbox_does_not_grow_with_what_a_worker_says),
        cmocka_unit_test(a_member_that_falls_silent_ends_it),
        cmocka_unit_test(what_is_claimed_is_of_this_cut),
        cmocka_unit_test(each_way_out_is_taken_by_all),
        cmocka_unit_test(a_share_may_be_over_before_it_was_reported),
        cmocka_unit_test(what_can_never_come_together_is_not_waited_for),
        cmocka_unit_test(what_never_comes_together_is_not_tried_without_end),
        cmocka_unit_test(idle_ones_make_room_for_another_model),
        cmocka_unit_test(a_member_may_lose_its_session),
        cmocka_unit_test(a_gang_outlives_the_coordinator),
        cmocka_unit_test(a_gang_of_before_that_has_ended_does_not_come_back),
    };
    return cmocka_run_group_tests(tests, gang_test_setup, gang_test_teardown);
}
