/*
 * wire_checks.c - the checks that no table can state: those that look at several fields of a
 * message.
 */
#include "proto/wire_tables.h"

#include "common/crypto.h"
#include "common/limits.h"
#include "common/shard_cut.h"
#include "proto/wire.h"

#include <inttypes.h>

static bool text_given(const char *text)
{
    return text != NULL && text[0] != '\0';
}

/* ---- sessions ---- */

static enum err signature_check(const struct wire_bytes *signature,
                                const struct convert_place *place)
{
    if (signature->size != 0 && signature->size != ED25519_SIGN_BYTES)
        return convert_refuse(place, ERR_INVALID, "signature", "%zu bytes, not %d", signature->size,
                              ED25519_SIGN_BYTES);
    return ERR_OK;
}

enum err wire_hello_check(const void *ours, const struct convert_place *place)
{
    const struct wire_hello *hello = ours;
    /* A worker's description always has a device: one without is an absent one. */
    bool described = text_given(hello->worker.device);
    bool wanted = hello->role == WIRE_ROLE_WORKER && hello->signature.size != 0;

    if (wanted && !described)
        return convert_refuse(place, ERR_INVALID, "worker",
                              "missing: a worker describes itself in its second Hello");
    if (!wanted && described)
        return convert_refuse(place, ERR_INVALID, "worker",
                              "only a worker describes itself, and only in its second Hello");
    return signature_check(&hello->signature, place);
}

enum err wire_hello_reply_check(const void *ours, const struct convert_place *place)
{
    const struct wire_hello_reply *reply = ours;
    uint8_t any = 0;

    for (size_t i = 0; i < sizeof reply->challenge; i++)
        any |= reply->challenge[i];
    if (!reply->established && any == 0)
        return convert_refuse(place, ERR_INVALID, "challenge",
                              "missing, though the session is not established");
    return signature_check(&reply->signature, place);
}

/* ---- models ---- */

enum err wire_model_offer_check(const void *ours, const struct convert_place *place)
{
    const struct wire_model_offer *offer = ours;
    struct shard_shape shape;
    struct errbuf why = {{0}};

    if (offer->shape.size == 0)
        return ERR_OK;
    enum err e = shard_shape_unpack(&shape, offer->shape.data, offer->shape.size, &why);
    if (e != ERR_OK)
        return convert_refuse(place, e, "shape", "%s", why.text);
    shard_shape_fini(&shape);
    return ERR_OK;
}

enum err wire_model_status_check(const void *ours, const struct convert_place *place)
{
    const struct wire_model_status *s = ours;

    if ((s->gang == 0) != (s->ranks == 0))
        return convert_refuse(place, ERR_INVALID, "ranks", "%" PRIu32 " ranks of gang %" PRIu64,
                              s->ranks, s->gang);
    if (s->ranks > 0 ? s->rank >= s->ranks : s->rank > 0)
        return convert_refuse(place, ERR_INVALID, "rank", "%" PRIu32 " of %" PRIu32, s->rank,
                              s->ranks);
    return ERR_OK;
}

enum err wire_gang_place_check(const void *ours, const struct convert_place *place)
{
    const struct wire_gang_place *p = ours;

    if (p->gang == 0) {
        if (p->n_members != 0)
            return convert_refuse(place, ERR_INVALID, "gang", "missing, but there are members");
        return ERR_OK;
    }
    if (p->n_members == 0 || p->rank >= p->n_members)
        return convert_refuse(place, ERR_INVALID, "rank", "%" PRIu32 " of %zu members", p->rank,
                              p->n_members);
    if (p->stages == 0 || p->n_members % p->stages != 0)
        return convert_refuse(place, ERR_INVALID, "stages", "%" PRIu32 " of %zu members", p->stages,
                              p->n_members);
    if (p->transport == WIRE_GANG_TRANSPORT_UNSPECIFIED)
        return convert_refuse(place, ERR_INVALID, "transport", "missing");
    if ((p->transport == WIRE_GANG_TRANSPORT_NCCL) !=
        (p->control != WIRE_GANG_TRANSPORT_UNSPECIFIED))
        return convert_refuse(place, ERR_INVALID, "control",
                              p->transport == WIRE_GANG_TRANSPORT_NCCL
                                  ? "missing, though the transport stands on one"
                                  : "given, though the transport stands on none");
    return ERR_OK;
}

/* ---- jobs ---- */

enum err wire_logit_bias_check(const void *ours, const struct convert_place *place)
{
    const struct wire_logit_bias *b = ours;

