/* What cloister.h says a program looks like, built against the installed form of the library: the
 * public header and nothing else of ours. Fails where nobody listens, which is what is tested. */
#include <cloister.h>

#include <stdio.h>
#include <string.h>

int main(int argc, char **argv)
{
    struct cloister_options options = CLOISTER_OPTIONS_INIT;
    struct cloister_problem problem;
    struct cloister *c = NULL;
    char id[CLOISTER_ID_BYTES];
    options.url = argc > 1 ? argv[1] : "tcp://127.0.0.1:1";
    options.wait_ms = 0;
    cloister_id_new(id);
    if (strlen(id) != CLOISTER_ID_BYTES - 1)
        return 2;
    enum cloister_error err = cloister_connect(&c, &options, &problem);
    if (err != CLOISTER_OK) {
        printf("%s: %s\n", cloister_error_name(err), problem.text);
        return err == CLOISTER_ERROR_UNAVAILABLE ? 0 : 1;
    }
    cloister_close(c);
    return 1;
}
