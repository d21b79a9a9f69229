#include "tests/unit/proto/samples.h"

#include "common/check.h"
#include "common/crypto.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#define BYTES(literal)                                                                             \
    {                                                                                              \
        .data = (const uint8_t *)(literal), .size = sizeof(literal) - 1                            \
    }
#define COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define GANG     4294967299
#define ENVELOPE .session = 0x1122334455667788, .request_id = {"0123456789abcdef"}
#define JOB_ID                                                                                     \
    {                                                                                              \
        "job-id-is-16-byt"                                                                         \
    }
#define ANOTHER_ID                                                                                 \
    {                                                                                              \
        "another-job-id16"                                                                         \
    }

static const char signature[] = "signature-is-64-bytes-long-and-this-is-how-it-looks-when-spelled";

/* ---- requests ---- */

static const struct wire_model_offer hello_models[] = {
    {
        .name = "smollm2",
        .weights_digest = "weights-digest-is-32-bytes-long!",
        .tokenizer_digest = "tokenizer-digest-is-32-bytes-ok!",
        .architecture = "llama",
        .quantization = "Q4_1",
        .parameters = 134515008,
        .file_bytes = 98765432,
        .context_tokens = 2048,
        .weights_bytes = 91000000,
        .kv_bytes = 47185920,
        .scratch_bytes = 3000000,
        .chat_template = "chatml",
        .prompt_tokens_per_job = 23,
        .prompt_tokens_per_message = 28,
        .prompt_tokens_per_kib = 1536,
        /* one layer: a head of 10 and 10 bytes, 32 columns of 20 */
        .shape = BYTES("\002\040\001\100\100\010\001"
                       "\001\001\001\012\012\001\040\024"
                       "\001\000\001"),
        .gang_settings = "context 2048, slots 4",
        .rank_bytes = 3500000,
        .room = {.embedding_bytes = 31000000,
                 .output_bytes = 21,
                 .joint_bytes = 700,
                 .down_bytes = 800,
                 .joint_block = 32,
                 .down_block = 256,
                 .joint_tail = 128,
                 .down_tail = 33,
                 .head_columns = 64,
                 .biases_bytes = 654,
                 .every_bytes = 1000001,
                 .first_bytes = 2000002,
                 .layer_bytes = 303,
                 .head_bytes = 4004,
                 .kv_head_bytes = 505,
                 .column_bytes = 66,
                 .level_bytes = 9,
                 .levels_bytes = 19,
                 .attention_bytes = 7007,
                 .partial_bytes = 88,
                 .partials_bytes = 67108864,
                 .partial_rows = 16,
                 .partial_units = 8,
                 .told_bytes = 12012,
                 .logits_bytes = 12582912,
                 .row_bytes = 2304,
                 .track_bytes = 15015,
                 .rows = 512,
                 .piece_rows = 127},
    },
    {.name = "other"},
};

static const struct wire_lease_held hello_leases[] = {
    {.job_id = JOB_ID, .epoch = 3, .tokens = 17},
};

static const struct wire_gpu hello_gpus[] = {{.uuid = "GPU-1",
                                              .pci = "00000000:3B:00.0",
                                              .driver = "580.65.06",
                                              .known = 127,
                                              .utilization_percent = 87,
                                              .power_mw = 412345,
                                              .energy_mj = 98765432109,
                                              .temperature_c = 61,
                                              .ecc_uncorrected = 2,
                                              .xid = 94,
                                              .stranger_processes = 3,
                                              .stranger_process_bytes = 4294967296,
                                              .trouble = "its last error was Xid 94"}};
static const struct wire_gpu report_gpus[] = {
    {.uuid = "GPU-2", .pci = "", .driver = "", .known = 8, .energy_mj = 1, .trouble = ""}};
static const struct wire_gang_address report_addresses[] = {
    {.gang = GANG, .rank = 1, .address = BYTES("\000where\377")}};
static const struct wire_gpu worker_gpus[] = {{.uuid = "GPU-3",
                                               .pci = "00000000:3B:00.0",
                                               .driver = "580.65.06",
                                               .known = 127,
                                               .utilization_percent = 87,
                                               .power_mw = 412345,
                                               .energy_mj = 98765432109,
                                               .temperature_c = 61,
                                               .ecc_uncorrected = 2,
                                               .xid = 94,
                                               .stranger_processes = 3,
                                               .stranger_process_bytes = 4294967296,
                                               .trouble = "its last error was Xid 94"}};

