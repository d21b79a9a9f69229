/* Replies. */
#include "proto/wire_tables_parts.h"

#include "common/crypto.h"
#include "common/limits.h"
#include "common/shard_cut.h"
#include "proto/cloister.pb-c.h"
#include "proto/convert_table.h"
#include "proto/wire.h"

static const struct convert_field hello_reply_fields[] = {
    FIELD_BOOL(P(HelloReply), W(hello_reply), established),
    FIELD_FIXED(P(HelloReply), W(hello_reply), challenge, 0),
    FIELD_FIXED(P(HelloReply), W(hello_reply), public_key, 0),
    FIELD_BYTES(P(HelloReply), W(hello_reply), signature, ED25519_SIGN_BYTES, 0),
    FIELD_NAME(P(HelloReply), W(hello_reply), coordinator, MUST),
    FIELD_NAME(P(HelloReply), W(hello_reply), build, 0),
    FIELD_U64(P(HelloReply), W(hello_reply), features),
    FIELD_U64(P(HelloReply), W(hello_reply), heartbeat_ms),
    FIELD_U64(P(HelloReply), W(hello_reply), lease_ms),
};

static const struct convert_message hello_reply_table = {
    TABLE(hello_reply),
    .check = wire_hello_reply_check,
};

static const struct convert_field gang_member_fields[] = {
    FIELD_NAME(P(GangMember), W(gang_member), worker, MUST),
    FIELD_U64(P(GangMember), W(gang_member), weight),
};

static const struct convert_message gang_member_table = {
    TABLE(gang_member),
};

static const struct convert_field gang_place_fields[] = {
    FIELD_U64(P(GangPlace), W(gang_place), gang),
    FIELD_FIXED(P(GangPlace), W(gang_place), group, 0),
    FIELD_U32_MAX(P(GangPlace), W(gang_place), rank, SHARD_RANKS_MAX),
    FIELD_U32_MAX(P(GangPlace), W(gang_place), stages, SHARD_RANKS_MAX),
    FIELD_ENUM(P(GangPlace), W(gang_place), transport, WIRE_GANG_TRANSPORT_NCCL, 0),
    FIELD_MESSAGES(P(GangPlace), W(gang_place), members, W(gang_member), &gang_member_table,
                   SHARD_RANKS_MAX),
    FIELD_ENUM(P(GangPlace), W(gang_place), control, WIRE_GANG_TRANSPORT_UCX, 0),
};

static const struct convert_message gang_place_table = {
    TABLE(gang_place),
    .check = wire_gang_place_check,
};

static const struct convert_field command_load_fields[] = {
    FIELD_NAME(P(CommandLoad), W(command_load), model, MUST),
    FIELD_MESSAGE(P(CommandLoad), W(command_load), place, W(gang_place), &gang_place_table, 0),
};

static const struct convert_message command_load_table = {
    TABLE(command_load),
};

static const struct convert_field command_unload_fields[] = {
    FIELD_NAME(P(CommandUnload), W(command_unload), model, MUST),
};

static const struct convert_message command_unload_table = {
    TABLE(command_unload),
};

static const struct convert_field command_run_fields[] = {
    FIELD_ID(P(CommandRun), W(command_run), job_id, MUST),
    FIELD_U64(P(CommandRun), W(command_run), epoch),
    FIELD_U32(P(CommandRun), W(command_run), attempt),
    FIELD_MESSAGE(P(CommandRun), W(command_run), job, W(job), &wire_job_table, MUST),
    FIELD_IDS(P(CommandRun), W(command_run), resume_ids, LIMIT_MAX_TOKENS),
    FIELD_U32(P(CommandRun), W(command_run), resume_text_bytes),
    FIELD_NAME(P(CommandRun), W(command_run), tenant, 0),
};

static const struct convert_message command_run_table = {
    TABLE(command_run),
};

static const struct convert_field command_cancel_fields[] = {
    FIELD_ID(P(CommandCancel), W(command_cancel), job_id, MUST),
    FIELD_U64(P(CommandCancel), W(command_cancel), epoch),
};

