/*
 * bench_wire: what it costs to pack and unpack the messages that come most: a small Submit, and a
 * Report with a few tokens of 16 leases.
 */
#include "common/arena.h"
#include "common/buf.h"
#include "common/check.h"
#include "common/clock.h"
#include "common/limits.h"
#include "proto/wire.h"

#include <stdio.h>
#include <string.h>

#define ROUNDS 200000

static struct wire_bytes bytes_of(const char *text)
{
    return (struct wire_bytes){.data = (const uint8_t *)text, .size = strlen(text)};
}

static void bench(const char *name, const struct wire_request *request)
{
    struct wire_request decoded;
    struct errbuf eb = {{0}};
    struct arena arena;
    struct buf out;

    buf_init(&out);
    arena_init(&arena, LIMIT_DECODE_BYTES);
    uint64_t start = clock_mono_ns();
    for (int i = 0; i < ROUNDS; i++) {
        buf_clear(&out);
        CHECK(wire_request_encode(request, &out, &eb) == ERR_OK);
    }
    uint64_t middle = clock_mono_ns();
    for (int i = 0; i < ROUNDS; i++) {
        arena_reset(&arena);
        CHECK(wire_request_decode(out.data, out.size, &arena, &decoded, &eb) == ERR_OK);
    }
    uint64_t end = clock_mono_ns();
    printf("%-18s %5zu bytes   pack %6.2f us   unpack %6.2f us\n", name, out.size,
           (double)(middle - start) / ROUNDS / 1e3, (double)(end - middle) / ROUNDS / 1e3);
    arena_fini(&arena);
    buf_fini(&out);
}

int main(void)
{
    const struct wire_chat_message messages[] = {
        {.role = "system", .content = bytes_of("You are a helpful assistant.")},
        {.role = "user", .content = bytes_of("What is the capital of France?")},
    };
    const struct wire_request submit = {
        .session = 0x1122334455667788,
        .request_id = {{1}},
        .kind = WIRE_REQUEST_SUBMIT,
        .submit = {.job_id = {{2}},
                   .job = {.model = "smollm2",
                           .prompt_kind = WIRE_PROMPT_KIND_CHAT,
                           .messages = messages,
                           .n_messages = 2,
                           .sampling = {.temperature = 0.7f,
                                        .top_p = 1.0f,
                                        .repetition_penalty = 1.0f,
                                        .seed = 42},
                           .max_tokens = 64,
                           .job_class = WIRE_JOB_CLASS_INTERACTIVE}},
    };
    static const int32_t ids[] = {1234, 567, 8901, 234}, text_sizes[] = {3, 4, 5, 6};
    struct wire_lease_progress leases[16];
    for (size_t i = 0; i < 16; i++)
        leases[i] = (struct wire_lease_progress){
            .job_id = {{(uint8_t)(i + 1)}},
            .epoch = 7,
            .first = 100,
            .ids = ids,
            .n_ids = 4,
            .text = bytes_of(" of the four words"),
            .usage = {.prompt_tokens = 40, .prompt_computed = 40, .completion_tokens = 104},
            .text_sizes = text_sizes,
            .n_text_sizes = 4,
        };
    const struct wire_request report = {
        .session = 0x1122334455667788,
        .request_id = {{1}},
        .kind = WIRE_REQUEST_REPORT,
        .report = {.leases = leases, .n_leases = 16},
    };
    bench("small Submit", &submit);
    bench("Report, 16 leases", &report);
    return 0;
}
