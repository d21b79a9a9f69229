/* The matrix products of one step as one list of tasks. */
#include "worker/kernels/cpu/cpu.h"

#include "common/check.h"

#define MATMUL_JOBS_MAX 8u

/* Panels (or 16 rows of a float type): each memory node has its share of every job's, as it had
 * when the weight was loaded, one job's behind another's, and cuts them into tasks. */
struct matmul_run {
    const struct cpu_kernels *kernels;
    const struct pool *pool;
    struct kernel_matmul jobs[MATMUL_JOBS_MAX];
    const struct weight *weights[MATMUL_JOBS_MAX];
    uint32_t panels[MATMUL_JOBS_MAX]; /* of all nodes */
    uint32_t n_jobs;
    uint32_t panels_per_task;
    uint32_t first_task[TOPOLOGY_NODES_MAX + 1]; /* [node] */
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
    uint32_t node = 0;
    while (run->first_task[node + 1] <= task)
        node++;
    uint32_t begin = (task - run->first_task[node]) * run->panels_per_task;
    uint32_t end = begin + run->panels_per_task;
    uint32_t at = 0; /* among the node's panels, where this job's begin */
    for (uint32_t job = 0; job < run->n_jobs && at < end; job++) {
        const uint32_t first = pool_share(run->pool, run->panels[job], node);
        const uint32_t count = pool_share(run->pool, run->panels[job], node + 1) - first;
        uint32_t from = begin > at ? begin - at : 0;
        uint32_t to = end - at < count ? end - at : count;
        if (from < to)
            cpu_matmul_part(run, job, first + from, first + to, thread);
        at += count;
    }
}

/* Several tasks per thread, so that a thread that was held up leaves the rest to the others; but of
 * a few small matrices a thread's share is one. A task more costs what it takes to begin elsewhere
 * in memory, half a microsecond or so, and a token goes through hundreds of such products. */
#define MATMUL_TASKS      6u           /* of a thread */
#define MATMUL_TASK_BYTES (256u << 10) /* of weights, for one row of x */

static void cpu_matmul_cut(struct matmul_run *run, uint32_t panels)
{
    const uint32_t threads = pool_threads(run->pool);
    uint64_t work = 0;
    for (uint32_t j = 0; j < run->n_jobs; j++)
        work += run->weights[j]->bytes * run->jobs[j].x.n;
    uint64_t tasks = work / threads / MATMUL_TASK_BYTES;
    tasks = tasks < 1 ? 1 : tasks > MATMUL_TASKS ? MATMUL_TASKS : tasks;
    const uint32_t wanted = threads * (uint32_t)tasks;
    run->panels_per_task = (panels + wanted - 1) / wanted;
    for (uint32_t node = 0; node < pool_nodes(run->pool); node++) {
        uint32_t own = 0;
        for (uint32_t j = 0; j < run->n_jobs; j++)
            own += pool_share(run->pool, run->panels[j], node + 1) -
                   pool_share(run->pool, run->panels[j], node);
        run->first_task[node + 1] =
            run->first_task[node] + (own + run->panels_per_task - 1) / run->panels_per_task;
    }
}

static void cpu_matmul_some(struct cpu_backend *cpu, const struct act *x, uint32_t n,
                            const struct matmul_job *jobs, uint32_t n_jobs)
{
    struct matmul_run run = {.kernels = cpu->kernels, .pool = cpu->pool, .n_jobs = n_jobs};
    size_t room = 0;
    uint32_t panels = 0;
    for (uint32_t j = 0; j < n_jobs; j++) {
        const struct weight *w = jobs[j].weight;
        CHECK(n <= x->rows_max && w->cols <= x->cols_max);
        CHECK(x->floats != NULL || !w->is_float);
        run.weights[j] = w;
        size_t wanted_room =
            w->is_float ? 0 : run.kernels->matmul_room(n, w->cut.end - w->cut.first);
        room = wanted_room > room ? wanted_room : room;
        run.jobs[j] = (struct kernel_matmul){
            .type = w->type,
            .data = w->data,
            .rows = w->rows,
            .cols = w->cols,
            .blocks = w->blocks,
            .lead = w->lead,
            .cut = w->cut,
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
            .node_stride = jobs[j].node_stride,
            .bias = jobs[j].bias,
            .accumulate = jobs[j].accumulate,
        };
        run.jobs[j].n_nodes = sum_nodes(&w->cut, run.jobs[j].nodes);
        CHECK(run.jobs[j].nodes[0].count == w->cut.groups ||
              (jobs[j].bias == NULL && !jobs[j].accumulate));
        run.panels[j] = (w->rows + PANEL_ROWS - 1) / PANEL_ROWS;
        panels += run.panels[j];
    }
    run.room = cpu_room_rows(cpu, room, &run.room_stride);
    cpu_matmul_cut(&run, panels);
    pool_run_nodes(cpu->pool, cpu_matmul_task, &run, run.first_task);
}

void cpu_matmul(struct backend *b, const struct act *x, uint32_t n, const struct matmul_job *jobs,
                uint32_t n_jobs)
{
    for (uint32_t first = 0; first < n_jobs && n > 0; first += MATMUL_JOBS_MAX) {
        uint32_t some = n_jobs - first < MATMUL_JOBS_MAX ? n_jobs - first : MATMUL_JOBS_MAX;
        cpu_matmul_some((struct cpu_backend *)b, x, n, jobs + first, some);
    }
}

/* Rows of x times runs of columns, so that a single row has work for all threads as well. */
#define JOIN_TASK_COLS 1024u

struct join_run {
    const struct cpu_kernels *kernels;
    const struct join_job *job;
    uint32_t tasks_per_row;
};

static void cpu_join_task(void *ctx, uint32_t task, uint32_t thread)
{
    (void)thread;
    const struct join_run *run = ctx;
    uint32_t begin = task % run->tasks_per_row * JOIN_TASK_COLS;
    uint32_t left = run->job->cols - begin;
    run->kernels->join(run->job, task / run->tasks_per_row, begin,
                       begin + (left < JOIN_TASK_COLS ? left : JOIN_TASK_COLS));
}

void cpu_join(struct backend *b, uint32_t n, const struct join_job *job)
{
    struct cpu_backend *cpu = (struct cpu_backend *)b;
    struct join_run run = {cpu->kernels, job, (job->cols + JOIN_TASK_COLS - 1) / JOIN_TASK_COLS};
    CHECK(job->n_parts >= 1 && job->n_parts <= SUM_GROUPS_MAX && job->n_joins < job->n_parts);
    pool_run(cpu->pool, cpu_join_task, &run, n * run.tasks_per_row);
}