static const struct wire_model_status hello_status[] = {
    {
        .name = "smollm2",
        .state = WIRE_MODEL_STATE_FAILED,
        .error = "no memory for 5 bytes",
        .weights_bytes = 1,
        .kv_bytes = 2,
        .scratch_bytes = 3,
        .load_ms = 4,
        .running = 5,
        .waiting = 6,
        .queued_tokens = 7,
        .prefill_tokens_per_s = 8,
        .decode_tokens_per_s = 9,
        .kv_pages_free = 10,
        .kv_pages = 11,
        .failures = 12,
        .gang = GANG,
        .rank = 1,
        .ranks = 3,
        .exchange_bytes = 13,
    },
};

static const int32_t report_ids[] = {0, 1, 2147483647};
static const struct wire_bytes report_logprobs[] = {BYTES("\n\005\010\001"), BYTES(""),
                                                    BYTES("as it came")};
static const int32_t report_sizes[] = {3, 0, 4}; /* the last byte stands behind the tokens */

static const struct wire_lease_progress report_leases[] = {
    {
        .job_id = JOB_ID,
        .epoch = 3,
        .first = 128,
        .ids = report_ids,
        .n_ids = COUNT(report_ids),
        .text = BYTES("caf\303\251 \000\377"),
        .usage = {.prompt_tokens = 1,
                  .prompt_cached = 2,
                  .prompt_computed = 3,
                  .resumed_tokens = 4,
                  .completion_tokens = 5,
                  .queue_us = 6,
                  .prefill_us = 7,
                  .decode_us = 8},
        .text_sizes = report_sizes,
        .n_text_sizes = COUNT(report_sizes),
        .logprobs = report_logprobs,
        .n_logprobs = COUNT(report_logprobs),
    },
    {
        .job_id = ANOTHER_ID,
        .epoch = UINT64_MAX,
        .finish = WIRE_FINISH_ERROR,
        .error = {.code = ERR_INTERNAL, .text = "a bug", .retryable = true, .retry_after_ms = 1500},
    },
};

static const struct wire_model_status report_models[] = {
    {.name = "smollm2", .state = WIRE_MODEL_STATE_READY},
};

static const struct wire_chat_message submit_messages[] = {
    {.role = "system", .content = BYTES("Be kind.")},
    {.role = "user", .content = BYTES("Gr\303\274\303\237 dich\n\377")},
    {.role = "assistant"},
};

static const struct wire_logit_bias submit_biases[] = {{0, -100.0f}, {2147483647, 0.5f}};
static const int32_t submit_stop_tokens[] = {2, 0};
static const struct wire_bytes submit_stops[] = {BYTES("\n\n"), BYTES("END")};