    if (b->bias < -100.0f || b->bias > 100.0f)
        return convert_refuse(place, ERR_INVALID, "bias", "%g is not within -100 .. 100",
                              (double)b->bias);
    return ERR_OK;
}

enum err wire_sampling_check(const void *ours, const struct convert_place *place)
{
    const struct wire_sampling *s = ours;

    if (s->temperature < 0.0f || s->temperature > 100.0f)
        return convert_refuse(place, ERR_INVALID, "temperature", "%g is not within 0 .. 100",
                              (double)s->temperature);
    if (s->typical_p < 0.0f || s->typical_p > 1.0f)
        return convert_refuse(place, ERR_INVALID, "typical_p", "%g is not within 0 .. 1",
                              (double)s->typical_p);
    if (s->top_p <= 0.0f || s->top_p > 1.0f)
        return convert_refuse(place, ERR_INVALID, "top_p", "%g is not over 0 and at most 1",
                              (double)s->top_p);
    if (s->min_p < 0.0f || s->min_p >= 1.0f)
        return convert_refuse(place, ERR_INVALID, "min_p", "%g is not at least 0 and below 1",
                              (double)s->min_p);
    if (s->repetition_penalty < 0.01f || s->repetition_penalty > 100.0f)
        return convert_refuse(place, ERR_INVALID, "repetition_penalty",
                              "%g is not within 0.01 .. 100", (double)s->repetition_penalty);
    if (s->presence_penalty < -2.0f || s->presence_penalty > 2.0f)
        return convert_refuse(place, ERR_INVALID, "presence_penalty", "%g is not within -2 .. 2",
                              (double)s->presence_penalty);
    if (s->frequency_penalty < -2.0f || s->frequency_penalty > 2.0f)
        return convert_refuse(place, ERR_INVALID, "frequency_penalty", "%g is not within -2 .. 2",
                              (double)s->frequency_penalty);
    for (size_t i = 1; i < s->n_logit_bias; i++)
        if (s->logit_bias[i].id <= s->logit_bias[i - 1].id)
            return convert_refuse(place, ERR_INVALID, "logit_bias",
                                  "token %" PRIu32 " does not come after %" PRIu32,
                                  s->logit_bias[i].id, s->logit_bias[i - 1].id);
    return ERR_OK;
}

/* Exactly the part that prompt_kind names. */
static enum err prompt_check(const struct wire_job *job, const struct convert_place *place)
{
    static const char *const parts[] = {"messages", "text", "prompt_ids"};
    const bool filled[] = {job->n_messages > 0, job->text.size > 0, job->n_prompt_ids > 0};
    size_t wanted = (size_t)job->prompt_kind - WIRE_PROMPT_KIND_CHAT;

    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        if (i == wanted && !filled[i])
            return convert_refuse(place, ERR_INVALID, parts[i],
                                  "empty, though prompt_kind says that it holds the prompt");
        if (i != wanted && filled[i])
            return convert_refuse(place, ERR_INVALID, parts[i],
                                  "given, though prompt_kind says that %s holds the prompt",
                                  parts[wanted]);
    }
    size_t bytes = job->text.size;
    for (size_t i = 0; i < job->n_messages; i++)
        bytes += job->messages[i].content.size;
    if (bytes > LIMIT_PROMPT_BYTES)
        return convert_refuse(place, ERR_TOO_LARGE, parts[wanted],
                              "%zu bytes of text are over LIMIT_PROMPT_BYTES (%u)", bytes,
                              LIMIT_PROMPT_BYTES);
    return ERR_OK;
}

enum err wire_job_check(const void *ours, const struct convert_place *place)
{
    const struct wire_job *job = ours;

    if (job->priority > 9)
        return convert_refuse(place, ERR_INVALID, "priority", "%" PRIu32 " is not within 0 .. 9",
                              job->priority);
    if (job->top_logprobs > 0 && !job->logprobs)
        return convert_refuse(place, ERR_INVALID, "top_logprobs",
                              "%" PRIu32 ", but logprobs are not asked for", job->top_logprobs);
    return prompt_check(job, place);
}

/* ---- leases and watching ---- */

enum err wire_pull_reply_check(const void *ours, const struct convert_place *place)
{
    const struct wire_pull_reply *reply = ours;

    for (size_t i = 1; i < reply->n_commands; i++)
        if (reply->commands[i].seq <= reply->commands[i - 1].seq)
            return convert_refuse(place, ERR_INVALID, "commands",
                                  "seq %" PRIu64 " does not come after %" PRIu64,
                                  reply->commands[i].seq, reply->commands[i - 1].seq);
    return ERR_OK;
}

