/* What requests and replies both speak of: models, memory, a job, what it computed, an error. */
#include "proto/wire_tables_parts.h"

#include "common/limits.h"
#include "common/shard_cut.h"
#include "proto/cloister.pb-c.h"
#include "proto/convert_table.h"
#include "proto/wire.h"

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
_Static_assert((int)WIRE_GANG_TRANSPORT_NCCL == (int)CLOISTER__GANG_TRANSPORT__GANG_TRANSPORT_NCCL,
               "GangTransport");
_Static_assert((int)WIRE_WORKER_STATE_GONE == (int)CLOISTER__WORKER_STATE__WORKER_STATE_GONE,
               "WorkerState");

#define ROOM(field) FIELD_U64_MAX(P(ShardRoom), struct shard_room, field, SHARD_ROOM_MAX)
#define ROOM_COUNT(field)                                                                          \
    FIELD_U32_MAX(P(ShardRoom), struct shard_room, field, SHARD_ROOM_COUNT_MAX)
static const struct convert_field shard_room_fields[] = {
    ROOM(embedding_bytes),    ROOM(output_bytes),        ROOM(joint_bytes),
    ROOM(down_bytes),         ROOM_COUNT(joint_block),   ROOM_COUNT(down_block),
    ROOM_COUNT(joint_tail),   ROOM_COUNT(down_tail),     ROOM_COUNT(head_columns),
    ROOM(biases_bytes),       ROOM(every_bytes),         ROOM(first_bytes),
    ROOM(layer_bytes),        ROOM(head_bytes),          ROOM(kv_head_bytes),
    ROOM(column_bytes),       ROOM(level_bytes),         ROOM(levels_bytes),
    ROOM(attention_bytes),    ROOM(partial_bytes),       ROOM(partials_bytes),
    ROOM_COUNT(partial_rows), ROOM_COUNT(partial_units), ROOM(told_bytes),
    ROOM(logits_bytes),       ROOM(row_bytes),           ROOM(track_bytes),
    ROOM_COUNT(rows),         ROOM_COUNT(piece_rows),
};
#undef ROOM
#undef ROOM_COUNT

static const struct convert_message shard_room_table = {
    .descriptor = &cloister__shard_room__descriptor,
    .fields = shard_room_fields,
    .n_fields = COUNT(shard_room_fields),
    .size = sizeof(struct shard_room),
};

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
    FIELD_BYTES(P(ModelOffer), W(model_offer), shape, LIMIT_SHAPE_BYTES, 0),
    FIELD_STRING(P(ModelOffer), W(model_offer), gang_settings, LIMIT_ERROR_TEXT_BYTES,
                 CONVERT_NAME),
    FIELD_U64(P(ModelOffer), W(model_offer), rank_bytes),
    FIELD_MESSAGE(P(ModelOffer), W(model_offer), room, struct shard_room, &shard_room_table, 0),
};

const struct convert_message wire_model_offer_table = {
    TABLE(model_offer),
    .check = wire_model_offer_check,
};

static const struct convert_field memory_fields[] = {
    FIELD_U64(P(Memory), W(memory), total_bytes),
    FIELD_U64(P(Memory), W(memory), free_bytes),
    FIELD_U64(P(Memory), W(memory), budget_bytes),
    FIELD_U64(P(Memory), W(memory), used_bytes),
};

const struct convert_message wire_memory_table = {
    TABLE(memory),
};

static const struct convert_field gpu_fields[] = {
    FIELD_NAME(P(Gpu), W(gpu), uuid, 0),
    FIELD_NAME(P(Gpu), W(gpu), pci, 0),
    FIELD_NAME(P(Gpu), W(gpu), driver, 0),
    FIELD_U32(P(Gpu), W(gpu), known),
    FIELD_U32(P(Gpu), W(gpu), utilization_percent),
    FIELD_U64(P(Gpu), W(gpu), power_mw),
    FIELD_U64(P(Gpu), W(gpu), energy_mj),
    FIELD_U32(P(Gpu), W(gpu), temperature_c),
    FIELD_U64(P(Gpu), W(gpu), ecc_uncorrected),
    FIELD_U64(P(Gpu), W(gpu), xid),
    FIELD_U32(P(Gpu), W(gpu), stranger_processes),
    FIELD_U64(P(Gpu), W(gpu), stranger_process_bytes),
    FIELD_STRING(P(Gpu), W(gpu), trouble, LIMIT_ERROR_TEXT_BYTES, CONVERT_PROSE),
};

const struct convert_message wire_gpu_table = {
    TABLE(gpu),
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
    FIELD_U64(P(ModelStatus), W(model_status), gang),
    FIELD_U32_MAX(P(ModelStatus), W(model_status), rank, SHARD_RANKS_MAX),
    FIELD_U32_MAX(P(ModelStatus), W(model_status), ranks, SHARD_RANKS_MAX),
    FIELD_U64(P(ModelStatus), W(model_status), exchange_bytes),
};

const struct convert_message wire_model_status_table = {
    TABLE(model_status),
    .check = wire_model_status_check,
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

const struct convert_message wire_work_usage_table = {
    TABLE(work_usage),
};

static const struct convert_field error_fields[] = {
    FIELD_U32_HOW(P(Error), W(error), code, MUST),
    FIELD_STRING(P(Error), W(error), text, LIMIT_ERROR_TEXT_BYTES, CONVERT_PROSE),
    FIELD_BOOL(P(Error), W(error), retryable),
    FIELD_U64(P(Error), W(error), retry_after_ms),
};

const struct convert_message wire_error_table = {
    TABLE(error),
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
