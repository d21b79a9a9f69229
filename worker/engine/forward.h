/*
 * forward.h - one step of a decoder over a backend's operations.
 *
 * For each layer: norm; q, k, v; norms of heads; rotation and cache; attention; output, normed or
 * not, added to the residual; norm; gate and up; activation; down, normed or not, added to the
 * residual. Then the head, for the rows whose logits are wanted. A stage of a gang does so with the
 * layers that it has, one piece of the step's rows after another (gang.h). Everything that differs
 * between models is data: sizes, windows and scales in `struct model_hparams`, norms and biases by
 * being there or not. No architecture is known here by name.
 *
 * Source: Touvron et al., "LLaMA", 2023; Ainslie et al., "GQA", 2023.
 * Thread: the runtime's owner.
 */
#ifndef CLOISTER_WORKER_ENGINE_FORWARD_H
#define CLOISTER_WORKER_ENGINE_FORWARD_H

#include "worker/engine/batch.h"
#include "worker/engine/runtime.h"

/* Computes the plan's rows, or a rank's share of them; logits row i of the plan is at logits + i *
 * vocab_size afterwards, unless it owes them. Fails only where the runtime is a rank of a gang, and
 * the gang is over then. */
enum err forward_step(struct runtime *r, const struct batch_plan *plan, struct errbuf *eb);
/* The model's last stage is elsewhere: the plan's logits come when they are collected, and other
 * steps may begin before that (gang.h says how many). */
bool forward_owes_logits(const struct runtime *r, const struct batch_plan *plan);
/* Waits for the logits of the oldest step that owes them. */
enum err forward_collect(struct runtime *r, const struct batch_plan *plan, struct errbuf *eb);

/* Ranks other than 0: hears of the next step and computes this rank's share of it, or returns after
 * a while in which there was none. */
enum err forward_follow(struct runtime *r, struct errbuf *eb);

/* One row of logits, until the next step: one of which the step's `picks` want all. Several threads
 * may ask at once. */
const float *forward_logits(struct runtime *r, uint32_t row);
/* What was picked of another row, likewise. */
const struct picked *forward_picked(struct runtime *r, uint32_t row);
/* A copy of any row, the backend being waited for. */
void forward_logits_read(struct runtime *r, uint32_t row, float *ret_logits);

#endif
