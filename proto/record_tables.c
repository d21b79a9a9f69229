#include "proto/record_tables.h"

#include "common/limits.h"
#include "proto/convert_table.h"
#include "proto/record.h"
#include "proto/record.pb-c.h"
#include "proto/wire.h"

#define P(message) Cloister__Record__##message
#define W(message) struct record_##message
#define MUST       CONVERT_REQUIRED
#define TABLE(m)                                                                                   \
    .descriptor = &cloister__record__##m##_record__descriptor, .fields = m##_fields,               \
    .n_fields = sizeof m##_fields / sizeof m##_fields[0], .size = sizeof(struct record_##m)

/* The enums are said twice, in record.h and in the .proto file; their last values must agree. */
_Static_assert((int)RECORD_LEDGER_METER == (int)CLOISTER__RECORD__LEDGER_KIND__LEDGER_KIND_METER,
               "LedgerKind");
_Static_assert((int)RECORD_COUNT_SOURCE_ENGINE ==
                   (int)CLOISTER__RECORD__COUNT_SOURCE__COUNT_SOURCE_ENGINE,
               "CountSource");

static const struct convert_field job_fields[] = {
    FIELD_ID(P(JobRecord), W(job), job_id, MUST),
    FIELD_FIXED(P(JobRecord), W(job), content_digest, 0),
    FIELD_NAME(P(JobRecord), W(job), tenant, 0),
    FIELD_NAME(P(JobRecord), W(job), model, 0),
    FIELD_ENUM(P(JobRecord), W(job), state, WIRE_JOB_STATE_EXPIRED, MUST),
    FIELD_ENUM(P(JobRecord), W(job), job_class, WIRE_JOB_CLASS_BATCH, 0),
    FIELD_U32(P(JobRecord), W(job), priority),
    FIELD_U32(P(JobRecord), W(job), max_tokens),
    FIELD_U64(P(JobRecord), W(job), submit_order),
    FIELD_U64(P(JobRecord), W(job), submitted_wall_ns),
    FIELD_U64(P(JobRecord), W(job), deadline_wall_ns),
    FIELD_U64(P(JobRecord), W(job), started_wall_ns),
    FIELD_U64(P(JobRecord), W(job), ended_wall_ns),
    FIELD_U32(P(JobRecord), W(job), attempts),
    FIELD_U64(P(JobRecord), W(job), lease_epoch),
    FIELD_NAME(P(JobRecord), W(job), worker, 0),
    FIELD_U32(P(JobRecord), W(job), prompt_tokens),
    FIELD_U32(P(JobRecord), W(job), prompt_cached),
    FIELD_U64(P(JobRecord), W(job), prompt_computed),
    FIELD_U32(P(JobRecord), W(job), tokens),
    FIELD_U64(P(JobRecord), W(job), text_bytes),
    FIELD_U64(P(JobRecord), W(job), computed_tokens),
    FIELD_U64(P(JobRecord), W(job), queue_us),
    FIELD_U64(P(JobRecord), W(job), prefill_us),
    FIELD_U64(P(JobRecord), W(job), decode_us),
    FIELD_ENUM(P(JobRecord), W(job), finish, WIRE_FINISH_ERROR, 0),
    FIELD_U32(P(JobRecord), W(job), error_code),
    FIELD_STRING(P(JobRecord), W(job), error_text, LIMIT_ERROR_TEXT_BYTES, CONVERT_PROSE),
    FIELD_U64(P(JobRecord), W(job), reserved_tokens),
    FIELD_U64(P(JobRecord), W(job), reserve_seq),
    FIELD_U64(P(JobRecord), W(job), settle_seq),
    FIELD_BOOL(P(JobRecord), W(job), cancel_on_disconnect),
    FIELD_NAME(P(JobRecord), W(job), project, 0),
    FIELD_NAME(P(JobRecord), W(job), cost_center, 0),
    FIELD_NAME(P(JobRecord), W(job), principal, 0),
    FIELD_FIXED(P(JobRecord), W(job), key_fingerprint, 0),
    FIELD_U64(P(JobRecord), W(job), prompt_tokens_bound),
    FIELD_U32(P(JobRecord), W(job), deaths),
    FIELD_U64(P(JobRecord), W(job), attempt_prompt_computed),
    FIELD_U64(P(JobRecord), W(job), attempt_computed_tokens),
    FIELD_U64(P(JobRecord), W(job), attempt_queue_us),
    FIELD_U64(P(JobRecord), W(job), attempt_prefill_us),
    FIELD_U64(P(JobRecord), W(job), attempt_decode_us),
};

