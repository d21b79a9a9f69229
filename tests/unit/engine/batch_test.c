#include "tests/unit/engine/batch_test.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

const struct batch_config batch_test_small = {
    .slots = 4,
    .waiting_max = 8,
    .pages = 10,
    .page_tokens = 4,
    .context_tokens = 32,
    .step_tokens = 8,
    .chunk_tokens = 8,
    .beside_tokens = 8,
    .logits_rows = 4,
    .headroom_pages = 10, /* as many as a job can need: nobody is preempted for pages */
    .pass_max = 3,
    .plans_max = 1,
};

int batch_test_owners[64];
struct batch_seq *batch_test_seqs[64];

struct batch *batch_test_open(const struct batch_config *config)
{
    struct batch *b = NULL;
    struct errbuf eb = {{0}};

    if (batch_new(&b, config, &eb) != ERR_OK)
        fail_msg("%s", eb.text);
    return b;
}

/* Job k has ids first, first + 1, ... */
enum err batch_test_add_more(struct batch *b, int k, uint32_t n_ids, uint32_t n_more,
                             struct batch_test_more more, struct errbuf *eb)
{
    int32_t ids[64], first = more.first != 0 ? more.first : 100 * k;
    struct batch_job job = {
        .owner = &batch_test_owners[k],
        .ids = ids,
        .n_ids = n_ids,
        .n_limit = n_ids + n_more,
        .logits_from = n_ids - 1,
        .job_class = more.job_class,
        .space = more.space,
    };

    for (uint32_t i = 0; i < n_ids; i++)
        ids[i] = first + (int32_t)i;
    return batch_add(b, &job, &batch_test_seqs[k], eb);
}

enum err batch_test_add(struct batch *b, int k, uint32_t n_ids, uint32_t n_more, struct errbuf *eb)
{
    return batch_test_add_more(b, k, n_ids, n_more, (struct batch_test_more){0}, eb);
}

static int batch_test_job(const struct batch_seq *seq)
{
    return (int)((int *)batch_owner(seq) - batch_test_owners);
}

/* The jobs that are admitted now, in order: "0 2". */
const char *batch_test_admitted(struct batch *b)
{
    static char text[256];
    struct batch_seq *seq;
    size_t n = 0;

    *text = 0;
    while ((seq = batch_admit(b)) != NULL)
        n += (size_t)sprintf(text + n, "%s%d", n == 0 ? "" : " ", batch_test_job(seq));
    return text;
}

/* "100 101 200!": ids in the order of rows, * where logits are wanted, ! where a token is drawn. */
void batch_test_text(const struct batch_plan *plan, char *text)
{
    *text = 0;
    for (uint32_t i = 0; i < plan->n_rows; i++) {
        uint32_t first = plan->n_rows - plan->n_logits;
        const char *mark = i < first ? "" : plan->draw[i - first] ? "!" : "*";
        text += sprintf(text, "%s%d%s", i == 0 ? "" : " ", plan->ids[i], mark);
    }
}

/* Job k draws 100 k + 50 and up, by position. */
void batch_test_commit(struct batch *b, const struct batch_plan *plan)
{
    int32_t drawn[64];

    for (uint32_t i = 0; i < plan->n_logits; i++)
        drawn[i] = 100 * batch_test_job(plan->logits_seq[i]) + 50 +
                   (int32_t)plan->position[plan->n_rows - plan->n_logits + i];
    batch_commit(b, drawn);
}