const struct sample_request sample_requests[] = {
    {"request_hello",
     {ENVELOPE, .kind = WIRE_REQUEST_HELLO,
      .hello = {.role = WIRE_ROLE_WORKER,
                .node = "worker-1",
                .features = 9,
                .build = "0.1.0 abcdef",
                .public_key = "public-key-of-the-node-32-bytes!",
                .nonce = "nonce-of-the-node-is-32-bytes-ok",
                .signature = {(const uint8_t *)signature, 64},
                .worker = {.models = hello_models,
                           .n_models = COUNT(hello_models),
                           .memory = {17179869184, 8589934592, 4294967296, 5},
                           .device = "cpu",
                           .isa = "avx2",
                           .threads = 2,
                           .leases = hello_leases,
                           .n_leases = COUNT(hello_leases),
                           .status = hello_status,
                           .n_status = COUNT(hello_status),
                           .gpus = hello_gpus,
                           .n_gpus = COUNT(hello_gpus),
                           .host = "host-is-16-bytes",
                           .transports = 14,
                           .nccl = {"2.27.7", 6, 536870912},
                           .read_bytes_per_s = 450000000000}}}},
    {"request_pull",
     {ENVELOPE, .kind = WIRE_REQUEST_PULL, .pull = {.acked_command = 300, .wait_ms = 30000}}},
    {"request_report",
     {ENVELOPE, .kind = WIRE_REQUEST_REPORT,
      .report = {.leases = report_leases,
                 .n_leases = COUNT(report_leases),
                 .models = report_models,
                 .n_models = COUNT(report_models),
                 .memory = {.free_bytes = 1},
                 .gpus = report_gpus,
                 .n_gpus = COUNT(report_gpus),
                 .addresses = report_addresses,
                 .n_addresses = COUNT(report_addresses)}}},
    {"request_goodbye",
     {ENVELOPE, .kind = WIRE_REQUEST_GOODBYE, .goodbye = {.reason = "going down"}}},
    {"request_submit",
     {ENVELOPE, .kind = WIRE_REQUEST_SUBMIT,
      .submit = {.job_id = JOB_ID,
                 .job = {.model = "smollm2",
                         .prompt_kind = WIRE_PROMPT_KIND_CHAT,
                         .messages = submit_messages,
                         .n_messages = COUNT(submit_messages),
                         .sampling = {.temperature = 0.75f,
                                      .top_k = 40,
                                      .top_p = 0.5f,
                                      .min_p = 0.125f,
                                      .repetition_penalty = 1.25f,
                                      .presence_penalty = -0.5f,
                                      .frequency_penalty = 2.0f,
                                      .seed = 81985529216486895,
                                      .typical_p = 0.75f,
                                      .logit_bias = submit_biases,
                                      .n_logit_bias = COUNT(submit_biases)},
                         .max_tokens = 256,
                         .stops = submit_stops,
                         .n_stops = COUNT(submit_stops),
                         .job_class = WIRE_JOB_CLASS_INTERACTIVE,
                         .priority = 9,
                         .deadline_ms = 60000,
                         .cancel_on_disconnect = true,
                         .project = "pr\303\266jekt",
                         .cost_center = "4711",
                         .stop_tokens = submit_stop_tokens,
                         .n_stop_tokens = COUNT(submit_stop_tokens),
                         .logprobs = true,
                         .top_logprobs = 20}}}},
    {"request_watch",
     {ENVELOPE, .kind = WIRE_REQUEST_WATCH,
      .watch = {.job_id = JOB_ID, .first = 7, .wait_ms = 1000}}},
    {"request_cancel",
     {ENVELOPE, .kind = WIRE_REQUEST_CANCEL,
      .cancel = {.job_id = JOB_ID, .reason = "no longer wanted"}}},
    {"request_list_jobs",
     {ENVELOPE, .kind = WIRE_REQUEST_LIST_JOBS,
      .list_jobs = {.tenant = "acme",
                    .model = "smollm2",
                    .states = 510,
                    .after = BYTES("job-id-is-16-byt"),
                    .limit = 1000,
                    .id_prefix = BYTES("job"),
                    .newest_first = true,
                    .id_short = BYTES("byt"),
                    .id_end = BYTES("16-byt")}}},
    {"request_get_job", {ENVELOPE, .kind = WIRE_REQUEST_GET_JOB, .get_job = {.job_id = JOB_ID}}},
    {"request_explain", {ENVELOPE, .kind = WIRE_REQUEST_EXPLAIN, .explain = {.job_id = JOB_ID}}},
    {"request_list_workers",
     {ENVELOPE, .kind = WIRE_REQUEST_LIST_WORKERS, .list_workers = {.after = "worker-0"}}},
    {"request_list_models",
     {ENVELOPE, .kind = WIRE_REQUEST_LIST_MODELS, .list_models = {.model = "smollm2"}}},
    {"request_usage",
     {ENVELOPE, .kind = WIRE_REQUEST_USAGE,
      .usage = {.tenant = "acme",
                .model = "smollm2",
                .day_from = 20260101,
                .day_to = 20261231,
                .after_tenant = "acme",
                .after_model = "gemma",
                .after_day = 20260130}}},
    {"request_ledger_range",
     {ENVELOPE, .kind = WIRE_REQUEST_LEDGER_RANGE, .ledger_range = {.first = 128, .limit = 500}}},
    {"request_status", {ENVELOPE, .kind = WIRE_REQUEST_STATUS}},
};
const size_t n_sample_requests = COUNT(sample_requests);

/* ---- replies ---- */

static const int32_t run_prompt_ids[] = {1, 49151};
static const int32_t run_resume_ids[] = {300, 0};