const struct convert_message record_job_table = {TABLE(job)};

static const struct convert_field chunk_fields[] = {
    FIELD_IDS(P(ChunkRecord), W(chunk), ids, LIMIT_TOKENS_PER_FRAME),
    FIELD_BYTES_PAIR(P(ChunkRecord), W(chunk), text, LIMIT_FRAME_BYTES),
    FIELD_IDS(P(ChunkRecord), W(chunk), text_sizes, LIMIT_TOKENS_PER_FRAME),
    FIELD_BYTES_LIST(P(ChunkRecord), W(chunk), logprobs, LIMIT_TOKENS_PER_FRAME,
                     LIMIT_LOGPROBS_BYTES, 0),
};

static enum err chunk_check(const void *ours, const struct convert_place *place)
{
    const struct record_chunk *c = ours;
    if (!wire_text_sizes_fit(c->text_sizes, c->n_text_sizes, c->n_ids, c->text_size))
        return convert_refuse(place, ERR_INVALID, "text_sizes",
                              "not those of %zu ids and %zu bytes", c->n_ids, c->text_size);
    if (c->n_logprobs > 0 && c->n_logprobs != c->n_ids)
        return convert_refuse(place, ERR_INVALID, "logprobs", "%zu are not those of %zu ids",
                              c->n_logprobs, c->n_ids);
    return ERR_OK;
}

const struct convert_message record_chunk_table = {TABLE(chunk), .check = chunk_check};

static const struct convert_field usage_fields[] = {
    FIELD_NAME(P(UsageRecord), W(usage), tenant, 0),
    FIELD_NAME(P(UsageRecord), W(usage), model, 0),
    FIELD_U32(P(UsageRecord), W(usage), day),
    FIELD_U64(P(UsageRecord), W(usage), jobs),
    FIELD_U64(P(UsageRecord), W(usage), prompt_tokens),
    FIELD_U64(P(UsageRecord), W(usage), prompt_cached),
    FIELD_U64(P(UsageRecord), W(usage), completion_tokens),
    FIELD_U64(P(UsageRecord), W(usage), computed_tokens),
};

const struct convert_message record_usage_table = {TABLE(usage)};

static const struct convert_field balance_fields[] = {
    FIELD_NAME(P(BalanceRecord), W(balance), tenant, 0),
    FIELD_U64(P(BalanceRecord), W(balance), reserved_tokens),
    FIELD_U64(P(BalanceRecord), W(balance), settled_tokens),
};

const struct convert_message record_balance_table = {TABLE(balance)};

static const struct convert_field learned_fields[] = {
    FIELD_NAME(P(LearnedRecord), W(learned), model, 0),
    FIELD_FIXED(P(LearnedRecord), W(learned), weights_digest, 0),
    FIELD_U64(P(LearnedRecord), W(learned), predicted_bytes),
    FIELD_U64(P(LearnedRecord), W(learned), measured_bytes),
    FIELD_U64(P(LearnedRecord), W(learned), load_ms),
    FIELD_U32(P(LearnedRecord), W(learned), prefill_tokens_per_s),
    FIELD_U32(P(LearnedRecord), W(learned), decode_tokens_per_s),
    FIELD_FIXED(P(LearnedRecord), W(learned), tokenizer_digest, 0),
    FIELD_NAME(P(LearnedRecord), W(learned), architecture, 0),
    FIELD_NAME(P(LearnedRecord), W(learned), quantization, 0),
    FIELD_U64(P(LearnedRecord), W(learned), parameters),
    FIELD_U64(P(LearnedRecord), W(learned), file_bytes),
    FIELD_U32(P(LearnedRecord), W(learned), context_tokens),
    FIELD_U64(P(LearnedRecord), W(learned), weights_bytes),
    FIELD_U64(P(LearnedRecord), W(learned), kv_bytes),
    FIELD_U64(P(LearnedRecord), W(learned), scratch_bytes),
    FIELD_NAME(P(LearnedRecord), W(learned), chat_template, 0),
    FIELD_U32(P(LearnedRecord), W(learned), prompt_tokens_per_job),
    FIELD_U32(P(LearnedRecord), W(learned), prompt_tokens_per_message),
    FIELD_U32(P(LearnedRecord), W(learned), prompt_tokens_per_kib),
};