static const struct convert_message command_cancel_table = {
    TABLE(command_cancel),
};

static const struct convert_field command_meet_fields[] = {
    FIELD_NAME(P(CommandMeet), W(command_meet), model, MUST),
    FIELD_U64_HOW(P(CommandMeet), W(command_meet), gang, MUST),
    FIELD_BYTES_LIST(P(CommandMeet), W(command_meet), addresses, SHARD_RANKS_MAX,
                     LIMIT_GANG_ADDRESS_BYTES, CONVERT_REQUIRED_EACH),
};

static const struct convert_message command_meet_table = {
    TABLE(command_meet),
};

static const struct convert_field command_fields[] = {
    FIELD_U64_HOW(P(Command), W(command), seq, MUST),
};

static const struct convert_case command_cases[] = {
    {10, "load", &command_load_table}, {11, "unload", &command_unload_table},
    {12, "run", &command_run_table},   {13, "cancel", &command_cancel_table},
    {14, "meet", &command_meet_table},
};

static const struct convert_choice command_choice = {
    .name = "what",
    .cases = command_cases,
    .n_cases = COUNT(command_cases),
    .packed_case = offsetof(P(Command), what_case),
    .packed_union = offsetof(P(Command), load),
    .ours_case = offsetof(W(command), kind),
    .ours_union = offsetof(W(command), load),
};

static const struct convert_message command_table = {
    TABLE(command),
    .choice = &command_choice,
};

static const struct convert_field pull_reply_fields[] = {
    FIELD_MESSAGES(P(PullReply), W(pull_reply), commands, W(command), &command_table,
                   LIMIT_COMMANDS_PER_PULL),
};

static const struct convert_message pull_reply_table = {
    TABLE(pull_reply),
    .check = wire_pull_reply_check,
};

static const struct convert_field lease_ack_fields[] = {
    FIELD_ID(P(LeaseAck), W(lease_ack), job_id, MUST),
    FIELD_U64(P(LeaseAck), W(lease_ack), epoch),
    FIELD_BOOL(P(LeaseAck), W(lease_ack), fenced),
    FIELD_U32(P(LeaseAck), W(lease_ack), next),
};

static const struct convert_message lease_ack_table = {
    TABLE(lease_ack),
};

static const struct convert_field report_reply_fields[] = {
    FIELD_MESSAGES(P(ReportReply), W(report_reply), leases, W(lease_ack), &lease_ack_table,
                   LIMIT_PROGRESS_PER_FRAME),
};

static const struct convert_message report_reply_table = {
    TABLE(report_reply),
};

static const struct convert_message goodbye_reply_table = {
    .descriptor = &cloister__goodbye_reply__descriptor};

static const struct convert_field submit_reply_fields[] = {
    FIELD_ID(P(SubmitReply), W(submit_reply), job_id, MUST),
    FIELD_ENUM(P(SubmitReply), W(submit_reply), state, WIRE_JOB_STATE_EXPIRED, MUST),
    FIELD_BOOL(P(SubmitReply), W(submit_reply), duplicate),
    FIELD_U32(P(SubmitReply), W(submit_reply), queued_ahead),
};

static const struct convert_message submit_reply_table = {
    TABLE(submit_reply),
};

static const struct convert_field watch_reply_fields[] = {
    FIELD_ID(P(WatchReply), W(watch_reply), job_id, MUST),
    FIELD_ENUM(P(WatchReply), W(watch_reply), state, WIRE_JOB_STATE_EXPIRED, MUST),
    FIELD_U32_MAX(P(WatchReply), W(watch_reply), first, LIMIT_MAX_TOKENS),
    FIELD_IDS(P(WatchReply), W(watch_reply), ids, LIMIT_TOKENS_PER_FRAME),
    FIELD_BYTES(P(WatchReply), W(watch_reply), text, LIMIT_FRAME_BYTES, 0),
    FIELD_BOOL(P(WatchReply), W(watch_reply), end),
    FIELD_ENUM(P(WatchReply), W(watch_reply), finish, WIRE_FINISH_ERROR, 0),
    FIELD_MESSAGE(P(WatchReply), W(watch_reply), error, W(error), &wire_error_table, 0),
    FIELD_MESSAGE(P(WatchReply), W(watch_reply), usage, W(work_usage), &wire_work_usage_table, 0),
    FIELD_BYTES_LIST(P(WatchReply), W(watch_reply), logprobs, LIMIT_TOKENS_PER_FRAME,
                     LIMIT_LOGPROBS_BYTES, 0),
};

