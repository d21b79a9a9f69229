/*
 * fuzz_gang: any bytes as steps that rank 0 tells another rank, one after the other: each has its
 * length before it, in two bytes. What is refused says why, and the gang would end there; what is
 * taken can be computed: tokens, sequences, positions and the pages behind them are all there are.
 */
#include "common/check.h"
#include "worker/engine/gang_told.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct gang_limits limits = {
    .context_tokens = 250,
    .rows = 24,
    .logits_rows = 4,
    .sequences = 4,
    .sequence_pages = 8,
    .kv_pages = 16,
};

static void check_plan(const struct gang_told *t, const struct batch_plan *plan)
{
    CHECK(plan->n_rows <= limits.rows && plan->n_logits <= limits.logits_rows);
    CHECK(plan->n_logits <= plan->n_rows);
    for (uint32_t i = 0; i < plan->n_rows; i++) {
        CHECK((uint32_t)plan->ids[i] < t->vocab && plan->slot[i] < limits.sequences);
        CHECK(plan->position[i] < limits.context_tokens);
        for (uint32_t k = 0; k <= plan->position[i] / KV_PAGE_TOKENS; k++)
            CHECK(plan->pages[plan->slot[i] * plan->pages_stride + k] < limits.kv_pages);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const size_t pages = (size_t)limits.sequences * limits.sequence_pages * sizeof(uint32_t);
    struct gang_told t = {.limits = &limits,
                          .vocab = 300,
                          .pages = malloc(pages),
                          .words = malloc(gang_told_bytes(&limits))};
    enum err e = ERR_OK;

    CHECK(t.pages != NULL && t.words != NULL);
    memset(t.pages, 0xff, pages);
    for (size_t at = 0; e == ERR_OK && size - at >= 2;) {
        struct errbuf eb = {{0}};
        struct batch_plan plan;
        size_t step = data[at] | (size_t)data[at + 1] << 8;
        at += 2;
        step = step < size - at ? step : size - at;
        e = gang_told_take(&t, data + at, step, &plan, &eb);
        at += step;
        if (e == ERR_OK)
            check_plan(&t, &plan);
        else
            CHECK(eb.text[0] != '\0');
    }
    free(t.pages);
    free(t.words);
    return 0;
}
