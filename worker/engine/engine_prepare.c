/* The preparer: requests to token ids, so that a long prompt's tokenizing holds up no step. */
#include "worker/engine/engine_internal.h"

#include "common/check.h"

#include <string.h>

static enum err check_ids(const struct engine_job_state *job, const int32_t *ids, size_t count,
                          const char *what, struct errbuf *eb)
{
    uint32_t n_vocab = job->model->runtime->hparams.vocab_size;

    for (size_t i = 0; i < count; i++)
        if (ids[i] < 0 || (uint32_t)ids[i] >= n_vocab)
            return err_set(eb, ERR_INVALID, "%s id %zu is %d; the vocabulary has %u tokens", what,
                           i, ids[i], n_vocab);
    return ERR_OK;
}

bool job_is_end(const struct engine_job_state *job, int32_t id)
{
    const struct engine_job *q = &job->request;

    for (size_t i = 0; i < q->n_stop_tokens; i++)
        if (q->stop_tokens[i] == id)
            return true;
    return tokenizer_is_end(job->model->runtime->tokenizer, id) && !q->ignore_end;
}

static enum err append_ids(struct engine_job_state *job, const int32_t *ids, size_t count,
                           struct errbuf *eb)
{
    for (size_t i = 0; i < count; i++)
        if (tokens_append(&job->ids, ids[i]) != ERR_OK)
            return err_set(eb, ERR_NO_MEMORY, "no memory for %zu token ids", count);
    return ERR_OK;
}

static enum err prepare_text(struct engine_job_state *job, struct errbuf *eb)
{
    const struct tokenizer *t = job->model->runtime->tokenizer;
    const struct engine_job *q = &job->request;
    int32_t bos = tokenizer_bos(t);

    if (tokenizer_adds_bos(t) && bos >= 0 && append_ids(job, &bos, 1, eb) != ERR_OK)
        return ERR_NO_MEMORY;
    return tokenizer_encode(t, q->text, q->text_size,
                            q->text_special ? TOKENIZER_SPECIAL_PARSE : TOKENIZER_SPECIAL_PLAIN,
                            true, &job->ids, eb);
}

static enum err prepare_chat(struct engine_job_state *job, struct errbuf *eb)
{
    const struct runtime *r = job->model->runtime;

    if (r->chat == NULL)
        return err_set(eb, r->chat_err, "this model takes no chat messages: %s", r->chat_error);
    return chat_template_encode(r->chat, r->tokenizer, job->request.messages,
                                job->request.n_messages, true, &job->ids, eb);
}

static enum err prepare_prompt(struct engine_job_state *job, struct errbuf *eb)
{
    const struct engine_job *q = &job->request;
    uint32_t context = job->model->runtime->context_tokens;
    enum err err = ERR_INTERNAL;

    switch (q->prompt_kind) {
    case ENGINE_PROMPT_IDS:
        err = check_ids(job, q->prompt_ids, q->n_prompt_ids, "prompt", eb);
        if (err == ERR_OK)
            err = append_ids(job, q->prompt_ids, q->n_prompt_ids, eb);
        break;
    case ENGINE_PROMPT_TEXT:
        err = prepare_text(job, eb);
        break;
    case ENGINE_PROMPT_CHAT:
        err = prepare_chat(job, eb);
        break;
    }
    if (err != ERR_OK)
        return err;
    if (job->ids.count == 0)
        return err_set(eb, ERR_INVALID, "the prompt is empty: there is no token to go on from");
    if (job->ids.count >= context)
        return err_set(eb, ERR_TOO_LARGE,
                       "the prompt has %zu tokens; a context of %u has no room for an answer",
                       job->ids.count, context);
    job->n_prompt = (uint32_t)job->ids.count;
    job->usage.prompt_tokens = job->n_prompt;
    return ERR_OK;
}

/* The answer is over with the last resume id, or not yet (NONE). */
static enum err replay_resume(struct engine_job_state *job, enum engine_finish *ret_finish,
                              struct errbuf *eb)
{
    const struct engine_job *q = &job->request;
    const struct runtime *r = job->model->runtime;
    size_t room = r->context_tokens - job->n_prompt;
    struct buf bytes;
    enum err err = check_ids(job, q->resume_ids, q->n_resume_ids, "resume", eb);