const struct convert_message record_learned_table = {TABLE(learned)};

static const struct convert_field ledger_fields[] = {
    FIELD_U32(P(LedgerRecord), W(ledger), schema),
    FIELD_ENUM(P(LedgerRecord), W(ledger), kind, RECORD_LEDGER_METER, MUST),
    FIELD_U64(P(LedgerRecord), W(ledger), seq),
    FIELD_NAME(P(LedgerRecord), W(ledger), node, 0),
    FIELD_U64(P(LedgerRecord), W(ledger), boot_epoch),
    FIELD_U64(P(LedgerRecord), W(ledger), wall_ns),
    FIELD_U64(P(LedgerRecord), W(ledger), mono_ns),
    FIELD_ID(P(LedgerRecord), W(ledger), job_id, 0),
    FIELD_U32(P(LedgerRecord), W(ledger), attempt),
    FIELD_NAME(P(LedgerRecord), W(ledger), tenant, 0),
    FIELD_NAME(P(LedgerRecord), W(ledger), project, 0),
    FIELD_NAME(P(LedgerRecord), W(ledger), cost_center, 0),
    FIELD_NAME(P(LedgerRecord), W(ledger), principal, 0),
    FIELD_FIXED(P(LedgerRecord), W(ledger), key_fingerprint, 0),
    FIELD_NAME(P(LedgerRecord), W(ledger), model, 0),
    FIELD_FIXED(P(LedgerRecord), W(ledger), weights_digest, 0),
    FIELD_FIXED(P(LedgerRecord), W(ledger), tokenizer_digest, 0),
    FIELD_NAME(P(LedgerRecord), W(ledger), engine_build, 0),
    FIELD_NAME(P(LedgerRecord), W(ledger), quantization, 0),
    FIELD_U32(P(LedgerRecord), W(ledger), shards),
    FIELD_NAME(P(LedgerRecord), W(ledger), worker, 0),
    FIELD_U64(P(LedgerRecord), W(ledger), seed),
    FIELD_FIXED(P(LedgerRecord), W(ledger), sampling_digest, 0),
    FIELD_U32(P(LedgerRecord), W(ledger), max_tokens),
    FIELD_U64(P(LedgerRecord), W(ledger), reserved_tokens),
    FIELD_U64(P(LedgerRecord), W(ledger), reserve_seq),
    FIELD_ENUM(P(LedgerRecord), W(ledger), count_source, RECORD_COUNT_SOURCE_ENGINE, 0),
    FIELD_U64(P(LedgerRecord), W(ledger), prompt_tokens),
    FIELD_U64(P(LedgerRecord), W(ledger), prompt_cached),
    FIELD_U64(P(LedgerRecord), W(ledger), prompt_computed),
    FIELD_U64(P(LedgerRecord), W(ledger), completion_computed),
    FIELD_U64(P(LedgerRecord), W(ledger), completion_delivered),
    FIELD_U64(P(LedgerRecord), W(ledger), completion_billable),
    FIELD_U32(P(LedgerRecord), W(ledger), policy_id),
    FIELD_ENUM(P(LedgerRecord), W(ledger), finish, WIRE_FINISH_ERROR, 0),
    FIELD_ENUM(P(LedgerRecord), W(ledger), outcome, WIRE_JOB_STATE_EXPIRED, 0),
    FIELD_FIXED(P(LedgerRecord), W(ledger), prompt_hash, 0),
    FIELD_FIXED(P(LedgerRecord), W(ledger), output_hash, 0),
    FIELD_U64(P(LedgerRecord), W(ledger), queue_us),
    FIELD_U64(P(LedgerRecord), W(ledger), prefill_us),
    FIELD_U64(P(LedgerRecord), W(ledger), decode_us),
    FIELD_FIXED(P(LedgerRecord), W(ledger), public_key, 0),
    FIELD_NAME(P(LedgerRecord), W(ledger), device, 0),
    FIELD_U64(P(LedgerRecord), W(ledger), energy_mj),
};

const struct convert_message record_ledger_table = {TABLE(ledger)};