static const struct wire_gang_member gang_members[] = {{"worker-1", 3}, {"worker-2", 1}};
static const struct wire_bytes gang_addresses[] = {BYTES("here"), BYTES("there")};

static const struct wire_command pull_commands[] = {
    {.seq = 1, .kind = WIRE_COMMAND_LOAD, .load = {.model = "smollm2"}},
    {.seq = 2, .kind = WIRE_COMMAND_UNLOAD, .unload = {.model = "other"}},
    {.seq = 3,
     .kind = WIRE_COMMAND_RUN,
     .run = {.job_id = JOB_ID,
             .epoch = 4,
             .attempt = 2,
             .job = {.model = "smollm2",
                     .prompt_kind = WIRE_PROMPT_KIND_IDS,
                     .prompt_ids = run_prompt_ids,
                     .n_prompt_ids = COUNT(run_prompt_ids),
                     .sampling = {.top_p = 1.0f, .repetition_penalty = 1.0f},
                     .job_class = WIRE_JOB_CLASS_BATCH},
             .resume_ids = run_resume_ids,
             .n_resume_ids = COUNT(run_resume_ids),
             .resume_text_bytes = 5,
             .tenant = "radiology"}},
    {.seq = 9, .kind = WIRE_COMMAND_CANCEL, .cancel = {.job_id = JOB_ID, .epoch = 4}},
    {.seq = 10,
     .kind = WIRE_COMMAND_LOAD,
     .load = {.model = "large",
              .place = {.gang = GANG,
                        .group = "group-is-16-byte",
                        .rank = 1,
                        .stages = 1,
                        .transport = WIRE_GANG_TRANSPORT_NCCL,
                        .members = gang_members,
                        .n_members = COUNT(gang_members),
                        .control = WIRE_GANG_TRANSPORT_UCX}}},
    {.seq = 11,
     .kind = WIRE_COMMAND_MEET,
     .meet = {.model = "large",
              .gang = GANG,
              .addresses = gang_addresses,
              .n_addresses = COUNT(gang_addresses)}},
};

static const struct wire_lease_ack report_acks[] = {
    {.job_id = JOB_ID, .epoch = 4, .fenced = true, .next = 77},
    {.job_id = ANOTHER_ID},
};

static const int32_t watch_ids[] = {6, 7};
static const struct wire_bytes watch_logprobs[] = {BYTES("0"), BYTES("1")};

static const struct wire_job_info listed_jobs[] = {
    {
        .job_id = JOB_ID,
        .model = "smollm2",
        .tenant = "acme",
        .state = WIRE_JOB_STATE_DONE,
        .job_class = WIRE_JOB_CLASS_STANDARD,
        .priority = 3,
        .submitted_wall_ns = 1700000000000000001,
        .started_wall_ns = 1700000000000000002,
        .ended_wall_ns = 1700000000000000003,
        .attempts = 2,
        .worker = "worker-1",
        .max_tokens = 256,
        .usage = {.prompt_tokens = 21, .decode_us = 28},
        .reserved_tokens = 300,
        .finish = WIRE_FINISH_STOP,
        .error = {.code = ERR_INVALID, .text = "once"},
        .reserve_seq = 41,
        .settle_seq = 42,
        .queued_ahead = 4,
        .project = "p",
        .cost_center = "c",
    },
};

static const struct wire_candidate candidates[] = {
    {
        .worker = "worker-1",
        .chosen = true,
        .predicate = "memory",
        .detail = "needs 1 byte more",
        .need_bytes = 1,
        .free_bytes = 2,
        .unclaimed_bytes = 3,
        .queued_tokens = 4,
        .tokens_per_s = 5,
        .load_ms = 6,
        .cost_ms = 7,
    },
    {.worker = "worker-2"},
};

static const struct wire_model_status worker_models[] = {
    {.name = "smollm2", .state = WIRE_MODEL_STATE_LOADING},
};

static const struct wire_worker_info workers[] = {
    {
        .name = "worker-1",
        .state = WIRE_WORKER_STATE_SUSPECT,
        .device = "NVIDIA H200",
        .isa = "sm_90",
        .build = "0.1.0",
        .threads = 16,
        .memory = {1, 2, 3, 4},
        .claimed_bytes = 5,
        .stranger_bytes = 6,
        .models = worker_models,
        .n_models = COUNT(worker_models),
        .leases = 7,
        .seen_ms = 8,
        .tokens = 9,
        .key_fingerprint = "fingerprint-of-the-key-32-bytes!",
        .gpus = worker_gpus,
        .n_gpus = COUNT(worker_gpus),
        .read_bytes_per_s = 20500000000,
    },
};