static const struct convert_message watch_reply_table = {
    TABLE(watch_reply),
    .check = wire_watch_reply_check,
};

static const struct convert_field cancel_reply_fields[] = {
    FIELD_ENUM(P(CancelReply), W(cancel_reply), state, WIRE_JOB_STATE_EXPIRED, MUST),
};

static const struct convert_message cancel_reply_table = {
    TABLE(cancel_reply),
};

static const struct convert_field job_info_fields[] = {
    FIELD_ID(P(JobInfo), W(job_info), job_id, MUST),
    FIELD_NAME(P(JobInfo), W(job_info), model, MUST),
    FIELD_NAME(P(JobInfo), W(job_info), tenant, 0),
    FIELD_ENUM(P(JobInfo), W(job_info), state, WIRE_JOB_STATE_EXPIRED, MUST),
    FIELD_ENUM(P(JobInfo), W(job_info), job_class, WIRE_JOB_CLASS_BATCH, MUST),
    FIELD_U32(P(JobInfo), W(job_info), priority),
    FIELD_U64(P(JobInfo), W(job_info), submitted_wall_ns),
    FIELD_U64(P(JobInfo), W(job_info), started_wall_ns),
    FIELD_U64(P(JobInfo), W(job_info), ended_wall_ns),
    FIELD_U32(P(JobInfo), W(job_info), attempts),
    FIELD_NAME(P(JobInfo), W(job_info), worker, 0),
    FIELD_U32(P(JobInfo), W(job_info), max_tokens),
    FIELD_MESSAGE(P(JobInfo), W(job_info), usage, W(work_usage), &wire_work_usage_table, 0),
    FIELD_U64(P(JobInfo), W(job_info), reserved_tokens),
    FIELD_ENUM(P(JobInfo), W(job_info), finish, WIRE_FINISH_ERROR, 0),
    FIELD_MESSAGE(P(JobInfo), W(job_info), error, W(error), &wire_error_table, 0),
    FIELD_U64(P(JobInfo), W(job_info), reserve_seq),
    FIELD_U64(P(JobInfo), W(job_info), settle_seq),
    FIELD_U32(P(JobInfo), W(job_info), queued_ahead),
    FIELD_NAME(P(JobInfo), W(job_info), project, 0),
    FIELD_NAME(P(JobInfo), W(job_info), cost_center, 0),
};

static const struct convert_message job_info_table = {
    TABLE(job_info),
};

static const struct convert_field list_jobs_reply_fields[] = {
    FIELD_MESSAGES(P(ListJobsReply), W(list_jobs_reply), jobs, W(job_info), &job_info_table,
                   LIMIT_LIST_ROWS),
    FIELD_BOOL(P(ListJobsReply), W(list_jobs_reply), more),
    FIELD_ID(P(ListJobsReply), W(list_jobs_reply), next, 0),
};

static const struct convert_message list_jobs_reply_table = {
    TABLE(list_jobs_reply),
};

static const struct convert_field get_job_reply_fields[] = {
    FIELD_MESSAGE(P(GetJobReply), W(get_job_reply), info, W(job_info), &job_info_table, MUST),
    FIELD_MESSAGE(P(GetJobReply), W(get_job_reply), job, W(job), &wire_job_table, MUST),
};

static const struct convert_message get_job_reply_table = {
    TABLE(get_job_reply),
};