    *ret_finish = ENGINE_FINISH_NONE;
    if (err == ERR_OK && q->n_resume_ids > room)
        err = err_set(eb, ERR_INVALID, "%zu resume ids; the context has room for %zu",
                      q->n_resume_ids, room);
    if (err != ERR_OK)
        return err;
    buf_init(&bytes);
    for (size_t i = 0; i < q->n_resume_ids && err == ERR_OK; i++) {
        bool is_end = job_is_end(job, q->resume_ids[i]);
        if (*ret_finish != ENGINE_FINISH_NONE) {
            err = err_set(eb, ERR_INVALID, "resume id %zu ends the answer, and %zu more follow",
                          i - 1, q->n_resume_ids - i);
            break;
        }
        buf_clear(&bytes);
        if (!is_end)
            tokenizer_decode(r->tokenizer, q->resume_ids[i], false, false, &bytes);
        err = bytes.failed ? ERR_NO_MEMORY : stream_push(&job->stream, bytes.data, bytes.size);
        if (is_end || stream_stopped(&job->stream))
            *ret_finish = ENGINE_FINISH_STOP;
    }
    buf_fini(&bytes);
    stream_drop(&job->stream);
    if (err == ERR_OK && *ret_finish == ENGINE_FINISH_NONE &&
        (q->n_resume_ids == q->max_tokens || q->n_resume_ids == room))
        *ret_finish = ENGINE_FINISH_LENGTH;
    return err;
}

/* NONE: the job goes on to the stepper. */
static enum err prepare(struct engine_job_state *job, enum engine_finish *ret_finish,
                        struct errbuf *eb)
{
    const struct engine_job *q = &job->request;
    size_t n_resume = q->n_resume_ids;
    enum engine_finish finish;
    enum err err = prepare_prompt(job, eb);

    if (err == ERR_OK)
        err = sampling_check_vocab(&q->sampling, job->model->runtime->hparams.vocab_size, eb);
    if (err == ERR_OK)
        err = check_ids(job, q->stop_tokens, q->n_stop_tokens, "stop", eb);
    if (err == ERR_OK)
        err = replay_resume(job, &finish, eb);
    if (err != ERR_OK)
        return err;
    *ret_finish = finish;
    if (finish != ENGINE_FINISH_NONE) {
        if (job->digest == NULL)
            return ERR_OK;
        /* All tokens are there, and only the digest is missing: the last one is drawn again. */
        job->redraw = true;
        job->redraw_id = q->resume_ids[--n_resume];
        job->finish = finish;
        *ret_finish = ENGINE_FINISH_NONE;
    }
    err = append_ids(job, q->resume_ids, n_resume, eb);
    /* From here on nobody looks at the request's texts. */
    arena_fini(&job->arena);
    arena_init(&job->arena, 0);
    return err;
}

void *engine_preparer_main(void *arg)
{
    struct engine *e = arg;

    for (;;) {
        enum engine_finish finish = ENGINE_FINISH_NONE;
        struct errbuf eb = {{0}};
        enum err err = ERR_OK;
        engine_lock(e);
        while (e->to_prepare.first == NULL && !atomic_load(&e->stop))
            CHECK(pthread_cond_wait(&e->prepare_wake, &e->lock) == 0);
        struct engine_job_state *job = job_list_pop(&e->to_prepare);
        engine_unlock(e);
        if (atomic_load(&e->stop))
            return NULL;
        if (!atomic_load(&job->cancelled))
            err = prepare(job, &finish, &eb);
        engine_lock(e);
        if (err != ERR_OK)
            job_end_locked(e, job, ENGINE_FINISH_ERROR, err, eb.text);
        else if (atomic_load(&job->cancelled))
            job_end_locked(e, job, ENGINE_FINISH_CANCELLED, ERR_OK, "");
        else if (finish != ENGINE_FINISH_NONE)
            job_end_locked(e, job, finish, ERR_OK, "");
        else
            job_list_push(&e->prepared, job);
        pthread_cond_signal(&e->step_wake);
        engine_unlock(e);
    }
}