static const struct wire_model_info models[] = {
    {.offer = {.name = "smollm2"},
     .workers = 1,
     .loading = 2,
     .ready = 3,
     .running = 4,
     .waiting = 5},
};

static const struct wire_usage_row usage_rows[] = {
    {.tenant = "acme",
     .model = "smollm2",
     .day = 20260131,
     .jobs = 1,
     .prompt_tokens = 2,
     .prompt_cached = 3,
     .completion_tokens = 4,
     .computed_tokens = 5},
};

static const struct wire_usage_balance usage_balances[] = {
    {.tenant = "acme", .budget_tokens = 6, .reserved_tokens = 7, .settled_tokens = 8},
};

static const struct wire_bytes ledger_records[] = {BYTES("one"), BYTES("two\000")};
static const char *const reasons[] = {"disk full", "a job waits for 61 s"};

const struct sample_reply sample_replies[] = {
    {"reply_error",
     {ENVELOPE, .kind = WIRE_REPLY_ERROR,
      .error = {.code = ERR_BUSY,
                .text = "the queue is full",
                .retryable = true,
                .retry_after_ms = 2500}}},
    {"reply_hello",
     {ENVELOPE, .kind = WIRE_REQUEST_HELLO,
      .hello = {.established = true,
                .challenge = "challenge-of-coordinator-32-byte",
                .public_key = "public-key-of-coordinator-32-byt",
                .signature = {(const uint8_t *)signature, 64},
                .coordinator = "head",
                .build = "0.1.0 abcdef",
                .features = 5,
                .heartbeat_ms = 500,
                .lease_ms = 5000}}},
    {"reply_pull",
     {ENVELOPE, .kind = WIRE_REQUEST_PULL,
      .pull = {.commands = pull_commands, .n_commands = COUNT(pull_commands)}}},
    {"reply_report",
     {ENVELOPE, .kind = WIRE_REQUEST_REPORT,
      .report = {.leases = report_acks, .n_leases = COUNT(report_acks)}}},
    {"reply_goodbye", {ENVELOPE, .kind = WIRE_REQUEST_GOODBYE}},
    {"reply_submit",
     {ENVELOPE, .kind = WIRE_REQUEST_SUBMIT,
      .submit = {.job_id = JOB_ID,
                 .state = WIRE_JOB_STATE_QUEUED,
                 .duplicate = true,
                 .queued_ahead = 12}}},
    {"reply_watch",
     {ENVELOPE, .kind = WIRE_REQUEST_WATCH,
      .watch = {.job_id = JOB_ID,
                .state = WIRE_JOB_STATE_FAILED,
                .first = 5,
                .ids = watch_ids,
                .n_ids = COUNT(watch_ids),
                .text = BYTES(" ok"),
                .end = true,
                .finish = WIRE_FINISH_LENGTH,
                .error = {.code = ERR_TOO_LARGE, .text = "too large"},
                .usage = {.prompt_tokens = 11, .completion_tokens = 12},
                .logprobs = watch_logprobs,
                .n_logprobs = COUNT(watch_logprobs)}}},
    {"reply_cancel",
     {ENVELOPE, .kind = WIRE_REQUEST_CANCEL, .cancel = {.state = WIRE_JOB_STATE_CANCELLED}}},
    {"reply_list_jobs",
     {ENVELOPE, .kind = WIRE_REQUEST_LIST_JOBS,
      .list_jobs =
          {.jobs = listed_jobs, .n_jobs = COUNT(listed_jobs), .more = true, .next = ANOTHER_ID}}},
    {"reply_get_job",
     {ENVELOPE, .kind = WIRE_REQUEST_GET_JOB,
      .get_job =
          {.info = {.job_id = JOB_ID,
                    .model = "smollm2",
                    .state = WIRE_JOB_STATE_EXPIRED,
                    .job_class = WIRE_JOB_CLASS_BATCH},
           .job = {.model = "smollm2",
                   .prompt_kind = WIRE_PROMPT_KIND_TEXT,
                   .text = BYTES("Once upon a time"),
                   .sampling = {.temperature = 1.0f, .top_p = 1.0f, .repetition_penalty = 1.0f},
                   .job_class = WIRE_JOB_CLASS_BATCH}}}},
    {"reply_explain",
     {ENVELOPE, .kind = WIRE_REQUEST_EXPLAIN,
      .explain = {.state = WIRE_JOB_STATE_LEASED,
                  .summary = "waits for memory",
                  .queued_ahead = 2,
                  .decided_wall_ns = 1700000000000000009,
                  .candidates = candidates,
                  .n_candidates = COUNT(candidates),
                  .gang = "worker-1 and worker-2"}}},
    {"reply_list_workers",
     {ENVELOPE, .kind = WIRE_REQUEST_LIST_WORKERS,
      .list_workers = {.workers = workers, .n_workers = COUNT(workers), .more = true}}},
    {"reply_list_models",
     {ENVELOPE, .kind = WIRE_REQUEST_LIST_MODELS,
      .list_models = {.models = models, .n_models = COUNT(models)}}},
    {"reply_usage",
     {ENVELOPE, .kind = WIRE_REQUEST_USAGE,
      .usage = {.rows = usage_rows,
                .n_rows = COUNT(usage_rows),
                .balances = usage_balances,
                .n_balances = COUNT(usage_balances),
                .more = true,
                .next_tenant = "acme",
                .next_model = "smollm2",
                .next_day = 20260131}}},
    {"reply_ledger_range",
     {ENVELOPE, .kind = WIRE_REQUEST_LEDGER_RANGE,
      .ledger_range = {.first = 128,
                       .records = ledger_records,
                       .n_records = COUNT(ledger_records),
                       .size = 130,
                       .checkpoint = "origin\n130\nroot\n\n\342\200\224 origin signature\n",
                       .origin = "cloister.example/ledger",
                       .public_key = "public-key-of-coordinator-32-byt"}}},
    {"reply_status",
     {ENVELOPE, .kind = WIRE_REQUEST_STATUS,
      .status = {.coordinator = "head",
                 .build = "0.1.0",
                 .uptime_ms = 1,
                 .healthy = true,
                 .reasons = reasons,
                 .n_reasons = COUNT(reasons),
                 .queued = 2,
                 .leased = 3,
                 .running = 4,
                 .ended = 5,
                 .queued_tokens = 6,
                 .workers_alive = 7,
                 .workers_known = 8,
                 .oldest_queued_ms = 9,
                 .oldest_running_idle_ms = 10,
                 .store_used_bytes = 11,
                 .store_map_bytes = 12,
                 .ledger_size = 13,
                 .checkpoint_size = 14,
                 .commits = 15,
                 .commit_us_median = 16,
                 .commit_us_max = 17,
                 .admission_open = true,
                 .requests = 18,
                 .parked = 19,
                 .stale_reports = 20,
                 .refused = 21,
                 .dropped = 22}}},
};
const size_t n_sample_replies = COUNT(sample_replies);

