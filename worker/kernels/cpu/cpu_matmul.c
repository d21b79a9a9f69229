/* The matrix products of one step as one list of tasks. */
#include "worker/kernels/cpu/cpu.h"

#include "common/check.h"

#define MATMUL_JOBS_MAX 8u

/* Panels (or 16 rows of a float type) begin .. end - 1 of job `job` are one task. */
struct matmul_run {
    const struct cpu_kernels *kernels;
    struct kernel_matmul jobs[MATMUL_JOBS_MAX];
    const struct weight *weights[MATMUL_JOBS_MAX];
    uint32_t panels[MATMUL_JOBS_MAX + 1]; /* running sum over the jobs */
    uint32_t n_jobs;
    uint32_t panels_per_task;
    float *room;
    size_t room_stride;
};

static void cpu_matmul_part(const struct matmul_run *run, uint32_t job, uint32_t begin,
                            uint32_t end, uint32_t thread)
{
    const struct kernel_matmul *m = &run->jobs[job];
    const struct weight *w = run->weights[job];
    if (!w->is_float) {
        run->kernels->matmul_panels[w->kind](m, begin, end, run->room + thread * run->room_stride);
        return;
    }
    uint32_t last = end * PANEL_ROWS < m->rows ? end * PANEL_ROWS : m->rows;
    run->kernels->matmul_rows(m, begin * PANEL_ROWS, last);
}

static void cpu_matmul_task(void *ctx, uint32_t task, uint32_t thread)
{
    const struct matmul_run *run = ctx;
    uint32_t begin = task * run->panels_per_task;
    uint32_t end = begin + run->panels_per_task;
    for (uint32_t job = 0; job < run->n_jobs; job++) {
        uint32_t from = begin > run->panels[job] ? begin : run->panels[job];
        uint32_t to = end < run->panels[job + 1] ? end : run->panels[job + 1];
        if (from < to)
            cpu_matmul_part(run, job, from - run->panels[job], to - run->panels[job], thread);
    }
}

static void cpu_matmul_some(struct cpu_backend *cpu, const struct act *x, uint32_t n,
                            const struct matmul_job *jobs, uint32_t n_jobs)
{
    struct matmul_run run = {.kernels = cpu->kernels, .n_jobs = n_jobs};
    size_t room = 0;
    for (uint32_t j = 0; j < n_jobs; j++) {
        const struct weight *w = jobs[j].weight;
        CHECK(n <= x->rows_max && w->cols <= x->cols_max);
        CHECK(x->floats != NULL || !w->is_float);
        run.weights[j] = w;
        size_t wanted_room = w->is_float ? 0 : run.kernels->matmul_room(n, w->groups);
        room = wanted_room > room ? wanted_room : room;
        run.jobs[j] = (struct kernel_matmul){
            .type = w->type,
            .data = w->data,
            .rows = w->rows,
            .cols = w->cols,
            .blocks = w->blocks,
            .groups = w->groups,
            .panel_bytes = w->panel_bytes,
            .x = {.q = x->q,
                  .q_stride = x->q_stride,
                  .scales = x->scales,
                  .sums = x->sums,
                  .pairs = x->pairs,
                  .block_stride = x->blocks_max,
                  .floats = x->floats,
                  .float_stride = x->cols_max,
                  .n = n},
            .out = jobs[j].out,
            .out_stride = jobs[j].out_stride,
            .bias = jobs[j].bias,
            .accumulate = jobs[j].accumulate,
        };
        run.panels[j + 1] = run.panels[j] + (w->rows + PANEL_ROWS - 1) / PANEL_ROWS;
    }
    run.room = cpu_room_rows(cpu, room, &run.room_stride);
    /* Some tasks per thread, so that a thread that was held up leaves the rest to the others. */
    uint32_t panels = run.panels[n_jobs];
    uint32_t wanted = pool_threads(cpu->pool) * 6;
    run.panels_per_task = (panels + wanted - 1) / wanted;
    uint32_t tasks = (panels + run.panels_per_task - 1) / run.panels_per_task;
    pool_run(cpu->pool, cpu_matmul_task, &run, tasks);
}

void cpu_matmul(struct backend *b, const struct act *x, uint32_t n, const struct matmul_job *jobs,
                uint32_t n_jobs)
{
    for (uint32_t first = 0; first < n_jobs && n > 0; first += MATMUL_JOBS_MAX) {
        uint32_t some = n_jobs - first < MATMUL_JOBS_MAX ? n_jobs - first : MATMUL_JOBS_MAX;
        cpu_matmul_some((struct cpu_backend *)b, x, n, jobs + first, some);
    }
}