/* `first` is within the limit already, so that the sum cannot wrap. */
static enum err tokens_check(uint32_t first, size_t n_ids, const struct convert_place *place)
{
    if (first + n_ids > LIMIT_MAX_TOKENS)
        return convert_refuse(place, ERR_TOO_LARGE, "ids",
                              "%zu tokens from %" PRIu32 " on pass LIMIT_MAX_TOKENS (%u)", n_ids,
                              first, LIMIT_MAX_TOKENS);
    return ERR_OK;
}

bool wire_text_sizes_fit(const int32_t *text_sizes, size_t n_text_sizes, size_t n_ids,
                         size_t text_size)
{
    size_t sum = 0;
    for (size_t i = 0; i < n_text_sizes; i++)
        sum += (size_t)text_sizes[i];
    return n_text_sizes == 0 || (n_text_sizes == n_ids && sum <= text_size);
}

enum err wire_lease_progress_check(const void *ours, const struct convert_place *place)
{
    const struct wire_lease_progress *progress = ours;

    if ((progress->finish == WIRE_FINISH_ERROR) != (progress->error.code != 0))
        return convert_refuse(place, ERR_INVALID, "error",
                              "an error and finish ERROR come together or not at all");
    if (!wire_text_sizes_fit(progress->text_sizes, progress->n_text_sizes, progress->n_ids,
                             progress->text.size))
        return convert_refuse(place, ERR_INVALID, "text_sizes",
                              "%zu sizes are not those of %zu ids and %zu bytes of text",
                              progress->n_text_sizes, progress->n_ids, progress->text.size);
    if (progress->n_logprobs > 0 && progress->n_logprobs != progress->n_ids)
        return convert_refuse(place, ERR_INVALID, "logprobs", "%zu are not those of %zu ids",
                              progress->n_logprobs, progress->n_ids);
    return tokens_check(progress->first, progress->n_ids, place);
}

enum err wire_watch_reply_check(const void *ours, const struct convert_place *place)
{
    const struct wire_watch_reply *reply = ours;

    if (reply->end && !wire_job_state_is_end(reply->state))
        return convert_refuse(place, ERR_INVALID, "end", "said of a job that is %s",
                              wire_job_state_name(reply->state));
    if (reply->n_logprobs > 0 && reply->n_logprobs != reply->n_ids)
        return convert_refuse(place, ERR_INVALID, "logprobs", "%zu are not those of %zu ids",
                              reply->n_logprobs, reply->n_ids);
    return tokens_check(reply->first, reply->n_ids, place);
}

/* ---- questions ---- */

enum err wire_list_jobs_check(const void *ours, const struct convert_place *place)
{
    const struct wire_list_jobs *list = ours;
    const uint32_t known = (1u << (WIRE_JOB_STATE_EXPIRED + 1)) - (1u << WIRE_JOB_STATE_QUEUED);

    if ((list->states & ~known) != 0)
        return convert_refuse(place, ERR_INVALID, "states",
                              "0x%" PRIx32 " has bits that are no state", list->states);
    if (list->after.size != 0 && list->after.size != ID_BYTES)
        return convert_refuse(place, ERR_INVALID, "after", "%zu bytes, not %d", list->after.size,
                              ID_BYTES);
    return ERR_OK;
}

static bool day_valid(uint32_t day)
{
    uint32_t month = day / 100 % 100;
    uint32_t of_month = day % 100;
    return day == 0 || (day >= 10000000 && day <= 99991231 && month >= 1 && month <= 12 &&
                        of_month >= 1 && of_month <= 31);
}

enum err wire_usage_check(const void *ours, const struct convert_place *place)
{
    const struct wire_usage *usage = ours;

    if (!day_valid(usage->day_from))
        return convert_refuse(place, ERR_INVALID, "day_from", "%" PRIu32 " is no day (yyyymmdd)",
                              usage->day_from);
    if (!day_valid(usage->day_to))
        return convert_refuse(place, ERR_INVALID, "day_to", "%" PRIu32 " is no day (yyyymmdd)",
                              usage->day_to);
    if (usage->day_from != 0 && usage->day_to != 0 && usage->day_from > usage->day_to)
        return convert_refuse(place, ERR_INVALID, "day_from",
                              "%" PRIu32 " is after day_to (%" PRIu32 ")", usage->day_from,
                              usage->day_to);
    return ERR_OK;
}