static const struct convert_field candidate_fields[] = {
    FIELD_NAME(P(Candidate), W(candidate), worker, MUST),
    FIELD_BOOL(P(Candidate), W(candidate), chosen),
    FIELD_NAME(P(Candidate), W(candidate), predicate, 0),
    FIELD_STRING(P(Candidate), W(candidate), detail, LIMIT_ERROR_TEXT_BYTES, CONVERT_PROSE),
    FIELD_U64(P(Candidate), W(candidate), need_bytes),
    FIELD_U64(P(Candidate), W(candidate), free_bytes),
    FIELD_U64(P(Candidate), W(candidate), unclaimed_bytes),
    FIELD_U64(P(Candidate), W(candidate), queued_tokens),
    FIELD_U32(P(Candidate), W(candidate), tokens_per_s),
    FIELD_U64(P(Candidate), W(candidate), load_ms),
    FIELD_U64(P(Candidate), W(candidate), cost_ms),
};

static const struct convert_message candidate_table = {
    TABLE(candidate),
};

static const struct convert_field explain_reply_fields[] = {
    FIELD_ENUM(P(ExplainReply), W(explain_reply), state, WIRE_JOB_STATE_EXPIRED, MUST),
    FIELD_STRING(P(ExplainReply), W(explain_reply), summary, LIMIT_ERROR_TEXT_BYTES, CONVERT_PROSE),
    FIELD_U32(P(ExplainReply), W(explain_reply), queued_ahead),
    FIELD_U64(P(ExplainReply), W(explain_reply), decided_wall_ns),
    FIELD_MESSAGES(P(ExplainReply), W(explain_reply), candidates, W(candidate), &candidate_table,
                   LIMIT_CANDIDATES),
    FIELD_STRING(P(ExplainReply), W(explain_reply), gang, LIMIT_ERROR_TEXT_BYTES, CONVERT_PROSE),
};

static const struct convert_message explain_reply_table = {
    TABLE(explain_reply),
};

static const struct convert_field worker_info_fields[] = {
    FIELD_NAME(P(WorkerInfo), W(worker_info), name, MUST),
    FIELD_ENUM(P(WorkerInfo), W(worker_info), state, WIRE_WORKER_STATE_GONE, MUST),
    FIELD_NAME(P(WorkerInfo), W(worker_info), device, 0),
    FIELD_NAME(P(WorkerInfo), W(worker_info), isa, 0),
    FIELD_NAME(P(WorkerInfo), W(worker_info), build, 0),
    FIELD_U32(P(WorkerInfo), W(worker_info), threads),
    FIELD_MESSAGE(P(WorkerInfo), W(worker_info), memory, W(memory), &wire_memory_table, 0),
    FIELD_U64(P(WorkerInfo), W(worker_info), claimed_bytes),
    FIELD_U64(P(WorkerInfo), W(worker_info), stranger_bytes),
    FIELD_MESSAGES(P(WorkerInfo), W(worker_info), models, W(model_status), &wire_model_status_table,
                   LIMIT_MODELS_PER_WORKER),
    FIELD_U32(P(WorkerInfo), W(worker_info), leases),
    FIELD_U64(P(WorkerInfo), W(worker_info), seen_ms),
    FIELD_U64(P(WorkerInfo), W(worker_info), tokens),
    FIELD_FIXED(P(WorkerInfo), W(worker_info), key_fingerprint, 0),
    FIELD_MESSAGES(P(WorkerInfo), W(worker_info), gpus, W(gpu), &wire_gpu_table,
                   LIMIT_GPUS_PER_WORKER),
    FIELD_U64_MAX(P(WorkerInfo), W(worker_info), read_bytes_per_s, LIMIT_READ_BYTES_PER_S),
};

static const struct convert_message worker_info_table = {
    TABLE(worker_info),
};

static const struct convert_field list_workers_reply_fields[] = {
    FIELD_MESSAGES(P(ListWorkersReply), W(list_workers_reply), workers, W(worker_info),
                   &worker_info_table, LIMIT_WORKERS),
    FIELD_BOOL(P(ListWorkersReply), W(list_workers_reply), more),
};