/* ---- records ---- */

const struct record_job sample_record_job = {
    .job_id = JOB_ID,
    .content_digest = "content-digest-is-32-bytes-long!",
    .tenant = "acme",
    .model = "smollm2",
    .state = WIRE_JOB_STATE_DONE,
    .job_class = WIRE_JOB_CLASS_STANDARD,
    .priority = 9,
    .max_tokens = 256,
    .submit_order = 1,
    .submitted_wall_ns = 2,
    .deadline_wall_ns = 3,
    .started_wall_ns = 4,
    .ended_wall_ns = 5,
    .attempts = 6,
    .lease_epoch = 7,
    .worker = "worker-1",
    .prompt_tokens = 8,
    .prompt_cached = 9,
    .prompt_computed = 10,
    .tokens = 11,
    .text_bytes = 12,
    .computed_tokens = 13,
    .queue_us = 14,
    .prefill_us = 15,
    .decode_us = 16,
    .finish = WIRE_FINISH_ERROR,
    .error_code = ERR_INTERNAL,
    .error_text = "a bug",
    .reserved_tokens = 17,
    .reserve_seq = 18,
    .settle_seq = 19,
    .cancel_on_disconnect = true,
    .project = "p",
    .cost_center = "c",
    .principal = "client-1",
    .key_fingerprint = "fingerprint-of-the-key-32-bytes!",
    .prompt_tokens_bound = 20,
};

