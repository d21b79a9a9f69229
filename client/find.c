/* The job that some digits stand for. */
#include "client/connection.h"
#include "client/digits.h"

#include "common/limits.h"

#include <stdio.h>
#include <string.h>

#define FIND_LISTED       8u /* jobs named where digits stand for several */
#define FIND_DIGITS_LEAST 2u

struct finding {
    struct cloister *connection;
    bool lists_short; /* names short forms, not ids */
    size_t found;
    bool more; /* than were counted */
    char id[CLOISTER_ID_BYTES];
    char listed[CLOISTER_PROBLEM_BYTES / 2];
};

static void find_note(struct finding *f, const char *id)
{
    char name[CLOISTER_ID_BYTES];
    size_t used = strlen(f->listed);
    f->found++;
    snprintf(f->id, sizeof f->id, "%s", id);
    if (f->lists_short)
        cloister_id_short(id, name);
    else
        snprintf(name, sizeof name, "%s", id);
    if (f->found <= FIND_LISTED)
        snprintf(f->listed + used, sizeof f->listed - used, "%s%s", f->found > 1 ? ", " : "", name);
    else if (f->found == FIND_LISTED + 1)
        snprintf(f->listed + used, sizeof f->listed - used, ", ...");
}

/* Counts the jobs that the query finds, until there are too many to name. */
static enum cloister_error find_count(struct finding *f, struct cloister_jobs_query *query,
                                      struct cloister_problem *problem)
{
    char after[CLOISTER_ID_BYTES];
    f->more = true;
    query->limit = LIMIT_LIST_ROWS;
    while (f->more && f->found <= FIND_LISTED) {
        struct cloister_result *result;
        const struct cloister_job_info *jobs;
        size_t n;
        enum cloister_error err =
            cloister_list_jobs(f->connection, query, &result, &jobs, &n, &f->more, problem);
        if (err != CLOISTER_OK)
            return err;
        for (size_t i = 0; i < n; i++)
            find_note(f, jobs[i].id);
        if (n > 0)
            memcpy(after, jobs[n - 1].id, sizeof after);
        query->after = after;
        cloister_result_free(result);
    }
    return CLOISTER_OK;
}

enum cloister_error cloister_find_job(struct cloister *c, const char *digits,
                                      char ret_id[CLOISTER_ID_BYTES],
                                      struct cloister_problem *problem)
{
    enum { SHORT = CLOISTER_SHORT_ID_BYTES - 1 };
    struct finding f = {.connection = c};
    struct digits d;
    if (!digits_parse(digits, 2 * ID_BYTES, false, &d) || d.count < FIND_DIGITS_LEAST)
        return (enum cloister_error)problem_set(
            problem, ERR_INVALID, "\"%.40s\" is not a job id: give %u to 32 of its hex digits",
            digits, FIND_DIGITS_LEAST);
    if (d.count == 2 * ID_BYTES) {
        memcpy(ret_id, d.text, CLOISTER_ID_BYTES);
        return CLOISTER_OK;
    }
    /* What the tables show goes first. */
    struct cloister_jobs_query queries[3] = {CLOISTER_JOBS_QUERY_INIT, CLOISTER_JOBS_QUERY_INIT,
                                             CLOISTER_JOBS_QUERY_INIT};
    queries[0].short_prefix = d.text;
    queries[1].prefix = d.text;
    queries[2].ending = d.text;
    enum cloister_error err = CLOISTER_OK;
    for (size_t i = d.count <= SHORT ? 0 : 1; i < 3 && err == CLOISTER_OK && f.found == 0; i++) {
        /* Of a whole short form only ids can tell two jobs apart. */
        f.lists_short = i == 0 && d.count < SHORT;
        err = find_count(&f, &queries[i], problem);
    }
    if (err != CLOISTER_OK)
        return err;
    if (f.found == 0)
        return (enum cloister_error)problem_set(problem, ERR_NOT_FOUND, "there is no job %s",
                                                digits);
    if (f.found > 1)
        return (enum cloister_error)problem_set(
            problem, ERR_CONFLICT, "%s may be any of %s%zu jobs: %s; give more digits", digits,
            f.more ? "more than " : "", f.found, f.listed);
    memcpy(ret_id, f.id, sizeof f.id);
    return CLOISTER_OK;
}
