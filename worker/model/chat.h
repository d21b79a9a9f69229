/*
 * chat.h - chat messages to prompt tokens, for the templates we know: ChatML (with SmolLM2's
 * default system prompt where the file's template has one), Llama 3, Gemma, Mistral (v1, v3,
 * v3-tekken, v7). The template is recognised from `tokenizer.chat_template`; anything else is
 * refused by what was and was not found in it, never guessed.
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

/* The rendered text, for people and tests (control tokens as their text). */
enum err chat_template_render(const struct chat_template *c, const struct chat_message *messages,
                              size_t n_messages, bool add_generation_prompt, struct buf *ret_text,
                              struct errbuf *eb);
/* Appends the prompt's ids, BOS included where the template or file wants it. ERR_INVALID names
 * the message where a role or the order of roles is one the template has no place for. */
enum err chat_template_encode(const struct chat_template *c, const struct tokenizer *t,
                              const struct chat_message *messages, size_t n_messages,
                              bool add_generation_prompt, struct tokens *tokens, struct errbuf *eb);

#endif
