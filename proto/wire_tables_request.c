/* Requests. */
#include "proto/wire_tables_parts.h"

#include "common/crypto.h"
#include "common/limits.h"
#include "common/shard_cut.h"
#include "proto/cloister.pb-c.h"
#include "proto/convert_table.h"
#include "proto/wire.h"

static const struct convert_field lease_held_fields[] = {
    FIELD_ID(P(LeaseHeld), W(lease_held), job_id, MUST),
    FIELD_U64(P(LeaseHeld), W(lease_held), epoch),
    FIELD_U32(P(LeaseHeld), W(lease_held), tokens),
};

static const struct convert_message lease_held_table = {
    TABLE(lease_held),
};

static const struct convert_field nccl_fields[] = {
    FIELD_NAME(P(Nccl), W(nccl), version, 0),
    FIELD_U32(P(Nccl), W(nccl), controls),
    FIELD_U64(P(Nccl), W(nccl), memory_bytes),
};

static const struct convert_message nccl_table = {
    TABLE(nccl),
};

static const struct convert_field worker_hello_fields[] = {
    FIELD_MESSAGES(P(WorkerHello), W(worker_hello), models, W(model_offer), &wire_model_offer_table,
                   LIMIT_MODELS_PER_WORKER),
    FIELD_MESSAGE(P(WorkerHello), W(worker_hello), memory, W(memory), &wire_memory_table, 0),
    FIELD_NAME(P(WorkerHello), W(worker_hello), device, MUST),
    FIELD_NAME(P(WorkerHello), W(worker_hello), isa, 0),
    FIELD_U32(P(WorkerHello), W(worker_hello), threads),
    FIELD_MESSAGES(P(WorkerHello), W(worker_hello), leases, W(lease_held), &lease_held_table,
                   LIMIT_LEASES_PER_WORKER),
    FIELD_MESSAGES(P(WorkerHello), W(worker_hello), status, W(model_status),
                   &wire_model_status_table, LIMIT_MODELS_PER_WORKER),
    FIELD_MESSAGES(P(WorkerHello), W(worker_hello), gpus, W(gpu), &wire_gpu_table,
                   LIMIT_GPUS_PER_WORKER),
    FIELD_FIXED(P(WorkerHello), W(worker_hello), host, 0),
    FIELD_U32(P(WorkerHello), W(worker_hello), transports),
    FIELD_MESSAGE(P(WorkerHello), W(worker_hello), nccl, W(nccl), &nccl_table, 0),
    FIELD_U64_MAX(P(WorkerHello), W(worker_hello), read_bytes_per_s, LIMIT_READ_BYTES_PER_S),
};

static const struct convert_message worker_hello_table = {
    TABLE(worker_hello),
};

static const struct convert_field hello_fields[] = {
    FIELD_ENUM(P(Hello), W(hello), role, WIRE_ROLE_CLIENT, MUST),
    FIELD_NAME(P(Hello), W(hello), node, MUST),
    FIELD_U64(P(Hello), W(hello), features),
    FIELD_NAME(P(Hello), W(hello), build, 0),
    FIELD_FIXED(P(Hello), W(hello), public_key, MUST),
    FIELD_FIXED(P(Hello), W(hello), nonce, MUST),
    FIELD_BYTES(P(Hello), W(hello), signature, ED25519_SIGN_BYTES, 0),
    FIELD_NAME(P(Hello), W(hello), tenant, 0),
    FIELD_MESSAGE(P(Hello), W(hello), worker, W(worker_hello), &worker_hello_table, 0),
};

static const struct convert_message hello_table = {
    TABLE(hello),
    .check = wire_hello_check,
};

static const struct convert_field pull_fields[] = {
    FIELD_U64(P(Pull), W(pull), acked_command),
    FIELD_U32_MAX(P(Pull), W(pull), wait_ms, LIMIT_POLL_MS),
};

static const struct convert_message pull_table = {
    TABLE(pull),
};

