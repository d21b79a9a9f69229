/*
 * test_sim - many small clusters in trouble: `test_sim [FIRST_SEED [COUNT]]`. A failure names the
 * seed; the same seed fails the same way.
 */
#include "tests/sim/sim.h"

#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
    uint64_t first = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
    uint64_t count = argc > 2 ? strtoull(argv[2], NULL, 10) : argc > 1 ? 1 : 150;
    uint64_t ends[9] = {0}, refused = 0, together = 0, over_nccl = 0, uneven = 0;
    uint64_t jobs = 0, commits = 0, crashes = 0, freezes = 0, failed = 0;
    static struct sim s;

    for (uint64_t seed = first; seed < first + count; seed++) {
        bool ok = sim_run(&s, seed);
        uint64_t trace = s.trace;
        if (!ok) {
            printf("seed %llu: %s\n", (unsigned long long)seed, s.failure);
            failed++;
        }
        jobs += s.n_jobs;
        for (uint32_t i = 0; i < s.n_jobs; i++) {
            refused += s.jobs[i].refused;
            ends[s.jobs[i].state]++;
            together += s.jobs[i].model == SIM_MODELS - 1 && s.jobs[i].state == WIRE_JOB_STATE_DONE;
        }
        over_nccl += s.nccl_ranks;
        uneven += s.uneven_ranks;
        commits += s.commits;
        crashes += s.crashes;
        freezes += s.freezes;
        sim_fini(&s);
        /* Now and then: does the seed decide everything? */
        if (ok && seed % 16 == 0) {
            if (!sim_run(&s, seed) || s.trace != trace) {
                printf("seed %llu: went another way the second time\n", (unsigned long long)seed);
                failed++;
            }
            sim_fini(&s);
        }
    }
    printf("ended: %llu done, %llu of them by gangs, %llu failed, %llu cancelled, %llu expired; "
           "%llu refused; %llu ranks over NCCL, %llu with uneven shares\n",
           (unsigned long long)ends[WIRE_JOB_STATE_DONE], (unsigned long long)together,
           (unsigned long long)ends[WIRE_JOB_STATE_FAILED],
           (unsigned long long)ends[WIRE_JOB_STATE_CANCELLED],
           (unsigned long long)ends[WIRE_JOB_STATE_EXPIRED], (unsigned long long)refused,
           (unsigned long long)over_nccl, (unsigned long long)uneven);
    printf("%llu seeds, %llu jobs, %llu commits, %llu crashes, %llu times no space: %llu failed\n",
           (unsigned long long)count, (unsigned long long)jobs, (unsigned long long)commits,
           (unsigned long long)crashes, (unsigned long long)freezes, (unsigned long long)failed);
    if (count >= 16 && together == 0) {
        printf("no gang has done a job\n");
        failed++;
    }
    if (count >= 64 && over_nccl == 0) {
        printf("no gang was over NCCL\n");
        failed++;
    }
    if (count >= 64 && uneven == 0) {
        printf("no gang had shares by bandwidth\n");
        failed++;
    }
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