static const struct convert_message list_workers_reply_table = {
    TABLE(list_workers_reply),
};

static const struct convert_field model_info_fields[] = {
    FIELD_MESSAGE(P(ModelInfo), W(model_info), offer, W(model_offer), &wire_model_offer_table,
                  MUST),
    FIELD_U32(P(ModelInfo), W(model_info), workers),
    FIELD_U32(P(ModelInfo), W(model_info), loading),
    FIELD_U32(P(ModelInfo), W(model_info), ready),
    FIELD_U32(P(ModelInfo), W(model_info), running),
    FIELD_U32(P(ModelInfo), W(model_info), waiting),
};

static const struct convert_message model_info_table = {
    TABLE(model_info),
};

static const struct convert_field list_models_reply_fields[] = {
    FIELD_MESSAGES(P(ListModelsReply), W(list_models_reply), models, W(model_info),
                   &model_info_table, LIMIT_MODELS),
};

static const struct convert_message list_models_reply_table = {
    TABLE(list_models_reply),
};

static const struct convert_field usage_row_fields[] = {
    FIELD_NAME(P(UsageRow), W(usage_row), tenant, 0),
    FIELD_NAME(P(UsageRow), W(usage_row), model, 0),
    FIELD_U32(P(UsageRow), W(usage_row), day),
    FIELD_U64(P(UsageRow), W(usage_row), jobs),
    FIELD_U64(P(UsageRow), W(usage_row), prompt_tokens),
    FIELD_U64(P(UsageRow), W(usage_row), prompt_cached),
    FIELD_U64(P(UsageRow), W(usage_row), completion_tokens),
    FIELD_U64(P(UsageRow), W(usage_row), computed_tokens),
};

static const struct convert_message usage_row_table = {
    TABLE(usage_row),
};

static const struct convert_field usage_balance_fields[] = {
    FIELD_NAME(P(UsageBalance), W(usage_balance), tenant, 0),
    FIELD_U64(P(UsageBalance), W(usage_balance), budget_tokens),
    FIELD_U64(P(UsageBalance), W(usage_balance), reserved_tokens),
    FIELD_U64(P(UsageBalance), W(usage_balance), settled_tokens),
};

static const struct convert_message usage_balance_table = {
    TABLE(usage_balance),
};

static const struct convert_field usage_reply_fields[] = {
    FIELD_MESSAGES(P(UsageReply), W(usage_reply), rows, W(usage_row), &usage_row_table,
                   LIMIT_USAGE_ROWS),
    FIELD_MESSAGES(P(UsageReply), W(usage_reply), balances, W(usage_balance), &usage_balance_table,
                   LIMIT_TENANTS),
    FIELD_BOOL(P(UsageReply), W(usage_reply), more),
    FIELD_NAME(P(UsageReply), W(usage_reply), next_tenant, 0),
    FIELD_NAME(P(UsageReply), W(usage_reply), next_model, 0),
    FIELD_U32(P(UsageReply), W(usage_reply), next_day),
};

static const struct convert_message usage_reply_table = {
    TABLE(usage_reply),
};

static const struct convert_field ledger_range_reply_fields[] = {
    FIELD_U64(P(LedgerRangeReply), W(ledger_range_reply), first),
    FIELD_BYTES_LIST(P(LedgerRangeReply), W(ledger_range_reply), records, LIMIT_LIST_ROWS,
                     LIMIT_LEDGER_RECORD_BYTES, MUST_EACH),
    FIELD_U64(P(LedgerRangeReply), W(ledger_range_reply), size),
    FIELD_STRING(P(LedgerRangeReply), W(ledger_range_reply), checkpoint, LIMIT_CHECKPOINT_BYTES,
                 CONVERT_LINES),
    FIELD_NAME(P(LedgerRangeReply), W(ledger_range_reply), origin, 0),
    FIELD_FIXED(P(LedgerRangeReply), W(ledger_range_reply), public_key, 0),
};

