/* The program that cloister.h shows, line by line (test_library.py compares them), built against
 * the installed form of the library: the public header and nothing else of ours. With an argument
 * it asks there, and waits for nobody. */
#include <cloister.h>

#include <stdio.h>
#include <stdlib.h>

static void die(const char *text)
{
    puts(text);
    exit(1);
}

static int print_text(void *arg, const struct cloister_event *event)
{
    (void)arg;
    fwrite(event->text.data, 1, event->text.size, stdout);
    return 0;
}

int main(int argc, char **argv)
{
    struct cloister_options options = CLOISTER_OPTIONS_INIT;
    struct cloister_problem problem;
    struct cloister *c;
    options.url = "tcp://127.0.0.1:7420";
    if (argc > 1) {
        options.url = argv[1];
        options.wait_ms = 0;
    }
    if (cloister_connect(&c, &options, &problem) != CLOISTER_OK)
        die(problem.text);

    struct cloister_message message = {.role = "user", .content = {"Why is the sky blue?", 20}};
    struct cloister_job job = CLOISTER_JOB_INIT;
    job.model = "smollm2";
    job.messages = &message;
    job.n_messages = 1;
    char id[CLOISTER_ID_BYTES];
    cloister_id_new(id);
    if (cloister_submit(c, id, &job, NULL, &problem) != CLOISTER_OK ||
        cloister_watch(c, id, 0, print_text, NULL, &problem) != CLOISTER_OK)
        die(problem.text);
    cloister_close(c);
    return 0;
}