static const struct convert_field lease_progress_fields[] = {
    FIELD_ID(P(LeaseProgress), W(lease_progress), job_id, MUST),
    FIELD_U64(P(LeaseProgress), W(lease_progress), epoch),
    FIELD_U32_MAX(P(LeaseProgress), W(lease_progress), first, LIMIT_MAX_TOKENS),
    FIELD_IDS(P(LeaseProgress), W(lease_progress), ids, LIMIT_TOKENS_PER_FRAME),
    FIELD_BYTES(P(LeaseProgress), W(lease_progress), text, LIMIT_FRAME_BYTES, 0),
    FIELD_MESSAGE(P(LeaseProgress), W(lease_progress), usage, W(work_usage), &wire_work_usage_table,
                  0),
    FIELD_ENUM(P(LeaseProgress), W(lease_progress), finish, WIRE_FINISH_ERROR, 0),
    FIELD_MESSAGE(P(LeaseProgress), W(lease_progress), error, W(error), &wire_error_table, 0),
    FIELD_IDS(P(LeaseProgress), W(lease_progress), text_sizes, LIMIT_TOKENS_PER_FRAME),
    FIELD_BYTES_LIST(P(LeaseProgress), W(lease_progress), logprobs, LIMIT_TOKENS_PER_FRAME,
                     LIMIT_LOGPROBS_BYTES, 0),
};

static const struct convert_message lease_progress_table = {
    TABLE(lease_progress),
    .check = wire_lease_progress_check,
};

static const struct convert_field gang_address_fields[] = {
    FIELD_U64_HOW(P(GangAddress), W(gang_address), gang, MUST),
    FIELD_U32_MAX(P(GangAddress), W(gang_address), rank, SHARD_RANKS_MAX),
    FIELD_BYTES(P(GangAddress), W(gang_address), address, LIMIT_GANG_ADDRESS_BYTES, MUST),
};

static const struct convert_message gang_address_table = {
    TABLE(gang_address),
};

static const struct convert_field report_fields[] = {
    FIELD_MESSAGES(P(Report), W(report), leases, W(lease_progress), &lease_progress_table,
                   LIMIT_PROGRESS_PER_FRAME),
    FIELD_MESSAGES(P(Report), W(report), models, W(model_status), &wire_model_status_table,
                   LIMIT_MODELS_PER_WORKER),
    FIELD_MESSAGE(P(Report), W(report), memory, W(memory), &wire_memory_table, 0),
    FIELD_MESSAGES(P(Report), W(report), gpus, W(gpu), &wire_gpu_table, LIMIT_GPUS_PER_WORKER),
    FIELD_MESSAGES(P(Report), W(report), addresses, W(gang_address), &gang_address_table,
                   LIMIT_MODELS_PER_WORKER),
};

static const struct convert_message report_table = {
    TABLE(report),
};

static const struct convert_field goodbye_fields[] = {
    FIELD_STRING(P(Goodbye), W(goodbye), reason, LIMIT_ERROR_TEXT_BYTES, CONVERT_PROSE),
};

static const struct convert_message goodbye_table = {
    TABLE(goodbye),
};

static const struct convert_field submit_fields[] = {
    FIELD_ID(P(Submit), W(submit), job_id, MUST),
    FIELD_MESSAGE(P(Submit), W(submit), job, W(job), &wire_job_table, MUST),
};

static const struct convert_message submit_table = {
    TABLE(submit),
};

static const struct convert_field watch_fields[] = {
    FIELD_ID(P(Watch), W(watch), job_id, MUST),
    FIELD_U32_MAX(P(Watch), W(watch), first, LIMIT_MAX_TOKENS),
    FIELD_U32_MAX(P(Watch), W(watch), wait_ms, LIMIT_POLL_MS),
};

static const struct convert_message watch_table = {
    TABLE(watch),
};

static const struct convert_field cancel_fields[] = {
    FIELD_ID(P(Cancel), W(cancel), job_id, MUST),
    FIELD_STRING(P(Cancel), W(cancel), reason, LIMIT_ERROR_TEXT_BYTES, CONVERT_PROSE),
};

static const struct convert_message cancel_table = {
    TABLE(cancel),
};