static const int32_t chunk_ids[] = {5, 6};
static const int32_t chunk_sizes[] = {0, 2};
static const struct wire_bytes chunk_logprobs[] = {BYTES("a"), BYTES("\000\377")};
const struct record_chunk sample_record_chunk = {
    .ids = chunk_ids,
    .n_ids = COUNT(chunk_ids),
    .text = (const uint8_t *)"\377\000x",
    .text_size = 3,
    .text_sizes = chunk_sizes,
    .n_text_sizes = COUNT(chunk_sizes),
    .logprobs = chunk_logprobs,
    .n_logprobs = COUNT(chunk_logprobs),
};

const struct record_usage sample_record_usage = {
    .tenant = "acme",
    .model = "smollm2",
    .day = 20260131,
    .jobs = 1,
    .prompt_tokens = 2,
    .prompt_cached = 3,
    .completion_tokens = 4,
    .computed_tokens = 5,
};

const struct record_balance sample_record_balance = {
    .tenant = "acme",
    .reserved_tokens = 1,
    .settled_tokens = 2,
};

const struct record_learned sample_record_learned = {
    .model = "smollm2",
    .weights_digest = "weights-digest-is-32-bytes-long!",
    .predicted_bytes = 1,
    .measured_bytes = 2,
    .load_ms = 3,
    .prefill_tokens_per_s = 4,
    .decode_tokens_per_s = 5,
    .prompt_tokens_per_job = 6,
    .prompt_tokens_per_message = 7,
    .prompt_tokens_per_kib = 8,
};

const struct record_ledger sample_record_ledger = {
    .schema = 1,
    .kind = RECORD_LEDGER_SETTLE,
    .seq = 2,
    .node = "head",
    .boot_epoch = 3,
    .wall_ns = 4,
    .mono_ns = 5,
    .job_id = JOB_ID,
    .attempt = 6,
    .tenant = "acme",
    .project = "p",
    .cost_center = "c",
    .principal = "client-1",
    .key_fingerprint = "fingerprint-of-the-key-32-bytes!",
    .model = "smollm2",
    .weights_digest = "weights-digest-is-32-bytes-long!",
    .tokenizer_digest = "tokenizer-digest-is-32-bytes-ok!",
    .engine_build = "0.1.0",
    .quantization = "Q4_1",
    .shards = 7,
    .worker = "worker-1",
    .seed = 81985529216486895,
    .sampling_digest = "sampling-digest-is-32-bytes-long",
    .max_tokens = 8,
    .reserved_tokens = 9,
    .reserve_seq = 10,
    .count_source = RECORD_COUNT_SOURCE_ENGINE,
    .prompt_tokens = 11,
    .prompt_cached = 12,
    .prompt_computed = 13,
    .completion_computed = 14,
    .completion_delivered = 15,
    .completion_billable = 16,
    .policy_id = 17,
    .finish = WIRE_FINISH_STOP,
    .outcome = WIRE_JOB_STATE_DONE,
    .prompt_hash = "prompt-hash-is-32-bytes-long-ok!",
    .output_hash = "output-hash-is-32-bytes-long-ok!",
    .queue_us = 18,
    .prefill_us = 19,
    .decode_us = 20,
    .public_key = "public-key-of-coordinator-32-byt",
    .device = "GPU-1",
    .energy_mj = 21,
};

void golden_read(const char *name, struct buf *ret_bytes)
{
    char path[256];
    char pair[3] = {0};
    uint8_t byte;
    size_t have = 0;
    int c;

    (void)snprintf(path, sizeof path, "tests/unit/proto/golden/%s.hex", name);
    FILE *f = fopen(path, "r");
    CHECK(f != NULL);
    buf_clear(ret_bytes);
    while ((c = fgetc(f)) != EOF) {
        if (isspace(c))
            continue;
        pair[have++] = (char)c;
        if (have == 2) {
            CHECK(hex_decode(pair, &byte, 1));
            buf_append_byte(ret_bytes, byte);
            have = 0;
        }
    }
    CHECK(have == 0 && !ret_bytes->failed);
    (void)fclose(f);
}
