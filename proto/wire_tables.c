#include "proto/wire_tables.h"

#include "common/crypto.h"
#include "common/limits.h"
#include "proto/cloister.pb-c.h"
#include "proto/convert_table.h"
#include "proto/wire.h"

#define P(message) Cloister__##message
#define W(message) struct wire_##message
#define MUST       CONVERT_REQUIRED
#define MUST_EACH  CONVERT_REQUIRED_EACH
#define COUNT(a)   (sizeof(a) / sizeof((a)[0]))
#define TABLE(m)                                                                                   \
    .descriptor = &cloister__##m##__descriptor, .fields = m##_fields,                              \
    .n_fields = COUNT(m##_fields), .size = sizeof(struct wire_##m)

/* The enums are said twice, in wire.h and in the .proto file; their last values must agree. */
_Static_assert((int)WIRE_ROLE_CLIENT == (int)CLOISTER__ROLE__ROLE_CLIENT, "Role");
_Static_assert((int)WIRE_MODEL_STATE_FAILED == (int)CLOISTER__MODEL_STATE__MODEL_STATE_FAILED,
               "ModelState");
_Static_assert((int)WIRE_FINISH_ERROR == (int)CLOISTER__FINISH__FINISH_ERROR, "Finish");
_Static_assert((int)WIRE_PROMPT_KIND_IDS == (int)CLOISTER__PROMPT_KIND__PROMPT_KIND_IDS,
               "PromptKind");
_Static_assert((int)WIRE_JOB_CLASS_BATCH == (int)CLOISTER__JOB_CLASS__JOB_CLASS_BATCH, "JobClass");
_Static_assert((int)WIRE_JOB_STATE_EXPIRED == (int)CLOISTER__JOB_STATE__JOB_STATE_EXPIRED,
               "JobState");
_Static_assert((int)WIRE_WORKER_STATE_GONE == (int)CLOISTER__WORKER_STATE__WORKER_STATE_GONE,
               "WorkerState");

static const struct convert_field model_offer_fields[] = {
    FIELD_NAME(P(ModelOffer), W(model_offer), name, MUST),
    FIELD_FIXED(P(ModelOffer), W(model_offer), weights_digest, 0),
    FIELD_FIXED(P(ModelOffer), W(model_offer), tokenizer_digest, 0),
    FIELD_NAME(P(ModelOffer), W(model_offer), architecture, 0),
    FIELD_NAME(P(ModelOffer), W(model_offer), quantization, 0),
    FIELD_U64(P(ModelOffer), W(model_offer), parameters),
    FIELD_U64(P(ModelOffer), W(model_offer), file_bytes),
    FIELD_U32(P(ModelOffer), W(model_offer), context_tokens),
    FIELD_U64(P(ModelOffer), W(model_offer), weights_bytes),
    FIELD_U64(P(ModelOffer), W(model_offer), kv_bytes),
    FIELD_U64(P(ModelOffer), W(model_offer), scratch_bytes),
    FIELD_NAME(P(ModelOffer), W(model_offer), chat_template, 0),
    FIELD_U32_MAX(P(ModelOffer), W(model_offer), prompt_tokens_per_job, LIMIT_CONTEXT_TOKENS),
    FIELD_U32_MAX(P(ModelOffer), W(model_offer), prompt_tokens_per_message, LIMIT_CONTEXT_TOKENS),
    FIELD_U32_MAX(P(ModelOffer), W(model_offer), prompt_tokens_per_kib, LIMIT_TOKENS_PER_KIB),
};

static const struct convert_message model_offer_table = {
    TABLE(model_offer),
};

static const struct convert_field memory_fields[] = {
    FIELD_U64(P(Memory), W(memory), total_bytes),
    FIELD_U64(P(Memory), W(memory), free_bytes),
    FIELD_U64(P(Memory), W(memory), budget_bytes),
    FIELD_U64(P(Memory), W(memory), used_bytes),
};

static const struct convert_message memory_table = {
    TABLE(memory),
};

static const struct convert_field lease_held_fields[] = {
    FIELD_ID(P(LeaseHeld), W(lease_held), job_id, MUST),
    FIELD_U64(P(LeaseHeld), W(lease_held), epoch),
    FIELD_U32(P(LeaseHeld), W(lease_held), tokens),
};

static const struct convert_message lease_held_table = {
    TABLE(lease_held),
};

static const struct convert_field model_status_fields[] = {
    FIELD_NAME(P(ModelStatus), W(model_status), name, MUST),
    FIELD_ENUM(P(ModelStatus), W(model_status), state, WIRE_MODEL_STATE_FAILED, MUST),
    FIELD_STRING(P(ModelStatus), W(model_status), error, LIMIT_ERROR_TEXT_BYTES, CONVERT_PROSE),
    FIELD_U64(P(ModelStatus), W(model_status), weights_bytes),
    FIELD_U64(P(ModelStatus), W(model_status), kv_bytes),
    FIELD_U64(P(ModelStatus), W(model_status), scratch_bytes),
    FIELD_U64(P(ModelStatus), W(model_status), load_ms),
    FIELD_U32(P(ModelStatus), W(model_status), running),
    FIELD_U32(P(ModelStatus), W(model_status), waiting),
    FIELD_U64(P(ModelStatus), W(model_status), queued_tokens),
    FIELD_U32(P(ModelStatus), W(model_status), prefill_tokens_per_s),
    FIELD_U32(P(ModelStatus), W(model_status), decode_tokens_per_s),
    FIELD_U32(P(ModelStatus), W(model_status), kv_pages_free),
    FIELD_U32(P(ModelStatus), W(model_status), kv_pages),
    FIELD_U32(P(ModelStatus), W(model_status), failures),
};

static const struct convert_message model_status_table = {
    TABLE(model_status),
};

static const struct convert_field worker_hello_fields[] = {
    FIELD_MESSAGES(P(WorkerHello), W(worker_hello), models, W(model_offer), &model_offer_table,
                   LIMIT_MODELS_PER_WORKER),
    FIELD_MESSAGE(P(WorkerHello), W(worker_hello), memory, W(memory), &memory_table, 0),
    FIELD_NAME(P(WorkerHello), W(worker_hello), device, MUST),
    FIELD_NAME(P(WorkerHello), W(worker_hello), isa, 0),
    FIELD_U32(P(WorkerHello), W(worker_hello), threads),
    FIELD_MESSAGES(P(WorkerHello), W(worker_hello), leases, W(lease_held), &lease_held_table,
                   LIMIT_LEASES_PER_WORKER),
    FIELD_MESSAGES(P(WorkerHello), W(worker_hello), status, W(model_status), &model_status_table,
                   LIMIT_MODELS_PER_WORKER),
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

static const struct convert_field work_usage_fields[] = {
    FIELD_U32(P(WorkUsage), W(work_usage), prompt_tokens),
    FIELD_U32(P(WorkUsage), W(work_usage), prompt_cached),
    FIELD_U32(P(WorkUsage), W(work_usage), prompt_computed),
    FIELD_U32(P(WorkUsage), W(work_usage), resumed_tokens),
    FIELD_U32(P(WorkUsage), W(work_usage), completion_tokens),
    FIELD_U64(P(WorkUsage), W(work_usage), queue_us),
    FIELD_U64(P(WorkUsage), W(work_usage), prefill_us),
    FIELD_U64(P(WorkUsage), W(work_usage), decode_us),
};

static const struct convert_message work_usage_table = {
    TABLE(work_usage),
};

static const struct convert_field error_fields[] = {
    FIELD_U32_HOW(P(Error), W(error), code, MUST),
    FIELD_STRING(P(Error), W(error), text, LIMIT_ERROR_TEXT_BYTES, CONVERT_PROSE),
    FIELD_BOOL(P(Error), W(error), retryable),
    FIELD_U64(P(Error), W(error), retry_after_ms),
};

static const struct convert_message error_table = {
    TABLE(error),
};

static const struct convert_field lease_progress_fields[] = {
    FIELD_ID(P(LeaseProgress), W(lease_progress), job_id, MUST),
    FIELD_U64(P(LeaseProgress), W(lease_progress), epoch),
    FIELD_U32_MAX(P(LeaseProgress), W(lease_progress), first, LIMIT_MAX_TOKENS),
    FIELD_IDS(P(LeaseProgress), W(lease_progress), ids, LIMIT_TOKENS_PER_FRAME),
    FIELD_BYTES(P(LeaseProgress), W(lease_progress), text, LIMIT_FRAME_BYTES, 0),
    FIELD_MESSAGE(P(LeaseProgress), W(lease_progress), usage, W(work_usage), &work_usage_table, 0),
    FIELD_ENUM(P(LeaseProgress), W(lease_progress), finish, WIRE_FINISH_ERROR, 0),
    FIELD_MESSAGE(P(LeaseProgress), W(lease_progress), error, W(error), &error_table, 0),
    FIELD_IDS(P(LeaseProgress), W(lease_progress), text_sizes, LIMIT_TOKENS_PER_FRAME),
    FIELD_BYTES_LIST(P(LeaseProgress), W(lease_progress), logprobs, LIMIT_TOKENS_PER_FRAME,
                     LIMIT_LOGPROBS_BYTES, 0),
};

static const struct convert_message lease_progress_table = {
    TABLE(lease_progress),
    .check = wire_lease_progress_check,
};

static const struct convert_field report_fields[] = {
    FIELD_MESSAGES(P(Report), W(report), leases, W(lease_progress), &lease_progress_table,
                   LIMIT_PROGRESS_PER_FRAME),
    FIELD_MESSAGES(P(Report), W(report), models, W(model_status), &model_status_table,
                   LIMIT_MODELS_PER_WORKER),
    FIELD_MESSAGE(P(Report), W(report), memory, W(memory), &memory_table, 0),
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

static const struct convert_field chat_message_fields[] = {
    FIELD_NAME(P(ChatMessage), W(chat_message), role, MUST),
    FIELD_BYTES(P(ChatMessage), W(chat_message), content, LIMIT_PROMPT_BYTES, 0),
};

static const struct convert_message chat_message_table = {
    TABLE(chat_message),
};

static const struct convert_field logit_bias_fields[] = {
    FIELD_U32_MAX(P(LogitBias), W(logit_bias), id, INT32_MAX),
    FIELD_FLOAT(P(LogitBias), W(logit_bias), bias),
};

static const struct convert_message logit_bias_table = {
    TABLE(logit_bias),
    .check = wire_logit_bias_check,
};

static const struct convert_field token_logprob_fields[] = {
    FIELD_U32_MAX(P(TokenLogprob), W(token_logprob), id, INT32_MAX),
    FIELD_FLOAT(P(TokenLogprob), W(token_logprob), logprob),
    FIELD_BYTES(P(TokenLogprob), W(token_logprob), bytes, LIMIT_LOGPROB_BYTES, 0),
};

static const struct convert_message token_logprob_table = {
    TABLE(token_logprob),
};

static const struct convert_field token_logprobs_fields[] = {
    FIELD_MESSAGE(P(TokenLogprobs), W(token_logprobs), drawn, W(token_logprob),
                  &token_logprob_table, MUST),
    FIELD_MESSAGES(P(TokenLogprobs), W(token_logprobs), top, W(token_logprob), &token_logprob_table,
                   LIMIT_TOP_LOGPROBS),
};

const struct convert_message wire_token_logprobs_table = {
    TABLE(token_logprobs),
};

static const struct convert_field sampling_fields[] = {
    FIELD_FLOAT(P(Sampling), W(sampling), temperature),
    FIELD_U32(P(Sampling), W(sampling), top_k),
    FIELD_FLOAT(P(Sampling), W(sampling), top_p),
    FIELD_FLOAT(P(Sampling), W(sampling), min_p),
    FIELD_FLOAT(P(Sampling), W(sampling), repetition_penalty),
    FIELD_FLOAT(P(Sampling), W(sampling), presence_penalty),
    FIELD_FLOAT(P(Sampling), W(sampling), frequency_penalty),
    FIELD_U64(P(Sampling), W(sampling), seed),
    FIELD_FLOAT(P(Sampling), W(sampling), typical_p),
    FIELD_MESSAGES(P(Sampling), W(sampling), logit_bias, W(logit_bias), &logit_bias_table,
                   LIMIT_LOGIT_BIASES),
};

const struct convert_message wire_sampling_table = {
    TABLE(sampling),
    .check = wire_sampling_check,
};

static const struct convert_field job_fields[] = {
    FIELD_NAME(P(Job), W(job), model, MUST),
    FIELD_ENUM(P(Job), W(job), prompt_kind, WIRE_PROMPT_KIND_IDS, MUST),
    FIELD_MESSAGES(P(Job), W(job), messages, W(chat_message), &chat_message_table,
                   LIMIT_CHAT_MESSAGES),
    FIELD_BYTES(P(Job), W(job), text, LIMIT_PROMPT_BYTES, 0),
    FIELD_IDS(P(Job), W(job), prompt_ids, LIMIT_CONTEXT_TOKENS),
    FIELD_MESSAGE(P(Job), W(job), sampling, W(sampling), &wire_sampling_table, MUST),
    FIELD_U32_MAX(P(Job), W(job), max_tokens, LIMIT_MAX_TOKENS),
    FIELD_BYTES_LIST(P(Job), W(job), stops, LIMIT_STOP_STRINGS, LIMIT_STOP_BYTES, MUST_EACH),
    FIELD_ENUM(P(Job), W(job), job_class, WIRE_JOB_CLASS_BATCH, MUST),
    FIELD_U32(P(Job), W(job), priority),
    FIELD_U64_MAX(P(Job), W(job), deadline_ms, LIMIT_DEADLINE_MS),
    FIELD_BOOL(P(Job), W(job), cancel_on_disconnect),
    FIELD_NAME(P(Job), W(job), project, 0),
    FIELD_NAME(P(Job), W(job), cost_center, 0),
    FIELD_IDS(P(Job), W(job), stop_tokens, LIMIT_STOP_TOKENS),
    FIELD_BOOL(P(Job), W(job), logprobs),
    FIELD_U32_MAX(P(Job), W(job), top_logprobs, LIMIT_TOP_LOGPROBS),
};

const struct convert_message wire_job_table = {
    TABLE(job),
    .check = wire_job_check,
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

static const struct convert_message list_workers_table = {.descriptor =
                                                              &cloister__list_workers__descriptor};

static const struct convert_message list_models_table = {.descriptor =
                                                             &cloister__list_models__descriptor};

static const struct convert_field usage_fields[] = {
    FIELD_NAME(P(Usage), W(usage), tenant, 0),
    FIELD_NAME(P(Usage), W(usage), model, 0),
    FIELD_U32(P(Usage), W(usage), day_from),
    FIELD_U32(P(Usage), W(usage), day_to),
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

static const struct convert_field command_load_fields[] = {
    FIELD_NAME(P(CommandLoad), W(command_load), model, MUST),
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

static const struct convert_field command_fields[] = {
    FIELD_U64_HOW(P(Command), W(command), seq, MUST),
};

static const struct convert_case command_cases[] = {
    {10, "load", &command_load_table},
    {11, "unload", &command_unload_table},
    {12, "run", &command_run_table},
    {13, "cancel", &command_cancel_table},
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
    FIELD_MESSAGE(P(WatchReply), W(watch_reply), error, W(error), &error_table, 0),
    FIELD_MESSAGE(P(WatchReply), W(watch_reply), usage, W(work_usage), &work_usage_table, 0),
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
    FIELD_MESSAGE(P(JobInfo), W(job_info), usage, W(work_usage), &work_usage_table, 0),
    FIELD_U64(P(JobInfo), W(job_info), reserved_tokens),
    FIELD_ENUM(P(JobInfo), W(job_info), finish, WIRE_FINISH_ERROR, 0),
    FIELD_MESSAGE(P(JobInfo), W(job_info), error, W(error), &error_table, 0),
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
    FIELD_MESSAGE(P(WorkerInfo), W(worker_info), memory, W(memory), &memory_table, 0),
    FIELD_U64(P(WorkerInfo), W(worker_info), claimed_bytes),
    FIELD_U64(P(WorkerInfo), W(worker_info), stranger_bytes),
    FIELD_MESSAGES(P(WorkerInfo), W(worker_info), models, W(model_status), &model_status_table,
                   LIMIT_MODELS_PER_WORKER),
    FIELD_U32(P(WorkerInfo), W(worker_info), leases),
    FIELD_U64(P(WorkerInfo), W(worker_info), seen_ms),
    FIELD_U64(P(WorkerInfo), W(worker_info), tokens),
    FIELD_FIXED(P(WorkerInfo), W(worker_info), key_fingerprint, 0),
};

static const struct convert_message worker_info_table = {
    TABLE(worker_info),
};

static const struct convert_field list_workers_reply_fields[] = {
    FIELD_MESSAGES(P(ListWorkersReply), W(list_workers_reply), workers, W(worker_info),
                   &worker_info_table, LIMIT_WORKERS),
};

static const struct convert_message list_workers_reply_table = {
    TABLE(list_workers_reply),
};

static const struct convert_field model_info_fields[] = {
    FIELD_MESSAGE(P(ModelInfo), W(model_info), offer, W(model_offer), &model_offer_table, MUST),
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
    {9, "error", &error_table},
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
