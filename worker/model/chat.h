/*
 * chat.h - chat messages to prompt tokens, for the templates we know: ChatML (with the default
 * system prompt of SmolLM2, Qwen 2 and others where the file's template has one), Llama 3 (and 3.1
 * with its dates), Gemma (2 and 3), Mistral (v1, v3, v3-tekken, v7, v7-tekken). The template is
 * recognised from `tokenizer.chat_template` by the exact text it makes of one message; anything
 * else is refused by what was and was not found in it, never guessed.
 *
 * A recognised template is rendered as its Jinja source says: trimming, the place of the system
 * message, and the orders of roles that it raises an exception for.
 *
 * Control tokens are put only by the template. User text is tokenized as plain text: "<|im_end|>"
 * in a message is eight or so ordinary tokens.
 *
 * Ownership: caller's. Thread: any.
 */
#ifndef CLOISTER_WORKER_MODEL_CHAT_H
#define CLOISTER_WORKER_MODEL_CHAT_H

#include "common/err.h"
#include "worker/model/tokenizer.h"

#include <stdbool.h>
#include <stddef.h>

struct chat_message {
    const char *role; /* "system", "user", "assistant" */
    size_t role_size;
    const char *content;
    size_t content_size;
};

struct chat_template; /* which known template, and its variant */

/* ERR_UNSUPPORTED where the file has no template or one that is not recognised. */
enum err chat_template_open(struct chat_template **ret_template, const struct gguf *g,
                            const struct tokenizer *t, struct errbuf *eb);
void chat_template_close(struct chat_template *c);
const char *chat_template_name(const struct chat_template *c); /* "chatml", "llama3", ... */

/* The most tokens that a prompt for this model can become:
 *   per_job + per_message * messages + per_kib * bytes / 1024, rounded up,
 * where the bytes are those of the text, or of the messages' contents. Each is at most its bound on
 * the wire (LIMIT_CONTEXT_TOKENS, LIMIT_TOKENS_PER_KIB). `c` is NULL where the model takes
 * raw text only. ERR_NO_MEMORY. */
struct prompt_bound {
    uint32_t per_job;     /* BOS, a system message that the template brings, the answer's header */
    uint32_t per_message; /* its role and what stands around it */
    uint32_t per_kib;
};
enum err chat_prompt_bound(const struct chat_template *c, const struct tokenizer *t,
                           struct prompt_bound *ret_bound, struct errbuf *eb);

/* The text that chat_template_encode has the ids of, control tokens as their text, BOS left out.
 * For tests: what a template must give is known as text, of which ids are one vocabulary's. */
enum err chat_template_render(const struct chat_template *c, const struct chat_message *messages,
                              size_t n_messages, bool add_generation_prompt, struct buf *ret_text,
                              struct errbuf *eb);
/* Appends the prompt's ids, BOS included where the template or file wants it. `t` is the tokenizer
 * the template was opened with. ERR_INVALID names
 * the message where a role or the order of roles is one the template has no place for, and message
 * and byte where the vocabulary has no token for what is there. */
enum err chat_template_encode(const struct chat_template *c, const struct tokenizer *t,
                              const struct chat_message *messages, size_t n_messages,
                              bool add_generation_prompt, struct tokens *tokens, struct errbuf *eb);

#endif