static const struct convert_message ledger_range_reply_table = {
    TABLE(ledger_range_reply),
};

static const struct convert_field status_reply_fields[] = {
    FIELD_NAME(P(StatusReply), W(status_reply), coordinator, MUST),
    FIELD_NAME(P(StatusReply), W(status_reply), build, 0),
    FIELD_U64(P(StatusReply), W(status_reply), uptime_ms),
    FIELD_BOOL(P(StatusReply), W(status_reply), healthy),
    FIELD_STRINGS(P(StatusReply), W(status_reply), reasons, LIMIT_REASONS, LIMIT_ERROR_TEXT_BYTES,
                  CONVERT_PROSE),
    FIELD_U64(P(StatusReply), W(status_reply), queued),
    FIELD_U64(P(StatusReply), W(status_reply), leased),
    FIELD_U64(P(StatusReply), W(status_reply), running),
    FIELD_U64(P(StatusReply), W(status_reply), ended),
    FIELD_U64(P(StatusReply), W(status_reply), queued_tokens),
    FIELD_U32(P(StatusReply), W(status_reply), workers_alive),
    FIELD_U32(P(StatusReply), W(status_reply), workers_known),
    FIELD_U64(P(StatusReply), W(status_reply), oldest_queued_ms),
    FIELD_U64(P(StatusReply), W(status_reply), oldest_running_idle_ms),
    FIELD_U64(P(StatusReply), W(status_reply), store_used_bytes),
    FIELD_U64(P(StatusReply), W(status_reply), store_map_bytes),
    FIELD_U64(P(StatusReply), W(status_reply), ledger_size),
    FIELD_U64(P(StatusReply), W(status_reply), checkpoint_size),
    FIELD_U64(P(StatusReply), W(status_reply), commits),
    FIELD_U64(P(StatusReply), W(status_reply), commit_us_median),
    FIELD_U64(P(StatusReply), W(status_reply), commit_us_max),
    FIELD_BOOL(P(StatusReply), W(status_reply), admission_open),
    FIELD_U64(P(StatusReply), W(status_reply), requests),
    FIELD_U64(P(StatusReply), W(status_reply), parked),
    FIELD_U64(P(StatusReply), W(status_reply), stale_reports),
    FIELD_U64(P(StatusReply), W(status_reply), refused),
    FIELD_U64(P(StatusReply), W(status_reply), dropped),
};

static const struct convert_message status_reply_table = {
    TABLE(status_reply),
};

static const struct convert_field reply_fields[] = {
    FIELD_CONSTANT(P(Reply), version, WIRE_VERSION),
    FIELD_U64(P(Reply), W(reply), session),
    FIELD_ID(P(Reply), W(reply), request_id, 0),
};

static const struct convert_case reply_cases[] = {
    {9, "error", &wire_error_table},
    {10, "hello", &hello_reply_table},
    {11, "pull", &pull_reply_table},
    {12, "report", &report_reply_table},
    {13, "goodbye", &goodbye_reply_table},
    {20, "submit", &submit_reply_table},
    {21, "watch", &watch_reply_table},
    {22, "cancel", &cancel_reply_table},
    {23, "list_jobs", &list_jobs_reply_table},
    {24, "get_job", &get_job_reply_table},
    {25, "explain", &explain_reply_table},
    {26, "list_workers", &list_workers_reply_table},
    {27, "list_models", &list_models_reply_table},
    {28, "usage", &usage_reply_table},
    {29, "ledger_range", &ledger_range_reply_table},
    {30, "status", &status_reply_table},
};

static const struct convert_choice reply_choice = {
    .name = "body",
    .cases = reply_cases,
    .n_cases = COUNT(reply_cases),
    .packed_case = offsetof(P(Reply), body_case),
    .packed_union = offsetof(P(Reply), error),
    .ours_case = offsetof(W(reply), kind),
    .ours_union = offsetof(W(reply), error),
};

const struct convert_message wire_reply_table = {
    TABLE(reply),
    .choice = &reply_choice,
};