static const struct convert_field list_jobs_fields[] = {
    FIELD_NAME(P(ListJobs), W(list_jobs), tenant, 0),
    FIELD_NAME(P(ListJobs), W(list_jobs), model, 0),
    FIELD_U32(P(ListJobs), W(list_jobs), states),
    FIELD_BYTES(P(ListJobs), W(list_jobs), after, ID_BYTES, 0),
    FIELD_U32_MAX(P(ListJobs), W(list_jobs), limit, LIMIT_LIST_ROWS),
    FIELD_BYTES(P(ListJobs), W(list_jobs), id_prefix, ID_BYTES, 0),
    FIELD_BOOL(P(ListJobs), W(list_jobs), newest_first),
    FIELD_BYTES(P(ListJobs), W(list_jobs), id_short, ID_SHORT_BYTES, 0),
    FIELD_BYTES(P(ListJobs), W(list_jobs), id_end, ID_BYTES, 0),
};

static const struct convert_message list_jobs_table = {
    TABLE(list_jobs),
    .check = wire_list_jobs_check,
};

static const struct convert_field get_job_fields[] = {
    FIELD_ID(P(GetJob), W(get_job), job_id, MUST),
};

static const struct convert_message get_job_table = {
    TABLE(get_job),
};

static const struct convert_field explain_fields[] = {
    FIELD_ID(P(Explain), W(explain), job_id, MUST),
};

static const struct convert_message explain_table = {
    TABLE(explain),
};

static const struct convert_field list_workers_fields[] = {
    FIELD_NAME(P(ListWorkers), W(list_workers), after, 0),
};

static const struct convert_message list_workers_table = {
    TABLE(list_workers),
};

static const struct convert_field list_models_fields[] = {
    FIELD_NAME(P(ListModels), W(list_models), model, 0),
};

static const struct convert_message list_models_table = {
    TABLE(list_models),
};

static const struct convert_field usage_fields[] = {
    FIELD_NAME(P(Usage), W(usage), tenant, 0),       FIELD_NAME(P(Usage), W(usage), model, 0),
    FIELD_U32(P(Usage), W(usage), day_from),         FIELD_U32(P(Usage), W(usage), day_to),
    FIELD_NAME(P(Usage), W(usage), after_tenant, 0), FIELD_NAME(P(Usage), W(usage), after_model, 0),
    FIELD_U32(P(Usage), W(usage), after_day),
};

static const struct convert_message usage_table = {
    TABLE(usage),
    .check = wire_usage_check,
};

static const struct convert_field ledger_range_fields[] = {
    FIELD_U64(P(LedgerRange), W(ledger_range), first),
    FIELD_U32_MAX(P(LedgerRange), W(ledger_range), limit, LIMIT_LIST_ROWS),
};

static const struct convert_message ledger_range_table = {
    TABLE(ledger_range),
};

static const struct convert_message status_table = {.descriptor = &cloister__status__descriptor};

static const struct convert_field request_fields[] = {
    FIELD_CONSTANT(P(Request), version, WIRE_VERSION),
    FIELD_U64(P(Request), W(request), session),
    FIELD_ID(P(Request), W(request), request_id, MUST),
};

static const struct convert_case request_cases[] = {
    {10, "hello", &hello_table},
    {11, "pull", &pull_table},
    {12, "report", &report_table},
    {13, "goodbye", &goodbye_table},
    {20, "submit", &submit_table},
    {21, "watch", &watch_table},
    {22, "cancel", &cancel_table},
    {23, "list_jobs", &list_jobs_table},
    {24, "get_job", &get_job_table},
    {25, "explain", &explain_table},
    {26, "list_workers", &list_workers_table},
    {27, "list_models", &list_models_table},
    {28, "usage", &usage_table},
    {29, "ledger_range", &ledger_range_table},
    {30, "status", &status_table},
};

static const struct convert_choice request_choice = {
    .name = "body",
    .cases = request_cases,
    .n_cases = COUNT(request_cases),
    .packed_case = offsetof(P(Request), body_case),
    .packed_union = offsetof(P(Request), hello),
    .ours_case = offsetof(W(request), kind),
    .ours_union = offsetof(W(request), hello),
};

const struct convert_message wire_request_table = {
    TABLE(request),
    .choice = &request_choice,
};
